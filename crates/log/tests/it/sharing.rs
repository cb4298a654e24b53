//! More segments than are kept open, and what readers make of what was appended.

use std::sync::Arc;

use comlog_log::{AppendError, ErrorKind, LogConfig, Validation};
use comlog_record::{Limits, Offset, RecordBatch};
use comlog_storage::{FaultPlan, FaultyStorage, Storage};

use crate::support::*;

#[async_test]
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

#[async_test]
async fn the_next_segment_is_made_ready_before_a_reader_comes_to_it() {
    let storage = memory();
    let config = LogConfig {
        segment_bytes_max: 1,
        ..small()
    };
    let (mut log, _) = open(&storage, config.clone()).await;
    append_numbers(&mut log, 6, 2).await;
    log.close().await.unwrap();
    let (mut log, _) = open(&storage, config.clone()).await;
    let reader = log.reader();
    assert!(reader.look_ahead(Offset(0)).is_none(), "nobody reads there");
    reader.read(Offset(0), 1).await.unwrap();
    assert!(reader.try_read(Offset(2), 1).unwrap().is_none());
    let never = LogConfig {
        look_ahead_bytes: 0,
        ..config.clone()
    };
    log.set_config(never).await.unwrap();
    assert!(reader.look_ahead(Offset(0)).is_none(), "not wanted");
    log.set_config(config).await.unwrap();
    let ahead = reader.look_ahead(Offset(0)).unwrap();
    assert!(reader.look_ahead(Offset(1)).is_none(), "once is enough");
    drop(ahead);
    reader.look_ahead(Offset(1)).unwrap().await;
    assert!(reader.try_read(Offset(2), 1).unwrap().is_some());
    assert!(reader.look_ahead(Offset(1)).is_none(), "it is ready");
    let last = reader.positions().high_watermark;
    assert!(reader.look_ahead(last).is_none(), "there is no next one");
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

#[async_test]
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

#[async_test]
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

#[async_test]
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
