//! A log inside another program: append, read, follow, find by time, close and open again.
//!
//! `cargo run -p comlog-log --example embed [DIR]`: in memory, or with DIR on the local disk
//! (which is all that needs a tokio runtime here; in memory any executor will do).

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use comlog_log::{AppendRequest, Clock, Log, LogConfig, LogReader};
use comlog_record::{
    BatchBuilder, BatchStream, Compression, EncodeError, Limits, Offset, RecordBatch, Timestamp,
};
use comlog_storage::{DataDir, DiskOptions, MemoryStorage, Storage};

/// The log takes the time from whoever embeds it.
#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp(since.map_or(0, |since| since.as_millis() as i64))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(dir) => {
            let data = DataDir::open(Path::new(&dir), DiskOptions::default())?;
            run(data.storage("orders")?).await
        }
        None => run(Arc::new(MemoryStorage::new())).await,
    }
}

pub(crate) async fn run(storage: Arc<dyn Storage>) -> Result<(), Box<dyn Error>> {
    let clock = Arc::new(SystemClock);
    let (mut log, report) = Log::open(storage.clone(), LogConfig::default(), clock.clone()).await?;
    println!(
        "opened at offset {}, clean: {}",
        log.positions().end,
        report.clean
    );

    // A group is written with one write and one sync; each batch is answered for itself.
    let group = [["ordered", "paid"], ["packed", "sent"]].map(|values| batch(&values));
    let group = group.into_iter().collect::<Result<Vec<_>, _>>()?;
    for answer in log
        .append(group.into_iter().map(AppendRequest::new).collect())
        .await
    {
        let appended = answer?;
        println!(
            "appended {}, durable: {}",
            appended.offsets, appended.durable
        );
    }

    // Readers are cheap, and read from any task while the log is written.
    let reader = log.reader();
    print_from(&reader, reader.positions().start).await?;
    let follower = tokio::spawn({
        let reader = reader.clone();
        let end = reader.positions().high_watermark;
        async move { reader.wait_visible(end).await }
    });
    log.append(vec![AppendRequest::new(batch(&["returned"])?)])
        .await
        .remove(0)?;
    println!("a follower sees up to {}", follower.await??.high_watermark);
    let found = reader.offset_for_timestamp(Timestamp(0)).await?;
    println!(
        "the first record by time is at {:?}",
        found.map(|found| found.offset)
    );

    log.close().await?;
    let (log, report) = Log::open(storage, LogConfig::default(), clock).await?;
    println!(
        "closed and opened at {}, clean: {}",
        log.positions().end,
        report.clean
    );
    log.close().await?;
    Ok(())
}

fn batch(values: &[&str]) -> Result<RecordBatch, EncodeError> {
    let mut builder = BatchBuilder::new(Limits::DEFAULT);
    for value in values {
        let value = Some(value.as_bytes());
        builder.push(
            SystemClock.now(),
            Some(b"order-1"),
            value,
            std::iter::empty(),
        )?;
    }
    builder.build(Compression::None, None)
}

async fn print_from(reader: &LogReader, mut from: Offset) -> Result<(), Box<dyn Error>> {
    while from < reader.positions().high_watermark {
        let fetched = reader.read(from, 1 << 20).await?;
        from = fetched.offsets.end;
        let mut batches = BatchStream::new(fetched.chunks);
        while let Some(batch) = batches.next_batch(&Limits::DEFAULT)? {
            for record in &batch.records(&Limits::DEFAULT)? {
                let record = record?;
                let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                println!("{}: {value}", record.offset);
            }
        }
    }
    Ok(())
}
