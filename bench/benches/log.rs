//! Appending to a log and reading it, in memory and on the disk below the target directory; no sync.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use comlog_bench::{NOW, Result, Values, append, open};
use comlog_log::LogConfig;
use comlog_record::{Compression, Offset};
use comlog_storage::{DataDir, DiskOptions, MemoryStorage, Storage};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Records of a batch: one, and as many as a busy producer gathers.
const BATCHES: [usize; 2] = [1, 1_000];
/// A log is given up once it holds this much, so that neither memory nor disk runs full.
const LOG_BYTES: usize = 256 << 20;
const READ_BATCHES: i64 = 1_000;
const READ_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Copy)]
enum Home {
    Memory,
    Disk,
}

impl Home {
    fn name(self) -> &'static str {
        match self {
            Home::Memory => "memory",
            Home::Disk => "disk",
        }
    }

    /// An empty storage, and the directory that it needs.
    fn storage(self) -> Result<(Arc<dyn Storage>, Option<TempDir>)> {
        match self {
            Home::Memory => Ok((Arc::new(MemoryStorage::new()), None)),
            Home::Disk => {
                let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
                let data = DataDir::open(dir.path(), DiskOptions::default())?;
                Ok((data.storage("log")?, Some(dir)))
            }
        }
    }
}

/// How long `count` appends of `batch` take.
async fn appends(home: Home, batch: &Bytes, count: u64) -> Result<Duration> {
    let per_log = (LOG_BYTES / batch.len()) as u64;
    let (mut left, mut took) = (count, Duration::ZERO);
    while left > 0 {
        let turns = left.min(per_log);
        let (storage, _dir) = home.storage()?;
        let mut log = open(storage, LogConfig::default()).await?;
        let started = Instant::now();
        for _ in 0..turns {
            black_box(append(&mut log, batch.clone()).await?);
        }
        took += started.elapsed();
        log.close().await?;
        left -= turns;
    }
    Ok(took)
}

fn appending(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let mut group = criterion.benchmark_group("append");
    for home in [Home::Memory, Home::Disk] {
        for records in BATCHES {
            let batch = Values::new(records, 100).encode(NOW, Compression::None);
            let batch = batch.expect("they fit");
            group.throughput(Throughput::Elements(records as u64));
            group.bench_function(BenchmarkId::new(home.name(), records), |bencher| {
                bencher.iter_custom(|count| {
                    let took = runtime.block_on(appends(home, &batch, count));
                    took.expect("the log takes them")
                });
            });
        }
    }
    group.finish();
}

/// Reads in chunks of up to 1 MiB, as a fetch does, from the recent tail and from sealed segments.
fn reading(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let batch = Values::new(1_000, 100).encode(NOW, Compression::None);
    let batch = batch.expect("they fit");
    let mut group = criterion.benchmark_group("read 1 MiB");
    group.throughput(Throughput::Bytes(READ_BYTES as u64));
    for (name, home, sealed) in [
        ("memory", Home::Memory, false),
        ("disk, active segment", Home::Disk, false),
        ("disk, sealed segment", Home::Disk, true),
    ] {
        let (storage, _dir) = home.storage().expect("the disk has room");
        let log = runtime
            .block_on(filled(storage, &batch, sealed))
            .expect("the log takes them");
        let reader = log.reader();
        group.bench_function(name, |bencher| {
            let mut from = Offset::ZERO;
            bencher.iter(|| {
                let fetched = runtime.block_on(reader.read(from, READ_BYTES));
                let fetched = fetched.expect("it was just written");
                let end = fetched.offsets.end;
                from = if end.0 < READ_BATCHES * 1_000 {
                    end
                } else {
                    Offset::ZERO
                };
                fetched
            });
        });
    }
    group.finish();
}

async fn filled(storage: Arc<dyn Storage>, batch: &Bytes, sealed: bool) -> Result<comlog_log::Log> {
    let mut log = open(storage, LogConfig::default()).await?;
    for _ in 0..READ_BATCHES {
        append(&mut log, batch.clone()).await?;
    }
    if sealed {
        log.roll().await?;
    }
    Ok(log)
}

criterion_group!(benches, appending, reading);
criterion_main!(benches);
