//! What an archive holds of one partition: only the manifest decides it.

use bytes::Bytes;
use comlog_record::Offset;
use serde::{Deserialize, Serialize};

use crate::frame::{self, Kind};
use crate::{ArchiveError, Result};

const MANIFEST: Kind = Kind {
    name: "manifest",
    format: 1,
};

/// The archived part of one partition. Replaced as a whole, by one writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The topic's name, for people.
    pub topic: String,
    /// 32 hex digits.
    pub topic_id: String,
    /// Counted from 0.
    pub partition: u32,
    /// Rises with every replacement.
    pub revision: u64,
    /// Rises with every take-over; objects of a higher one belong to somebody else.
    pub writer_epoch: u64,
    /// The data directory that writes: 32 hex digits.
    pub writer_id: String,
    /// The first offset that is part of the log (inclusive).
    pub log_start_offset: i64,
    /// The newest leader epoch that the writer knew of.
    pub leader_epoch: i32,
    /// The partition's fencing token; 0 before the first.
    pub fencing_token: u64,
    /// The log's state at the end of the last segment; none before the first.
    pub state: Option<StateEntry>,
    /// Ascending, not overlapping.
    pub segments: Vec<SegmentEntry>,
}

/// One archived segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Its first offset.
    pub base_offset: i64,
    /// Behind its last offset (exclusive).
    pub end_offset: i64,
    /// Bytes of the object, which is the segment file.
    pub len: u64,
    /// CRC-32C of the object.
    pub crc: u32,
    /// The writer epoch in its key.
    pub epoch: u64,
    /// The largest timestamp in it, in Unix milliseconds.
    pub max_timestamp: Option<i64>,
    /// When it was archived, by the writer's clock, in Unix milliseconds.
    pub archived_ms: i64,
}

/// The object that keeps a log's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// The state is that at this offset.
    pub end_offset: i64,
    /// Bytes of the object.
    pub len: u64,
    /// CRC-32C of the object.
    pub crc: u32,
    /// The writer epoch in its key.
    pub epoch: u64,
}

impl Manifest {
    /// The content of the object.
    ///
    /// # Errors
    /// None that the types above allow.
    pub fn encode(&self) -> Result<Bytes> {
        frame::encode(MANIFEST, self)
    }

    /// What [`Manifest::encode`] made; `object` is named in errors.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`], [`ArchiveError::UnknownFormat`].
    pub fn decode(object: &str, content: &[u8]) -> Result<Manifest> {
        let manifest: Manifest = frame::decode(MANIFEST, object, content)?;
        manifest.check().map_err(|reason| ArchiveError::Damaged {
            object: object.to_owned(),
            reason: reason.to_owned(),
        })?;
        Ok(manifest)
    }

    /// Checks what a checksum cannot.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        let mut end = 0;
        for segment in &self.segments {
            if segment.base_offset < end || segment.end_offset < segment.base_offset {
                return Err("segments overlap or are out of order");
            }
            end = segment.end_offset.max(segment.base_offset + 1);
        }
        match &self.state {
            _ if self.log_start_offset < 0 => Err("the log start offset is below 0"),
            None if !self.segments.is_empty() => Err("segments without a state"),
            _ => Ok(()),
        }
    }

    /// Behind the last archived offset; the log start offset when there is no segment.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        let last = self.segments.last();
        Offset(last.map_or(self.log_start_offset, |last| last.end_offset))
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// The segment with this base offset.
    #[must_use]
    pub fn segment(&self, base_offset: Offset) -> Option<&SegmentEntry> {
        let at = self
            .segments
            .binary_search_by_key(&base_offset.0, |segment| segment.base_offset);
        at.ok().map(|at| &self.segments[at])
    }
}
