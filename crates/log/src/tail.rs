//! What the owner of the tail does with segments: sync, checkpoint, roll, trim, maintain.

use std::sync::Arc;

use comlog_record::{Offset, OffsetRange, Timestamp};
use comlog_storage::{SegmentWriter, Storage, StorageError};

use crate::checkpoint::{CHECKPOINT_NAME, Checkpoint, RecoveryPoint};
use crate::fence::{FENCE_NAME, Fence};
use crate::mark::Reached;
use crate::recovery::Tail;
use crate::retention::Retention;
use crate::scan::Valid;
use crate::segment::{
    Indexes, Resident, Segment, SegmentEnd, read_lock, remove_segment, write_indexes,
};
use crate::watermark::View;
use crate::{AppendError, Durability, Log, LogConfig, LogError, Positions, SegmentInfo};

/// Opens the segment that appending goes on in.
pub(crate) async fn open_tail(
    storage: &dyn Storage,
    config: &LogConfig,
    state: &mut Checkpoint,
    indexes: &Indexes,
    tail: Tail,
) -> Result<Box<dyn SegmentWriter>, StorageError> {
    let point = state.point;
    match tail {
        Tail::Create => {
            // Before the segment: an empty one without a checkpoint would look like a lost one.
            // Nothing is appended before another is written, so that a segment that is missing after
            // a crash was either empty or lost, and which shows here.
            state.clean = true;
            state.generation += 1;
            let content = state.encode(indexes);
            storage.write_blob(CHECKPOINT_NAME, content).await?;
            storage
                .create(point.segment, config.segment_bytes_max)
                .await
        }
        Tail::Reopen => {
            let hint = config.segment_bytes_max.max(point.position);
            let mut writer = storage.reopen(point.segment, point.position, hint).await?;
            // What a crash left in the page cache is about to become visible.
            writer.sync().await?;
            Ok(writer)
        }
    }
}

/// What readers see when the log was opened.
pub(crate) fn first_view(state: &Checkpoint, sealed: Vec<Segment>, active: &Arc<Resident>) -> View {
    let point = state.point;
    let mut segments: Vec<_> = sealed.into_iter().map(Arc::new).collect();
    segments.push(Arc::new(Segment::active(point.segment, Arc::clone(active))));
    View {
        positions: Positions {
            start: state.start,
            high_watermark: point.offset,
            durable: point.offset,
            end: point.offset,
            leader_epoch: state.epochs.current(),
        },
        visible_position: point.position,
        segments: Arc::new(segments),
        damaged: Arc::new(state.damaged.clone()),
    }
}

impl Log {
    /// Begins a call that changes the log.
    pub(crate) fn begin_call(&mut self) -> Result<(), Arc<StorageError>> {
        if self.busy && self.failure.is_none() {
            self.fail(StorageError::Failed {
                what: "a call that was dropped before its end".to_owned(),
            });
        }
        if let Some(failure) = &self.failure {
            return Err(Arc::clone(failure));
        }
        self.busy = true;
        Ok(())
    }

    /// As [`Log::begin_call`].
    pub(crate) fn begin(&mut self) -> Result<(), LogError> {
        self.begin_call().map_err(LogError::Storage)
    }

    /// Notes an error that is final.
    pub(crate) fn fail(&mut self, error: StorageError) -> Arc<StorageError> {
        tracing::error!(%error, "the log has failed and takes no appends until it is opened again");
        let error = Arc::new(error);
        self.failure = Some(Arc::clone(&error));
        error
    }

    /// Tells readers how far they may read.
    pub(crate) fn publish(&self) {
        let point = self.state.point;
        let durable = self.durable;
        let start = self.state.start;
        let leader_epoch = self.state.epochs.current();
        // On durable logs nothing is ever written without a sync in the same call.
        let all_visible = self.config.durability == Durability::Memory || durable == point.offset;
        self.watermark.publish(|view| {
            let positions = &mut view.positions;
            positions.start = start;
            positions.durable = durable;
            positions.end = point.offset;
            positions.leader_epoch = leader_epoch;
            if all_visible {
                positions.high_watermark = point.offset;
                view.visible_position = point.position;
            }
        });
    }

    /// Syncs unless everything written is durable.
    pub(crate) async fn sync_written(&mut self) -> Result<(), Arc<StorageError>> {
        let end = self.state.point.offset;
        if self.durable == end {
            return Ok(());
        }
        if let Some(failure) = &self.failure {
            return Err(Arc::clone(failure));
        }
        let position = self.state.point.position;
        let reached = self.reached(position, end, true);
        let Some(writer) = self.writer.as_mut() else {
            return Ok(());
        };
        writer.mark_next(reached.slot(), reached.encode(self.config.owner));
        if let Err(error) = writer.sync().await {
            return Err(self.fail(error));
        }
        self.mark_number = reached.number;
        self.durable = end;
        self.durable_position = position;
        self.publish();
        Ok(())
    }

    /// The mark that says that all up to `position` of the active segment, and `end`, is
    /// acknowledged.
    pub(crate) fn reached(&self, position: u64, end: Offset, durable: bool) -> Reached {
        let end = Valid {
            position,
            offset: end,
        };
        let durable = if durable {
            end
        } else {
            Valid {
                position: self.durable_position,
                offset: self.durable,
            }
        };
        Reached {
            number: self.mark_number + 1,
            checkpoint: self.checkpoint_noted,
            segment: self.state.point.segment,
            end,
            durable,
        }
    }

    /// What must be on disk before `bytes` are appended; and the checkpoint, when it is due.
    pub(crate) async fn ready_to_append(&mut self, bytes: u64) -> Result<(), AppendError> {
        if bytes > self.state.group_bytes_max {
            let bound = self.config.group_bound(bytes);
            self.checkpoint_outdated |= bound > self.state.group_bytes_max;
            self.state.group_bytes_max = bound.max(self.state.group_bytes_max);
        }
        if self.checkpoint_outdated {
            return match self.write_checkpoint(false).await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.append_error(error)),
            };
        }
        if self.since_checkpoint >= self.config.checkpoint_bytes {
            self.try_checkpoint().await;
        }
        match &self.failure {
            Some(failure) => Err(AppendError::Failed(Arc::clone(failure))),
            None => Ok(()),
        }
    }

    /// Writes a checkpoint that only spares a later scan: without it nothing is wrong.
    async fn try_checkpoint(&mut self) {
        self.expire_producers();
        if let Err(error) = self.write_checkpoint(false).await {
            tracing::warn!(%error, "checkpoint not written");
            self.since_checkpoint = 0;
        }
    }

    /// Writes the log's state, synced first; durable on return.
    pub(crate) async fn write_checkpoint(&mut self, clean: bool) -> Result<(), LogError> {
        self.sync_written().await.map_err(LogError::Storage)?;
        self.write_fence().await?;
        self.state.clean = clean;
        self.state.generation += 1;
        self.state.incarnation = self.storage.incarnation();
        self.state.damaged = self.watermark.damaged();
        let content = self.state.encode(&read_lock(&self.active.indexes));
        self.storage.write_blob(CHECKPOINT_NAME, content).await?;
        self.checkpoint_noted = self.state.generation;
        self.since_checkpoint = 0;
        self.checkpoint_outdated = clean;
        Ok(())
    }

    /// Notes log start and fencing token in their second place, when they changed.
    async fn write_fence(&mut self) -> Result<(), LogError> {
        let (start, token) = (self.state.start, self.state.fencing_token);
        if (start, token) == (self.fence.start, self.fence.token) {
            return Ok(());
        }
        let fence = Fence {
            generation: self.fence.generation + 1,
            start,
            token,
        };
        let content = fence.encode(self.config.owner);
        // Also when it fails: which of them is there is not known then, and the next one is newer.
        self.fence.generation = fence.generation;
        self.storage.write_blob(FENCE_NAME, content).await?;
        self.fence = fence;
        self.state.fence = fence.generation;
        Ok(())
    }

    /// After a crash, so that the next one need not look at the same bytes again.
    pub(crate) async fn checkpoint_after_recovery(&mut self) -> Result<(), LogError> {
        match self.write_checkpoint(false).await {
            Err(error) if error.kind() == crate::ErrorKind::NoSpace => {
                // It is written before the first append, then.
                self.checkpoint_outdated = true;
                Ok(())
            }
            written => written,
        }
    }

    pub(crate) fn expire_producers(&mut self) {
        let expiry = i64::try_from(self.config.producer_expiry.as_millis()).unwrap_or(i64::MAX);
        let oldest = self.clock.settled().0.saturating_sub(expiry);
        self.state.producers.expire(Timestamp(oldest));
    }

    /// Seals the active segment and starts the next one, at the log end offset.
    ///
    /// The new segment comes first: if there is no room for it, nothing changed. That it exists
    /// tells recovery that the old one was synced whole.
    pub(crate) async fn roll_segment(&mut self) -> Result<(), AppendError> {
        self.sync_written().await.map_err(AppendError::Failed)?;
        let base = self.state.point.offset;
        let writer = match self
            .storage
            .create(base, self.config.segment_bytes_max)
            .await
        {
            Ok(writer) => writer,
            Err(error) if error.is_scarcity() => return Err(AppendError::of_scarcity(&error)),
            Err(error) => return Err(AppendError::Failed(self.fail(error))),
        };
        let Some(old) = self.writer.replace(writer) else {
            return Err(AppendError::Closed);
        };
        let sealed = match old.seal().await {
            Ok(reader) => reader,
            Err(error) => return Err(AppendError::Failed(self.fail(error))),
        };
        self.start_segment(base, sealed).await;
        self.try_checkpoint().await;
        Ok(())
    }

    /// Makes the new segment the active one.
    async fn start_segment(
        &mut self,
        base: Offset,
        sealed: Arc<dyn comlog_storage::SegmentReader>,
    ) {
        let end = SegmentEnd {
            base: self.state.point.segment,
            end: base,
            len: sealed.len(),
        };
        let indexes = read_lock(&self.active.indexes).clone();
        write_indexes(&*self.storage, self.config.owner, end, &indexes).await;
        let old = Segment::sealed(end);
        old.set_resident(Some(Resident::new(sealed, indexes)));
        if let Some(writer) = &self.writer {
            self.active = Resident::new(writer.reader(), Indexes::default());
        }
        self.state.point = RecoveryPoint {
            segment: base,
            position: 0,
            offset: base,
        };
        self.state.active_since = None;
        self.durable_position = 0;
        let new = Segment::active(base, Arc::clone(&self.active));
        self.watermark.publish(|view| {
            let segments = Arc::make_mut(&mut view.segments);
            segments.pop();
            segments.push(Arc::new(old));
            segments.push(Arc::new(new));
            view.visible_position = 0;
        });
    }

    pub(crate) async fn trim_segments(&mut self, start: Offset) -> Result<Offset, LogError> {
        let positions = self.positions();
        if start <= positions.start {
            return Ok(positions.start);
        }
        if start > positions.high_watermark {
            return Err(LogError::OutOfRange {
                requested: start,
                log: OffsetRange::new(positions.start, positions.high_watermark),
            });
        }
        // First, since it publishes: nobody may see a start that is not durable.
        self.sync_written().await.map_err(LogError::Storage)?;
        let epochs = self.state.epochs.clone();
        self.state.start = start;
        self.state.epochs.trim(start);
        if let Err(error) = self.write_checkpoint(false).await {
            self.state.start = positions.start;
            self.state.epochs = epochs;
            return Err(error);
        }
        let mut removed = Vec::new();
        self.watermark.publish(|view| {
            view.positions.start = start;
            let below = |segment: &Arc<Segment>| segment.end().is_some_and(|end| end.end <= start);
            let segments = Arc::make_mut(&mut view.segments);
            let count = segments.iter().take_while(|segment| below(segment)).count();
            removed.extend(segments.drain(..count));
            Arc::make_mut(&mut view.damaged).retain(|range| range.offsets.end > start);
        });
        for segment in removed {
            remove_segment(&*self.storage, segment.base).await?;
        }
        Ok(start)
    }

    pub(crate) async fn maintain_segments(&mut self) -> Result<Vec<SegmentInfo>, LogError> {
        self.expire_producers();
        let now = self.clock.settled();
        if self.is_due_by_age(now)
            && let Err(error) = self.roll_segment().await
        {
            let error = self.log_error(error);
            if error.kind() != crate::ErrorKind::NoSpace {
                return Err(error);
            }
            // Retention may make the room that it wants for.
            tracing::warn!(%error, "active segment not rolled by its age, for now");
        }
        let retention = Retention::of(&self.config);
        if retention == Retention::default() {
            return Ok(Vec::new());
        }
        let mut segments = self.describe_oldest(&retention, now).await?;
        let count = retention.deletable(&segments, now);
        segments.truncate(count);
        if let Some(last) = segments.last() {
            self.trim_segments(last.end_offset).await?;
        }
        Ok(segments)
    }

    fn is_due_by_age(&self, now: Timestamp) -> bool {
        let (Some(age), Some(since)) = (self.config.segment_age_max, self.state.active_since)
        else {
            return false;
        };
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.state.point.position > 0 && now.0.saturating_sub(since.0) >= age
    }

    /// All segments; the newest timestamps of those that retention could delete are looked up.
    async fn describe_oldest(
        &mut self,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Vec<SegmentInfo>, LogError> {
        let point = self.state.point;
        let segments = self.watermark.segments();
        let mut described = Vec::with_capacity(segments.len());
        let mut expired = retention.age.is_some();
        for segment in segments.iter() {
            if expired {
                self.library.max_timestamp(segment).await?;
            }
            let info = segment.info(point.offset, point.position);
            expired = expired && retention.is_expired(&info, now);
            described.push(info);
        }
        Ok(described)
    }

    /// What the checkpoint's error means for an append that cannot go without it.
    fn append_error(&mut self, error: LogError) -> AppendError {
        match error {
            LogError::Storage(error) if error.is_scarcity() => AppendError::of_scarcity(&error),
            LogError::Storage(error) => {
                self.failure.get_or_insert_with(|| Arc::clone(&error));
                AppendError::Failed(error)
            }
            _ => AppendError::Closed,
        }
    }

    pub(crate) fn log_error(&self, error: AppendError) -> LogError {
        match error {
            AppendError::Failed(error) => LogError::Storage(error),
            AppendError::NoSpace => LogError::from(StorageError::NoSpace {
                what: "a new segment".to_owned(),
            }),
            AppendError::NoDescriptors => LogError::from(StorageError::NoDescriptors {
                what: "a new segment".to_owned(),
            }),
            _ => LogError::Closed,
        }
    }
}
