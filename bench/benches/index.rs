//! Finding a record among many by its offset, and by its time: the sparse indexes of a log in memory
//! with 64 sealed segments of 1 MiB.

use std::sync::Arc;

use comlog_bench::{NOW, Result, Values, append, open};
use comlog_log::{Log, LogConfig};
use comlog_record::{Compression, Offset, Timestamp};
use comlog_storage::MemoryStorage;
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const SEGMENTS: usize = 64;
const SEGMENT_BYTES: u64 = 1 << 20;
const BATCH_RECORDS: i64 = 10;
/// From one batch to the next, in milliseconds.
const STEP: i64 = 1_000;

async fn filled() -> Result<Log> {
    let config = LogConfig {
        segment_bytes_max: SEGMENT_BYTES,
        ..LogConfig::default()
    };
    let mut log = open(Arc::new(MemoryStorage::new()), config).await?;
    let values = Values::new(BATCH_RECORDS as usize, 100);
    let mut start = NOW;
    while log.reader().segments().len() <= SEGMENTS {
        append(&mut log, values.encode(start, Compression::None)?).await?;
        start = Timestamp(start.0 + STEP);
    }
    Ok(log)
}

/// Batches as a linear congruential generator throws them.
fn batches(count: i64) -> impl Iterator<Item = i64> {
    let mut state = 42_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as i64 % count
    })
}

fn lookups(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let log = runtime.block_on(filled()).expect("the log takes them");
    let reader = log.reader();
    let count = log.positions().end.0 / BATCH_RECORDS;
    let mut group = criterion.benchmark_group("lookup");
    group.bench_function("by offset", |bencher| {
        let mut batches = batches(count);
        bencher.iter(|| {
            let batch = batches.next().unwrap_or_default();
            let fetched = reader.try_read(Offset(batch * BATCH_RECORDS), 1);
            fetched.expect("it is in the log").expect("it is in memory")
        });
    });
    group.bench_function("by time", |bencher| {
        let mut batches = batches(count);
        bencher.iter(|| {
            let batch = batches.next().unwrap_or_default();
            let time = Timestamp(NOW.0 + batch * STEP);
            let found = runtime.block_on(reader.offset_for_timestamp(time));
            found.expect("it is in the log").expect("it is that old")
        });
    });
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
