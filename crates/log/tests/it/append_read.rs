//! Append and read: offsets, limits, rolls, waiters.

use comlog_log::{AppendError, Durability, LogConfig, ReadError};
use comlog_record::{Offset, OffsetRange, Timestamp};

use crate::support::*;

#[async_test]
async fn what_was_appended_is_read_back_across_segments() {
    let storage = memory();
    let (mut log, report) = open(&storage, small()).await;
    assert!(report.clean);
    append_numbers(&mut log, 200, 7).await;
    let reader = log.reader();
    assert!(reader.segments().len() > 5, "the log must have rolled");
    for max_bytes in [1, 100, 300, 1 << 20] {
        for from in [0, 1, 6, 7, 99, 199] {
            let read = records_from(&reader, from, max_bytes).await;
            let first = read.first().unwrap().0;
            assert!(first <= from && from - first < 7, "{first} for {from}");
            assert_eq!(read, numbers(first, 200), "from {from} by {max_bytes}");
        }
    }
}

#[async_test]
async fn a_group_is_assigned_in_order_and_answered_one_by_one() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    let group = (0..20).map(|n| request(batch(&[n.to_string().as_str(); 3])));
    let answers = log.append(group.collect()).await;
    for (at, answer) in answers.iter().enumerate() {
        let start = at as i64 * 3;
        let appended = answer.as_ref().unwrap();
        assert_eq!(
            appended.offsets,
            OffsetRange::new(Offset(start), Offset(start + 3))
        );
        assert!(appended.durable && !appended.duplicate);
    }
    assert_eq!(log.positions().high_watermark, Offset(60));
    assert_eq!(log.positions().durable, Offset(60));
}

#[async_test]
async fn a_read_keeps_to_its_bytes_but_returns_one_batch_at_least() {
    let storage = memory();
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    append_numbers(&mut log, 100, 10).await;
    let reader = log.reader();
    let one = reader.read(Offset(15), 1).await.unwrap();
    assert_eq!(one.offsets, OffsetRange::new(Offset(10), Offset(20)));
    let three = reader.read(Offset(10), one.len * 3).await.unwrap();
    assert_eq!(three.offsets, OffsetRange::new(Offset(10), Offset(40)));
    let two = reader.read(Offset(10), one.len * 3 - 1).await.unwrap();
    assert_eq!(two.offsets, OffsetRange::new(Offset(10), Offset(30)));
    let all = reader.read(Offset(0), usize::MAX).await.unwrap();
    assert_eq!(all.offsets, OffsetRange::new(Offset(0), Offset(100)));
    let now = reader.try_read(Offset(99), 1).unwrap().unwrap();
    assert_eq!(now.offsets, OffsetRange::new(Offset(90), Offset(100)));
}

#[async_test]
async fn reads_outside_the_log_are_refused_and_the_end_is_empty() {
    let storage = memory();
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    append_numbers(&mut log, 10, 5).await;
    let reader = log.reader();
    assert_eq!(reader.read(Offset(10), 100).await.unwrap().len, 0);
    for outside in [11, -1, i64::MAX] {
        let read = reader.read(Offset(outside), 100).await;
        assert!(
            matches!(read, Err(ReadError::OutOfRange { .. })),
            "{read:?}"
        );
    }
}

#[async_test]
async fn a_memory_log_shows_what_is_written_before_it_is_durable() {
    let storage = memory();
    let config = LogConfig {
        durability: Durability::Memory,
        ..LogConfig::default()
    };
    let (mut log, _) = open(&storage, config).await;
    let written = append(&mut log, batch(&["a"])).await;
    assert!(!written.durable);
    assert_eq!(log.positions().high_watermark, Offset(1));
    assert_eq!(log.positions().durable, Offset(0));
    let mut asks_more = request(batch(&["b"]));
    asks_more.durability = Durability::Durable;
    let answers = log.append(vec![asks_more]).await;
    assert!(answers[0].as_ref().unwrap().durable);
    assert_eq!(log.positions().durable, Offset(2));
    append(&mut log, batch(&["c"])).await;
    assert_eq!(log.sync().await.unwrap(), Offset(3));
}

#[async_test]
async fn waiters_wake_when_something_is_visible_and_when_the_log_closes() {
    let storage = memory();
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    let reader = log.reader();
    let appending = append(&mut log, batch(&["a"]));
    let (seen, _) = tokio::join!(biased; reader.wait_visible(Offset(0)), appending);
    assert_eq!(seen.unwrap().high_watermark, Offset(1));
    let (seen, closed) = tokio::join!(biased; reader.wait_visible(Offset(1)), log.close());
    closed.unwrap();
    assert!(matches!(seen, Err(ReadError::Closed)));
    assert_eq!(records(&reader).await, [(0, "a".to_owned())]);
}

#[async_test]
async fn expected_offset_is_checked_at_the_batch_s_turn() {
    let storage = memory();
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    let group = [0, 1, 1, 2].map(|expected| {
        let mut request = request(batch(&["x"]));
        request.expected_offset = Some(Offset(expected));
        request
    });
    let answers = log.append(group.into()).await;
    assert!(answers[0].is_ok() && answers[1].is_ok() && answers[3].is_ok());
    assert!(matches!(
        answers[2],
        Err(AppendError::UnexpectedOffset {
            actual: Offset(2),
            ..
        })
    ));
    assert_eq!(log.positions().end, Offset(3));
}

#[async_test]
async fn a_timestamp_finds_its_record() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    for n in 0..60 {
        // Not in order: every third is late.
        let timestamp = 1_000 + n * 10 - if n % 3 == 0 { 25 } else { 0 };
        append(&mut log, batch_at(timestamp, &["x"])).await;
    }
    let reader = log.reader();
    let timestamps: Vec<i64> = (0..60)
        .map(|n| 1_000 + n * 10 - if n % 3 == 0 { 25 } else { 0 })
        .collect();
    for wanted in (950..1_650).step_by(7) {
        let found = reader
            .offset_for_timestamp(Timestamp(wanted))
            .await
            .unwrap();
        let expected = timestamps.iter().position(|at| *at >= wanted);
        assert_eq!(
            found.map(|found| (found.offset.0, found.timestamp.0)),
            expected.map(|at| (at as i64, timestamps[at])),
            "timestamp {wanted}"
        );
    }
}

#[async_test]
async fn reopening_a_closed_log_finds_everything() {
    let storage = memory();
    for round in 1..6 {
        let (mut log, report) = open(&storage, small()).await;
        assert!(report.clean, "{report:?}");
        assert_eq!(report.scanned_bytes, 0);
        append_numbers(&mut log, round * 40, 7).await;
        assert_eq!(records(&log.reader()).await, numbers(0, round * 40));
        log.close().await.unwrap();
    }
}

#[async_test]
async fn a_dropped_log_is_a_crash_and_recovers() {
    let storage = memory();
    for round in 1..6 {
        let (mut log, report) = open(&storage, small()).await;
        assert_eq!(report.clean, round == 1);
        assert!(report.cut.is_none() && report.damaged.is_empty() && report.rebuilt.is_empty());
        append_numbers(&mut log, round * 40, 7).await;
        assert_eq!(records(&log.reader()).await, numbers(0, round * 40));
    }
}

#[cfg(not(target_arch = "wasm32"))]
#[allow(dead_code, reason = "its main function takes arguments")]
#[path = "../../examples/embed.rs"]
mod embed;

#[cfg(not(target_arch = "wasm32"))]
#[async_test]
async fn the_example_runs() {
    let storage = memory();
    embed::run(storage.clone()).await.unwrap();
    let (log, report) = open(&storage, LogConfig::default()).await;
    assert!(report.clean);
    assert_eq!(log.positions().end, Offset(5));
}
