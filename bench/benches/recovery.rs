//! Opening a log on the disk after a crash that left no checkpoint: all its batches are scanned and
//! checked.

use std::path::Path;
use std::sync::Arc;

use comlog_bench::{NOW, Result, Values, append, open};
use comlog_log::{CHECKPOINT_BLOB, Log, LogConfig};
use comlog_record::Compression;
use comlog_storage::{DataDir, DiskOptions, Storage};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const BATCHES: [u64; 2] = [100, 10_000];

/// Leaves a log of so many batches of ten records, as a crash does.
async fn crashed(dir: &Path, batches: u64) -> Result<u64> {
    let mut log = open(storage(dir)?, LogConfig::default()).await?;
    let batch = Values::new(10, 100).encode(NOW, Compression::None)?;
    for _ in 0..batches {
        append(&mut log, batch.clone()).await?;
    }
    Ok(batch.len() as u64 * batches)
}

fn storage(dir: &Path) -> Result<Arc<dyn Storage>> {
    Ok(DataDir::open(dir, DiskOptions::default())?.storage("log")?)
}

/// The storage without what an earlier opening has noted.
async fn unknown(dir: &Path) -> Result<Arc<dyn Storage>> {
    let storage = storage(dir)?;
    storage.remove_blob(CHECKPOINT_BLOB).await?;
    Ok(storage)
}

async fn recover(storage: Arc<dyn Storage>, batches: u64) -> Result<Log> {
    let log = open(storage, LogConfig::default()).await?;
    let end = log.positions().end.0;
    if end != batches as i64 * 10 {
        return Err(format!("the log ends at {end}").into());
    }
    Ok(log)
}

fn recovery(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(20);
    for batches in BATCHES {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the disk has room");
        let bytes = runtime.block_on(crashed(dir.path(), batches));
        group.throughput(Throughput::Bytes(bytes.expect("the log takes them")));
        group.bench_function(BenchmarkId::from_parameter(batches), |bencher| {
            bencher.iter_batched(
                || {
                    runtime
                        .block_on(unknown(dir.path()))
                        .expect("it closed before")
                },
                |storage| {
                    let recovered = runtime.block_on(recover(storage, batches));
                    recovered.expect("nothing is damaged")
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
