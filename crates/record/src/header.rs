//! The fixed header of a record batch and what its CRC covers.

use crate::{Compression, DecodeError, LeaderEpoch, Limits, Offset, OffsetRange, Timestamp};

/// Bytes of a [`BatchHeader`].
pub const BATCH_HEADER_LEN: usize = 61;
/// Bytes of base offset and batch length, which the batch length does not count.
pub const LENGTH_PREFIX_LEN: usize = 12;
/// The CRC covers everything from here (attributes) to the end of the batch.
const CRC_FROM: usize = 21;
/// The smallest record: a length byte, attributes, two deltas, key and value length, header count.
const RECORD_LEN_MIN: usize = 7;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;
const KNOWN: i16 = CODEC_MASK | LOG_APPEND_TIME | TRANSACTIONAL | CONTROL | DELETE_HORIZON;

/// Whose clock the timestamps of a batch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer's, record by record.
    #[default]
    CreateTime,
    /// The server's, one for the whole batch: its max timestamp.
    LogAppendTime,
}

/// The fixed 61 bytes at the head of a record batch, field by field as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record. Outside the CRC: assigned by the log.
    pub base_offset: Offset,
    /// Bytes behind this field: the batch without its first [`LENGTH_PREFIX_LEN`] bytes.
    pub batch_length: i32,
    /// Outside the CRC: assigned by the log.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C from the attributes to the end of the batch, as stored.
    pub crc: u32,
    /// Codec, timestamp type and flags.
    pub attributes: i16,
    /// Offset of the last record less the base offset.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from.
    pub base_timestamp: Timestamp,
    /// The largest timestamp in the batch, or the append time.
    pub max_timestamp: Timestamp,
    /// -1 when the producer is not idempotent.
    pub producer_id: i64,
    /// -1 when the producer is not idempotent.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 when the producer is not idempotent.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes` and checks what can be checked without the body:
    /// magic, lengths, counts, and that `record_count` records could fit the batch.
    ///
    /// Accepts every batch that Kafka's format allows, compacted and control batches among
    /// them; see [`BatchHeader::check_from_client`] for what producers may send.
    ///
    /// # Errors
    /// [`DecodeError`], [`DecodeError::Truncated`] only when fewer than 61 bytes are there.
    pub fn decode(bytes: &[u8]) -> Result<BatchHeader, DecodeError> {
        let Some(fixed) = bytes.first_chunk::<BATCH_HEADER_LEN>() else {
            return Err(DecodeError::Truncated {
                needed: BATCH_HEADER_LEN,
                available: bytes.len(),
            });
        };
        let magic = fixed[16] as i8;
        if magic != 2 {
            return Err(DecodeError::Magic(magic));
        }
        let header = BatchHeader {
            base_offset: Offset(i64::from_be_bytes(field(fixed, 0))),
            batch_length: i32::from_be_bytes(field(fixed, 8)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(fixed, 12))),
            crc: u32::from_be_bytes(field(fixed, 17)),
            attributes: i16::from_be_bytes(field(fixed, CRC_FROM)),
            last_offset_delta: i32::from_be_bytes(field(fixed, 23)),
            base_timestamp: Timestamp(i64::from_be_bytes(field(fixed, 27))),
            max_timestamp: Timestamp(i64::from_be_bytes(field(fixed, 35))),
            producer_id: i64::from_be_bytes(field(fixed, 43)),
            producer_epoch: i16::from_be_bytes(field(fixed, 51)),
            base_sequence: i32::from_be_bytes(field(fixed, 53)),
            record_count: i32::from_be_bytes(field(fixed, 57)),
        };
        header.check()?;
        Ok(header)
    }

    /// The 61 bytes of this header.
    #[must_use]
    pub fn encode(&self) -> [u8; BATCH_HEADER_LEN] {
        let mut out = [0; BATCH_HEADER_LEN];
        out[0..8].copy_from_slice(&self.base_offset.0.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.0.to_be_bytes());
        out[16] = 2;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.0.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.0.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }

    fn check(&self) -> Result<(), DecodeError> {
        let invalid = |what| Err(DecodeError::Invalid(what));
        if self.batch_length < (BATCH_HEADER_LEN - LENGTH_PREFIX_LEN) as i32 {
            return invalid("batch length is shorter than the header");
        }
        if self.base_offset.0 < 0 {
            return invalid("base offset is negative");
        }
        if self.last_offset_delta < 0 {
            return invalid("last offset delta is negative");
        }
        if self
            .base_offset
            .checked_add(self.last_offset_delta as u64 + 1)
            .is_none()
        {
            return invalid("offsets do not fit 63 bits");
        }
        if self.record_count < 0 || self.record_count > self.last_offset_delta.saturating_add(1) {
            return invalid("record count and last offset delta contradict each other");
        }
        let codec = Compression::from_attributes(self.attributes)?;
        let records_max = self.body_len() / RECORD_LEN_MIN;
        if codec == Compression::None && self.record_count as usize > records_max {
            return invalid("more records claimed than the bytes can hold");
        }
        Ok(())
    }

    /// Checks what only batches from clients must keep to: no gaps, no control, transactional,
    /// append-time or unknown attribute bits, all producer fields or none, and the limits.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] or [`DecodeError::TooLarge`] naming the field.
    pub fn check_from_client(&self, limits: &Limits) -> Result<(), DecodeError> {
        let invalid = |what| Err(DecodeError::Invalid(what));
        if self.total_len() > limits.batch_bytes_max {
            return Err(too_large(
                "batch bytes",
                self.total_len() as u64,
                limits.batch_bytes_max as u64,
            ));
        }
        if self.record_count as u32 > limits.batch_records_max {
            let max = u64::from(limits.batch_records_max);
            return Err(too_large(
                "records in a batch",
                self.record_count as u64,
                max,
            ));
        }
        if self.record_count < 1 || !self.is_gapless() {
            return invalid("record count is not last offset delta + 1");
        }
        if self.attributes & !KNOWN != 0 || self.attributes & DELETE_HORIZON != 0 {
            return invalid("unknown attribute bits are set");
        }
        if self.attributes & LOG_APPEND_TIME != 0 {
            return invalid("clients may not claim the append time");
        }
        if self.is_control() {
            return invalid("clients may not write control batches");
        }
        if self.attributes & TRANSACTIONAL != 0 {
            return invalid("transactions are not supported");
        }
        let idempotent = self.producer_id >= 0;
        let fields_agree = if idempotent {
            self.producer_epoch >= 0 && self.base_sequence >= 0
        } else {
            self.producer_id == -1 && self.producer_epoch == -1 && self.base_sequence == -1
        };
        if !fields_agree {
            return invalid("producer id, epoch and sequence contradict each other");
        }
        Ok(())
    }

    /// Whether the batch holds a record for each of its offsets.
    pub(crate) fn is_gapless(&self) -> bool {
        i64::from(self.record_count) == i64::from(self.last_offset_delta) + 1
    }

    /// Bytes of the whole batch, header included.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.batch_length as usize + LENGTH_PREFIX_LEN
    }

    /// Bytes of the records part.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.total_len().saturating_sub(BATCH_HEADER_LEN)
    }

    /// Offset of the last record (inclusive).
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0 + i64::from(self.last_offset_delta))
    }

    /// The offset behind the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// The offsets this batch covers, gaps left by compaction included.
    #[must_use]
    pub fn offsets(&self) -> OffsetRange {
        OffsetRange::new(self.base_offset, self.next_offset())
    }

    /// How the records part is compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        Compression::from_attributes(self.attributes).unwrap_or(Compression::None)
    }

    /// Whose clock the timestamps come from.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    /// Whether this batch is a marker that consumers skip.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Marks the batch as stamped by the log at `now`; the CRC must be computed anew.
    pub(crate) fn set_log_append_time(&mut self, now: Timestamp) {
        self.attributes |= LOG_APPEND_TIME;
        self.max_timestamp = now;
    }

    /// CRC-32C of the header's covered part and `body`, which may come in pieces.
    #[must_use]
    pub fn compute_crc(&self, body: &[impl AsRef<[u8]>]) -> u32 {
        let header = crc32c::crc32c(&self.encode()[CRC_FROM..]);
        body.iter().fold(header, |crc, piece| {
            crc32c::crc32c_append(crc, piece.as_ref())
        })
    }
}

fn too_large(what: &'static str, actual: u64, max: u64) -> DecodeError {
    DecodeError::TooLarge { what, actual, max }
}

fn field<const N: usize>(fixed: &[u8; BATCH_HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&fixed[at..at + N]);
    out
}
