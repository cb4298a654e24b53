//! Structured records: encode a batch for callers without an encoder, decode for those without a decoder.

use bytes::Bytes;
use comlog_proto::v1::{self, Reason};
use comlog_record::{
    BatchBuilder, BatchStream, Compression, DecodeError, Limits, Offset, ProducerIds, RecordBatch,
    Timestamp,
};

use crate::status::ServiceError;
use crate::topic_config::unknown_value;

/// Stored batches are in memory already: their own length bounds them, not a topic's present limit.
const STORED: Limits = Limits {
    batch_bytes_max: i32::MAX as usize,
    ..Limits::DEFAULT
};

/// What is encoded or decoded on the executor's own threads: less than a millisecond's work.
const SHORT_RECORDS: usize = 1_000;
const SHORT_BYTES: usize = 64 << 10;

/// Encodes `records` as one batch; records without a timestamp get `now`.
///
/// Compresses on a thread where that may take long.
pub(crate) async fn encode(
    records: Vec<v1::Record>,
    now: Timestamp,
    limits: Limits,
    compression: Compression,
    producer: Option<ProducerIds>,
) -> Result<RecordBatch, ServiceError> {
    let short = compression == Compression::None && records.len() <= SHORT_RECORDS;
    let work = move || encode_now(&records, now, limits, compression, producer);
    if short {
        work()
    } else {
        on_a_thread(work).await
    }
}

fn encode_now(
    records: &[v1::Record],
    now: Timestamp,
    limits: Limits,
    compression: Compression,
    producer: Option<ProducerIds>,
) -> Result<RecordBatch, ServiceError> {
    let mut builder = BatchBuilder::new(limits);
    for record in records {
        let headers = record
            .headers
            .iter()
            .map(|header| (header.name.as_bytes(), header.value.as_deref()));
        builder.push(
            record.timestamp_ms.map_or(now, Timestamp),
            record.key.as_deref(),
            record.value.as_deref(),
            headers,
        )?;
    }
    Ok(builder.build(compression, producer)?)
}

pub(crate) fn compression(value: i32) -> Result<Compression, ServiceError> {
    match v1::Compression::try_from(value) {
        Ok(v1::Compression::None) => Ok(Compression::None),
        Ok(v1::Compression::Gzip) => Ok(Compression::Gzip),
        Ok(v1::Compression::Snappy) => Ok(Compression::Snappy),
        Ok(v1::Compression::Lz4) => Ok(Compression::Lz4),
        Ok(v1::Compression::Zstd) => Ok(Compression::Zstd),
        Err(_) => Err(unknown_value("compression", value)),
    }
}

pub(crate) fn producer_ids(
    producer: Option<v1::Producer>,
) -> Result<Option<ProducerIds>, ServiceError> {
    let Some(producer) = producer else {
        return Ok(None);
    };
    let epoch = i16::try_from(producer.epoch)
        .ok()
        .filter(|&epoch| epoch >= 0);
    match epoch {
        Some(producer_epoch) if producer.id >= 0 && producer.sequence >= 0 => {
            Ok(Some(ProducerIds {
                producer_id: producer.id,
                producer_epoch,
                base_sequence: producer.sequence,
            }))
        }
        _ => Err(ServiceError::invalid(
            "producer: id and sequence must be at least 0, epoch 0 to 32767",
        )),
    }
}

/// Records decoded from batches.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) records: Vec<v1::Record>,
    /// Behind the last batch that was decoded; `None` when there was none.
    pub(crate) next_offset: Option<Offset>,
}

/// Decodes the records at or behind `from`, stopping after the batch that brings them to
/// `bytes_max`; control batches are passed over.
///
/// # Errors
/// The first batch with a record behind `from` is damaged: the offset behind it is in the error.
pub(crate) async fn decode(
    chunks: Vec<Bytes>,
    from: Offset,
    bytes_max: usize,
) -> Result<Decoded, ServiceError> {
    if chunks.is_empty() {
        return Ok(Decoded::default());
    }
    let len: usize = chunks.iter().map(Bytes::len).sum();
    let plain = BatchStream::new(chunks.iter().cloned())
        .peek_header()
        .is_ok_and(|header| header.compression() == Compression::None);
    if plain && len <= SHORT_BYTES {
        return decode_now(chunks, from, bytes_max, false);
    }
    on_a_thread(move || decode_now(chunks, from, bytes_max, true)).await
}

/// Without `compressed_too` it stops before a compressed batch, which must not be the first.
fn decode_now(
    chunks: Vec<Bytes>,
    from: Offset,
    bytes_max: usize,
    compressed_too: bool,
) -> Result<Decoded, ServiceError> {
    let mut batches = BatchStream::new(chunks);
    let mut decoded = Decoded::default();
    let mut bytes = 0;
    while bytes < bytes_max && !batches.is_empty() {
        let header = match batches.peek_header() {
            Ok(header) => header,
            // What is good is handed out first; the next read meets the damage at its start.
            Err(_) if decoded.next_offset.is_some() => break,
            Err(error) => return Err(ServiceError::new(Reason::Corrupt, error.to_string())),
        };
        if !compressed_too && header.compression() != Compression::None {
            break;
        }
        let good = decoded.records.len();
        let batch = batches.next_batch(&STORED);
        match batch.and_then(|batch| push_records(batch.as_ref(), from, &mut decoded.records)) {
            Ok(pushed) => bytes += pushed,
            Err(_) if decoded.next_offset.is_some() => {
                decoded.records.truncate(good);
                break;
            }
            Err(error) => return Err(damaged(header.offsets(), &error)),
        }
        decoded.next_offset = Some(header.next_offset());
    }
    Ok(decoded)
}

/// Adds the records of a batch and returns their bytes.
fn push_records(
    batch: Option<&RecordBatch>,
    from: Offset,
    out: &mut Vec<v1::Record>,
) -> Result<usize, DecodeError> {
    let Some(batch) = batch.filter(|batch| !batch.header().is_control()) else {
        return Ok(0);
    };
    let records = batch.records(&STORED)?;
    let encoded = records.encoded();
    let owned = |bytes: Option<&[u8]>| bytes.map(|bytes| encoded.slice_ref(bytes));
    for record in &records {
        let record = record?;
        if record.offset < from {
            continue;
        }
        let headers = record.headers.map(|(name, value)| v1::Header {
            name: String::from_utf8_lossy(name).into_owned(),
            value: owned(value),
        });
        out.push(v1::Record {
            key: owned(record.key),
            value: owned(record.value),
            headers: headers.collect(),
            timestamp_ms: Some(record.timestamp.0),
            offset: record.offset.0,
        });
    }
    Ok(encoded.len())
}

fn damaged(offsets: comlog_record::OffsetRange, error: &DecodeError) -> ServiceError {
    let message = format!("the batch at offsets {offsets} is damaged: {error}");
    ServiceError {
        offset: Some(offsets.end.0),
        ..ServiceError::new(Reason::Corrupt, message)
    }
}

/// Runs what may take long off the executor.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(ServiceError::internal(
            "encoding or decoding records failed",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let decoded = decode(chunks, Offset(11), 1 << 20).await.expect("decodes");
        let expected: [(i64, &[u8]); 3] = [(11, b"b"), (12, b"c"), (20, b"d")];
        assert_eq!(values(&decoded), expected);
        assert_eq!(decoded.next_offset, Some(Offset(21)));
    }

    #[tokio::test]
    async fn decoding_stops_at_the_bound_but_gives_one_batch() {
        let chunks = vec![batch(0, &["a", "b"]), batch(2, &["c"])];
        let decoded = decode(chunks, Offset(0), 1).await.expect("decodes");
        assert_eq!(decoded.records.len(), 2);
        assert_eq!(decoded.next_offset, Some(Offset(2)));
    }

    #[tokio::test]
    async fn a_compressed_batch_behind_a_plain_one_comes_with_the_next_read() {
        let chunks = vec![
            batch(0, &["a"]),
            compressed(1, &["b"], Compression::Zstd),
            batch(2, &["c"]),
        ];
        let decoded = decode(chunks.clone(), Offset(0), 1 << 20)
            .await
            .expect("decodes");
        assert_eq!(
            (decoded.records.len(), decoded.next_offset),
            (1, Some(Offset(1)))
        );
        let decoded = decode(chunks[1..].to_vec(), Offset(1), 1 << 20)
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
        let decoded = decode(chunks.clone(), Offset(0), 1 << 20)
            .await
            .expect("decodes");
        assert_eq!(
            (decoded.records.len(), decoded.next_offset),
            (2, Some(Offset(2)))
        );
        let mut length = chunks[1].to_vec();
        length[8] ^= 0x40;
        let headless = vec![chunks[0].clone(), length.into()];
        let decoded = decode(headless.clone(), Offset(0), 1 << 20)
            .await
            .expect("decodes");
        assert_eq!(decoded.next_offset, Some(Offset(2)));
        let error = decode(headless[1..].to_vec(), Offset(2), 1 << 20)
            .await
            .expect_err("damaged");
        assert_eq!(error.reason, Reason::Corrupt);
        let error = decode(chunks[1..].to_vec(), Offset(2), 1 << 20)
            .await
            .expect_err("damaged");
        assert_eq!((error.reason, error.offset), (Reason::Corrupt, Some(3)));
    }
}
