//! Read the records of a batch one by one, however much they decompress to.

use std::fmt;

use bytes::Bytes;

use crate::batch::{place, place_offset};
use crate::compression::piecewise::Piecewise;
use crate::record::{Malformed, RawRecord};
use crate::{BatchHeader, Compression, DecodeError, Limits, Offset, Record, RecordBatch, varint};

/// How much is decompressed at a time.
const PIECE_LEN: usize = 64 << 10;
/// The most bytes of a record's length, and of its head: length, attributes, both deltas.
const LENGTH_LEN_MAX: usize = 10;
const HEAD_LEN_MAX: usize = LENGTH_LEN_MAX + 1 + 10 + 10;

/// What a [`RecordReader`] comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A record, borrowed until the next one is asked for.
    Record(Record<'a>),
    /// A record longer than [`Limits::record_bytes_max`]. It was not held in memory, and its inside
    /// was not checked; the records behind it can still be read.
    TooLarge {
        /// Where it stands.
        offset: Offset,
        /// Its bytes, as it stands in the batch, uncompressed.
        bytes: u64,
    },
}

/// Reads the records of one batch one by one, decompressing as much as the next one needs.
///
/// Memory is bounded by [`Limits::record_bytes_max`] (the record that is handed out), by
/// [`Limits::decompressed_bytes_max`] (what the codec must remember: a window of Zstandard, a block
/// of Snappy; Gzip and LZ4 need less than 9 MiB) and by nothing that the batch says of itself. So
/// every batch that a log acknowledged can be read; what is longer than the bound is named, and can
/// be stepped over. A small or uncompressed batch is read faster by [`RecordBatch::records`].
///
/// ```
/// use comlog_record::{BatchBuilder, Compression, Limits, Piece, Timestamp};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut builder = BatchBuilder::new(Limits::default());
/// for value in [&b"short"[..], &[0; 100], b"short"] {
///     builder.push(Timestamp(7), None, Some(value), std::iter::empty())?;
/// }
/// let batch = builder.build(Compression::Gzip, None)?;
///
/// let limits = Limits { record_bytes_max: 50, ..Limits::default() };
/// let mut reader = batch.reader(&limits)?;
/// let mut found = Vec::new();
/// while let Some(piece) = reader.next()? {
///     match piece {
///         Piece::Record(record) => found.push(record.offset.0),
///         Piece::TooLarge { offset, bytes } => println!("{bytes} bytes at offset {offset}"),
///     }
/// }
/// assert_eq!(found, [0, 2]);
/// # Ok(())
/// # }
/// ```
pub struct RecordReader {
    header: BatchHeader,
    source: Source,
    record_bytes_max: usize,
    /// Records not yet come to.
    left: i32,
    last_delta: i32,
    /// Nothing comes any more: the end was reached, or an error.
    ended: bool,
}

impl fmt::Debug for RecordReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordReader")
            .field("header", &self.header)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl RecordBatch {
    /// The records one by one, in memory that `limits` bound whatever they decompress to.
    ///
    /// # Errors
    /// [`DecodeError::Decompress`] when the body does not begin as its codec's data does.
    pub fn reader(&self, limits: &Limits) -> Result<RecordReader, DecodeError> {
        let header = *self.header();
        let source = match header.compression() {
            // What compaction emptied holds nothing, whatever the codec.
            _ if header.record_count == 0 && self.body().is_empty() => Source::whole(Bytes::new()),
            Compression::None => Source::whole(self.body().clone()),
            codec => Source::packed(codec, self.body().clone(), limits)?,
        };
        Ok(RecordReader {
            header,
            source,
            record_bytes_max: limits.record_bytes_max,
            left: header.record_count,
            last_delta: -1,
            ended: false,
        })
    }
}

impl RecordReader {
    /// The next record, or why it is not handed out; `None` behind the last, and after an error.
    ///
    /// # Errors
    /// What stands there is no record, does not decompress, or is beyond
    /// [`Limits::unpacked_bytes_max`] or [`Limits::decompressed_bytes_max`]; or bytes are left over
    /// behind the last one.
    #[allow(
        clippy::should_implement_trait,
        reason = "what it gives borrows from it"
    )]
    pub fn next(&mut self) -> Result<Option<Piece<'_>>, DecodeError> {
        if self.ended {
            return Ok(None);
        }
        if self.left == 0 {
            self.ended = true;
            return self.source.check_end().map(|()| None);
        }
        self.left -= 1;
        // Until this one turns out well.
        self.ended = true;
        let head = self.source.ahead(LENGTH_LEN_MAX)?;
        let mut behind = head;
        let body_len = varint::take_i32(&mut behind)?;
        let prefix = head.len() - behind.len();
        let body_len = usize::try_from(body_len).map_err(|_| Malformed("negative length"))?;
        let len = prefix + body_len;
        if len > self.record_bytes_max {
            return self.step_over(len).map(Some);
        }
        if self.source.ahead(len)?.len() < len {
            return Err(Malformed("length does not fit the record").into());
        }
        let mut bytes = self.source.take(len);
        let raw = RawRecord::take(&mut bytes)?;
        let record = place(&self.header, &mut self.last_delta, raw)?;
        self.ended = false;
        Ok(Some(Piece::Record(record)))
    }

    /// The offset of the next record, as far as it is known without reading it: exact in a batch
    /// without gaps.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.header.base_offset.0 + i64::from(self.last_delta) + 1)
    }

    /// Reads the head of a record of `len` bytes, its length included, and passes over the rest.
    fn step_over(&mut self, len: usize) -> Result<Piece<'static>, DecodeError> {
        let head = self.source.ahead(HEAD_LEN_MAX)?;
        let mut input = head.get(..len).unwrap_or(head);
        let delta = RawRecord::take_offset_delta(&mut input)?;
        let offset = place_offset(&self.header, &mut self.last_delta, delta)?;
        self.source.skip(len)?;
        self.ended = false;
        Ok(Piece::TooLarge {
            offset,
            bytes: len as u64,
        })
    }
}

/// The decompressed records part, as far as it is needed.
enum Source {
    /// Not compressed: all is there.
    Whole { bytes: Bytes, at: usize },
    /// Decompressed piece by piece.
    Packed(Packed),
}

impl Source {
    fn whole(bytes: Bytes) -> Source {
        Source::Whole { bytes, at: 0 }
    }

    fn packed(codec: Compression, body: Bytes, limits: &Limits) -> Result<Source, DecodeError> {
        let window = limits.decompressed_bytes_max;
        let decoder = codec.piecewise(body, window);
        Ok(Source::Packed(Packed {
            codec,
            decoder: decoder.map_err(|failure| failure.into_error(codec, window))?,
            window,
            buffer: Vec::new(),
            at: 0,
            ended: false,
            unpacked: 0,
            unpacked_max: limits.unpacked_bytes_max,
        }))
    }

    /// What comes next: at least `wanted` bytes, or all there are.
    #[inline]
    fn ahead(&mut self, wanted: usize) -> Result<&[u8], DecodeError> {
        match self {
            Source::Whole { bytes, at } => Ok(&bytes[*at..]),
            Source::Packed(packed) => {
                if packed.buffer.len() - packed.at < wanted {
                    packed.fill(wanted)?;
                }
                Ok(&packed.buffer[packed.at..])
            }
        }
    }

    /// Takes `len` bytes, which [`Source::ahead`] has shown.
    #[inline]
    fn take(&mut self, len: usize) -> &[u8] {
        let (bytes, at) = match self {
            Source::Whole { bytes, at } => (&bytes[..], at),
            Source::Packed(packed) => (&packed.buffer[..], &mut packed.at),
        };
        let taken = &bytes[*at..*at + len];
        *at += len;
        taken
    }

    /// Passes over `len` bytes, holding a piece of them at a time.
    fn skip(&mut self, mut len: usize) -> Result<(), DecodeError> {
        while len > 0 {
            let there = self.ahead(1)?.len().min(len);
            if there == 0 {
                return Err(Malformed("length does not fit the record").into());
            }
            self.take(there);
            len -= there;
        }
        Ok(())
    }

    fn check_end(&mut self) -> Result<(), DecodeError> {
        if self.ahead(1)?.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Invalid("batch is longer than its records"))
        }
    }
}

/// A codec at work.
struct Packed {
    codec: Compression,
    decoder: Box<dyn Piecewise>,
    window: usize,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were taken.
    at: usize,
    /// Nothing more comes out.
    ended: bool,
    /// Bytes that came out so far.
    unpacked: u64,
    unpacked_max: u64,
}

impl Packed {
    /// Decompresses until `wanted` bytes are at hand, or all there are.
    fn fill(&mut self, wanted: usize) -> Result<(), DecodeError> {
        self.buffer.drain(..self.at);
        self.at = 0;
        while self.buffer.len() < wanted && !self.ended {
            let filled = self.buffer.len();
            self.buffer.resize(filled + PIECE_LEN, 0);
            let read = self.decoder.read(&mut self.buffer[filled..]);
            let read = read.map_err(|failure| failure.into_error(self.codec, self.window));
            self.buffer
                .truncate(filled + read.as_ref().map_or(0, |&read| read));
            let read = read?;
            self.ended = read == 0;
            self.unpacked += read as u64;
            if self.unpacked > self.unpacked_max {
                return Err(DecodeError::TooLarge {
                    what: "unpacked bytes",
                    actual: self.unpacked,
                    max: self.unpacked_max,
                });
            }
        }
        Ok(())
    }
}
