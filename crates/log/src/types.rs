//! What goes into a log and comes out of it.

use bytes::Bytes;
use comlog_record::{LeaderEpoch, Offset, OffsetRange, RecordBatch, Timestamp};

use crate::Durability;

/// One batch to append, atomically, with its conditions.
#[derive(Debug, Clone)]
pub struct AppendRequest {
    /// The batch; base offset, leader epoch (and append time) are assigned by the log.
    pub batch: RecordBatch,
    /// At least this; the log's own durability is the floor.
    pub durability: Durability,
    /// Refuse unless this is the log end offset at the batch's turn.
    pub expected_offset: Option<Offset>,
    /// Must equal the partition's token once one was set; see [`crate::Log::fence`].
    pub fencing_token: Option<u64>,
    /// Requests of one group with the same chain keep their order: behind one that is refused, the
    /// others of its chain are refused as [`crate::AppendError::Suspended`].
    pub chain: Option<u64>,
}

impl AppendRequest {
    /// Appends `batch` without conditions at the log's own durability.
    #[must_use]
    pub fn new(batch: RecordBatch) -> AppendRequest {
        AppendRequest {
            batch,
            durability: Durability::Memory,
            expected_offset: None,
            fencing_token: None,
            chain: None,
        }
    }
}

/// Where a batch stands, and at what level it is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offsets of its records.
    pub offsets: OffsetRange,
    /// The append time, on logs that stamp it.
    pub append_time: Option<Timestamp>,
    /// Whether this is a retry of a batch that was appended before (these are its first offsets).
    pub duplicate: bool,
    /// Whether a sync has covered it.
    pub durable: bool,
}

/// Where a log stands. `start <= high_watermark`, `durable <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// Log start offset: the first that can be read (inclusive).
    pub start: Offset,
    /// What readers see ends here (exclusive).
    pub high_watermark: Offset,
    /// What a crash cannot take back ends here (exclusive).
    pub durable: Offset,
    /// Log end offset: the next to be assigned (exclusive).
    pub end: Offset,
    /// The current leader epoch.
    pub leader_epoch: LeaderEpoch,
}

/// Batches read: `chunks` concatenated are whole batches back to back ([`comlog_record::BatchStream`]).
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The bytes; chunk boundaries mean nothing. Empty at the high watermark.
    pub chunks: Vec<Bytes>,
    /// From the base offset of the first batch to behind the last; empty when there are none.
    pub offsets: OffsetRange,
    /// Bytes in all chunks.
    pub len: usize,
}

/// An offset found by timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// The first record at or after the timestamp asked for.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Timestamp,
}

/// One segment of an open log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its name.
    pub base_offset: Offset,
    /// Behind its last record (exclusive).
    pub end_offset: Offset,
    /// Its bytes.
    pub len: u64,
    /// The largest timestamp in it, when known without reading it.
    pub max_timestamp: Option<Timestamp>,
    /// Whether it never changes again.
    pub sealed: bool,
}

/// A part of the log that cannot be read: fenced, never skipped silently, never overwritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRange {
    /// The offsets that are lost; reading goes on at `offsets.end`.
    pub offsets: OffsetRange,
    /// The segment.
    pub segment: Offset,
    /// The bytes in it (half-open).
    pub positions: std::ops::Range<u64>,
    /// What is wrong.
    pub reason: String,
}

/// A torn tail that recovery cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The log end offset after the cut.
    pub end: Offset,
    /// Bytes that did not belong to any whole durable batch (allocated zeros not counted).
    pub bytes: u64,
    /// Whole batches that were cut all the same, since one before them was torn: from the first to
    /// behind the last. They were never acknowledged as durable; their bytes are kept in the blob
    /// `<base>.cut` beside the segment. `None` when there were none, as after most crashes.
    pub batches: Option<OffsetRange>,
}

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the log was closed cleanly before.
    pub clean: bool,
    /// Bytes read to recover.
    pub scanned_bytes: u64,
    /// The torn tail, if there was one.
    pub cut: Option<Cut>,
    /// Damage found inside what was scanned.
    pub damaged: Vec<DamagedRange>,
    /// Indexes, snapshots or checkpoints that were missing or wrong and were rebuilt.
    pub rebuilt: Vec<String>,
    /// What the files say of each other and cannot all be true: something was lost, exchanged, or put
    /// back from an older copy.
    pub contradictions: Vec<String>,
    /// The leader epoch was raised because visible records may have been taken back.
    pub epoch_raised: bool,
}
