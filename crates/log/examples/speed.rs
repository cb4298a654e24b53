//! What appending, reading and opening a log on the local disk cost, without a server.
//!
//! `cargo run --release -p comlog-log --example speed -- DIR [CASE [SHARE]]`: DIR is emptied of what
//! an earlier run left there; CASE is a part of the names of the cases to run. Prints the median of
//! the rounds and their range; nothing else should run on the machine meanwhile. With a SHARE only
//! one in so many turns is taken, in one round: to see that it works.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use comlog_log::{AppendRequest, Durability, Log, LogConfig, ManualClock};
use comlog_record::{
    BatchBuilder, Compression, EncodeError, Limits, Offset, RecordBatch, Timestamp,
};
use comlog_storage::{DataDir, DiskOptions, Storage, segment_name};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Only one in so many turns is taken.
static SHARE: AtomicUsize = AtomicUsize::new(1);
const ROUNDS: usize = 9;
const BATCH_RECORDS: usize = 100;
/// Records of the log that is read from.
const READ_RECORDS: i64 = 8_000;
const SEGMENTS: i64 = 2_000;
const SEGMENT_BYTES: u64 = 16 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: speed DIR [CASE]")?).join("comlog-speed");
    let wanted = args.next().unwrap_or_default();
    if let Some(share) = args.next() {
        SHARE.store(share.parse::<usize>()?.max(1), Ordering::Relaxed);
    }
    for record_bytes in [10, 50, 200] {
        let name = format!("encode-{record_bytes}");
        if name.contains(&wanted) {
            report(&name, rounds(|| encode(record_bytes))?);
        }
        let name = format!("append-{record_bytes}");
        if name.contains(&wanted) {
            let mut found = Vec::new();
            for _ in 0..round_count() {
                found.push(append(&dir, record_bytes).await?);
            }
            report(&name, found);
        }
    }
    if "decode-100".contains(&wanted) {
        report("decode-100", rounds(decode)?);
    }
    if "read".contains(&wanted) {
        report("read", random_reads(&dir).await?);
    }
    if "append-and-read-back".contains(&wanted) {
        report("append-and-read-back", append_and_read_back(&dir).await?);
    }
    if "open".contains(&wanted) {
        for segments in [2, SEGMENTS] {
            let name = format!("open with {segments} segments");
            report(&name, open(&dir, segments).await?);
        }
    }
    for record_bytes in [100, 1024] {
        let name = format!("disk-bytes-{record_bytes}");
        if name.contains(&wanted) {
            let ratio = disk_bytes(&dir, record_bytes).await?;
            println!("{name:28} {ratio:12.3} bytes written per encoded byte");
        }
    }
    let _ = fs::remove_dir_all(&dir);
    Ok(())
}

/// How many turns are taken instead of `whole`.
fn turns(whole: usize) -> usize {
    (whole / SHARE.load(Ordering::Relaxed)).max(1)
}

fn round_count() -> usize {
    if SHARE.load(Ordering::Relaxed) == 1 {
        ROUNDS
    } else {
        1
    }
}

fn rounds(round: impl Fn() -> Result<f64>) -> Result<Vec<f64>> {
    (0..round_count()).map(|_| round()).collect()
}

/// Prints nanoseconds: the median, the smallest and the largest.
fn report(name: &str, mut nanos: Vec<f64>) {
    nanos.sort_unstable_by(f64::total_cmp);
    let (low, median, high) = (nanos[0], nanos[nanos.len() / 2], nanos[nanos.len() - 1]);
    println!("{name:28} {median:12.1} ns ({low:.1} to {high:.1})");
}

fn per(elapsed: Duration, count: usize) -> f64 {
    elapsed.as_nanos() as f64 / count as f64
}

/// What an application does to get a batch: no keys, no headers.
fn batch(record_bytes: usize, records: usize) -> Result<RecordBatch, EncodeError> {
    let value = [b'x'; 1024];
    let room = 64 + records * (record_bytes + 12);
    let mut builder = BatchBuilder::with_capacity(Limits::DEFAULT, room);
    for at in 0..records {
        let time = Timestamp(1_700_000_000_000 + at as i64 / 10);
        let value = black_box(&value[..record_bytes]);
        builder.push(time, None, Some(value), std::iter::empty())?;
    }
    builder.build(Compression::None, None)
}

fn encode(record_bytes: usize) -> Result<f64> {
    let batches = turns(10_000);
    let began = Instant::now();
    for _ in 0..batches {
        black_box(batch(record_bytes, BATCH_RECORDS)?);
    }
    Ok(per(began.elapsed(), batches * BATCH_RECORDS))
}

fn decode() -> Result<f64> {
    let encoded = batch(100, 1_000)?.to_bytes();
    let turns = turns(300);
    let began = Instant::now();
    for _ in 0..turns {
        let batch = RecordBatch::decode(&mut encoded.clone(), &Limits::DEFAULT)?;
        for record in &batch.records(&Limits::DEFAULT)? {
            black_box(record?);
        }
    }
    Ok(per(began.elapsed(), turns * 1_000))
}

fn fresh(dir: &Path) -> Result<Arc<dyn Storage>> {
    let _ = fs::remove_dir_all(dir);
    reopened(dir)
}

fn reopened(dir: &Path) -> Result<Arc<dyn Storage>> {
    Ok(DataDir::open(dir, DiskOptions::default())?.storage("log")?)
}

async fn open_log(storage: Arc<dyn Storage>) -> Result<Log> {
    let config = LogConfig {
        durability: Durability::Memory,
        ..LogConfig::default()
    };
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
    Ok(Log::open(storage, config, clock).await?.0)
}

async fn append_one(log: &mut Log, batch: RecordBatch) -> Result<Offset> {
    let answers = log.append(vec![AppendRequest::new(batch)]).await;
    let appended = answers.into_iter().next().ok_or("no answer")??;
    Ok(appended.offsets.start)
}

async fn append(dir: &Path, record_bytes: usize) -> Result<f64> {
    let mut log = open_log(fresh(dir)?).await?;
    let batches = turns(5_000);
    let began = Instant::now();
    for _ in 0..batches {
        append_one(&mut log, batch(record_bytes, BATCH_RECORDS)?).await?;
    }
    let elapsed = began.elapsed();
    log.close().await?;
    Ok(per(elapsed, batches * BATCH_RECORDS))
}

/// Offsets as a linear congruential generator throws them.
fn offsets(end: i64) -> impl Iterator<Item = Offset> {
    let mut state = 42_u64;
    std::iter::from_fn(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        Some(Offset(((state >> 33) % end as u64) as i64))
    })
}

async fn random_reads(dir: &Path) -> Result<Vec<f64>> {
    let mut log = open_log(fresh(dir)?).await?;
    for _ in 0..READ_RECORDS as usize / BATCH_RECORDS {
        append_one(&mut log, batch(10, BATCH_RECORDS)?).await?;
    }
    let reader = log.reader();
    let turns = turns(200_000);
    let mut found = Vec::new();
    for _ in 0..round_count() {
        let began = Instant::now();
        for offset in offsets(READ_RECORDS).take(turns) {
            black_box(read_one(&reader, offset)?);
        }
        found.push(per(began.elapsed(), turns));
    }
    log.close().await?;
    Ok(found)
}

/// Reads the batch, checks it, and finds the record's value.
fn read_one(reader: &comlog_log::LogReader, offset: Offset) -> Result<usize> {
    let fetched = reader.try_read(offset, 1)?.ok_or("not at hand")?;
    let mut chunks = fetched.chunks.into_iter();
    let mut chunk = chunks.next().ok_or("nothing read")?;
    let batch = RecordBatch::decode(&mut chunk, &Limits::DEFAULT)?;
    let records = batch.records(&Limits::DEFAULT)?;
    let record = records.get(offset)?.ok_or("no such record")?;
    Ok(record.value.map_or(0, <[u8]>::len))
}

async fn append_and_read_back(dir: &Path) -> Result<Vec<f64>> {
    let mut log = open_log(fresh(dir)?).await?;
    let reader = log.reader();
    let turns = turns(20_000);
    let mut found = Vec::new();
    for _ in 0..round_count() {
        let began = Instant::now();
        for _ in 0..turns {
            let offset = append_one(&mut log, batch(10, 1)?).await?;
            black_box(read_one(&reader, offset)?);
        }
        found.push(per(began.elapsed(), turns));
    }
    log.close().await?;
    Ok(found)
}

/// Opens a data directory whose sealed segments are sparse files: nothing of them may be read.
async fn open(dir: &Path, segments: i64) -> Result<Vec<f64>> {
    let mut log = open_log(fresh(dir)?).await?;
    for _ in 0..segments {
        append_one(&mut log, batch(10, BATCH_RECORDS)?).await?;
        log.roll().await?;
    }
    log.close().await?;
    for segment in 0..segments {
        let name = segment_name(Offset(segment * BATCH_RECORDS as i64));
        let file = fs::OpenOptions::new()
            .write(true)
            .open(dir.join("log").join(name))?;
        file.set_len(SEGMENT_BYTES)?;
    }
    let mut found = Vec::new();
    for _ in 0..round_count() {
        let began = Instant::now();
        let mut log = open_log(reopened(dir)?).await?;
        found.push(began.elapsed().as_nanos() as f64);
        append_one(&mut log, batch(10, 1)?).await?;
        drop(log); // a crash
    }
    Ok(found)
}

/// What this process made the kernel write for each encoded byte, with a sync for each batch of
/// 1,000 records and with what rolling and checkpoints add. A file system's own journal is not in
/// it: look at the device's counters for that.
async fn disk_bytes(dir: &Path, record_bytes: usize) -> Result<f64> {
    let mut log = open_log(fresh(dir)?).await?;
    log.set_config(LogConfig::default()).await?;
    let (mut encoded, before) = (0, written_bytes()?);
    while encoded < 2 * log.config().segment_bytes_max {
        let batch = batch(record_bytes, 1_000)?;
        encoded += batch.total_len() as u64;
        append_one(&mut log, batch).await?;
    }
    log.close().await?;
    Ok((written_bytes()? - before) as f64 / encoded as f64)
}

/// Bytes that this process has caused to be written to a disk.
fn written_bytes() -> Result<u64> {
    let counters = fs::read_to_string("/proc/self/io")?;
    let line = counters
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes in /proc/self/io")?.parse()?)
}
