//! What the small files beside the segments say: for people and programs that look into a log
//! from outside, while nobody has it open.

use comlog_record::{LeaderEpoch, Offset, Timestamp};

use crate::checkpoint::{self, Checkpoint};
use crate::fence::{self, Fence};
use crate::frame::Unusable;
use crate::segment::{self, Indexes};
use crate::{DamagedRange, Durability, Owner};

/// The content of an index or of the checkpoint, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inspected {
    /// A sealed segment's sparse offsets and positions.
    OffsetIndex {
        /// Whose index it is.
        segment: InspectedSegment,
        /// Batches, ascending: base offset, and position in bytes.
        entries: Vec<(Offset, u64)>,
    },
    /// A sealed segment's sparse running maximum of timestamps.
    TimeIndex {
        /// Whose index it is.
        segment: InspectedSegment,
        /// Ascending: a maximum, and the base offset of the batch that reached it.
        entries: Vec<(Timestamp, Offset)>,
        /// The largest timestamp in the segment; `None` when it holds no batch.
        max: Option<Timestamp>,
    },
    /// The log's state at its recovery point.
    Checkpoint(Box<InspectedCheckpoint>),
    /// The second place of log start and fencing token.
    Fence {
        /// The log it is of.
        owner: Owner,
        /// How often it was written.
        generation: u64,
        /// The log start offset.
        log_start_offset: Offset,
        /// The partition's fencing token.
        fencing_token: u64,
    },
}

/// The sealed segment that an index describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectedSegment {
    /// The log it is of.
    pub owner: Owner,
    /// Its base offset.
    pub base: Offset,
    /// The offset behind its last batch.
    pub end: Offset,
    /// Its bytes.
    pub len: u64,
}

/// What a checkpoint holds, but for the details of producers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedCheckpoint {
    /// The log it is of.
    pub owner: Owner,
    /// How often it was written.
    pub generation: u64,
    /// The log was closed, and nothing was appended after this.
    pub clean: bool,
    /// What acknowledgements promise at least.
    pub durability: Durability,
    /// Most bytes at risk behind the recovery point.
    pub group_bytes_max: u64,
    /// The log start offset.
    pub log_start_offset: Offset,
    /// The partition's fencing token; 0 before the first.
    pub fencing_token: u64,
    /// The segment that was active: its base offset.
    pub recovery_segment: Offset,
    /// Bytes of it that need no scan: the recovery point.
    pub recovery_position: u64,
    /// The offset at the recovery point.
    pub recovery_offset: Offset,
    /// When the first record of the active segment was appended, if there is one.
    pub active_since: Option<Timestamp>,
    /// Leader epochs and where they begin, ascending.
    pub leader_epochs: Vec<(LeaderEpoch, Offset)>,
    /// What is known to be damaged.
    pub damaged: Vec<DamagedRange>,
    /// How many producers are remembered.
    pub producers: usize,
    /// The largest producer id seen; -1 before the first.
    pub producer_id_max: i64,
    /// The sparse index of the active segment up to the recovery point.
    pub entries: Vec<(Offset, u64)>,
}

/// Why a file cannot be read. The log rebuilds indexes that it cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a usable index or checkpoint: {0}")]
pub struct InspectError(Unusable);

impl From<Unusable> for InspectError {
    fn from(unusable: Unusable) -> InspectError {
        InspectError(unusable)
    }
}

impl Inspected {
    /// Decodes the content of a blob; what it is shows in its first bytes.
    ///
    /// # Errors
    /// [`InspectError`] when it is none of these, of an unknown format, or damaged.
    pub fn decode(content: &[u8]) -> Result<Inspected, InspectError> {
        let inspected = match content.first_chunk::<8>() {
            Some(magic) if *magic == *checkpoint::MAGIC => {
                Checkpoint::decode(content).map(|(found, indexes)| {
                    Inspected::Checkpoint(Box::new(InspectedCheckpoint::new(found, &indexes)))
                })
            }
            Some(magic) if *magic == *segment::TIME_INDEX_MAGIC => {
                segment::inspect_time_index(content).map(|(segment, index)| Inspected::TimeIndex {
                    segment,
                    entries: index.entries().collect(),
                    max: index.max(),
                })
            }
            Some(magic) if *magic == *fence::MAGIC => {
                Fence::decode_any(content).map(|(owner, fence)| Inspected::Fence {
                    owner,
                    generation: fence.generation,
                    log_start_offset: fence.start,
                    fencing_token: fence.token,
                })
            }
            _ => segment::inspect_offset_index(content).map(|(segment, index)| {
                Inspected::OffsetIndex {
                    segment,
                    entries: index.entries().collect(),
                }
            }),
        };
        inspected.map_err(InspectError)
    }
}

impl InspectedCheckpoint {
    fn new(found: Checkpoint, indexes: &Indexes) -> InspectedCheckpoint {
        InspectedCheckpoint {
            owner: found.owner,
            generation: found.generation,
            clean: found.clean,
            durability: found.durability,
            group_bytes_max: found.group_bytes_max,
            log_start_offset: found.start,
            fencing_token: found.fencing_token,
            recovery_segment: found.point.segment,
            recovery_position: found.point.position,
            recovery_offset: found.point.offset,
            active_since: found.active_since,
            leader_epochs: found.epochs.reigns().to_vec(),
            damaged: found.damaged,
            producers: found.producers.len(),
            producer_id_max: found.producers.id_max(),
            entries: indexes.offsets.entries().collect(),
        }
    }
}
