//! The one who writes the archive of a partition: claims it, brings segments there, takes away what
//! the log has given up, and lets local copies go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use comlog_log::{LogConfig, SegmentInfo, Snapshot, index_blob_names};
use comlog_record::{LeaderEpoch, Offset, Timestamp};
use comlog_storage::{Storage, TieredStorage};
use object_store::path::Path;
use tokio::time::Instant;

use crate::catalog::Catalog;
use crate::identity::Writes;
use crate::key::{self, PartitionKeys};
use crate::manifest::{Manifest, SegmentEntry};
use crate::manifest_file::ManifestFile;
use crate::store::ArchiveStore;
use crate::upload::{Upload, crc_of, read_back};
use crate::{ArchiveError, Result};

/// Who writes, and where to.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The archive.
    pub store: ArchiveStore,
    /// Its identity.
    pub archive_id: String,
    /// How manifests are replaced.
    pub writes: Writes,
    /// The data directory: 32 hex digits.
    pub writer_id: String,
}

/// How much of what is archived stays local.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalRetention {
    /// At least this many of the newest bytes; older segments may go. `None` keeps all.
    pub bytes: Option<u64>,
    /// Segments whose newest record is older may go. `None` keeps all.
    pub age: Option<Duration>,
}

/// How the log stands when the archive is brought up to it.
#[derive(Debug, Clone)]
pub struct LogState {
    /// Ascending; those in the archive only included.
    pub segments: Vec<SegmentInfo>,
    /// Log start offset.
    pub start: Offset,
    /// Log end offset.
    pub end: Offset,
    /// The current one.
    pub leader_epoch: LeaderEpoch,
    /// 0 before the first.
    pub fencing_token: u64,
    /// What the log is configured by.
    pub config: LogConfig,
    /// What stays local.
    pub local: LocalRetention,
    /// The server's clock.
    pub now: Timestamp,
}

/// What a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Segments that are in the archive now and were not before.
    pub uploaded_segments: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
    /// Segments whose local copy went.
    pub evicted_segments: u64,
    /// Archived segments that were removed.
    pub removed_segments: u64,
    /// Objects removed that no manifest named.
    pub removed_orphans: u64,
}

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

    /// Makes this server the writer of the partition's archive, if it is not yet.
    ///
    /// # Errors
    /// [`ArchiveError::Fenced`], [`ArchiveError::Diverged`]: the archive has gone on without this
    /// server, or is not of this log; [`ArchiveError::Unavailable`].
    pub async fn take_over(&mut self, writer: &Writer, log: &LogState) -> Result<()> {
        match self.file {
            Some(_) => Ok(()),
            None => self.claim(writer, log).await,
        }
    }

    /// Looks whether this server is still the writer, before it changes what has no condition of its own.
    ///
    /// # Errors
    /// [`ArchiveError::Fenced`] when it is not; [`ArchiveError::Unavailable`].
    pub async fn confirm(&mut self) -> Result<()> {
        self.file()?.refresh().await
    }

    /// Makes this server the writer, unless the archive has gone on without it.
    async fn claim(&mut self, writer: &Writer, log: &LogState) -> Result<()> {
        let object = self.keys.manifest().to_string();
        if let Some(known) = self.catalog.archive_id()
            && known != writer.archive_id
        {
            let reason = format!(
                "the segments are in archive {known}, this is {}",
                writer.archive_id
            );
            return Err(ArchiveError::Diverged { object, reason });
        }
        let opened = ManifestFile::open(writer.store.clone(), self.keys.clone(), writer.writes);
        let mut file = opened.await?;
        let next = match file.manifest() {
            None => self.first_manifest(writer, log)?,
            Some(found) => self.next_manifest(writer, log, found).await?,
        };
        file.replace(next.clone()).await?;
        self.catalog.publish(&writer.archive_id, next).await?;
        self.file = Some(file);
        Ok(())
    }

    fn first_manifest(&self, writer: &Writer, log: &LogState) -> Result<Manifest> {
        let known = self.catalog.manifest();
        if known.is_some_and(|known| !known.segments.is_empty()) {
            return Err(ArchiveError::Diverged {
                object: self.keys.manifest().to_string(),
                reason: "it is gone, and segments were archived".to_owned(),
            });
        }
        Ok(Manifest {
            topic: self.topic.clone(),
            topic_id: self.topic_id.clone(),
            partition: self.partition,
            revision: 1,
            writer_epoch: 1,
            writer_id: writer.writer_id.clone(),
            log_start_offset: key::offset(log.start),
            leader_epoch: log.leader_epoch.0,
            fencing_token: log.fencing_token,
            state: None,
            segments: Vec::new(),
        })
    }

    async fn next_manifest(
        &self,
        writer: &Writer,
        log: &LogState,
        found: &Manifest,
    ) -> Result<Manifest> {
        let known = self.catalog.manifest();
        let held = known.as_ref().map_or(0, |known| known.writer_epoch);
        if found.writer_id != writer.writer_id && found.writer_epoch != held {
            return Err(ArchiveError::Fenced {
                object: self.keys.manifest().to_string(),
                current: found.writer_epoch,
                held,
            });
        }
        self.check_same_log(log, found, known.as_ref()).await?;
        Ok(Manifest {
            revision: found.revision + 1,
            writer_epoch: found.writer_epoch + 1,
            writer_id: writer.writer_id.clone(),
            leader_epoch: found.leader_epoch.max(log.leader_epoch.0),
            ..found.clone()
        })
    }

    /// That what is archived is what is here, wherever both can be seen.
    async fn check_same_log(
        &self,
        log: &LogState,
        found: &Manifest,
        known: Option<&Manifest>,
    ) -> Result<()> {
        let diverged = |reason: String| ArchiveError::Diverged {
            object: self.keys.manifest().to_string(),
            reason,
        };
        if found.end_offset() > log.end {
            let (archived, end) = (found.end_offset(), log.end);
            return Err(diverged(format!(
                "archived up to {archived}, the log ends at {end}"
            )));
        }
        for entry in &found.segments {
            let base = Offset(entry.base_offset);
            let at = log
                .segments
                .binary_search_by_key(&base, |segment| segment.base_offset);
            let Ok(at) = at else { continue };
            let local = &log.segments[at];
            if !local.sealed
                || key::offset(local.end_offset) != entry.end_offset
                || local.len != entry.len
            {
                return Err(diverged(format!("the segment at {base} is another one")));
            }
            // What this data directory has not archived itself may come from a copy of it.
            let archived_here = known.is_some_and(|known| known.segment(base) == Some(entry));
            if !archived_here && crc_of(&*self.storage.open(base).await?).await? != entry.crc {
                return Err(diverged(format!("the segment at {base} has other records")));
            }
        }
        let forgotten = self.catalog.forgotten();
        let known = known.map_or(&[][..], |known| &known.segments);
        let lost = known.iter().find(|entry| {
            let base = Offset(entry.base_offset);
            !forgotten.contains(&entry.base_offset) && found.segment(base) != Some(entry)
        });
        match lost {
            Some(entry) => Err(diverged(format!(
                "it does not name the segment at {}",
                entry.base_offset
            ))),
            None => Ok(()),
        }
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
            return Ok(Snapshot::new(segment.base_offset));
        };
        let key = self.keys.state(state);
        let found = writer.store.get(&key).await?;
        let damaged = |reason: String| ArchiveError::Damaged {
            object: key.to_string(),
            reason,
        };
        let (content, _) = found.ok_or_else(|| damaged("it is gone".to_owned()))?;
        Snapshot::decode(&content).map_err(|error| damaged(error.to_string()))
    }

    /// Removes local copies that are older or more than what should stay.
    async fn evict(
        &mut self,
        writer: &Writer,
        log: &LogState,
        progress: &mut Progress,
    ) -> Result<()> {
        if log.local == LocalRetention::default() {
            return Ok(());
        }
        if self.resident.is_none() {
            let local = self.storage.list_local().await?;
            let bases = local.iter().map(|segment| segment.base_offset);
            let archived = bases.filter(|base| self.catalog.entry(*base).is_some());
            self.resident = Some(archived.collect());
        }
        while let Some(entry) = self.next_eviction(log) {
            self.check_object(writer, log, &entry).await?;
            let base = Offset(entry.base_offset);
            self.storage.evict(base, &index_blob_names(base)).await?;
            if let Some(resident) = &mut self.resident {
                resident.remove(&base);
            }
            progress.evicted_segments += 1;
        }
        Ok(())
    }

    /// The oldest local copy, if it is archived and too old or too much.
    fn next_eviction(&self, log: &LogState) -> Option<SegmentEntry> {
        if log.local == LocalRetention::default() {
            return None;
        }
        let resident = self.resident.as_ref()?;
        let local = |segment: &&SegmentInfo| {
            resident.contains(&segment.base_offset)
                || self.catalog.entry(segment.base_offset).is_none()
        };
        let mut local = log.segments.iter().filter(local);
        let oldest = local.next()?;
        let entry = self.catalog.entry(oldest.base_offset)?;
        let rest: u64 = local.map(|segment| segment.len).sum();
        let surplus = log.local.bytes.is_some_and(|keep| rest >= keep);
        (surplus || is_expired(&entry, log)).then_some(entry)
    }

    /// That the object is what the manifest says. One that is not is no longer part of the archive,
    /// and will be uploaded again: the local copy is still there.
    async fn check_object(
        &mut self,
        writer: &Writer,
        log: &LogState,
        entry: &SegmentEntry,
    ) -> Result<()> {
        let key = self.keys.segment(entry);
        let base = Offset(entry.base_offset);
        let checked = if self.checked.contains(&base) {
            match writer.store.len(&key).await? {
                Some(len) if len == entry.len => Ok(()),
                found => Err(ArchiveError::Damaged {
                    object: key.to_string(),
                    reason: format!("{found:?} bytes instead of {}", entry.len),
                }),
            }
        } else {
            read_back(&writer.store, &key, entry.len, entry.crc).await
        };
        match checked {
            Ok(()) => {
                self.checked.insert(base);
                Ok(())
            }
            Err(error @ ArchiveError::Damaged { .. }) => {
                tracing::error!(%error, "archived object is not what it should be, uploading it again");
                self.replace(writer, log, |next| {
                    next.segments
                        .retain(|other| other.base_offset != entry.base_offset);
                })
                .await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes objects that no manifest named for at least `grace`, as far as this process saw: it
    /// compares no clocks. Never one that the manifest names, nor one of a later writer.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn remove_orphans(
        &mut self,
        writer: &Writer,
        grace: Duration,
        progress: &mut Progress,
    ) -> Result<()> {
        let objects = writer.store.list(self.keys.dir()).await?;
        // Behind the listing, so that what it names was there.
        self.file()?.refresh().await?;
        let Some(manifest) = self.file()?.manifest().cloned() else {
            return Ok(());
        };
        let named = self.named(&manifest);
        let now = Instant::now();
        let mut seen = BTreeMap::new();
        for object in objects {
            let key = object.location;
            let ours = key.filename().and_then(key::epoch_in);
            if named.contains(&key) || ours.is_none_or(|epoch| epoch > manifest.writer_epoch) {
                continue;
            }
            let since = *self.orphans.get(&key).unwrap_or(&now);
            if now.duration_since(since) < grace {
                seen.insert(key, since);
                continue;
            }
            writer.store.delete(&key).await?;
            tracing::info!(%key, "orphaned object removed from the archive");
            progress.removed_orphans += 1;
        }
        self.orphans = seen;
        Ok(())
    }

    fn named(&self, manifest: &Manifest) -> BTreeSet<Path> {
        let segments = manifest.segments.iter();
        let mut named: BTreeSet<Path> =
            segments.flat_map(|entry| self.keys.all_of(entry)).collect();
        named.insert(self.keys.manifest());
        named.extend(manifest.state.as_ref().map(|state| self.keys.state(state)));
        named
    }
}

fn is_expired(entry: &SegmentEntry, log: &LogState) -> bool {
    let (Some(age), Some(newest)) = (log.local.age, entry.max_timestamp) else {
        return false;
    };
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    newest < log.now.0.saturating_sub(age)
}
