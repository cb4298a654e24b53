//! Finds the batches of a read in one segment: index, headers, slices. No I/O of its own.
//!
//! The same steps serve the read that must not wait and the one that may: bytes that are not at
//! hand end the attempt with [`Attempt::Wants`], and the caller begins again once it has them.

use std::cell::Cell;
use std::ops::Range;

use bytes::Bytes;
use comlog_record::{BATCH_HEADER_LEN, BatchHeader, Offset, OffsetRange};
use comlog_storage::{SegmentReader, StorageError};

use crate::Fetched;
use crate::offset_index::IndexEntry;
use crate::segment::{Resident, read_lock};
use crate::watermark::Place;

/// Most bytes that one read returns (but for a single larger batch), whatever it asked for.
pub(crate) const READ_BYTES_MAX: usize = 16 << 20;

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Attempt {
    Found(Fetched),
    /// No batch at or behind the offset before the place's limit.
    Nothing,
    /// Stored bytes contradict the index or each other, or cannot be read.
    Contradiction(String),
    /// These bytes are needed and are not at hand.
    Wants(Range<u64>),
}

/// Why an attempt ended early.
enum Stop {
    Wants(Range<u64>),
    Contradiction(String),
    Storage(StorageError),
}

/// Bytes of one segment: at hand, or handed in.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    reader: &'a dyn SegmentReader,
    handed_in: Vec<(Range<u64>, Vec<Bytes>)>,
}

/// Some bytes of a segment.
#[derive(Debug)]
struct Window {
    range: Range<u64>,
    chunks: Vec<Bytes>,
    /// The chunk that the last header was found in, and its position: headers are read in order,
    /// and small batches make many chunks.
    cursor: Cell<(usize, u64)>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(reader: &'a dyn SegmentReader) -> Source<'a> {
        Source {
            reader,
            handed_in: Vec::new(),
        }
    }

    /// Hands in what an attempt wanted.
    pub(crate) fn hand_in(&mut self, range: Range<u64>, chunks: Vec<Bytes>) {
        self.handed_in.push((range, chunks));
    }

    fn window(&self, range: Range<u64>) -> Result<Window, Stop> {
        let handed_in = self.handed_in.iter().find(|(at, _)| *at == range);
        let chunks = match handed_in {
            Some((_, chunks)) => Some(chunks.clone()),
            None => self.reader.try_read(range.clone()).map_err(stop)?,
        };
        match chunks {
            Some(chunks) => Ok(Window {
                cursor: Cell::new((0, range.start)),
                range,
                chunks,
            }),
            None => Err(Stop::Wants(range)),
        }
    }
}

fn stop(error: StorageError) -> Stop {
    match error {
        StorageError::Damaged { .. } => Stop::Contradiction(error.to_string()),
        error => Stop::Storage(error),
    }
}

/// Looks for the batch in `place` that holds `from`, or the first behind it, and those that
/// follow, up to `max_bytes` but at least one.
pub(crate) fn attempt(
    resident: &Resident,
    place: &Place,
    source: &Source<'_>,
    from: Offset,
    max_bytes: usize,
) -> Result<Attempt, StorageError> {
    let fetch = Fetch {
        resident,
        place,
        source,
        from,
        max_bytes: max_bytes.min(READ_BYTES_MAX) as u64,
        looked_at: Cell::new(None),
    };
    match fetch.run() {
        Ok(Some(fetched)) => Ok(Attempt::Found(fetched)),
        Ok(None) => Ok(Attempt::Nothing),
        Err(Stop::Wants(range)) => Ok(Attempt::Wants(range)),
        Err(Stop::Contradiction(reason)) => Ok(Attempt::Contradiction(reason)),
        Err(Stop::Storage(error)) => Err(error),
    }
}

struct Fetch<'a> {
    resident: &'a Resident,
    place: &'a Place,
    source: &'a Source<'a>,
    from: Offset,
    max_bytes: u64,
    /// The header decoded last, and its position: it is checked as the one that follows, and then
    /// is the next.
    looked_at: Cell<Option<(u64, BatchHeader)>>,
}

impl Fetch<'_> {
    fn run(&self) -> Result<Option<Fetched>, Stop> {
        let limit = self.place.limit.position;
        if limit > self.resident.reader.len() {
            return Err(Stop::Contradiction("segment was cut short".to_owned()));
        }
        let (start, near) = self.bracket();
        if start.position >= limit {
            return Ok(None);
        }
        let ahead = near.saturating_add(self.max_bytes).min(limit);
        let window = self.source.window(start.position..ahead)?;
        let Some((first, header)) = self.first_batch(&window, start, near)? else {
            return Ok(None);
        };
        let end = self.last_batch(&window, first, &header)?;
        let range = first..end.position;
        let chunks = if range.end <= window.range.end {
            window.slice(range.clone())
        } else {
            self.source.window(range.clone())?.chunks
        };
        Ok(Some(Fetched {
            chunks,
            offsets: OffsetRange::new(header.base_offset, end.offset),
            len: (range.end - range.start) as usize,
        }))
    }

    /// A batch at or before the one looked for, and a position that the latter ends at or before.
    fn bracket(&self) -> (IndexEntry, u64) {
        let (below, above) = self.resident.around_offset(self.from);
        let limit = self.place.limit.position;
        let near = above.map_or(limit, |above| above.position.min(limit));
        let head = IndexEntry {
            offset: self.place.segment.base,
            position: 0,
        };
        let start = below.unwrap_or(head);
        match self.place.floor {
            Some(floor) if floor.position > start.position => (floor, near.max(floor.position)),
            _ => (start, near),
        }
    }

    /// Walks to the first batch that ends behind `from`. A batch starts at `near`, too.
    fn first_batch(
        &self,
        window: &Window,
        start: IndexEntry,
        near: u64,
    ) -> Result<Option<(u64, BatchHeader)>, Stop> {
        let mut at = start;
        while at.position < self.place.limit.position {
            let header = self.header(window, at)?;
            if at.position < near && behind(at, &header).position > near {
                return Err(contradiction("batch reaches into the next one"));
            }
            if header.next_offset() > self.from {
                return Ok(Some((at.position, header)));
            }
            at = behind(at, &header);
        }
        Ok(None)
    }

    /// Where the last batch ends that still fits, found from an index entry near it.
    fn last_batch(
        &self,
        window: &Window,
        first: u64,
        header: &BatchHeader,
    ) -> Result<IndexEntry, Stop> {
        let limit = self.place.limit;
        let target = first.saturating_add(self.max_bytes);
        if target >= limit.position {
            return Ok(limit);
        }
        let first_end = IndexEntry {
            offset: header.next_offset(),
            position: first + header.total_len() as u64,
        };
        if first_end.position >= target {
            return Ok(first_end);
        }
        let entry = read_lock(&self.resident.indexes)
            .offsets
            .at_position(target);
        let mut end = match entry {
            Some(entry) if entry.position > first_end.position => entry,
            _ => first_end,
        };
        loop {
            let next = behind(end, &self.header(window, end)?);
            if next.position > target {
                return Ok(end);
            }
            end = next;
        }
    }

    /// The header of the batch at `at`; it ends inside the limit, and its offsets fit between
    /// the batches around it.
    fn header(&self, window: &Window, at: IndexEntry) -> Result<BatchHeader, Stop> {
        let header = self.plain_header(window, at.position)?;
        let end = behind(at, &header);
        let limit = self.place.limit;
        if end.position > limit.position {
            return Err(contradiction("batch is longer than its segment"));
        }
        // No checksum is computed here, so the offsets must agree with what follows: a batch that
        // claims more than it has would hide the ones behind it.
        let bound = if end.position < limit.position {
            self.plain_header(window, end.position)?.base_offset
        } else {
            limit.offset
        };
        if header.base_offset < at.offset || end.offset > bound {
            let (found, expected) = (header.base_offset, at.offset);
            return Err(Stop::Contradiction(format!(
                "base offset {found} where {expected} belongs"
            )));
        }
        Ok(header)
    }

    fn plain_header(&self, window: &Window, position: u64) -> Result<BatchHeader, Stop> {
        if let Some((at, header)) = self.looked_at.get()
            && at == position
        {
            return Ok(header);
        }
        let end = position + BATCH_HEADER_LEN as u64;
        if end > self.place.limit.position {
            return Err(contradiction("segment ends inside a batch header"));
        }
        let header = if end <= window.range.end {
            window.header(position)
        } else {
            self.source.window(position..end)?.header(position)
        };
        let header = header.map_err(|error| Stop::Contradiction(error.to_string()))?;
        self.looked_at.set(Some((position, header)));
        Ok(header)
    }
}

fn contradiction(what: &str) -> Stop {
    Stop::Contradiction(what.to_owned())
}

fn behind(at: IndexEntry, header: &BatchHeader) -> IndexEntry {
    IndexEntry {
        offset: header.next_offset(),
        position: at.position + header.total_len() as u64,
    }
}

impl Window {
    /// The header at `position`, which the window holds whole.
    fn header(&self, position: u64) -> Result<BatchHeader, comlog_record::DecodeError> {
        let (mut index, mut start) = self.cursor.get();
        if position < start {
            (index, start) = (0, self.range.start);
        }
        while let Some(chunk) = self.chunks.get(index)
            && position >= start + chunk.len() as u64
        {
            start += chunk.len() as u64;
            index += 1;
        }
        self.cursor.set((index, start));
        let chunks = self.chunks.get(index..).unwrap_or_default();
        let skip = (position - start) as usize;
        match chunks.first().and_then(|chunk| chunk.get(skip..)) {
            Some(whole) if whole.len() >= BATCH_HEADER_LEN => BatchHeader::decode(whole),
            _ => BatchHeader::decode(&gather(chunks, skip)),
        }
    }

    /// The chunks of `range`, which the window holds whole, without copying.
    fn slice(self, range: Range<u64>) -> Vec<Bytes> {
        let mut skip = (range.start - self.range.start) as usize;
        let mut left = (range.end - range.start) as usize;
        let mut chunks = self.chunks;
        chunks.retain_mut(|chunk| {
            let skipped = skip.min(chunk.len());
            skip -= skipped;
            bytes::Buf::advance(chunk, skipped);
            chunk.truncate(left);
            left -= chunk.len();
            !chunk.is_empty()
        });
        chunks
    }
}

/// The bytes of a header, or fewer, that begin `skip` bytes into `chunks`.
fn gather(chunks: &[Bytes], skip: usize) -> Vec<u8> {
    let bytes = chunks.iter().flatten().skip(skip);
    bytes.take(BATCH_HEADER_LEN).copied().collect()
}
