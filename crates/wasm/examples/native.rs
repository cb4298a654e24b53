//! The work of `web/packages/comlog/bench/work.mjs` by the same core, natively: prints JSON.
//!
//! `cargo run --release -p comlog-wasm --example native`

use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use comlog_log::{
    AppendRequest, Log, LogConfig, LogReader, ManualClock, SegmentItem, SegmentPlace, SegmentScan,
};
use comlog_record::{
    BatchBuilder, BatchStream, Compression, Limits, Offset, RecordBatch, Timestamp,
};
use comlog_storage::{MemoryStorage, Storage};

const RECORDS: i64 = 1_000_000;
const VALUE: [u8; 100] = [b'x'; 100];
const BATCH_RECORDS: i64 = 1_000;
const SINGLES: i64 = 100_000;
const ROUNDS: usize = 5;
const READ_BYTES: usize = 1 << 20;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let rounds = (0..ROUNDS).map(|_| round()).collect::<Result<Vec<_>>>()?;
    let names = [
        "append",
        "read",
        "readBatches",
        "appendOne",
        "appendBatches",
        "segment",
    ];
    let medians = names.iter().enumerate().map(|(at, name)| {
        let mut speeds: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
        speeds.sort_by(f64::total_cmp);
        format!("    \"{name}\": {:.0}", speeds[ROUNDS / 2])
    });
    println!(
        "{{\n  \"runtime\": \"native\",\n  \"records\": {RECORDS},\n  \"recordBytes\": {},\n  \
         \"batchRecords\": {BATCH_RECORDS},\n  \"rounds\": {ROUNDS},\n  \"recordsPerSecond\": {{\n{}\n  }}\n}}",
        VALUE.len(),
        medians.collect::<Vec<_>>().join(",\n")
    );
    Ok(())
}

fn round() -> Result<[f64; 6]> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut log = open(&storage)?;
    let append = timed(RECORDS, || append(&mut log, RECORDS, BATCH_RECORDS))?;
    let reader = log.reader();
    let read = timed(RECORDS, || read(&reader))?;
    let mut encoded = Vec::new();
    let read_batches = timed(RECORDS, || read_batches(&reader, &mut encoded))?;
    let segment = at_once(storage.open(Offset::ZERO))??;
    let mut other = open(&(Arc::new(MemoryStorage::new()) as Arc<dyn Storage>))?;
    let append_one = timed(SINGLES, || self::append(&mut other, SINGLES, 1))?;
    let mut copy = open(&(Arc::new(MemoryStorage::new()) as Arc<dyn Storage>))?;
    let append_batches = timed(RECORDS, || append_batches(&mut copy, encoded))?;
    let scan = timed(RECORDS, || {
        let mut scan = SegmentScan::new(&*segment, SegmentPlace::default(), Limits::DEFAULT);
        let mut count = 0;
        while let Some(item) = at_once(scan.next_item())?? {
            if let SegmentItem::Batch { batch, .. } = item {
                count += batch.records(&Limits::DEFAULT)?.iter().count();
            }
        }
        check(count as i64 == RECORDS)
    })?;
    Ok([append, read, read_batches, append_one, append_batches, scan])
}

fn open(storage: &Arc<dyn Storage>) -> Result<Log> {
    let config = LogConfig {
        segment_bytes_max: 256 << 20,
        checkpoint_bytes: u64::MAX,
        ..LogConfig::default()
    };
    let clock = Arc::new(ManualClock::new(Timestamp(1)));
    Ok(at_once(Log::open(Arc::clone(storage), config, clock))??.0)
}

fn append(log: &mut Log, records: i64, per_batch: i64) -> Result<()> {
    for _ in 0..records / per_batch {
        let mut builder = BatchBuilder::new(Limits::DEFAULT);
        for _ in 0..per_batch {
            builder.push(Timestamp(1), None, Some(&VALUE), std::iter::empty())?;
        }
        append_batch(log, builder.build(Compression::None, None)?)?;
    }
    Ok(())
}

fn append_batch(log: &mut Log, batch: RecordBatch) -> Result<()> {
    at_once(log.append(vec![AppendRequest::new(batch)]))?.remove(0)?;
    Ok(())
}

fn read(reader: &LogReader) -> Result<()> {
    let (mut from, mut bytes) = (Offset::ZERO, 0);
    while from < Offset(RECORDS) {
        let fetched = at_once(reader.read(from, READ_BYTES))??;
        from = fetched.offsets.end;
        let mut batches = BatchStream::new(fetched.chunks);
        while let Some(batch) = batches.next_batch(&Limits::DEFAULT)? {
            for record in &batch.records(&Limits::DEFAULT)? {
                bytes += record?.value.map_or(0, <[u8]>::len);
            }
        }
    }
    check(bytes as i64 == RECORDS * VALUE.len() as i64)
}

fn read_batches(reader: &LogReader, encoded: &mut Vec<Bytes>) -> Result<()> {
    let mut from = Offset::ZERO;
    while from < Offset(RECORDS) {
        let fetched = at_once(reader.read(from, READ_BYTES))??;
        from = fetched.offsets.end;
        encoded.push(fetched.chunks.concat().into());
    }
    Ok(())
}

fn append_batches(log: &mut Log, encoded: Vec<Bytes>) -> Result<()> {
    for bytes in encoded {
        let mut batches = BatchStream::new([bytes]);
        while let Some(batch) = batches.next_batch(&Limits::DEFAULT)? {
            batch.check_records(&Limits::DEFAULT)?;
            append_batch(log, batch)?;
        }
    }
    Ok(())
}

fn timed(records: i64, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(records as f64 / start.elapsed().as_secs_f64())
}

fn check(holds: bool) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err("records are missing".into())
    }
}

fn at_once<T>(future: impl Future<Output = T>) -> Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Ok(answer),
        Poll::Pending => Err("a log in memory had to wait".into()),
    }
}
