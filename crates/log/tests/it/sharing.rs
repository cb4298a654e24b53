//! Many readers beside one writer, and more segments than are kept open.

use std::sync::Arc;

use comlog_log::{AppendError, ErrorKind, LogConfig, LogReader, ReadError, Validation};
use comlog_record::{BatchStream, Limits, Offset, RecordBatch};
use comlog_storage::{DataDir, DiskOptions, FaultPlan, FaultyStorage, Storage};

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

#[tokio::test]
async fn more_segments_than_are_kept_open_are_read_all_the_same() {
    let storage = memory();
    let config = LogConfig {
        segment_bytes_max: 1,
        ..small()
    };
    let (mut log, _) = open(&storage, config.clone()).await;
    append_numbers(&mut log, 700, 2).await;
    log.close().await.unwrap();
    let (log, _) = open(&storage, config).await;
    let reader = log.reader();
    assert!(reader.segments().len() > 300);
    assert!(reader.try_read(Offset(0), 1).unwrap().is_none(), "not open");
    for _ in 0..2 {
        assert_eq!(records(&reader).await, numbers(0, 700));
    }
    assert!(
        reader.try_read(Offset(0), 1).unwrap().is_none(),
        "closed again"
    );
    assert!(reader.try_read(Offset(696), 1).unwrap().is_some());
}

async fn refused(config: &LogConfig, batch: RecordBatch) -> AppendError {
    let (mut log, _) = open(&memory(), config.clone()).await;
    let refused = log
        .append(vec![request(batch)])
        .await
        .remove(0)
        .unwrap_err();
    assert_eq!(log.positions().end, Offset(0));
    refused
}

#[tokio::test]
async fn what_clients_may_not_send_is_refused() {
    let mut stamped = batch(&["a"]);
    stamped.stamp_log_append_time(comlog_record::Timestamp(1));
    let config = LogConfig::default();
    let error = refused(&config, stamped).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let small = LogConfig {
        limits: Limits {
            batch_bytes_max: 100,
            ..Limits::DEFAULT
        },
        ..config
    };
    let error = refused(&small, batch(&["x".repeat(100).as_str()])).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn full_validation_opens_what_the_header_only_claims() {
    // Three records, the last of which contradicts itself; the checksum is right.
    let good = batch(&["a", "b", "c"]);
    let mut bytes = good.to_bytes().to_vec();
    let last = bytes.len() - 3;
    bytes[last] ^= 0x10;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let wrong = RecordBatch::decode(&mut bytes.into(), &Limits::DEFAULT).unwrap();
    assert!(wrong.check_records(&Limits::DEFAULT).is_err());
    let full = LogConfig {
        validation: Validation::Full,
        ..LogConfig::default()
    };
    let error = refused(&full, wrong.clone()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let (mut log, _) = open(&memory(), LogConfig::default()).await;
    append(&mut log, wrong).await;
}

#[tokio::test]
async fn a_read_that_nobody_polls_holds_nobody_up() {
    let disk = FaultyStorage::new(8);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (mut log, _) = open(&storage, small()).await;
    append_numbers(&mut log, 100, 4).await;
    log.close().await.unwrap();
    let (mut log, _) = open(&storage, small()).await;
    disk.set_plan(FaultPlan {
        pause_polls_max: 3,
        ..FaultPlan::default()
    });
    let reader = log.reader();
    for polls in 0..12 {
        let mut stalled = std::pin::pin!(reader.read(Offset(0), 1));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..polls {
            if stalled.as_mut().poll(&mut context).is_ready() {
                break;
            }
        }
        assert_eq!(records(&reader).await, numbers(0, 100));
        assert_eq!(reader.verify().await.unwrap(), []);
        log.maintain().await.unwrap();
    }
}
