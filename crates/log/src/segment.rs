//! One segment: what is known of it without opening it, and what is held while it is in use.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use comlog_record::{BatchHeader, Offset, Timestamp};
use comlog_storage::{SegmentReader, Storage, StorageError};

use crate::frame::{Decoder, Encoder, Kind, Owner, Unusable};
use crate::offset_index::{IndexEntry, OffsetIndex, RecentBatches};
use crate::time_index::TimeIndex;
use crate::{InspectedSegment, SegmentInfo};

const OFFSET_INDEX: Kind = Kind {
    magic: *b"comlogOX",
    format: 1,
};
/// What a time index begins with.
pub(crate) const TIME_INDEX_MAGIC: &[u8; 8] = b"comlogTX";
const TIME_INDEX: Kind = Kind {
    magic: *TIME_INDEX_MAGIC,
    format: 1,
};

/// An index is written once: a second time only with the same content.
const INDEX_GENERATION: u64 = 1;

/// Locks that guard nothing that a panic could leave half done.
pub(crate) fn read_lock<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`read_lock`].
pub(crate) fn write_lock<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Both sparse indexes of one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Indexes {
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
}

impl Indexes {
    /// Notes the batch with `header` at `position`.
    pub(crate) fn note(&mut self, header: &BatchHeader, position: u64, interval: u32) {
        let due = self.offsets.note(header.base_offset, position, interval);
        self.times
            .note(header.base_offset, header.max_timestamp, due);
    }

    /// Forgets every batch at or behind `position`, whose offset is `end`.
    pub(crate) fn truncate(&mut self, end: Offset, position: u64) {
        self.offsets.truncate(position);
        self.times.truncate(end);
    }

    /// Bytes of memory, about.
    pub(crate) fn size(&self) -> usize {
        (self.offsets.len() + self.times.len()) * 16
    }
}

/// The name of the blob that holds a segment's offset index.
pub(crate) fn offset_index_name(base: Offset) -> String {
    format!("{:020}.index", base.0)
}

/// The name of the blob that holds a segment's time index.
pub(crate) fn time_index_name(base: Offset) -> String {
    format!("{:020}.timeindex", base.0)
}

/// The name of the blob that keeps what recovery cut from a segment.
pub(crate) fn cut_name(base: Offset) -> String {
    format!("{:020}.cut", base.0)
}

/// The names of the blobs that hold a segment's offset index and its time index.
#[must_use]
pub fn index_blob_names(base: Offset) -> [String; 2] {
    [offset_index_name(base), time_index_name(base)]
}

/// The base offset in the name of an index blob; `None` when it is another blob's.
pub(crate) fn parse_index_name(name: &str) -> Option<Offset> {
    let digits = name
        .strip_suffix(".index")
        .or_else(|| name.strip_suffix(".timeindex"))?;
    (digits.len() == 20).then(|| digits.parse().ok().map(Offset))?
}

/// The content of both index blobs of a sealed segment of `len` bytes that ends at `end`.
pub(crate) fn encode_indexes(
    owner: Owner,
    segment: SegmentEnd,
    indexes: &Indexes,
) -> (Bytes, Bytes) {
    let mut offsets = segment.encode(OFFSET_INDEX, owner);
    indexes.offsets.encode(segment.base, &mut offsets);
    let mut times = segment.encode(TIME_INDEX, owner);
    indexes.times.encode(segment.base, &mut times);
    (offsets.finish(), times.finish())
}

/// Both indexes from their blobs, if they are those of `segment`.
pub(crate) fn decode_indexes(
    owner: Owner,
    segment: SegmentEnd,
    offsets: &[u8],
    times: &[u8],
) -> Result<Indexes, Unusable> {
    let mut from = Decoder::open(OFFSET_INDEX, owner, offsets)?;
    segment.check(&mut from)?;
    let offsets = OffsetIndex::decode(segment.base, &mut from)?;
    from.finish()?;
    let times = decode_time_index(owner, segment, times)?;
    Ok(Indexes { offsets, times })
}

/// The time index from its blob, if it is that of `segment`.
pub(crate) fn decode_time_index(
    owner: Owner,
    segment: SegmentEnd,
    blob: &[u8],
) -> Result<TimeIndex, Unusable> {
    let mut from = Decoder::open(TIME_INDEX, owner, blob)?;
    segment.check(&mut from)?;
    let times = TimeIndex::decode(segment.base, &mut from)?;
    from.finish()?;
    Ok(times)
}

/// An offset index and the segment it says that it describes.
pub(crate) fn inspect_offset_index(
    blob: &[u8],
) -> Result<(InspectedSegment, OffsetIndex), Unusable> {
    let mut from = Decoder::open_any(OFFSET_INDEX, blob)?;
    let owner = from.owner();
    let segment = SegmentEnd::decode(&mut from)?;
    let index = OffsetIndex::decode(segment.base, &mut from)?;
    from.finish()?;
    Ok((segment.inspected(owner), index))
}

/// A time index and the segment it says that it describes.
pub(crate) fn inspect_time_index(blob: &[u8]) -> Result<(InspectedSegment, TimeIndex), Unusable> {
    let mut from = Decoder::open_any(TIME_INDEX, blob)?;
    let owner = from.owner();
    let segment = SegmentEnd::decode(&mut from)?;
    let index = TimeIndex::decode(segment.base, &mut from)?;
    from.finish()?;
    Ok((segment.inspected(owner), index))
}

/// Writes both index blobs of a sealed segment. They are hints: when they cannot be written, they
/// are rebuilt by whoever needs them.
pub(crate) async fn write_indexes(
    storage: &dyn Storage,
    owner: Owner,
    segment: SegmentEnd,
    indexes: &Indexes,
) {
    let (offsets, times) = encode_indexes(owner, segment, indexes);
    let blobs = [
        (offset_index_name(segment.base), offsets),
        (time_index_name(segment.base), times),
    ];
    for (name, content) in blobs {
        if let Err(error) = storage.write_blob(&name, content).await {
            tracing::warn!(name, %error, "index not written, it will be rebuilt when needed");
        }
    }
}

/// Removes a segment and its indexes; no error when something of it is gone already.
pub(crate) async fn remove_segment(
    storage: &dyn Storage,
    base: Offset,
) -> Result<(), StorageError> {
    match storage.remove(base).await {
        Ok(()) | Err(StorageError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    storage.remove_blob(&offset_index_name(base)).await?;
    storage.remove_blob(&time_index_name(base)).await?;
    storage.remove_blob(&cut_name(base)).await
}

/// Which segment an index belongs to, and how much of it it covers: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentEnd {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) len: u64,
}

impl SegmentEnd {
    fn encode(self, kind: Kind, owner: Owner) -> Encoder {
        let mut out = Encoder::new(kind, owner, INDEX_GENERATION);
        out.i64(self.base.0);
        out.i64(self.end.0);
        out.u64(self.len);
        out
    }

    fn decode(from: &mut Decoder<'_>) -> Result<SegmentEnd, Unusable> {
        Ok(SegmentEnd {
            base: Offset(from.i64()?),
            end: Offset(from.i64()?),
            len: from.u64()?,
        })
    }

    fn inspected(self, owner: Owner) -> InspectedSegment {
        InspectedSegment {
            owner,
            base: self.base,
            end: self.end,
            len: self.len,
        }
    }

    fn check(self, from: &mut Decoder<'_>) -> Result<(), Unusable> {
        if SegmentEnd::decode(from)? == self {
            Ok(())
        } else {
            Err(Unusable::Invalid("describes another segment"))
        }
    }
}

/// What reading a segment needs: its reader and its indexes.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) reader: Arc<dyn SegmentReader>,
    /// Grows while the segment is active.
    pub(crate) indexes: RwLock<Indexes>,
    /// Every one of the newest batches, while the segment is active: a reader that follows the tail
    /// finds its place here at once, however small the batches are.
    recent: RwLock<RecentBatches>,
}

impl Resident {
    pub(crate) fn new(reader: Arc<dyn SegmentReader>, indexes: Indexes) -> Arc<Resident> {
        Arc::new(Resident {
            reader,
            indexes: RwLock::new(indexes),
            recent: RwLock::default(),
        })
    }

    /// Notes batches that were appended back to back, the first at `position`.
    pub(crate) fn note(&self, headers: &[BatchHeader], mut position: u64, interval: u32) {
        let mut indexes = write_lock(&self.indexes);
        let mut recent = write_lock(&self.recent);
        for header in headers {
            indexes.note(header, position, interval);
            recent.note(header.base_offset, position);
            position += header.total_len() as u64;
        }
    }

    /// A batch at or below `offset`, the nearest that is known, and one above it.
    pub(crate) fn around_offset(&self, offset: Offset) -> (Option<IndexEntry>, Option<IndexEntry>) {
        let recent = read_lock(&self.recent).around_offset(offset);
        match recent {
            Some((below, above)) => (Some(below), above),
            None => read_lock(&self.indexes).offsets.around_offset(offset),
        }
    }
}

/// One segment of an open log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: Offset,
    /// Where it ends; `None` while it is active.
    sealed: Option<SegmentEnd>,
    /// Always there while it is active; else loaded when needed, and dropped when others are
    /// needed more.
    resident: RwLock<Option<Arc<Resident>>>,
    max_timestamp: RwLock<Option<Timestamp>>,
    last_used: AtomicU64,
    /// Whether somebody prepares it for a reader that will come.
    preparing: AtomicBool,
}

/// Ends the preparation of a segment when it is dropped.
#[derive(Debug)]
pub(crate) struct Preparing(Arc<Segment>);

impl Drop for Preparing {
    fn drop(&mut self) {
        self.0.preparing.store(false, Ordering::Release);
    }
}

impl Segment {
    pub(crate) fn active(base: Offset, resident: Arc<Resident>) -> Segment {
        Segment {
            base,
            sealed: None,
            resident: RwLock::new(Some(resident)),
            max_timestamp: RwLock::new(None),
            last_used: AtomicU64::new(0),
            preparing: AtomicBool::new(false),
        }
    }

    /// A sealed segment that nobody has opened yet.
    pub(crate) fn sealed(end: SegmentEnd) -> Segment {
        Segment {
            base: end.base,
            sealed: Some(end),
            resident: RwLock::new(None),
            max_timestamp: RwLock::new(None),
            last_used: AtomicU64::new(0),
            preparing: AtomicBool::new(false),
        }
    }

    pub(crate) fn end(&self) -> Option<SegmentEnd> {
        self.sealed
    }

    /// What reading needs, if it is at hand.
    pub(crate) fn resident(&self) -> Option<Arc<Resident>> {
        read_lock(&self.resident).clone()
    }

    pub(crate) fn set_resident(&self, resident: Option<Arc<Resident>>) {
        if let Some(resident) = &resident {
            let max = read_lock(&resident.indexes).times.max();
            *write_lock(&self.max_timestamp) = max;
        }
        *write_lock(&self.resident) = resident;
    }

    /// The largest timestamp, when it is known without reading.
    pub(crate) fn max_timestamp(&self) -> Option<Timestamp> {
        if self.sealed.is_some() {
            return *read_lock(&self.max_timestamp);
        }
        let resident = self.resident()?;
        let indexes = read_lock(&resident.indexes);
        indexes.times.max()
    }

    pub(crate) fn set_max_timestamp(&self, max: Option<Timestamp>) {
        *write_lock(&self.max_timestamp) = max;
    }

    /// Notes a use; `at` counts uses over all segments of the log.
    pub(crate) fn touch(&self, at: u64) {
        self.last_used.store(at, Ordering::Relaxed);
    }

    pub(crate) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// `None` while somebody else prepares it.
    pub(crate) fn prepare(self: &Arc<Segment>) -> Option<Preparing> {
        let others = self.preparing.swap(true, Ordering::Acquire);
        (!others).then(|| Preparing(Arc::clone(self)))
    }

    /// Its public description; `end_offset` and `len` while it is active.
    pub(crate) fn info(&self, end_offset: Offset, len: u64) -> SegmentInfo {
        let (end_offset, len) = match self.sealed {
            Some(sealed) => (sealed.end, sealed.len),
            None => (end_offset, len),
        };
        SegmentInfo {
            base_offset: self.base,
            end_offset,
            len,
            max_timestamp: self.max_timestamp(),
            sealed: self.sealed.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_names_come_back() {
        let base = Offset(42);
        assert_eq!(parse_index_name(&offset_index_name(base)), Some(base));
        assert_eq!(parse_index_name(&time_index_name(base)), Some(base));
        assert_eq!(parse_index_name("checkpoint"), None);
        assert_eq!(parse_index_name("42.index"), None);
    }

    #[test]
    fn an_index_of_another_segment_is_not_used() {
        let segment = SegmentEnd {
            base: Offset(5),
            end: Offset(9),
            len: 700,
        };
        let (offsets, times) = encode_indexes(Owner::SERVER, segment, &Indexes::default());
        let owner = Owner::SERVER;
        assert!(decode_indexes(owner, segment, &offsets, &times).is_ok());
        let cut = SegmentEnd {
            len: 699,
            ..segment
        };
        assert!(decode_indexes(owner, cut, &offsets, &times).is_err());
        assert!(decode_indexes(owner, segment, &times, &offsets).is_err());
        let other = Owner::partition(1, 0);
        assert!(decode_indexes(other, segment, &offsets, &times).is_err());
    }
}
