//! Many readers beside one writer, on threads of their own.

use std::sync::Arc;

use comlog_log::{LogReader, ReadError};
use comlog_record::{BatchStream, Limits, Offset};
use comlog_storage::{DataDir, DiskOptions, Storage};

use crate::support::*;

/// Follows the log to `end`, checking that each record holds its offset; from wherever a trim
/// leaves it.
async fn follow(reader: LogReader, end: i64) {
    let mut from = Offset(0);
    while from < Offset(end) {
        let fetched = match reader.read(from, 700).await {
            Ok(fetched) => fetched,
            Err(ReadError::OutOfRange { log, .. }) => {
                from = log.start;
                continue;
            }
            Err(error) => panic!("at {from}: {error}"),
        };
        if fetched.chunks.is_empty() {
            reader.wait_visible(from).await.unwrap();
            continue;
        }
        from = fetched.offsets.end;
        let mut batches = BatchStream::new(fetched.chunks);
        while let Some(batch) = batches.next_batch(&Limits::DEFAULT).unwrap() {
            for record in &batch.records(&Limits::DEFAULT).unwrap() {
                let record = record.unwrap();
                let expected = record.offset.to_string();
                assert_eq!(record.value, Some(expected.as_bytes()));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_follow_a_writer_that_rolls_and_trims() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path(), DiskOptions::default()).unwrap();
    let disk: Arc<dyn Storage> = data.storage("log").unwrap();
    for storage in [memory(), disk] {
        let (mut log, _) = open(&storage, small()).await;
        let followers: Vec<_> = (0..4)
            .map(|_| tokio::spawn(follow(log.reader(), 1_200)))
            .collect();
        for end in 1..=12 {
            append_numbers(&mut log, end * 100, 5).await;
            if end % 4 == 0 {
                log.trim(Offset(end * 100 - 150)).await.unwrap();
            }
        }
        for follower in followers {
            follower.await.unwrap();
        }
    }
}
