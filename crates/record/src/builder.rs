//! Build a record batch, record by record, in one buffer.

use bytes::Bytes;

use crate::{
    BATCH_HEADER_LEN, BatchHeader, Compression, EncodeError, LENGTH_PREFIX_LEN, LeaderEpoch,
    Limits, Offset, RecordBatch, Timestamp, varint,
};

/// A header of a record that is about to be encoded: name, and value or none.
pub type HeaderRef<'a> = (&'a [u8], Option<&'a [u8]>);

/// What makes a batch idempotent: who sent it, and the number of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIds {
    /// Given out by the server; at least 0.
    pub producer_id: i64,
    /// Raised when a producer starts anew under the same id; at least 0.
    pub producer_epoch: i16,
    /// Sequence of the first record; at least 0, wraps to 0 after 2^31 - 1.
    pub base_sequence: i32,
}

/// Room made by the first record of a batch, if the caller asked for none.
const CAPACITY_MIN: usize = 1024;

/// Collects records into one batch: one buffer, no allocation per record.
#[derive(Debug)]
pub struct BatchBuilder {
    limits: Limits,
    /// The batch as far as it is written, up to `end`, and zeros behind: writing into a slice of
    /// known length is faster than pushing byte by byte. The first bytes wait for the header.
    bytes: Vec<u8>,
    end: usize,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch that will keep to `limits`.
    #[must_use]
    pub fn new(limits: Limits) -> BatchBuilder {
        BatchBuilder::with_capacity(limits, 0)
    }

    /// An empty batch that will keep to `limits`, with room for `bytes` of them (the header
    /// included), so that the buffer need not grow. More room than the limits allow is not made.
    #[must_use]
    pub fn with_capacity(limits: Limits, bytes: usize) -> BatchBuilder {
        BatchBuilder {
            limits,
            bytes: vec![0; bytes.min(limits.batch_bytes_max)],
            end: BATCH_HEADER_LEN,
            count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
        }
    }

    /// Appends one record.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] when the batch would exceed its limits; the batch is unchanged.
    pub fn push<'a>(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = HeaderRef<'a>> + Clone,
    ) -> Result<(), EncodeError> {
        let timestamp_delta = if self.count == 0 {
            0
        } else {
            timestamp.0.wrapping_sub(self.base_timestamp)
        };
        let length = body_len(timestamp_delta, self.count, key, value, headers.clone());
        let end = self.check_room(length)?;
        let offset_delta = i64::from(self.count);

        let out = self.room(end);
        let out = varint::write(out, length as i64);
        let out = varint::write(out, 0); // record attributes: none are defined
        let out = varint::write(out, timestamp_delta);
        let out = varint::write(out, offset_delta);
        let out = write_bytes(out, key);
        let out = write_bytes(out, value);
        let mut out = varint::write(out, headers.len() as i64);
        for (name, value) in headers {
            out = write_bytes(out, Some(name));
            out = write_bytes(out, value);
        }
        debug_assert!(out.is_empty(), "a record has the length it says");

        if self.count == 0 {
            self.base_timestamp = timestamp.0;
            self.max_timestamp = timestamp.0;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp.0);
        self.end = end;
        self.count += 1;
        Ok(())
    }

    /// Where a record of `length` bytes behind its length would end.
    #[inline]
    fn check_room(&self, length: usize) -> Result<usize, EncodeError> {
        let too_large = |what, actual: usize, max: usize| {
            Err(EncodeError::TooLarge {
                what,
                actual: actual as u64,
                max: max as u64,
            })
        };
        let end = self.end + varint::len(length as i64) + length;
        let bytes_max = self.limits.batch_bytes_max.min(i32::MAX as usize);
        if end > bytes_max {
            return too_large("batch bytes", end, bytes_max);
        }
        if self.count >= self.limits.batch_records_max {
            let max = self.limits.batch_records_max as usize;
            return too_large("records in a batch", self.len() + 1, max);
        }
        Ok(end)
    }

    /// The bytes from here to `end`, which becomes the length of the batch.
    #[inline]
    fn room(&mut self, end: usize) -> &mut [u8] {
        if end > self.bytes.len() {
            let room = (2 * self.bytes.len()).min(self.limits.batch_bytes_max);
            self.bytes.resize(end.max(room).max(CAPACITY_MIN), 0);
        }
        &mut self.bytes[self.end..end]
    }

    /// Records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether no record was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch so far, uncompressed, header included.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.end
    }

    /// The finished batch, with base offset 0 and leader epoch 0, which the log assigns.
    ///
    /// A batch that compression would make larger than the limits stays uncompressed.
    ///
    /// # Errors
    /// [`EncodeError::Empty`], or a failure of the codec.
    pub fn build(
        self,
        compression: Compression,
        producer: Option<ProducerIds>,
    ) -> Result<RecordBatch, EncodeError> {
        let (header, bytes) = self.finish(compression, producer)?;
        let body = bytes.slice(BATCH_HEADER_LEN..);
        Ok(RecordBatch::from_parts(header, body))
    }

    /// What [`build`](BatchBuilder::build) followed by [`RecordBatch::to_bytes`] gives, without
    /// the copy: the whole batch in one piece.
    ///
    /// # Errors
    /// As [`build`](BatchBuilder::build).
    pub fn encode(
        self,
        compression: Compression,
        producer: Option<ProducerIds>,
    ) -> Result<Bytes, EncodeError> {
        let (_, bytes) = self.finish(compression, producer)?;
        Ok(bytes)
    }

    /// The header, and the whole batch.
    fn finish(
        mut self,
        compression: Compression,
        producer: Option<ProducerIds>,
    ) -> Result<(BatchHeader, Bytes), EncodeError> {
        if self.count == 0 {
            return Err(EncodeError::Empty);
        }
        self.bytes.truncate(self.end);
        let compression = self.compress(compression)?;
        let mut header = BatchHeader {
            base_offset: Offset::ZERO,
            batch_length: (self.bytes.len() - LENGTH_PREFIX_LEN) as i32,
            leader_epoch: LeaderEpoch(0),
            crc: 0,
            attributes: compression.attributes(),
            last_offset_delta: self.count as i32 - 1,
            base_timestamp: Timestamp(self.base_timestamp),
            max_timestamp: Timestamp(self.max_timestamp),
            producer_id: producer.map_or(-1, |producer| producer.producer_id),
            producer_epoch: producer.map_or(-1, |producer| producer.producer_epoch),
            base_sequence: producer.map_or(-1, |producer| producer.base_sequence),
            record_count: self.count as i32,
        };
        let (head, body) = self.bytes.split_at_mut(BATCH_HEADER_LEN);
        header.crc = header.compute_crc(&[body]);
        head.copy_from_slice(&header.encode());
        Ok((header, self.bytes.into()))
    }

    /// Compresses the records and says which codec they now have.
    fn compress(&mut self, compression: Compression) -> Result<Compression, EncodeError> {
        if compression == Compression::None {
            return Ok(Compression::None);
        }
        let body = compression.compress(&self.bytes[BATCH_HEADER_LEN..])?;
        if BATCH_HEADER_LEN + body.len() > self.limits.batch_bytes_max {
            return Ok(Compression::None);
        }
        // A new buffer, so that a batch in waiting holds no more memory than it has bytes.
        let mut bytes = Vec::with_capacity(BATCH_HEADER_LEN + body.len());
        bytes.resize(BATCH_HEADER_LEN, 0);
        bytes.extend_from_slice(&body);
        self.bytes = bytes;
        Ok(compression)
    }
}

#[inline]
fn body_len<'a>(
    timestamp_delta: i64,
    offset_delta: u32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl ExactSizeIterator<Item = HeaderRef<'a>>,
) -> usize {
    let fixed = 1
        + varint::len(timestamp_delta)
        + varint::len(i64::from(offset_delta))
        + bytes_len(key)
        + bytes_len(value)
        + varint::len(headers.len() as i64);
    fixed
        + headers
            .map(|(name, value)| bytes_len(Some(name)) + bytes_len(value))
            .sum::<usize>()
}

#[inline]
fn bytes_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => varint::len(bytes.len() as i64) + bytes.len(),
        None => 1,
    }
}

#[inline]
fn write_bytes<'a>(out: &'a mut [u8], bytes: Option<&[u8]>) -> &'a mut [u8] {
    let Some(bytes) = bytes else {
        return varint::write(out, -1);
    };
    let out = varint::write(out, bytes.len() as i64);
    let (to, rest) = out.split_at_mut(bytes.len());
    to.copy_from_slice(bytes);
    rest
}
