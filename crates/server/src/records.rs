//! Structured records: encode a batch for callers without an encoder.

use comlog_proto::v1;
use comlog_record::{BatchBuilder, Compression, Limits, ProducerIds, RecordBatch, Timestamp};

use crate::status::ServiceError;
use crate::topic_config::unknown_value;

/// What is encoded on the executor's own threads: less than a millisecond's work.
const SHORT_RECORDS: usize = 1_000;

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

/// Runs what may take long off the executor.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(ServiceError::internal(
            "encoding or decoding records failed",
        ))
    })
}
