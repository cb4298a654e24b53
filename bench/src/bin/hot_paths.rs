//! Runs one hot path a given number of times and nothing beside it, for an instruction counter.
//!
//! `hot-paths PATH TURNS`: what TURNS more cost is told by the difference of two runs.

use std::hint::black_box;
use std::sync::Arc;

use comlog_bench::{NOW, Result, Values, append, open};
use comlog_log::LogConfig;
use comlog_record::{Compression, Offset};
use comlog_storage::MemoryStorage;

const RECORDS: usize = 1_000;
const RECORD_BYTES: usize = 100;
/// Batches in the log that is read from.
const READ_BATCHES: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: hot-paths PATH TURNS")?;
    let turns = args.next().ok_or("usage: hot-paths PATH TURNS")?.parse()?;
    match path.as_str() {
        "encode" => encode(turns),
        "append" => append_batches(turns).await,
        "read" => read(turns).await,
        _ => Err(format!("there is no path {path}").into()),
    }
}

/// Records into a batch that can be sent.
fn encode(turns: usize) -> Result<()> {
    let values = Values::new(RECORDS, RECORD_BYTES);
    for _ in 0..turns {
        black_box(values.encode(NOW, Compression::None)?);
    }
    Ok(())
}

/// Such a batch checked and appended.
async fn append_batches(turns: usize) -> Result<()> {
    let batch = Values::new(RECORDS, RECORD_BYTES).encode(NOW, Compression::None)?;
    let mut log = open(Arc::new(MemoryStorage::new()), LogConfig::default()).await?;
    for _ in 0..turns {
        black_box(append(&mut log, batch.clone()).await?);
    }
    Ok(())
}

/// Such a batch found by its offset and handed out as stored.
async fn read(turns: usize) -> Result<()> {
    let batch = Values::new(RECORDS, RECORD_BYTES).encode(NOW, Compression::None)?;
    let mut log = open(Arc::new(MemoryStorage::new()), LogConfig::default()).await?;
    for _ in 0..READ_BATCHES {
        append(&mut log, batch.clone()).await?;
    }
    let reader = log.reader();
    for turn in 0..turns {
        let from = Offset((turn % READ_BATCHES * RECORDS) as i64);
        let fetched = reader.try_read(from, 1)?;
        black_box(fetched.ok_or("not in memory")?);
    }
    Ok(())
}
