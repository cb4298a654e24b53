//! Append, roll, trim, truncate: the owner of a log's tail.

use std::sync::Arc;

use comlog_record::{LeaderEpoch, Offset};
use comlog_storage::{SegmentWriter, Storage, StorageError};

use crate::append::Staged;
use crate::checkpoint::Checkpoint;
use crate::fence::Fence;
use crate::library::Library;
use crate::recovery::{Recovered, recover};
use crate::segment::Resident;
use crate::tail::{first_view, open_tail};
use crate::watermark::Watermark;
use crate::{
    AppendError, AppendRequest, Appended, Clock, LogConfig, LogError, LogReader, Positions,
    RecoveryReport, SegmentInfo,
};

/// The owner of one partition's tail.
///
/// Methods take `&mut self`: one task owns it. Dropping it without [`Log::close`] is a crash, and
/// safe. No method that changes the log is cancel safe: dropping its future leaves the log
/// failed, since nobody knows what was written.
#[derive(Debug)]
pub struct Log {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) config: LogConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) library: Arc<Library>,
    pub(crate) watermark: Watermark,
    /// Of the active segment; `None` only once the log has failed.
    pub(crate) writer: Option<Box<dyn SegmentWriter>>,
    pub(crate) active: Arc<Resident>,
    /// The log's state at `point`, which is the end of what is written.
    pub(crate) state: Checkpoint,
    /// What a crash cannot take back ends here.
    pub(crate) durable: Offset,
    /// The position of `durable` in the active segment.
    pub(crate) durable_position: u64,
    /// The number of the newest mark.
    pub(crate) mark_number: u64,
    /// The blob `fence` as it is.
    pub(crate) fence: Fence,
    /// The generation of the checkpoint that is certainly there.
    pub(crate) checkpoint_noted: u64,
    /// The offset that the next batch gets: behind what is staged.
    pub(crate) next_offset: Offset,
    pub(crate) staged: Staged,
    /// Bytes appended since the checkpoint was written.
    pub(crate) since_checkpoint: u64,
    /// The checkpoint says something that the next append makes wrong.
    pub(crate) checkpoint_outdated: bool,
    pub(crate) failure: Option<Arc<StorageError>>,
    /// A call has begun and not ended.
    pub(crate) busy: bool,
}

impl Log {
    /// Opens the log in `storage`, recovering from a crash if there was one.
    ///
    /// Costs the reading of a checkpoint and of what was appended behind it, however long the
    /// log is. Without a usable checkpoint everything is scanned. On return everything in the
    /// log is durable and visible.
    ///
    /// # Errors
    /// [`LogError::Storage`]. Damage is no error: see [`RecoveryReport::damaged`].
    pub async fn open(
        storage: Arc<dyn Storage>,
        config: LogConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Log, RecoveryReport), LogError> {
        let recovered = recover(&*storage, &config, clock.now()).await?;
        let Recovered {
            report,
            mut state,
            indexes,
            sealed,
            tail,
            mark_number,
            fence,
        } = recovered;
        state.durability = config.durability;
        state.group_bytes_max = config.group_bound(0);
        state.incarnation = storage.incarnation();
        let writer = open_tail(&*storage, &config, &mut state, &indexes, tail).await?;
        let active = Resident::new(writer.reader(), indexes);
        state.clean = false;
        let end = state.point.offset;
        let durable_position = state.point.position;
        let checkpoint_noted = state.generation;
        let watermark = Watermark::new(first_view(&state, sealed, &active));
        let library = Library::new(Arc::clone(&storage), watermark.view(), &config);
        let mut log = Log {
            storage,
            config,
            clock,
            library: Arc::new(library),
            watermark,
            writer: Some(writer),
            active,
            state,
            durable: end,
            durable_position,
            mark_number,
            fence,
            checkpoint_noted,
            next_offset: end,
            staged: Staged::default(),
            since_checkpoint: 0,
            // Of what was found, or of an empty log: before anything is appended there is another.
            checkpoint_outdated: true,
            failure: None,
            busy: false,
        };
        log.expire_producers();
        if !report.clean {
            log.checkpoint_after_recovery().await?;
        }
        Ok((log, report))
    }

    /// A reader of what is visible; cheap to clone, outlives the log.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.library), self.watermark.subscribe())
    }

    /// Where the log stands now.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.watermark.positions()
    }

    /// How the log behaves.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Takes effect with the next append. Nothing that was promised is lowered: a log that
    /// becomes durable is synced first.
    ///
    /// # Errors
    /// [`LogError::Storage`]; the old configuration then stays.
    pub async fn set_config(&mut self, mut config: LogConfig) -> Result<(), LogError> {
        self.begin()?;
        config.owner = self.config.owner;
        if config.durability > self.config.durability {
            self.sync_written().await.map_err(LogError::Storage)?;
        }
        self.library.set_config(&config);
        self.state.durability = config.durability;
        // What recovery may conclude depends on it.
        self.checkpoint_outdated |= config.durability != self.config.durability;
        self.config = config;
        self.publish();
        self.busy = false;
        Ok(())
    }

    /// Appends a group: validates and assigns each batch in order, one write, at most one sync
    /// (when any request or the log is durable), several only if the group spans a roll or
    /// exceeds `group_bytes_max`.
    ///
    /// One answer per request, in order; each batch is appended whole or not at all. A batch is
    /// answered once it is as safe as its request and the log ask. After [`AppendError::NoSpace`]
    /// the rest of the group is refused too, so that no producer's batch overtakes another.
    ///
    /// Not cancel safe: dropping the future leaves the log failed.
    pub async fn append(
        &mut self,
        group: Vec<AppendRequest>,
    ) -> Vec<Result<Appended, AppendError>> {
        if let Err(failure) = self.begin_call() {
            return vec![Err(AppendError::Failed(failure)); group.len()];
        }
        let answers = self.append_group(group).await;
        self.busy = false;
        answers
    }

    /// Makes everything written durable; returns the durable end offset.
    ///
    /// # Errors
    /// [`LogError::Storage`]; the log has then failed.
    pub async fn sync(&mut self) -> Result<Offset, LogError> {
        self.begin()?;
        self.sync_written().await.map_err(LogError::Storage)?;
        self.busy = false;
        Ok(self.durable)
    }

    /// Seals the active segment (if not empty) and starts a new one.
    ///
    /// # Errors
    /// [`LogError::Storage`]: without room nothing changed, else the log has failed.
    pub async fn roll(&mut self) -> Result<(), LogError> {
        self.begin()?;
        let rolled = match self.state.point.position {
            0 => Ok(()),
            _ => self.roll_segment().await,
        };
        self.busy = false;
        rolled.map_err(|error| self.log_error(error))
    }

    /// Raises the log start offset to `start` (at most the high watermark) and removes the whole
    /// segments below; returns the new start. Durable on return.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`]; [`LogError::Storage`] when the new start could not be noted, or
    /// a segment not be removed (it is removed when the log is opened again).
    pub async fn trim(&mut self, start: Offset) -> Result<Offset, LogError> {
        self.begin()?;
        let trimmed = self.trim_segments(start).await;
        self.busy = false;
        trimmed
    }

    /// Cuts the tail so that the log ends at `end` or, if that is inside a batch, before it;
    /// returns the new end. For replication only: it takes visible records back.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] below the log start offset; [`LogError::Storage`], after which
    /// the log has failed.
    pub async fn truncate(&mut self, end: Offset) -> Result<Offset, LogError> {
        self.begin()?;
        let truncated = self.truncate_segments(end).await;
        self.busy = false;
        truncated
    }

    /// Rolls by age, forgets silent producers and applies retention, by the passed-in clock;
    /// returns the segments removed. Called now and then by the owner.
    ///
    /// # Errors
    /// As [`Log::roll`] and [`Log::trim`].
    pub async fn maintain(&mut self) -> Result<Vec<SegmentInfo>, LogError> {
        self.begin()?;
        let removed = self.maintain_segments().await;
        self.busy = false;
        removed
    }

    /// Sets the fencing token, which must rise; durable on return.
    ///
    /// # Errors
    /// [`LogError::StaleToken`]; [`LogError::Storage`], after which the old token still holds,
    /// but a crash may bring up the new one.
    pub async fn fence(&mut self, token: u64) -> Result<(), LogError> {
        let current = self.state.fencing_token;
        if token <= current {
            return Err(LogError::StaleToken {
                given: token,
                current,
            });
        }
        self.begin()?;
        self.state.fencing_token = token;
        let written = self.write_checkpoint(false).await;
        if written.is_err() {
            self.state.fencing_token = current;
        }
        self.busy = false;
        written
    }

    /// The fencing token; 0 when none was ever set.
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.state.fencing_token
    }

    /// Starts a new reign (must rise); written into every later batch. Durable on return.
    ///
    /// # Errors
    /// [`LogError::StaleEpoch`]; [`LogError::Storage`], after which the old one still holds.
    pub async fn set_leader_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), LogError> {
        let current = self.state.epochs.current();
        if epoch <= current {
            return Err(LogError::StaleEpoch {
                given: epoch,
                current,
            });
        }
        self.begin()?;
        // First, since it publishes: nobody may see an epoch that is not durable.
        self.sync_written().await.map_err(LogError::Storage)?;
        let before = self.state.epochs.clone();
        self.state.epochs.raise(epoch, self.state.point.offset);
        let written = self.write_checkpoint(false).await;
        if written.is_err() {
            self.state.epochs = before;
        }
        self.publish();
        self.busy = false;
        written
    }

    /// (epoch, its start offset), ascending.
    #[must_use]
    pub fn leader_epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        self.state.epochs.reigns().to_vec()
    }

    /// The last epoch at or below `epoch`, and the offset behind its last record: what a replica
    /// whose log ends in `epoch` may keep. `None` when every epoch of the log is later.
    #[must_use]
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.state.epochs.end_of(epoch, self.state.point.offset)
    }

    /// The largest producer id ever seen in the log, -1 when none (so that new ids are given out
    /// above it).
    #[must_use]
    pub fn producer_id_max(&self) -> i64 {
        self.state.producers.id_max()
    }

    /// Whether an error was final: appends are refused until the log is opened again.
    #[must_use]
    pub fn failure(&self) -> Option<AppendError> {
        self.failure.clone().map(AppendError::Failed)
    }

    /// Syncs, checkpoints and closes; tail waiters get [`crate::ReadError::Closed`].
    ///
    /// # Errors
    /// [`LogError::Storage`]: what was acknowledged as durable is, the rest may not be.
    pub async fn close(mut self) -> Result<(), LogError> {
        self.begin()?;
        self.sync_written().await.map_err(LogError::Storage)?;
        match self.write_checkpoint(true).await {
            Err(error) if error.kind() == crate::ErrorKind::NoSpace => {
                tracing::warn!(%error, "no checkpoint written: the next start scans the active segment");
                Ok(())
            }
            written => written,
        }
    }
}
