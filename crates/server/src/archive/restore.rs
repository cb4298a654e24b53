//! Makes a data directory from an archive alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use comlog_archive::{
    ArchiveError, ArchiveStore, ArchivedPartition, ArchivedTopic, Catalog, Manifest, SegmentEntry,
    Survey,
};
use comlog_log::{CHECKPOINT_BLOB, LogConfig, SegmentInfo, Snapshot, index_blob_names};
use comlog_record::{LeaderEpoch, Offset, Timestamp};
use comlog_storage::{DataDir, DiskOptions, Storage, StorageError};

use super::restored_offsets::{self, ClampedOffset, Ends};
use crate::dirs::DiskDirs;
use crate::status::ServiceError;
use crate::topic_store::{self, TopicMeta};
use crate::{groups, producer_ids};

/// Added to the newest leader epoch in the archive: the server that is gone may have raised it since.
const UNKNOWN_EPOCHS: i32 = 1_000;
/// A segment whose bytes are wrong is asked for this often.
const ATTEMPTS: u32 = 3;

/// Why nothing was restored; the directory is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// There is something in the directory already.
    #[error("{}: not empty; nothing was changed", path.display())]
    NotEmpty {
        /// Which.
        path: PathBuf,
    },
    /// The directory cannot be made.
    #[error("{}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no archive.
    #[error("{0}: there is no archive")]
    NoArchive(String),
    /// The archive does not answer, or is damaged.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The local disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The committed offsets cannot be read back.
    #[error("committed offsets: {0}")]
    Offsets(ServiceError),
}

/// How far it is, told after each piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreProgress {
    /// Bytes of segments written.
    pub bytes: u64,
    /// Bytes of all segments in the archive.
    pub bytes_total: u64,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    /// Topics, those that comlog keeps for itself included.
    pub topics: u64,
    /// Partitions that had something in the archive.
    pub partitions: u64,
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Commits of groups that lay behind the end of what was archived.
    pub clamped_offsets: Vec<ClampedOffset>,
}

/// Makes the data directory `to`, which must be absent or empty, from what `store` holds: the same
/// topics, records, offsets and committed offsets (but none behind the end of its partition), in a new
/// leader epoch. Every segment is checked. The directory appears only when it is whole. Where `to` is
/// a link to a directory, that is meant.
///
/// # Errors
/// [`RestoreError`]; what was begun is removed by the next attempt.
pub async fn restore(
    store: &ArchiveStore,
    to: &Path,
    progress: &mut (dyn FnMut(RestoreProgress) + Send),
) -> Result<Restored, RestoreError> {
    let survey = Survey::take(store).await?;
    let survey = survey.ok_or_else(|| RestoreError::NoArchive(store.name().to_owned()))?;
    for topic in &survey.topics {
        if let Some(fault) = super::audit_topic(store, topic).await?.into_iter().next() {
            return Err(fault.into());
        }
    }
    // Nothing can take the place of a link but another file: the rename would fail, at the very end.
    let linked = std::fs::canonicalize(to).ok();
    let to = linked.as_deref().unwrap_or(to);
    let partial = prepare(to)?;
    let data_dir = DataDir::open(&partial, DiskOptions::default())?;
    let bytes_total = total_bytes(&survey)?;
    let mut restore = Restore {
        store,
        archive_id: &survey.identity.id,
        data_dir,
        producer_id_max: -1,
        ends: Ends::new(),
        groups: None,
        restored: Restored::default(),
        progress,
        bytes_total,
    };
    for topic in &survey.topics {
        restore.topic(topic).await?;
    }
    let restored = restore.finish().await?;
    publish(&partial, to)?;
    Ok(restored)
}

/// An empty directory beside `to`, to become it.
fn prepare(to: &Path) -> Result<PathBuf, RestoreError> {
    let failed = |source| RestoreError::Directory {
        path: to.to_owned(),
        source,
    };
    if to.exists() && std::fs::read_dir(to).map_err(failed)?.next().is_some() {
        return Err(RestoreError::NotEmpty {
            path: to.to_owned(),
        });
    }
    let absolute = std::path::absolute(to).map_err(failed)?;
    let mut name = absolute.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    let partial = absolute.with_file_name(name);
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(failed)?;
    }
    std::fs::create_dir_all(&partial).map_err(failed)?;
    Ok(partial)
}

fn publish(partial: &Path, to: &Path) -> Result<(), RestoreError> {
    let publish = || {
        std::fs::rename(partial, to)?;
        let parent = std::path::absolute(to)?;
        std::fs::File::open(parent.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    publish().map_err(|source| RestoreError::Directory {
        path: to.to_owned(),
        source,
    })
}

/// Refuses an archive of which a manifest cannot be read: part of a log is no log.
fn total_bytes(survey: &Survey) -> Result<u64, ArchiveError> {
    let mut total = 0;
    for partition in survey.topics.iter().flat_map(|topic| &topic.partitions) {
        total += partition.manifest.clone()?.bytes();
    }
    Ok(total)
}

struct Restore<'a> {
    store: &'a ArchiveStore,
    archive_id: &'a str,
    data_dir: Arc<DataDir>,
    producer_id_max: i64,
    /// Where each partition ends.
    ends: Ends,
    /// The topic of committed offsets, once it was met.
    groups: Option<TopicMeta>,
    restored: Restored,
    progress: &'a mut (dyn FnMut(RestoreProgress) + Send),
    bytes_total: u64,
}

impl Restore<'_> {
    async fn topic(&mut self, topic: &ArchivedTopic) -> Result<(), RestoreError> {
        let object = comlog_archive::topic_key(&topic.id).to_string();
        let damaged = |reason: String| ArchiveError::Damaged { object, reason };
        // Else a server was killed between its first writes for a topic, or while it removed one.
        let Some(content) = topic
            .meta
            .as_ref()
            .filter(|_| matches!(topic.deleted, Ok(false)))
        else {
            return Ok(());
        };
        let mut meta = topic_store::decode(&topic.id, content).map_err(damaged)?;
        // Whoever wrote the metadata last may have known fewer; no archived record is left out.
        let list = topic.list.clone()?;
        let listed = list.map_or(0, |list| list.end());
        meta.partitions = meta.partitions.max(listed);
        let all = (0..meta.partitions).map(|partition| ((meta.id.clone(), partition), Offset(0)));
        self.ends.extend(all);
        // Also of those that have nothing in the archive: a directory that is missing is damage.
        for partition in 0..meta.partitions {
            self.data_dir.storage(&meta.partition_dir(partition))?;
        }
        let partitions = topic.partitions.iter();
        for partition in partitions.filter(|found| found.partition < meta.partitions) {
            self.partition(&meta, partition).await?;
        }
        let storage = self.data_dir.storage(crate::broker::META_DIR)?;
        let dirs = Arc::new(DiskDirs::new(self.data_dir.clone()));
        topic_store::TopicStore::new(storage, dirs)
            .save(&meta)
            .await?;
        self.restored.topics += 1;
        if meta.name == groups::TOPIC {
            self.groups = Some(meta);
        }
        Ok(())
    }

    async fn partition(
        &mut self,
        meta: &TopicMeta,
        found: &ArchivedPartition,
    ) -> Result<(), RestoreError> {
        let manifest = found.manifest.clone()?;
        let storage = self
            .data_dir
            .storage(&meta.partition_dir(found.partition))?;
        for entry in &manifest.segments {
            self.segment(&*storage, found, entry).await?;
        }
        let state = self.state(&*storage, found, &manifest).await?;
        self.producer_id_max = self.producer_id_max.max(state.producer_id_max());
        let newest = state.leader_epoch().0.max(manifest.leader_epoch);
        let epoch = LeaderEpoch(newest.saturating_add(UNKNOWN_EPOCHS));
        let start = Offset(manifest.log_start_offset);
        let at = (meta.id.clone(), found.partition);
        self.ends.insert(at, manifest.end_offset());
        let checkpoint = state.to_checkpoint(start, epoch, manifest.fencing_token);
        Catalog::restore(&*storage, self.archive_id, manifest).await?;
        storage.write_blob(CHECKPOINT_BLOB, checkpoint).await?;
        self.restored.partitions += 1;
        Ok(())
    }

    async fn segment(
        &mut self,
        storage: &dyn Storage,
        found: &ArchivedPartition,
        entry: &SegmentEntry,
    ) -> Result<(), RestoreError> {
        let base = Offset(entry.base_offset);
        let mut attempt = 1;
        while let Err(error) = self.download(storage, found, entry).await {
            let again = matches!(error, RestoreError::Archive(_)) && attempt < ATTEMPTS;
            if !again {
                return Err(error);
            }
            tracing::warn!(%error, attempt, "segment not restored yet");
            attempt += 1;
            storage.remove(base).await?;
        }
        let [index, time_index] = index_blob_names(base);
        let blobs = [
            (index, found.keys.index(entry)),
            (time_index, found.keys.time_index(entry)),
        ];
        for (name, key) in blobs {
            // What is missing or wrong is rebuilt when it is needed.
            if let Some((content, _)) = self.store.get(&key).await? {
                storage.write_blob(&name, content).await?;
            }
        }
        self.restored.segments += 1;
        self.restored.bytes += entry.len;
        Ok(())
    }

    /// Writes a segment and checks it, piece by piece.
    async fn download(
        &mut self,
        storage: &dyn Storage,
        found: &ArchivedPartition,
        entry: &SegmentEntry,
    ) -> Result<(), RestoreError> {
        let mut writer = storage.create(Offset(entry.base_offset), entry.len).await?;
        let key = found.keys.segment(entry);
        let mut content = self.store.pieces(&key).await?;
        let (mut len, mut crc) = (0, 0);
        while let Some(piece) = content.next().await? {
            len += piece.len() as u64;
            crc = crc32c::crc32c_append(crc, &piece);
            writer.append(&[piece]).await?;
            (self.progress)(RestoreProgress {
                bytes: self.restored.bytes + len.min(entry.len),
                bytes_total: self.bytes_total,
            });
        }
        if (len, crc) != (entry.len, entry.crc) {
            let reason = format!(
                "{len} bytes with checksum {crc:08x} instead of {} with {:08x}",
                entry.len, entry.crc
            );
            let object = key.to_string();
            return Err(ArchiveError::Damaged { object, reason }.into());
        }
        writer.seal().await?;
        Ok(())
    }

    /// The log's state at its end: from the archive, or else from the segments.
    async fn state(
        &self,
        storage: &dyn Storage,
        found: &ArchivedPartition,
        manifest: &Manifest,
    ) -> Result<Snapshot, RestoreError> {
        let end = manifest.end_offset();
        if let Some(entry) = &manifest.state {
            let content = self.store.get(&found.keys.state(entry)).await?;
            let whole = content.filter(|(content, _)| crc32c::crc32c(content) == entry.crc);
            let state = whole.and_then(|(content, _): (Bytes, _)| {
                Snapshot::decode(found.keys.owner(), &content).ok()
            });
            match state {
                Some(state) if state.end() == end => return Ok(state),
                _ => tracing::warn!(
                    partition = found.partition,
                    "no usable state in the archive, made anew from the segments"
                ),
            }
        }
        let first = manifest
            .segments
            .first()
            .map_or(end, |entry| Offset(entry.base_offset));
        let mut state = Snapshot::new(found.keys.owner(), first);
        for entry in &manifest.segments {
            let reader = storage.open(Offset(entry.base_offset)).await?;
            let segment = SegmentInfo {
                base_offset: Offset(entry.base_offset),
                end_offset: Offset(entry.end_offset),
                len: entry.len,
                max_timestamp: None,
                sealed: true,
            };
            let now = Timestamp(entry.archived_ms);
            state
                .follow(&*reader, &segment, &LogConfig::default(), now)
                .await?;
        }
        Ok(state)
    }

    async fn finish(mut self) -> Result<Restored, RestoreError> {
        if let Some(groups) = &self.groups {
            let storage = self.data_dir.storage(&groups.partition_dir(0))?;
            let clamped = restored_offsets::clamp(storage, groups, &self.ends).await;
            self.restored.clamped_offsets = clamped.map_err(RestoreError::Offsets)?;
        }
        let storage = self.data_dir.storage(crate::broker::META_DIR)?;
        producer_ids::restore(storage, self.producer_id_max).await?;
        Ok(self.restored)
    }
}
