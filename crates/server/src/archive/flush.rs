//! Brings everything appended so far to the archive, now.

use std::sync::Arc;
use std::time::Duration;

use comlog_proto::v1::{self, Reason};
use comlog_record::Offset;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::partition::Slot;
use super::{Archive, Stop, worker};
use crate::partition::Partition;
use crate::status::ServiceError;
use crate::topic::Topic;
use crate::topics::Topics;

/// Partitions that are rolled and waited for at once.
const FLUSH_PARALLEL: usize = 64;
/// How often it looks whether a segment has arrived.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl Archive {
    /// Rolls the active segments of the topics named (or of all) and waits until what was visible
    /// when the call came is archived. Waits as long as the caller does.
    ///
    /// # Errors
    /// Nothing is archived any more, or an error of one partition that only an operator can mend.
    pub(crate) async fn flush(
        &self,
        topics: &Topics,
        names: &[String],
    ) -> Result<Vec<v1::ArchivedPartition>, ServiceError> {
        let chosen = self.choose(topics, names)?.into_iter();
        let archived = chosen.filter(|topic| worker::effective(topics, topic).archive);
        let partitions = archived.flat_map(|topic| {
            let partitions = topic.partitions().into_iter();
            partitions.map(move |partition| (topic.clone(), partition))
        });
        stream::iter(partitions)
            .map(|(topic, partition)| async move { self.flush_one(&topic, &partition).await })
            .buffered(FLUSH_PARALLEL)
            .try_collect()
            .await
    }

    async fn flush_one(
        &self,
        topic: &Topic,
        partition: &Arc<Partition>,
    ) -> Result<v1::ArchivedPartition, ServiceError> {
        let slot = self.slot(topic.id(), partition.key().partition);
        let slot = slot.ok_or_else(|| ServiceError::topic_not_found(topic.name()))?;
        let end = partition.reader()?.positions().high_watermark;
        partition.roll().await?;
        self.wake.notify_one();
        while !is_archived(&slot, partition, end)? {
            self.check_going(partition, &slot)?;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.describe(topic, partition, true).await
    }

    /// That waiting may help.
    fn check_going(&self, partition: &Partition, slot: &Slot) -> Result<(), ServiceError> {
        let stopped = |message: String| {
            ServiceError::new(Reason::ArchiveStopped, message).at(partition.key())
        };
        if let Some(stop) = self.stopped.lock().clone().filter(Stop::is_final) {
            return Err(stopped(stop.reason));
        }
        // Finds out whether the partition is closed.
        partition.reader()?;
        match slot.error().filter(comlog_archive::ArchiveError::is_final) {
            Some(error) => Err(stopped(error.to_string())),
            None => Ok(()),
        }
    }
}

/// Whether every segment below `end` is in the archive.
fn is_archived(slot: &Slot, partition: &Partition, end: Offset) -> Result<bool, ServiceError> {
    let segments = partition.reader()?.segments();
    let mut below = segments.iter().filter(|segment| segment.base_offset < end);
    Ok(below.all(|segment| slot.catalog.entry(segment.base_offset).is_some()))
}
