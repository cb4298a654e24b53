//! The one who writes the archive of a partition: claims it, brings segments there, takes away what
//! the log has given up, and lets local copies go.

mod claim;
mod evict;
mod log_state;
mod orphans;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use comlog_log::{SegmentInfo, Snapshot};
use comlog_record::Offset;
use comlog_storage::{Storage, TieredStorage};
use object_store::path::Path;
use tokio::time::Instant;

pub use log_state::{LocalRetention, LogState};
pub use writer::{Progress, Writer};

use crate::catalog::Catalog;
use crate::key::{self, PartitionKeys};
use crate::manifest::{Manifest, SegmentEntry};
use crate::manifest_file::ManifestFile;
use crate::upload::Upload;
use crate::{ArchiveError, Result};

/// The archive of one partition, as its writer. Calls follow one another; dropping the future of one
/// is a crash, and safe.
#[derive(Debug)]
pub struct PartitionArchive {
    topic: String,
    topic_id: String,
    partition: u32,
    keys: PartitionKeys,
    catalog: Arc<Catalog>,
    storage: Arc<TieredStorage>,
    /// Once the manifest is this writer's.
    file: Option<ManifestFile>,
    /// Objects that no manifest names, and since when that is known.
    orphans: BTreeMap<Path, Instant>,
    /// Archived segments whose object was looked at since the start.
    checked: BTreeSet<Offset>,
    /// Archived segments whose local copy is still there, once the disk was asked.
    resident: Option<BTreeSet<Offset>>,
}

impl PartitionArchive {
    /// Nothing is read or written yet.
    #[must_use]
    pub fn new(
        topic: &str,
        topic_id: &str,
        partition: u32,
        catalog: Arc<Catalog>,
        storage: Arc<TieredStorage>,
    ) -> PartitionArchive {
        PartitionArchive {
            topic: topic.to_owned(),
            topic_id: topic_id.to_owned(),
            partition,
            keys: PartitionKeys::new(topic_id, partition),
            catalog,
            storage,
            file: None,
            orphans: BTreeMap::new(),
            checked: BTreeSet::new(),
            resident: None,
        }
    }

    /// What the archive holds.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Whether [`PartitionArchive::advance`] would do anything.
    #[must_use]
    pub fn has_work(&self, log: &LogState) -> bool {
        self.file.is_none()
            || self.is_behind(log)
            || self.next_upload(log).is_some()
            || self.next_eviction(log).is_some()
            || log.local != LocalRetention::default() && self.resident.is_none()
    }

    /// Whether the log gave up something that the manifest still names.
    fn is_behind(&self, log: &LogState) -> bool {
        let start = self.file.as_ref().and_then(ManifestFile::manifest);
        let start = start.map_or(0, |manifest| manifest.log_start_offset);
        start < key::offset(log.start) || !self.catalog.forgotten().is_empty()
    }

    fn next_upload<'a>(&self, log: &'a LogState) -> Option<&'a SegmentInfo> {
        let mut sealed = log.segments.iter().filter(|segment| segment.sealed);
        sealed.find(|segment| self.catalog.entry(segment.base_offset).is_none())
    }

    /// Brings the archive up to `log`: takes the manifest over if need be, removes what the log gave
    /// up, uploads at most `uploads_max` segments, and lets local copies go. What was done before an
    /// error is noted in `progress`.
    ///
    /// # Errors
    /// [`ArchiveError`]; nothing local was lost, and the next call goes on where this one ended.
    pub async fn advance(
        &mut self,
        writer: &Writer,
        log: &LogState,
        uploads_max: usize,
        progress: &mut Progress,
    ) -> Result<()> {
        self.take_over(writer, log).await?;
        self.settle(writer).await?;
        self.remove_given_up(writer, log, progress).await?;
        for _ in 0..uploads_max {
            let Some(segment) = self.next_upload(log).copied() else {
                break;
            };
            self.upload(writer, log, &segment).await?;
            progress.uploaded_segments += 1;
            progress.uploaded_bytes += segment.len;
        }
        self.evict(writer, log, progress).await
    }

    /// Looks whether this server is still the writer, before it changes what has no condition of its own.
    ///
    /// # Errors
    /// [`ArchiveError::Fenced`] when it is not; [`ArchiveError::Unavailable`].
    pub async fn confirm(&mut self) -> Result<()> {
        self.file()?.refresh().await
    }

    /// Finds out what became of a replacement that broke off, and notes it here.
    async fn settle(&mut self, writer: &Writer) -> Result<()> {
        let file = self.file()?;
        if file.is_pending() {
            file.refresh().await?;
        }
        let there = file.manifest().cloned();
        match there {
            Some(there) if self.catalog.manifest().as_ref() != Some(&there) => {
                // It may name a segment whose upload was not known to have ended.
                self.resident = None;
                self.catalog.publish(&writer.archive_id, there).await
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self) -> Result<&mut ManifestFile> {
        let object = self.keys.manifest().to_string();
        let file = self.file.as_mut();
        file.ok_or_else(|| ArchiveError::unavailable(object, "not claimed yet"))
    }

    /// Replaces the manifest, then what is known of it here.
    async fn replace(
        &mut self,
        writer: &Writer,
        log: &LogState,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<()> {
        let file = self.file()?;
        let Some(mut next) = file.manifest().cloned() else {
            return Err(ArchiveError::unavailable(file.object(), "not claimed yet"));
        };
        next.revision += 1;
        next.leader_epoch = next.leader_epoch.max(log.leader_epoch.0);
        next.fencing_token = next.fencing_token.max(log.fencing_token);
        change(&mut next);
        file.replace(next.clone()).await?;
        self.catalog.publish(&writer.archive_id, next).await
    }

    /// The manifest first, then the objects: what it names is always there.
    async fn remove_given_up(
        &mut self,
        writer: &Writer,
        log: &LogState,
        progress: &mut Progress,
    ) -> Result<()> {
        let forgotten = self.catalog.forgotten();
        let start = key::offset(log.start);
        let gone = |entry: &SegmentEntry| {
            forgotten.contains(&entry.base_offset)
                || entry.end_offset <= start && entry.base_offset < start
        };
        let Some(manifest) = self.file()?.manifest() else {
            return Ok(());
        };
        let removed: Vec<SegmentEntry> = manifest
            .segments
            .iter()
            .filter(|entry| gone(entry))
            .cloned()
            .collect();
        if removed.is_empty() && forgotten.is_empty() && manifest.log_start_offset >= start {
            return Ok(());
        }
        self.replace(writer, log, |next| {
            next.log_start_offset = next.log_start_offset.max(start);
            next.segments.retain(|entry| !gone(entry));
        })
        .await?;
        for entry in &removed {
            for key in self.keys.all_of(entry) {
                // What stays is an orphan, and found as one.
                if let Err(error) = writer.store.delete(&key).await {
                    tracing::warn!(%key, %error, "archived object not removed yet");
                }
            }
        }
        progress.removed_segments += removed.len() as u64;
        Ok(())
    }

    async fn upload(
        &mut self,
        writer: &Writer,
        log: &LogState,
        segment: &SegmentInfo,
    ) -> Result<()> {
        // Whoever took over may have removed what is looked for next.
        self.file()?.refresh().await?;
        let manifest = self.file()?.manifest().cloned();
        let Some(manifest) = manifest else {
            return Err(ArchiveError::unavailable(
                self.keys.manifest(),
                "not claimed yet",
            ));
        };
        let mut state = self.state_before(writer, &manifest, segment).await?;
        let reader = self.storage.open(segment.base_offset).await?;
        let upload = Upload {
            store: &writer.store,
            keys: &self.keys,
            epoch: manifest.writer_epoch,
            config: &log.config,
            now: log.now,
        };
        let (entry, state) = upload.run(&reader, segment, &mut state).await?;
        let is_last = manifest.end_offset() <= segment.base_offset;
        let old_state = manifest
            .state
            .clone()
            .filter(|old| is_last && *old != state);
        let start = key::offset(log.start);
        self.replace(writer, log, |next| {
            next.log_start_offset = next.log_start_offset.max(start);
            let at = next
                .segments
                .partition_point(|other| other.base_offset < entry.base_offset);
            next.segments.insert(at, entry);
            if is_last {
                next.state = Some(state);
            }
        })
        .await?;
        self.checked.insert(segment.base_offset);
        if let Some(resident) = &mut self.resident {
            resident.insert(segment.base_offset);
        }
        if let Some(old) = old_state
            && let Err(error) = writer.store.delete(&self.keys.state(&old)).await
        {
            tracing::debug!(%error, "old state not removed yet");
        }
        Ok(())
    }

    /// The log's state where `segment` begins: that of the manifest if it ends there, else nothing is
    /// known, as of a log whose head was trimmed.
    async fn state_before(
        &self,
        writer: &Writer,
        manifest: &Manifest,
        segment: &SegmentInfo,
    ) -> Result<Snapshot> {
        let state = manifest.state.as_ref();
        let Some(state) =
            state.filter(|state| state.end_offset == key::offset(segment.base_offset))
        else {
            return Ok(Snapshot::new(self.keys.owner(), segment.base_offset));
        };
        let key = self.keys.state(state);
        let found = writer.store.get(&key).await?;
        let damaged = |reason: String| ArchiveError::Damaged {
            object: key.to_string(),
            reason,
        };
        let (content, _) = found.ok_or_else(|| damaged("it is gone".to_owned()))?;
        Snapshot::decode(self.keys.owner(), &content).map_err(|error| damaged(error.to_string()))
    }
}
