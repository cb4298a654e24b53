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

/// Collects records into one batch: one buffer, no allocation per record.
#[derive(Debug)]
pub struct BatchBuilder {
    limits: Limits,
    body: Vec<u8>,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch that will keep to `limits`.
    #[must_use]
    pub fn new(limits: Limits) -> BatchBuilder {
        BatchBuilder {
            limits,
            body: Vec::new(),
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
        self.check_room(length)?;
        if self.count == 0 {
            self.base_timestamp = timestamp.0;
            self.max_timestamp = timestamp.0;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp.0);
        self.put_record(length, timestamp_delta, key, value, headers);
        self.count += 1;
        Ok(())
    }

    fn check_room(&self, length: usize) -> Result<(), EncodeError> {
        let actual = BATCH_HEADER_LEN + self.body.len() + length + varint::len(length as i64);
        if actual > self.limits.batch_bytes_max {
            return Err(EncodeError::TooLarge {
                what: "batch bytes",
                actual: actual as u64,
                max: self.limits.batch_bytes_max as u64,
            });
        }
        if self.count >= self.limits.batch_records_max {
            return Err(EncodeError::TooLarge {
                what: "records in a batch",
                actual: u64::from(self.count) + 1,
                max: u64::from(self.limits.batch_records_max),
            });
        }
        Ok(())
    }

    fn put_record<'a>(
        &mut self,
        length: usize,
        timestamp_delta: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = HeaderRef<'a>>,
    ) {
        let out = &mut self.body;
        varint::put(out, length as i64);
        out.push(0); // record attributes: none are defined
        varint::put(out, timestamp_delta);
        varint::put(out, i64::from(self.count));
        put_bytes(out, key);
        put_bytes(out, value);
        varint::put(out, headers.len() as i64);
        for (name, value) in headers {
            put_bytes(out, Some(name));
            put_bytes(out, value);
        }
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
        BATCH_HEADER_LEN + self.body.len()
    }

    /// The finished batch, with base offset 0 and leader epoch 0, which the log assigns.
    ///
    /// # Errors
    /// [`EncodeError::Empty`], or a failure of the codec.
    pub fn build(
        self,
        compression: Compression,
        producer: Option<ProducerIds>,
    ) -> Result<RecordBatch, EncodeError> {
        if self.count == 0 {
            return Err(EncodeError::Empty);
        }
        let body: Bytes = match compression {
            Compression::None => self.body.into(),
            codec => codec.compress(&self.body)?.into(),
        };
        let mut header = BatchHeader {
            base_offset: Offset::ZERO,
            batch_length: (BATCH_HEADER_LEN - LENGTH_PREFIX_LEN + body.len()) as i32,
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
        header.crc = header.compute_crc(std::slice::from_ref(&body));
        Ok(RecordBatch::from_parts(header, body))
    }
}

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

fn bytes_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => varint::len(bytes.len() as i64) + bytes.len(),
        None => 1,
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => varint::put(out, -1),
    }
}
