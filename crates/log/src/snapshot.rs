//! A log's state at the end of a sealed segment: what an archive keeps beside the segments, so that
//! a log can be rebuilt from them without reading them all.

use bytes::Bytes;
use comlog_record::{LeaderEpoch, Offset, Timestamp};
use comlog_storage::{SegmentReader, StorageError};

use crate::checkpoint::{CHECKPOINT_NAME, Checkpoint, RecoveryPoint};
use crate::epoch::EpochTable;
use crate::frame::Owner;
use crate::library::scan_segment;
use crate::offset_index::IndexEntry;
use crate::producer_state::ProducerState;
use crate::segment::{Indexes, SegmentEnd, encode_indexes};
use crate::{DamagedRange, Durability, InspectError, LogConfig, SegmentInfo};

/// The blob that an open log takes its state from; see [`Snapshot::to_checkpoint`].
pub const CHECKPOINT_BLOB: &str = CHECKPOINT_NAME;

/// Producers, leader epochs and known damage as of the end of a sealed segment.
///
/// It is followed from segment to segment, and knows of nothing behind the last one: a producer
/// whose newest batches are in no archived segment must be able to send them again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(Checkpoint);

/// What following a segment found in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The largest timestamp; `None` when no batch is readable.
    pub max_timestamp: Option<Timestamp>,
    /// What cannot be read of it.
    pub damaged: Vec<DamagedRange>,
    /// The contents of its index blobs, in the order of [`crate::index_blob_names`].
    pub indexes: [Bytes; 2],
}

impl Snapshot {
    /// The state before the first segment, which starts at `start`, of the log of `owner`.
    #[must_use]
    pub fn new(owner: Owner, start: Offset) -> Snapshot {
        Snapshot(Checkpoint {
            owner,
            generation: 1,
            // Nothing was appended after it, as far as an archive knows.
            clean: true,
            durability: Durability::Durable,
            group_bytes_max: 0,
            start,
            fencing_token: 0,
            point: point_at(start),
            active_since: None,
            fence: 0,
            incarnation: None,
            epochs: EpochTable::new(start),
            damaged: Vec::new(),
            producers: ProducerState::new(),
        })
    }

    /// Where the last segment followed ends (exclusive).
    #[must_use]
    pub fn end(&self) -> Offset {
        self.0.point.offset
    }

    /// The newest leader epoch in the segments followed.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.0.epochs.current()
    }

    /// The largest producer id seen; -1 before the first.
    #[must_use]
    pub fn producer_id_max(&self) -> i64 {
        self.0.producers.id_max()
    }

    /// Reads `segment`, which must be sealed, from `reader`, checks every batch and moves the state
    /// to its end. Damage is no error: it is remembered, as an open log would.
    ///
    /// # Errors
    /// Those of the reader; the state is then to be thrown away.
    pub async fn follow(
        &mut self,
        reader: &dyn SegmentReader,
        segment: &SegmentInfo,
        config: &LogConfig,
        now: Timestamp,
    ) -> Result<SegmentSummary, StorageError> {
        let state = &mut self.0;
        let limit = IndexEntry {
            offset: segment.end_offset,
            position: reader.len(),
        };
        let interval = config.index_interval_bytes;
        let (indexes, damaged) =
            scan_segment(reader, segment.base_offset, limit, interval, |header| {
                state.epochs.raise(header.leader_epoch, header.base_offset);
                if header.producer_id >= 0 && !header.is_control() {
                    state.producers.record(header, now);
                    state.producers.bound(config.producers_max);
                }
            })
            .await?;
        state.damaged.extend(damaged.iter().cloned());
        state.point = point_at(segment.end_offset);
        let ends = SegmentEnd {
            base: segment.base_offset,
            end: segment.end_offset,
            len: reader.len(),
        };
        let (offsets, times) = encode_indexes(state.owner, ends, &indexes);
        Ok(SegmentSummary {
            max_timestamp: indexes.times.max(),
            damaged,
            indexes: [offsets, times],
        })
    }

    /// What an archive keeps of it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.0.encode(&Indexes::default())
    }

    /// What [`Snapshot::encode`] made for the log of `owner`.
    ///
    /// # Errors
    /// [`InspectError`] when it is anything else, or of another log.
    pub fn decode(owner: Owner, content: &[u8]) -> Result<Snapshot, InspectError> {
        let decoded = Checkpoint::decode_of(owner, content).map_err(InspectError::from)?;
        Ok(Snapshot(decoded.0))
    }

    /// The content of [`CHECKPOINT_BLOB`] with which a log that holds the segments followed opens as
    /// it was, but starts at `start` and goes on in `leader_epoch`, which must be above every epoch
    /// that was ever given.
    #[must_use]
    pub fn to_checkpoint(
        &self,
        start: Offset,
        leader_epoch: LeaderEpoch,
        fencing_token: u64,
    ) -> Bytes {
        let mut state = self.0.clone();
        state.start = start.min(state.point.offset);
        state.epochs.trim(state.start);
        state.epochs.raise(leader_epoch, state.point.offset);
        state.fencing_token = fencing_token;
        state.damaged.retain(|range| range.offsets.end > start);
        state.encode(&Indexes::default())
    }
}

/// Behind everything followed, in a segment that does not exist yet.
fn point_at(offset: Offset) -> RecoveryPoint {
    RecoveryPoint {
        segment: offset,
        position: 0,
        offset,
    }
}
