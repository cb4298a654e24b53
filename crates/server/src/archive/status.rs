//! What is where, for people and programs.

use std::sync::Arc;

use comlog_proto::v1;
use comlog_storage::ColdSegments;

use super::{Archive, worker};
use crate::partition::Partition;
use crate::status::ServiceError;
use crate::topic::Topic;
use crate::topics::Topics;

impl Archive {
    /// What of `topics` is where; of all when none is named.
    pub(crate) async fn status(
        &self,
        topics: &Topics,
        names: &[String],
    ) -> Result<v1::ArchiveStatusResponse, ServiceError> {
        let mut partitions = Vec::new();
        for topic in self.choose(topics, names)? {
            let enabled = worker::effective(topics, &topic).archive;
            for partition in topic.partitions() {
                partitions.push(self.describe(&topic, &partition, enabled).await?);
            }
        }
        let stop = self.stopped.lock().clone();
        Ok(v1::ArchiveStatusResponse {
            url: self.store.name().to_owned(),
            stopped: stop.map(|stop| stop.reason).unwrap_or_default(),
            roll_interval_ms: i64::try_from(self.config.roll_interval_ms).unwrap_or(i64::MAX),
            partitions,
        })
    }

    /// The topics with these names, or all.
    pub(super) fn choose(
        &self,
        topics: &Topics,
        names: &[String],
    ) -> Result<Vec<Arc<Topic>>, ServiceError> {
        if names.is_empty() {
            return Ok(topics.list());
        }
        names.iter().map(|name| topics.get(name)).collect()
    }

    pub(super) async fn describe(
        &self,
        topic: &Topic,
        partition: &Partition,
        enabled: bool,
    ) -> Result<v1::ArchivedPartition, ServiceError> {
        let key = partition.key();
        let mut described = v1::ArchivedPartition {
            topic: key.topic.to_string(),
            partition: key.partition,
            enabled,
            ..v1::ArchivedPartition::default()
        };
        let reader = match partition.reader() {
            Ok(reader) => reader,
            Err(error) => {
                described.error = error.message;
                return Ok(described);
            }
        };
        let positions = reader.positions();
        described.log_start_offset = positions.start.0;
        described.log_end_offset = positions.end.0;
        let Some(slot) = self.slot(topic.id(), key.partition) else {
            return Ok(described);
        };
        let segments = reader.segments();
        let archived = slot.catalog.list();
        described.archived_segments = u32::try_from(archived.len()).unwrap_or(u32::MAX);
        described.archived_bytes = archived.iter().map(|segment| segment.len).sum();
        if let Some(manifest) = slot.catalog.manifest() {
            described.archived_end_offset = manifest.end_offset().0;
            described.writer_epoch = manifest.writer_epoch;
        }
        let (backlog, _) = slot.backlog(&segments);
        if enabled {
            described.backlog_segments = u32::try_from(backlog.segments).unwrap_or(u32::MAX);
            described.backlog_bytes = backlog.bytes;
        }
        let local = slot
            .storage
            .list_local()
            .await
            .map_err(|error| partition.explain(&error))?;
        let first = local
            .first()
            .map_or(positions.end, |segment| segment.base_offset);
        described.local_start_offset = first.max(positions.start).0;
        described.error = slot
            .error()
            .map(|error| error.to_string())
            .unwrap_or_default();
        Ok(described)
    }
}
