//! Trim, truncate, roll, retention, fencing, epochs.

use std::sync::Arc;
use std::time::Duration;

use comlog_log::{AppendError, Durability, LogConfig, LogError, ReadError};
use comlog_record::{LeaderEpoch, Offset, Timestamp, TimestampType};

use crate::support::*;

#[async_test]
async fn trim_raises_the_start_and_removes_whole_segments() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    append_numbers(&mut log, 100, 4).await;
    let before = log.reader().segments();
    assert_eq!(log.trim(Offset(50)).await.unwrap(), Offset(50));
    assert_eq!(log.trim(Offset(40)).await.unwrap(), Offset(50));
    let reader = log.reader();
    let after = reader.segments();
    assert!(after.len() < before.len());
    assert!(after[0].base_offset <= Offset(50) && Offset(50) < after[0].end_offset);
    assert!(matches!(
        reader.read(Offset(49), 100).await,
        Err(ReadError::OutOfRange { .. })
    ));
    let kept = records(&reader).await;
    assert!(kept.ends_with(&numbers(50, 100)));
    assert_eq!(storage.list().await.unwrap().len(), after.len());
    assert!(matches!(
        log.trim(Offset(101)).await,
        Err(LogError::OutOfRange { .. })
    ));
    drop(log);
    let (log, _) = open(&storage, small()).await;
    assert_eq!(log.positions().start, Offset(50));
    assert_eq!(log.leader_epochs(), [(LeaderEpoch(0), Offset(50))]);
}

#[async_test]
async fn segments_that_a_crash_kept_below_the_start_are_removed() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    append_numbers(&mut log, 100, 4).await;
    let untrimmed = with_content(&storage, -1, &[]).await;
    log.trim(Offset(60)).await.unwrap();
    drop(log);
    let checkpoint = storage.read_blob("checkpoint").await.unwrap().unwrap();
    untrimmed
        .write_blob("checkpoint", checkpoint)
        .await
        .unwrap();
    let (log, report) = open(&untrimmed, small()).await;
    assert_eq!(report.damaged, []);
    assert_eq!(log.positions().start, Offset(60));
    assert_eq!(
        untrimmed.list().await.unwrap().len(),
        log.reader().segments().len()
    );
}

#[async_test]
async fn truncate_cuts_at_a_batch_boundary_and_the_offsets_are_free_again() {
    for end in [0, 3, 17, 40, 41, 98, 99, 100] {
        let storage = memory();
        let (mut log, _) = open(&storage, small()).await;
        append_numbers(&mut log, 100, 4).await;
        let cut = log.truncate(Offset(end)).await.unwrap().0;
        assert_eq!(cut, end / 4 * 4);
        assert_eq!(log.positions().end, Offset(cut));
        assert_eq!(log.positions().high_watermark, Offset(cut));
        assert_eq!(records(&log.reader()).await, numbers(0, cut));
        append(&mut log, batch(&["new"])).await;
        let mut expected = numbers(0, cut);
        expected.push((cut, "new".to_owned()));
        assert_eq!(records(&log.reader()).await, expected);
        drop(log);
        let (log, report) = open(&storage, small()).await;
        assert!(report.cut.is_none() && report.damaged.is_empty());
        assert_eq!(records(&log.reader()).await, expected, "truncated at {end}");
        assert_eq!(log.reader().verify().await.unwrap(), []);
    }
}

#[async_test]
async fn truncate_takes_back_what_producers_sent() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    for n in 0..20 {
        append(&mut log, batch_of((1, 0, n), &["some value"])).await;
    }
    append(&mut log, batch_of((2, 0, 0), &["other"])).await;
    log.truncate(Offset(9)).await.unwrap();
    let again = append(&mut log, batch_of((1, 0, 8), &["some value"])).await;
    assert!(again.duplicate);
    let next = append(&mut log, batch_of((1, 0, 9), &["some value"])).await;
    assert!(!next.duplicate);
    assert!(
        !append(&mut log, batch_of((2, 0, 0), &["other"]))
            .await
            .duplicate
    );
}

#[async_test]
async fn segments_roll_by_age_and_go_by_age() {
    let storage = memory();
    let clock = clock();
    let config = LogConfig {
        segment_age_max: Some(Duration::from_millis(100)),
        retention_age: Some(Duration::from_millis(500)),
        ..LogConfig::default()
    };
    let (mut log, _) = open_with(&storage, config, clock.clone()).await;
    for now in [1_000, 1_050, 1_200, 1_400] {
        clock.set(Timestamp(now));
        assert_eq!(log.maintain().await.unwrap(), []);
        append(&mut log, batch_at(now, &["x"])).await;
    }
    let bases: Vec<i64> = log
        .reader()
        .segments()
        .iter()
        .map(|segment| segment.base_offset.0)
        .collect();
    assert_eq!(bases, [0, 2, 3]);
    clock.set(Timestamp(1_550));
    assert_eq!(log.maintain().await.unwrap(), []);
    clock.set(Timestamp(1_551));
    let removed = log.maintain().await.unwrap();
    assert_eq!(removed.len(), 1);
    assert_eq!(removed[0].end_offset, Offset(2));
    assert_eq!(log.positions().start, Offset(2));
    clock.set(Timestamp(9_000));
    log.maintain().await.unwrap();
    assert_eq!(log.positions().start, Offset(4));
}

#[async_test]
async fn retention_by_bytes_keeps_at_least_so_many() {
    let storage = memory();
    let config = LogConfig {
        retention_bytes: Some(1_500),
        ..small()
    };
    let (mut log, _) = open(&storage, config).await;
    append_numbers(&mut log, 100, 4).await;
    let removed = log.maintain().await.unwrap();
    assert!(!removed.is_empty());
    let size = log.reader().size_bytes();
    let oldest = log.reader().segments()[0].len;
    assert!(size >= 1_500 && size - oldest < 1_500, "{size}");
}

#[async_test]
async fn a_fencing_token_shuts_out_those_without_it() {
    let storage = memory();
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    append(&mut log, batch(&["a"])).await;
    log.fence(5).await.unwrap();
    assert!(matches!(
        log.fence(5).await,
        Err(LogError::StaleToken { current: 5, .. })
    ));
    drop(log);
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    assert_eq!(log.fencing_token(), 5);
    for (token, fits) in [
        (None, false),
        (Some(4), false),
        (Some(5), true),
        (Some(6), false),
    ] {
        let mut request = request(batch(&["b"]));
        request.fencing_token = token;
        let answer = log.append(vec![request]).await.remove(0);
        assert_eq!(answer.is_ok(), fits, "{token:?}");
        if !fits {
            assert!(matches!(
                answer,
                Err(AppendError::Fenced { current: 5, .. })
            ));
        }
    }
}

#[async_test]
async fn leader_epochs_are_written_into_batches_and_found_again() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    append_numbers(&mut log, 10, 5).await;
    log.set_leader_epoch(LeaderEpoch(3)).await.unwrap();
    assert!(log.set_leader_epoch(LeaderEpoch(3)).await.is_err());
    append_numbers(&mut log, 20, 5).await;
    assert_eq!(
        log.epoch_end(LeaderEpoch(1)),
        Some((LeaderEpoch(0), Offset(10)))
    );
    drop(log);
    storage.remove_blob("checkpoint").await.unwrap();
    let (log, _) = open(&storage, small()).await;
    assert_eq!(
        log.leader_epochs(),
        [(LeaderEpoch(0), Offset(0)), (LeaderEpoch(3), Offset(10))]
    );
}

#[async_test]
async fn a_log_that_becomes_durable_is_synced_first() {
    let storage = memory();
    let config = LogConfig {
        durability: Durability::Memory,
        ..LogConfig::default()
    };
    let (mut log, _) = open(&storage, config.clone()).await;
    append_numbers(&mut log, 4, 2).await;
    assert_eq!(log.positions().durable, Offset(0));
    let durable = LogConfig {
        durability: Durability::Durable,
        ..config
    };
    log.set_config(durable).await.unwrap();
    assert_eq!(log.positions().durable, Offset(4));
}

#[async_test]
async fn the_append_time_is_stamped_where_the_topic_says_so() {
    let storage = memory();
    let clock = clock();
    let config = LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..LogConfig::default()
    };
    let (mut log, _) = open_with(&storage, config.clone(), clock.clone()).await;
    clock.set(Timestamp(77));
    let appended = append(&mut log, batch_at(5, &["a"])).await;
    assert_eq!(appended.append_time, Some(Timestamp(77)));
    let found = log.reader().offset_for_timestamp(Timestamp(77)).await;
    assert_eq!(found.unwrap().unwrap().offset, Offset(0));
    // Its checksum was computed anew: it decodes.
    assert_eq!(records(&log.reader()).await.len(), 1);
}

#[async_test]
async fn a_reader_survives_the_log_and_its_segments() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    append_numbers(&mut log, 100, 4).await;
    let reader = log.reader();
    let chunks = reader.read(Offset(0), 1_000).await.unwrap();
    log.trim(Offset(90)).await.unwrap();
    drop(log);
    assert!(chunks.len > 0 && !chunks.chunks[0].is_empty());
    assert!(records(&reader).await.ends_with(&numbers(92, 100)));
    let _ = Arc::clone(&storage);
}
