//! Decode, check and iterate a record batch.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::record::{Malformed, RawRecord};
use crate::{
    BATCH_HEADER_LEN, BatchHeader, Compression, DecodeError, LeaderEpoch, Limits, Offset,
    OffsetRange, Piece, Record, Timestamp, TimestampType,
};

/// One record batch: its decoded header and the bytes of its records part, as encoded.
///
/// Cloning is cheap. Header and body are apart so that the log can assign the base offset and
/// leader epoch without copying the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    header: BatchHeader,
    body: Bytes,
}

impl RecordBatch {
    /// Takes one batch from the front of `bytes` without copying and checks its CRC.
    ///
    /// # Errors
    /// [`DecodeError`]; `bytes` is then unchanged.
    pub fn decode(bytes: &mut Bytes, limits: &Limits) -> Result<RecordBatch, DecodeError> {
        let header = BatchHeader::decode(bytes)?;
        check_length(&header, limits)?;
        if bytes.len() < header.total_len() {
            return Err(DecodeError::Truncated {
                needed: header.total_len(),
                available: bytes.len(),
            });
        }
        let body = bytes.slice(BATCH_HEADER_LEN..header.total_len());
        let batch = RecordBatch { header, body };
        batch.check_crc()?;
        bytes.advance(header.total_len());
        Ok(batch)
    }

    pub(crate) fn from_parts(header: BatchHeader, body: Bytes) -> RecordBatch {
        RecordBatch { header, body }
    }

    /// The decoded header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records part as encoded (compressed, if the header says so).
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.header.total_len()
    }

    /// The whole batch in one piece: one copy.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.total_len());
        out.extend_from_slice(&self.header.encode());
        out.extend_from_slice(&self.body);
        out.freeze()
    }

    /// Assigns what the log assigns; both fields lie outside the CRC.
    pub fn assign(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.header.base_offset = base_offset;
        self.header.leader_epoch = leader_epoch;
    }

    /// Makes `now` the timestamp of every record and computes the CRC anew.
    pub fn stamp_log_append_time(&mut self, now: Timestamp) {
        self.header.set_log_append_time(now);
        self.header.crc = self.header.compute_crc(std::slice::from_ref(&self.body));
    }

    fn check_crc(&self) -> Result<(), DecodeError> {
        let computed = self.header.compute_crc(std::slice::from_ref(&self.body));
        if computed == self.header.crc {
            Ok(())
        } else {
            Err(DecodeError::Checksum {
                stored: self.header.crc,
                computed,
            })
        }
    }

    /// The records: borrowed from the batch, or from one buffer when it is compressed.
    ///
    /// # Errors
    /// [`DecodeError::Decompress`] or [`DecodeError::TooLarge`].
    pub fn records(&self, limits: &Limits) -> Result<Records, DecodeError> {
        let encoded = match self.header.compression() {
            // What compaction emptied holds nothing, whatever the codec.
            _ if self.header.record_count == 0 && self.body.is_empty() => Bytes::new(),
            Compression::None => self.body.clone(),
            codec => codec
                .decompress(&self.body, limits.decompressed_bytes_max)?
                .into(),
        };
        Ok(Records {
            header: self.header,
            encoded,
        })
    }

    /// Decodes every record, one by one as [`RecordBatch::reader`] does, and says whether their
    /// number, deltas and lengths agree with the header.
    ///
    /// # Errors
    /// The first contradiction, or a record beyond [`Limits::record_bytes_max`].
    pub fn check_records(&self, limits: &Limits) -> Result<(), DecodeError> {
        self.newest_timestamp(limits).map(|_| ())
    }

    /// What [`RecordBatch::check_records`] checks, and that the header's max timestamp is that of
    /// the newest record, by which records are found by time: what a producer's batch must keep to.
    ///
    /// # Errors
    /// As [`RecordBatch::check_records`], and for a false max timestamp.
    pub fn check_from_client(&self, limits: &Limits) -> Result<(), DecodeError> {
        let newest = self.newest_timestamp(limits)?;
        match newest {
            Some(newest) if newest != self.header.max_timestamp => Err(DecodeError::Invalid(
                "max timestamp is not that of the newest record",
            )),
            _ => Ok(()),
        }
    }

    /// The largest timestamp of all records, each of which is checked.
    fn newest_timestamp(&self, limits: &Limits) -> Result<Option<Timestamp>, DecodeError> {
        let mut reader = self.reader(limits)?;
        let mut newest = None;
        while let Some(piece) = reader.next()? {
            match piece {
                Piece::Record(record) => newest = newest.max(Some(record.timestamp)),
                Piece::TooLarge { bytes, .. } => return Err(record_too_large(bytes, limits)),
            }
        }
        Ok(newest)
    }

    /// Holds the records of an uncompressed batch to [`Limits::record_bytes_max`] without decoding
    /// them; free where the batch is no longer than that. What does not read as records is left
    /// to [`RecordBatch::check_records`].
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`].
    pub fn check_record_lengths(&self, limits: &Limits) -> Result<(), DecodeError> {
        let is_plain = self.header.compression() == Compression::None;
        if !is_plain || self.body.len() <= limits.record_bytes_max {
            return Ok(());
        }
        let mut rest = &self.body[..];
        for _ in 0..self.header.record_count {
            let before = rest.len();
            if RawRecord::skip(&mut rest).is_err() {
                break;
            }
            let len = before - rest.len();
            if len > limits.record_bytes_max {
                return Err(record_too_large(len as u64, limits));
            }
        }
        Ok(())
    }
}

fn record_too_large(bytes: u64, limits: &Limits) -> DecodeError {
    DecodeError::TooLarge {
        what: "record bytes",
        actual: bytes,
        max: limits.record_bytes_max as u64,
    }
}

fn check_length(header: &BatchHeader, limits: &Limits) -> Result<(), DecodeError> {
    if header.total_len() <= limits.batch_bytes_max {
        return Ok(());
    }
    Err(DecodeError::TooLarge {
        what: "batch bytes",
        actual: header.total_len() as u64,
        max: limits.batch_bytes_max as u64,
    })
}

/// The decompressed records of one batch; [`Records::iter`] borrows from it.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    encoded: Bytes,
}

impl Records {
    /// The records in order, without an allocation per record.
    ///
    /// Ends after the header's count; bytes left over, or too few, are an error in its place, and
    /// the iterator ends behind an error.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter {
            header: &self.header,
            rest: &self.encoded,
            left: self.header.record_count,
            last_delta: -1,
            failed: false,
        }
    }

    /// The record at `offset`; `None` when the batch does not cover it, or compaction removed it.
    ///
    /// In a batch without gaps the records before it are skipped by their lengths, not decoded.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] when what stands there, or before it, is no record, or not this one.
    pub fn get(&self, offset: Offset) -> Result<Option<Record<'_>>, DecodeError> {
        if !self.offsets().contains(offset) {
            return Ok(None);
        }
        let mut records = self.iter();
        let is_gapless = self.header.is_gapless();
        if is_gapless {
            records.skip_plainly((offset.0 - self.header.base_offset.0) as i32)?;
        }
        for record in records {
            let record = record?;
            if record.offset == offset {
                return Ok(Some(record));
            }
            if record.offset > offset {
                break;
            }
        }
        if is_gapless {
            return Err(DecodeError::Invalid("a record is not where it belongs"));
        }
        Ok(None)
    }

    /// The decompressed bytes that the records borrow from.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The offsets the batch covers.
    #[must_use]
    pub fn offsets(&self) -> OffsetRange {
        self.header.offsets()
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<Record<'a>, DecodeError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// Iterator over the records of a batch; see [`Records::iter`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    header: &'a BatchHeader,
    rest: &'a [u8],
    left: i32,
    last_delta: i32,
    failed: bool,
}

impl<'a> RecordIter<'a> {
    #[inline]
    fn take(&mut self) -> Result<Record<'a>, Malformed> {
        let raw = RawRecord::take(&mut self.rest)?;
        place(self.header, &mut self.last_delta, raw)
    }

    /// Skips `count` records, at most as many as are left, in a batch without gaps.
    fn skip_plainly(&mut self, count: i32) -> Result<(), Malformed> {
        for _ in 0..count {
            RawRecord::skip(&mut self.rest)?;
        }
        self.left -= count;
        self.last_delta = count - 1;
        Ok(())
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Invalid("batch is longer than its records"))
        }
    }
}

/// What a record's deltas stand for in its batch, behind the record at `last_delta`.
#[inline]
pub(crate) fn place<'a>(
    header: &BatchHeader,
    last_delta: &mut i32,
    raw: RawRecord<'a>,
) -> Result<Record<'a>, Malformed> {
    let offset = place_offset(header, last_delta, raw.offset_delta)?;
    let timestamp = match header.timestamp_type() {
        TimestampType::CreateTime => {
            Timestamp(header.base_timestamp.0.wrapping_add(raw.timestamp_delta))
        }
        TimestampType::LogAppendTime => header.max_timestamp,
    };
    Ok(Record {
        offset,
        timestamp,
        key: raw.key,
        value: raw.value,
        headers: raw.headers,
    })
}

#[inline]
pub(crate) fn place_offset(
    header: &BatchHeader,
    last_delta: &mut i32,
    delta: i32,
) -> Result<Offset, Malformed> {
    if delta <= *last_delta || delta > header.last_offset_delta {
        return Err(Malformed("offset deltas do not rise within the batch"));
    }
    *last_delta = delta;
    Ok(Offset(header.base_offset.0 + i64::from(delta)))
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.left == 0 {
            self.failed = true;
            return self.end().err().map(Err);
        }
        self.left -= 1;
        let record = self.take();
        self.failed = record.is_err();
        Some(record.map_err(DecodeError::from))
    }
}

/// Takes whole batches off a sequence of byte chunks whose boundaries mean nothing.
///
/// A read or fetch returns chunks: concatenated, they are whole batches back to back. A batch
/// inside one chunk, or whose body is, is decoded without copying.
#[derive(Debug, Clone, Default)]
pub struct BatchStream {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl BatchStream {
    /// A stream over `chunks`.
    pub fn new(chunks: impl IntoIterator<Item = Bytes>) -> BatchStream {
        let chunks: VecDeque<Bytes> = chunks
            .into_iter()
            .filter(|chunk| !chunk.is_empty())
            .collect();
        let len = chunks.iter().map(Bytes::len).sum();
        BatchStream { chunks, len }
    }

    /// Bytes not yet taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether every byte was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next batch, its CRC checked; `None` at the end.
    ///
    /// # Errors
    /// [`DecodeError`]. After [`DecodeError::Checksum`] the stream stands where the batch's length
    /// says that it ends, after any other error where it was. The length is outside the checksum and
    /// may be what is wrong: what the stream then finds can be anything, a record's value that
    /// looks like a batch included. So go on only where offsets are checked against what is known
    /// of the log, or better: read again behind the damage.
    pub fn next_batch(&mut self, limits: &Limits) -> Result<Option<RecordBatch>, DecodeError> {
        if self.is_empty() {
            return Ok(None);
        }
        let header = self.peek_header()?;
        check_length(&header, limits)?;
        if self.len < header.total_len() {
            return Err(DecodeError::Truncated {
                needed: header.total_len(),
                available: self.len,
            });
        }
        self.take(BATCH_HEADER_LEN);
        let body = self.take(header.body_len());
        let batch = RecordBatch::from_parts(header, body);
        batch.check_crc()?;
        Ok(Some(batch))
    }

    /// The header of the next batch, without taking it.
    ///
    /// # Errors
    /// [`DecodeError`]; [`DecodeError::Truncated`] at the end.
    pub fn peek_header(&self) -> Result<BatchHeader, DecodeError> {
        let mut fixed = [0; BATCH_HEADER_LEN];
        let mut filled = 0;
        for chunk in &self.chunks {
            let count = chunk.len().min(BATCH_HEADER_LEN - filled);
            fixed[filled..filled + count].copy_from_slice(&chunk[..count]);
            filled += count;
            if filled == BATCH_HEADER_LEN {
                break;
            }
        }
        BatchHeader::decode(&fixed[..filled])
    }

    /// Takes `count` bytes, which must be there: a slice when one chunk holds them, else a copy.
    fn take(&mut self, count: usize) -> Bytes {
        self.len -= count;
        let Some(front) = self.chunks.front_mut() else {
            return Bytes::new();
        };
        if front.len() > count {
            return front.split_to(count);
        }
        if front.len() == count {
            return self.chunks.pop_front().unwrap_or_default();
        }
        let mut out = BytesMut::with_capacity(count);
        while out.len() < count {
            let Some(front) = self.chunks.front_mut() else {
                break;
            };
            let piece = front.split_to(front.len().min(count - out.len()));
            out.extend_from_slice(&piece);
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
        out.freeze()
    }
}
