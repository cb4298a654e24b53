//! What the tests share: batches, a log on some storage, and what is in it.

use std::sync::Arc;

use comlog_log::{
    AppendRequest, Appended, Clock, Log, LogConfig, LogReader, ManualClock, RecoveryReport,
};
use comlog_record::{
    BatchBuilder, BatchStream, Compression, Limits, Offset, ProducerIds, RecordBatch, Timestamp,
};
use comlog_storage::{MemoryStorage, Storage};

/// A test of a future: in JavaScript's event loop on wasm32, else in a runtime of tokio.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use tokio::test as async_test;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm_bindgen_test::wasm_bindgen_test as async_test;

/// A test that waits for nothing.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use std::prelude::v1::test as sync_test;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm_bindgen_test::wasm_bindgen_test as sync_test;

/// A batch with one record for each value, at `timestamp`.
pub(crate) fn batch_at(timestamp: i64, values: &[&str]) -> RecordBatch {
    build(timestamp, values, None)
}

/// A batch with one record for each value.
pub(crate) fn batch(values: &[&str]) -> RecordBatch {
    batch_at(1_000, values)
}

/// A batch of an idempotent producer.
pub(crate) fn batch_of(producer: (i64, i16, i32), values: &[&str]) -> RecordBatch {
    let (producer_id, producer_epoch, base_sequence) = producer;
    let ids = ProducerIds {
        producer_id,
        producer_epoch,
        base_sequence,
    };
    build(1_000, values, Some(ids))
}

fn build(timestamp: i64, values: &[&str], producer: Option<ProducerIds>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Limits::DEFAULT);
    for value in values {
        builder
            .push(
                Timestamp(timestamp),
                None,
                Some(value.as_bytes()),
                std::iter::empty(),
            )
            .unwrap();
    }
    builder.build(Compression::None, producer).unwrap()
}

pub(crate) fn request(batch: RecordBatch) -> AppendRequest {
    AppendRequest::new(batch)
}

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp(1_000)))
}

/// A configuration that rolls often and indexes densely.
pub(crate) fn small() -> LogConfig {
    LogConfig {
        segment_bytes_max: 600,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

pub(crate) async fn open(storage: &Arc<dyn Storage>, config: LogConfig) -> (Log, RecoveryReport) {
    open_with(storage, config, clock()).await
}

pub(crate) async fn open_with(
    storage: &Arc<dyn Storage>,
    config: LogConfig,
    clock: Arc<dyn Clock>,
) -> (Log, RecoveryReport) {
    Log::open(Arc::clone(storage), config, clock).await.unwrap()
}

pub(crate) fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

/// Appends one batch, which must succeed.
pub(crate) async fn append(log: &mut Log, batch: RecordBatch) -> Appended {
    let mut answers = log.append(vec![request(batch)]).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0).unwrap()
}

/// Every visible record from `from` on: offset and value.
pub(crate) async fn records_from(
    reader: &LogReader,
    from: i64,
    max_bytes: usize,
) -> Vec<(i64, String)> {
    let mut records = Vec::new();
    let mut from = Offset(from);
    loop {
        let fetched = reader.read(from, max_bytes).await.unwrap();
        if fetched.chunks.is_empty() {
            return records;
        }
        assert_eq!(
            fetched.len,
            fetched.chunks.iter().map(bytes::Bytes::len).sum::<usize>()
        );
        assert!(fetched.offsets.end > from, "a read must lead on");
        let end = fetched.offsets.end;
        let mut batches = BatchStream::new(fetched.chunks);
        let mut expected = fetched.offsets.start;
        while let Some(batch) = batches.next_batch(&Limits::DEFAULT).unwrap() {
            assert_eq!(batch.header().base_offset, expected);
            expected = batch.header().next_offset();
            for record in &batch.records(&Limits::DEFAULT).unwrap() {
                let record = record.unwrap();
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                records.push((record.offset.0, value));
            }
        }
        assert_eq!(expected, end);
        from = end;
    }
}

/// Every visible record.
pub(crate) async fn records(reader: &LogReader) -> Vec<(i64, String)> {
    let start = reader.positions().start.0;
    records_from(reader, start, 1 << 20).await
}

/// The values `from..to`, as [`append_numbers`] writes them: record `n` holds `n`.
pub(crate) fn numbers(from: i64, to: i64) -> Vec<(i64, String)> {
    (from..to).map(|n| (n, n.to_string())).collect()
}

/// Appends records that hold their own offset, `per_batch` a batch, until the log ends at `end`.
pub(crate) async fn append_numbers(log: &mut Log, end: i64, per_batch: i64) {
    loop {
        let from = log.positions().end.0;
        if from >= end {
            return;
        }
        let values: Vec<String> = (from..end.min(from + per_batch))
            .map(|n| n.to_string())
            .collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        append(log, batch(&values)).await;
    }
}

/// A segment's bytes, allocated zeros included.
pub(crate) async fn content(storage: &Arc<dyn Storage>, base: i64) -> Vec<u8> {
    let reader = storage.open(Offset(base)).await.unwrap();
    reader.read(0..reader.len()).await.unwrap().concat()
}

/// The base offset of the last segment.
pub(crate) async fn last_base(storage: &Arc<dyn Storage>) -> i64 {
    storage.list().await.unwrap().last().unwrap().base_offset.0
}

/// A copy of `storage` in which the segment at `base` holds `content`.
pub(crate) async fn with_content(
    storage: &Arc<dyn Storage>,
    base: i64,
    content: &[u8],
) -> Arc<dyn Storage> {
    let copy = memory();
    for segment in storage.list().await.unwrap() {
        let bytes = if segment.base_offset.0 == base {
            content.to_vec()
        } else {
            self::content(storage, segment.base_offset.0).await
        };
        let mut writer = copy.create(segment.base_offset, 0).await.unwrap();
        writer.append(&[bytes.into()]).await.unwrap();
    }
    for name in storage.list_blobs().await.unwrap() {
        let blob = storage.read_blob(&name).await.unwrap().unwrap();
        copy.write_blob(&name, blob).await.unwrap();
    }
    copy
}

/// Where each batch of a segment starts, and where the last one ends.
pub(crate) fn boundaries(content: &[u8]) -> Vec<usize> {
    let mut at = vec![0];
    let mut batches = BatchStream::new([bytes::Bytes::copy_from_slice(content)]);
    while let Ok(Some(_)) = batches.next_batch(&Limits::DEFAULT) {
        at.push(content.len() - batches.len());
    }
    at
}

/// Limits so small that a group is about one batch.
pub(crate) fn small_groups() -> LogConfig {
    LogConfig {
        group_bytes_max: 1,
        limits: Limits {
            batch_bytes_max: 200,
            ..Limits::DEFAULT
        },
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}
