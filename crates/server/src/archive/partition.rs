//! One partition on its way to the archive: what is under way, and what went wrong last.

use std::sync::Arc;
use std::time::Duration;

use comlog_archive::{ArchiveError, Catalog, LogState, PartitionArchive, Progress, Writer};
use comlog_log::SegmentInfo;
use comlog_record::{Offset, Timestamp};
use comlog_storage::TieredStorage;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::partition::Partition;
use crate::status::ServiceError;
use crate::topic_config::TopicDefaults;
use crate::topic_store::TopicMeta;

/// Waited after the first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What the archive keeps of a partition.
pub(super) struct Slot {
    pub(super) catalog: Arc<Catalog>,
    pub(super) storage: Arc<TieredStorage>,
    /// Whoever holds it works on this partition.
    pub(super) work: Arc<AsyncMutex<PartitionArchive>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    error: Option<ArchiveError>,
    failures: u32,
    retry_at: Option<Instant>,
    orphans_at: Option<Instant>,
    /// The oldest segment that waits, and since when.
    oldest: Option<(Offset, Instant)>,
}

/// What waits for the archive.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backlog {
    pub(super) segments: u64,
    pub(super) bytes: u64,
}

impl Slot {
    pub(super) fn new(
        meta: &TopicMeta,
        partition: u32,
        catalog: Arc<Catalog>,
        storage: Arc<TieredStorage>,
    ) -> Slot {
        let (name, id) = (&meta.name, &meta.id);
        let archive = PartitionArchive::new(name, id, partition, catalog.clone(), storage.clone());
        Slot {
            catalog,
            storage,
            work: Arc::new(AsyncMutex::new(archive)),
            state: Mutex::default(),
        }
    }

    /// The last error, until it is overcome.
    pub(super) fn error(&self) -> Option<ArchiveError> {
        self.state.lock().error.clone()
    }

    pub(super) fn is_due(&self) -> bool {
        let retry_at = self.state.lock().retry_at;
        retry_at.is_none_or(|at| Instant::now() >= at)
    }

    /// Whether it is time to look for orphans; from the second time on.
    pub(super) fn are_orphans_due(&self) -> bool {
        let orphans_at = self.state.lock().orphans_at;
        orphans_at.is_none_or(|at| Instant::now() >= at)
    }

    pub(super) fn note_orphan_scan(&self, interval: Duration) {
        self.state.lock().orphans_at = Some(Instant::now() + interval);
    }

    /// Notes how work ended; says whether the error is news.
    pub(super) fn note(&self, outcome: &Result<(), ArchiveError>, pause_max: Duration) -> bool {
        let mut state = self.state.lock();
        match outcome {
            Ok(()) => {
                let orphans_at = state.orphans_at;
                let oldest = state.oldest;
                *state = State {
                    orphans_at,
                    oldest,
                    ..State::default()
                };
                false
            }
            Err(error) => {
                let news = state.error.as_ref().map(ToString::to_string) != Some(error.to_string());
                let pause = FIRST_PAUSE.saturating_mul(1 << state.failures.min(16));
                state.failures = state.failures.saturating_add(1);
                state.retry_at = Some(Instant::now() + pause.min(pause_max));
                state.error = Some(error.clone());
                news
            }
        }
    }

    /// What waits, and since when the oldest of it does.
    pub(super) fn backlog(&self, segments: &[SegmentInfo]) -> (Backlog, Option<Duration>) {
        let waits = |segment: &&SegmentInfo| {
            segment.sealed && self.catalog.entry(segment.base_offset).is_none()
        };
        let mut backlog = Backlog::default();
        let mut oldest = None;
        for segment in segments.iter().filter(waits) {
            oldest.get_or_insert(segment.base_offset);
            backlog.segments += 1;
            backlog.bytes += segment.len;
        }
        let mut state = self.state.lock();
        state.oldest = match (oldest, state.oldest) {
            (Some(base), Some((known, since))) if known == base => Some((base, since)),
            (Some(base), _) => Some((base, Instant::now())),
            (None, _) => None,
        };
        let age = state.oldest.map(|(_, since)| since.elapsed());
        (backlog, age)
    }
}

/// How the log of a partition stands, for the archive; only its owner knows the fencing token.
pub(super) fn log_state(
    partition: &Partition,
    effective: &TopicDefaults,
    now: Timestamp,
) -> Result<LogState, ServiceError> {
    let reader = partition.reader()?;
    // The segments first: what is sealed in them ends below the positions.
    let segments = reader.segments();
    let positions = reader.positions();
    Ok(LogState {
        segments,
        start: positions.start,
        end: positions.end,
        leader_epoch: positions.leader_epoch,
        fencing_token: 0,
        config: effective.to_log_config(),
        local: effective.local_retention(),
        now,
    })
}

/// Works on one partition for a while: one segment, or whatever else there is to do.
pub(super) async fn work(
    archive: &mut PartitionArchive,
    writer: &Writer,
    log: &LogState,
    orphan_grace: Option<Duration>,
    progress: &mut Progress,
) -> Result<(), ArchiveError> {
    archive.advance(writer, log, 1, progress).await?;
    match orphan_grace {
        Some(grace) => archive.remove_orphans(writer, grace, progress).await,
        None => Ok(()),
    }
}
