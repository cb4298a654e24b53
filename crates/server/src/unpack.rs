//! Structured records: decode batches for callers without a decoder, as much as an answer may hold.
//!
//! What a batch decompresses to, nobody knew when it was acknowledged. So a batch is decompressed
//! as a whole only where that fits the answer, and else record by record; an answer may end inside
//! a batch, and the next one begins there.

use std::sync::Arc;

use bytes::Bytes;
use comlog_proto::v1::{self, Reason};
use comlog_record::{
    BatchStream, Compression, DecodeError, Limits, Offset, OffsetRange, Piece, Record, RecordBatch,
};
use tokio::sync::Semaphore;

use crate::records::on_a_thread;
use crate::status::ServiceError;

/// Stored batches are in memory already: their own length bounds them, not a topic's present limit.
const STORED: Limits = Limits {
    batch_bytes_max: i32::MAX as usize,
    ..Limits::DEFAULT
};

/// What is decoded on the executor's own threads: less than a millisecond's work.
const SHORT_BYTES: usize = 64 << 10;
/// The most that a message adds to the bytes of a record, and to those of a header. In memory they
/// take less than four times as much.
const RECORD_OVERHEAD: usize = 40;
const HEADER_OVERHEAD: usize = 20;

/// What one answer is held to.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Most bytes of all records, as the message has them.
    pub(crate) bytes_max: usize,
    /// Most bytes of a record that is given although it is beyond `bytes_max`: alone.
    pub(crate) record_bytes_max: usize,
    /// How many answers are decoded at once where that takes long.
    pub(crate) at_once: Arc<Semaphore>,
}

/// Records decoded from batches.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) records: Vec<v1::Record>,
    /// Behind the last record or batch that was decoded; `None` when there was none.
    pub(crate) next_offset: Option<Offset>,
}

/// Decodes the records at or behind `from`, as many as fit the bounds; control batches are passed
/// over.
///
/// # Errors
/// The first batch with a record behind `from` is damaged, or that record is beyond the bounds:
/// where to go on is in the error.
pub(crate) async fn decode(
    chunks: Vec<Bytes>,
    from: Offset,
    bounds: &Bounds,
) -> Result<Decoded, ServiceError> {
    if chunks.is_empty() {
        return Ok(Decoded::default());
    }
    let answer = Answer::new(from, bounds);
    let len: usize = chunks.iter().map(Bytes::len).sum();
    let plain = BatchStream::new(chunks.iter().cloned())
        .peek_header()
        .is_ok_and(|header| header.compression() == Compression::None);
    if plain && len <= SHORT_BYTES {
        return answer.fill(chunks, false);
    }
    // Fails only when it is closed, which nobody does. Whoever is gone leaves the work to its end.
    let permit = bounds.at_once.clone().acquire_owned().await;
    on_a_thread(move || {
        let _permit = permit;
        answer.fill(chunks, true)
    })
    .await
}

/// [`decode`] for the server itself, where one task reads a log from its start to its end.
pub(crate) async fn replay(
    chunks: Vec<Bytes>,
    from: Offset,
    bytes_max: usize,
) -> Result<Decoded, ServiceError> {
    let bounds = Bounds {
        bytes_max,
        record_bytes_max: STORED.record_bytes_max,
        at_once: Arc::new(Semaphore::new(1)),
    };
    decode(chunks, from, &bounds).await
}

/// The newest record of the first batch, if it holds any.
///
/// # Errors
/// As [`decode`].
pub(crate) async fn newest(
    chunks: Vec<Bytes>,
    bounds: &Bounds,
) -> Result<Option<v1::Record>, ServiceError> {
    let permit = bounds.at_once.clone().acquire_owned().await;
    let record_bytes_max = bounds.record_bytes_max;
    on_a_thread(move || {
        let _permit = permit;
        newest_now(chunks, record_bytes_max)
    })
    .await
}

fn newest_now(
    chunks: Vec<Bytes>,
    record_bytes_max: usize,
) -> Result<Option<v1::Record>, ServiceError> {
    let mut batches = BatchStream::new(chunks);
    let broken = |error: DecodeError| ServiceError::new(Reason::Corrupt, error.to_string());
    let header = batches.peek_header().map_err(broken)?;
    let damaged = |error: DecodeError| damaged(header.offsets(), &error);
    let batch = batches.next_batch(&STORED).map_err(damaged)?;
    let Some(batch) = batch.filter(|batch| !batch.header().is_control()) else {
        return Ok(None);
    };
    let limits = Limits {
        record_bytes_max,
        ..STORED
    };
    let mut reader = batch.reader(&limits).map_err(damaged)?;
    let mut newest = Ok(None);
    while let Some(piece) = reader.next().map_err(damaged)? {
        newest = match piece {
            Piece::Record(record) => Ok(Some(to_message(&record, copied))),
            Piece::TooLarge { offset, bytes } => Err(too_large(offset, bytes, record_bytes_max)),
        };
    }
    newest
}

/// An answer while it is filled.
struct Answer {
    from: Offset,
    bytes_max: usize,
    record_bytes_max: usize,
    records: Vec<v1::Record>,
    bytes: usize,
    next_offset: Option<Offset>,
    /// The next record did not fit.
    full: bool,
}

impl Answer {
    fn new(from: Offset, bounds: &Bounds) -> Answer {
        Answer {
            from,
            bytes_max: bounds.bytes_max,
            record_bytes_max: bounds.record_bytes_max.max(bounds.bytes_max),
            records: Vec::new(),
            bytes: 0,
            next_offset: None,
            full: false,
        }
    }

    /// Without `compressed_too` it stops before a compressed batch, which must not be the first.
    fn fill(mut self, chunks: Vec<Bytes>, compressed_too: bool) -> Result<Decoded, ServiceError> {
        let mut batches = BatchStream::new(chunks);
        while !self.full && !batches.is_empty() {
            let header = match batches.peek_header() {
                Ok(header) => header,
                // What is good is handed out first; the next read meets the damage at its start.
                Err(_) if self.next_offset.is_some() => break,
                Err(error) => return Err(ServiceError::new(Reason::Corrupt, error.to_string())),
            };
            if !compressed_too && header.compression() != Compression::None {
                break;
            }
            let batch = batches.next_batch(&STORED);
            let taken = match batch {
                Ok(Some(batch)) => self.take(&batch),
                Ok(None) => break,
                Err(error) => Err(damaged(header.offsets(), &error)),
            };
            match taken {
                Ok(()) if self.full => {}
                Ok(()) => self.next_offset = Some(header.next_offset()),
                Err(_) if self.next_offset.is_some() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Decoded {
            records: self.records,
            next_offset: self.next_offset,
        })
    }

    /// Adds the records of a batch, as many as fit.
    fn take(&mut self, batch: &RecordBatch) -> Result<(), ServiceError> {
        if batch.header().is_control() {
            return Ok(());
        }
        let limits = Limits {
            decompressed_bytes_max: self.bytes_max.max(SHORT_BYTES),
            ..STORED
        };
        match batch.records(&limits) {
            Ok(records) => self.take_whole(&records),
            Err(DecodeError::TooLarge { .. }) => self.take_pieces(batch),
            Err(error) => Err(damaged(batch.header().offsets(), &error)),
        }
    }

    /// All of a batch that turns out to be damaged, or none.
    fn take_whole(&mut self, records: &comlog_record::Records) -> Result<(), ServiceError> {
        let encoded = records.encoded();
        let owned = |bytes: Option<&[u8]>| bytes.map(|bytes| encoded.slice_ref(bytes));
        let before = (self.records.len(), self.bytes, self.next_offset);
        for record in records {
            let pushed = match record {
                Ok(record) => self.push(&record, owned),
                Err(error) => Err(damaged(records.offsets(), &error)),
            };
            match pushed {
                Ok(()) if self.full => return Ok(()),
                Ok(()) => {}
                Err(error) => {
                    self.records.truncate(before.0);
                    (self.bytes, self.next_offset) = (before.1, before.2);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Record by record, up to what is damaged or too large.
    fn take_pieces(&mut self, batch: &RecordBatch) -> Result<(), ServiceError> {
        let limits = Limits {
            record_bytes_max: self.record_bytes_max,
            ..STORED
        };
        let end = batch.header().next_offset();
        let rest = |at: Offset, from: Offset| OffsetRange::new(at.max(from), end);
        let mut reader = batch
            .reader(&limits)
            .map_err(|error| damaged(batch.header().offsets(), &error))?;
        loop {
            let at = reader.next_offset();
            let pushed = match reader.next() {
                Ok(None) => return Ok(()),
                Ok(Some(Piece::Record(record))) => self.push(&record, copied),
                Ok(Some(Piece::TooLarge { offset, .. })) if offset < self.from => Ok(()),
                Ok(Some(Piece::TooLarge { offset, bytes })) => {
                    Err(too_large(offset, bytes, self.record_bytes_max))
                }
                Err(error) => Err(beyond(rest(at, self.from), &error)),
            };
            match pushed {
                Ok(()) if self.full => return Ok(()),
                Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Adds a record, or notes that the answer is full.
    ///
    /// # Errors
    /// It would be the first, and does not fit alone.
    #[inline]
    fn push(
        &mut self,
        record: &Record<'_>,
        owned: impl Fn(Option<&[u8]>) -> Option<Bytes>,
    ) -> Result<(), ServiceError> {
        if record.offset < self.from {
            return Ok(());
        }
        let bytes = message_len(record);
        if self.bytes + bytes > self.bytes_max && !self.records.is_empty() {
            self.full = true;
            return Ok(());
        }
        if bytes > self.record_bytes_max {
            return Err(too_large(
                record.offset,
                bytes as u64,
                self.record_bytes_max,
            ));
        }
        self.bytes += bytes;
        self.records.push(to_message(record, owned));
        self.next_offset = record.offset.checked_add(1);
        Ok(())
    }
}

/// At most so many bytes does a record take in a message.
fn message_len(record: &Record<'_>) -> usize {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = record
        .headers
        .map(|(name, value)| HEADER_OVERHEAD + name.len() + len(value));
    RECORD_OVERHEAD + len(record.key) + len(record.value) + headers.sum::<usize>()
}

#[inline]
fn to_message(record: &Record<'_>, owned: impl Fn(Option<&[u8]>) -> Option<Bytes>) -> v1::Record {
    let headers = record.headers.map(|(name, value)| v1::Header {
        name: String::from_utf8_lossy(name).into_owned(),
        value: owned(value),
    });
    v1::Record {
        key: owned(record.key),
        value: owned(record.value),
        headers: headers.collect(),
        timestamp_ms: Some(record.timestamp.0),
        offset: record.offset.0,
    }
}

fn copied(bytes: Option<&[u8]>) -> Option<Bytes> {
    bytes.map(Bytes::copy_from_slice)
}

fn damaged(offsets: OffsetRange, error: &DecodeError) -> ServiceError {
    let message = format!("the batch at offsets {offsets} is damaged: {error}");
    ServiceError {
        offset: Some(offsets.end.0),
        next_offset: Some(offsets.end.0),
        ..ServiceError::new(Reason::Corrupt, message)
    }
}

/// What is left of a batch cannot be read, because it is damaged or beyond a bound.
fn beyond(rest: OffsetRange, error: &DecodeError) -> ServiceError {
    if !matches!(error, DecodeError::TooLarge { .. }) {
        return damaged(rest, error);
    }
    let message = format!("the records at offsets {rest} cannot be unpacked: {error}");
    ServiceError {
        offset: Some(rest.start.0),
        next_offset: Some(rest.end.0),
        ..ServiceError::new(Reason::BatchTooLarge, message)
    }
}

fn too_large(offset: Offset, bytes: u64, bytes_max: usize) -> ServiceError {
    let message = format!(
        "the record at offset {offset} is larger than an answer may be: {bytes} bytes of {bytes_max} (max_bytes, fetch.fetch_bytes_max); go on at {}",
        offset.0.saturating_add(1)
    );
    ServiceError {
        offset: Some(offset.0),
        next_offset: offset.0.checked_add(1),
        ..ServiceError::new(Reason::BatchTooLarge, message)
    }
}

#[cfg(test)]
mod tests {
    use comlog_record::{BatchBuilder, Timestamp};

    use super::*;

    fn bounds(bytes_max: usize) -> Bounds {
        Bounds {
            bytes_max,
            record_bytes_max: 1_000,
            at_once: Arc::new(Semaphore::new(1)),
        }
    }

    fn batch(base: i64, values: &[&'static str]) -> Bytes {
        compressed(base, values, Compression::None)
    }

    fn compressed(base: i64, values: &[&'static str], compression: Compression) -> Bytes {
        let mut builder = BatchBuilder::new(Limits::DEFAULT);
        for value in values {
            let value = Some(value.as_bytes());
            builder
                .push(Timestamp(7), None, value, std::iter::empty())
                .expect("fits");
        }
        let mut batch = builder.build(compression, None).expect("builds");
        batch.assign(Offset(base), comlog_record::LeaderEpoch(0));
        batch.to_bytes()
    }

    fn values(decoded: &Decoded) -> Vec<(i64, &[u8])> {
        let pair = |record: &'_ v1::Record| record.offset;
        decoded
            .records
            .iter()
            .map(|record| (pair(record), record.value.as_deref().unwrap_or(b"?")))
            .collect()
    }

    #[tokio::test]
    async fn decoding_starts_exactly_at_the_offset_and_goes_over_gaps() {
        let chunks = vec![batch(10, &["a", "b", "c"]), batch(20, &["d"])];
        let decoded = decode(chunks, Offset(11), &bounds(1 << 20))
            .await
            .expect("decodes");
        let expected: [(i64, &[u8]); 3] = [(11, b"b"), (12, b"c"), (20, b"d")];
        assert_eq!(values(&decoded), expected);
        assert_eq!(decoded.next_offset, Some(Offset(21)));
    }

    #[tokio::test]
    async fn an_answer_ends_inside_a_batch_but_holds_one_record() {
        for codec in Compression::ALL {
            let long = "x".repeat(900);
            let long: &'static str = long.leak();
            let chunks = vec![
                compressed(0, &["a", long, long, "b"], codec),
                batch(4, &["c"]),
            ];
            let mut from = Offset(0);
            let mut lengths = Vec::new();
            while from < Offset(5) {
                let decoded = decode(chunks.clone(), from, &bounds(1)).await;
                let decoded = decoded.expect("decodes");
                assert_eq!(decoded.records.len(), 1, "{codec}");
                lengths.push(decoded.records[0].value.as_ref().map(Bytes::len));
                from = decoded.next_offset.expect("goes on");
            }
            assert_eq!(lengths, [1, 900, 900, 1, 1].map(Some), "{codec}");
            let decoded = decode(chunks, Offset(0), &bounds(1_000)).await;
            assert_eq!(decoded.expect("decodes").next_offset, Some(Offset(2)));
        }
    }

    #[tokio::test]
    async fn a_record_beyond_the_bound_is_named_and_stepped_over() {
        for codec in Compression::ALL {
            let long: &'static str = "x".repeat(1_000_000).leak();
            let chunks = vec![compressed(7, &["a", long, "b"], codec)];
            let decoded = decode(chunks.clone(), Offset(7), &bounds(100)).await;
            assert_eq!(decoded.expect("decodes").next_offset, Some(Offset(8)));
            let error = decode(chunks.clone(), Offset(8), &bounds(100)).await;
            let error = error.expect_err("too large");
            assert_eq!(error.reason, Reason::BatchTooLarge, "{codec}");
            assert_eq!((error.offset, error.next_offset), (Some(8), Some(9)));
            let decoded = decode(chunks.clone(), Offset(9), &bounds(100)).await;
            assert_eq!(values(&decoded.expect("decodes")), [(9, &b"b"[..])]);
            let newest = newest(chunks, &bounds(100)).await.expect("decodes");
            assert_eq!(newest.expect("one").offset, 9);
        }
    }

    #[tokio::test]
    async fn a_compressed_batch_behind_a_plain_one_comes_with_the_next_read() {
        let chunks = vec![
            batch(0, &["a"]),
            compressed(1, &["b"], Compression::Zstd),
            batch(2, &["c"]),
        ];
        let decoded = decode(chunks.clone(), Offset(0), &bounds(1 << 20))
            .await
            .expect("decodes");
        assert_eq!(
            (decoded.records.len(), decoded.next_offset),
            (1, Some(Offset(1)))
        );
        let decoded = decode(chunks[1..].to_vec(), Offset(1), &bounds(1 << 20))
            .await
            .expect("decodes");
        assert_eq!(
            (decoded.records.len(), decoded.next_offset),
            (2, Some(Offset(3)))
        );
    }

    #[tokio::test]
    async fn damage_is_named_and_what_is_before_it_is_handed_out() {
        let mut broken = batch(2, &["c"]).to_vec();
        let last = broken.len() - 1;
        broken[last] ^= 1;
        let chunks = vec![batch(0, &["a", "b"]), broken.into(), batch(3, &["d"])];
        let decoded = decode(chunks.clone(), Offset(0), &bounds(1 << 20))
            .await
            .expect("decodes");
        assert_eq!(
            (decoded.records.len(), decoded.next_offset),
            (2, Some(Offset(2)))
        );
        let mut length = chunks[1].to_vec();
        length[8] ^= 0x40;
        let headless = vec![chunks[0].clone(), length.into()];
        let decoded = decode(headless.clone(), Offset(0), &bounds(1 << 20))
            .await
            .expect("decodes");
        assert_eq!(decoded.next_offset, Some(Offset(2)));
        let error = decode(headless[1..].to_vec(), Offset(2), &bounds(1 << 20))
            .await
            .expect_err("damaged");
        assert_eq!(error.reason, Reason::Corrupt);
        let error = decode(chunks[1..].to_vec(), Offset(2), &bounds(1 << 20))
            .await
            .expect_err("damaged");
        assert_eq!((error.reason, error.offset), (Reason::Corrupt, Some(3)));
    }
}
