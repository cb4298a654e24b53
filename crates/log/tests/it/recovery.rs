//! What a crash may leave, case by case.

use std::sync::Arc;

use comlog_log::{Durability, Log, LogConfig, LogError};
use comlog_record::{LeaderEpoch, Offset};
use comlog_storage::{FaultPlan, FaultyStorage, Storage};

use crate::support::*;

/// Opens `storage`, which must hold the records `0..end`; appends, and opens once more.
async fn holds_and_goes_on(storage: &Arc<dyn Storage>, config: &LogConfig, end: i64, what: &str) {
    let (mut log, report) = open(storage, config.clone()).await;
    assert_eq!(report.damaged, [], "{what}");
    assert_eq!(records(&log.reader()).await, numbers(0, end), "{what}");
    assert_eq!(log.positions().durable, Offset(end), "{what}");
    append_numbers(&mut log, end + 10, 3).await;
    drop(log);
    let (log, report) = open(storage, config.clone()).await;
    assert_eq!(report.cut, None, "{what}");
    assert_eq!(records(&log.reader()).await, numbers(0, end + 10), "{what}");
}

#[async_test]
async fn a_tail_torn_at_any_byte_is_cut_and_appending_goes_on() {
    let storage = memory();
    let config = LogConfig::default();
    let (mut log, _) = open(&storage, config.clone()).await;
    append_numbers(&mut log, 12, 4).await;
    drop(log);
    let whole = content(&storage, 0).await;
    let last = boundaries(&whole)[2];
    for at in last..whole.len() {
        let torn = with_content(&storage, 0, &whole[..at]).await;
        holds_and_goes_on(&torn, &config, 8, &format!("cut at {at}")).await;

        let mut zeros = whole.clone();
        zeros[at..].fill(0);
        zeros.extend([0; 5_000]);
        let unchanged = whole[at..].iter().all(|byte| *byte == 0);
        let end = if unchanged { 12 } else { 8 };
        let torn = with_content(&storage, 0, &zeros).await;
        holds_and_goes_on(&torn, &config, end, &format!("zeros from {at}")).await;

        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        // The leader epoch lies outside the checksum.
        let outside = (12..16).contains(&(at - last));
        let end = if outside { 12 } else { 8 };
        let torn = with_content(&storage, 0, &flipped).await;
        holds_and_goes_on(&torn, &config, end, &format!("flipped at {at}")).await;
    }
}

#[async_test]
async fn a_hole_inside_the_last_group_cuts_what_follows_too() {
    let storage = memory();
    let config = LogConfig::default();
    let (mut log, _) = open(&storage, config.clone()).await;
    append_numbers(&mut log, 8, 4).await;
    let group = (8..12).map(|n: i64| request(batch(&[n.to_string().as_str()])));
    assert!(log.append(group.collect()).await.iter().all(Result::is_ok));
    drop(log);
    let mut torn = content(&storage, 0).await;
    let at = boundaries(&torn)[3];
    torn[at..at + 70].fill(0);
    let torn = with_content(&storage, 0, &torn).await;
    let (_, report) = open(&torn, config.clone()).await;
    let cut = report.cut.unwrap();
    assert_eq!(cut.end, Offset(9));
    assert!(cut.bytes > 70, "{cut:?}");
    holds_and_goes_on(&torn, &config, 9, "after the cut").await;
}

#[async_test]
async fn allocated_zeros_are_not_damage() {
    let storage = memory();
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    append_numbers(&mut log, 12, 4).await;
    drop(log);
    let mut bytes = content(&storage, 0).await;
    bytes.extend(vec![0; 3 << 20]);
    let storage = with_content(&storage, 0, &bytes).await;
    let (_, report) = open(&storage, LogConfig::default()).await;
    assert_eq!(report.cut, None);
    holds_and_goes_on(&storage, &LogConfig::default(), 12, "zeros").await;
}

#[async_test]
async fn an_old_or_lost_checkpoint_loses_nothing() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    let mut old = vec![None, Some(bytes::Bytes::from_static(b"garbage"))];
    for end in [0, 10, 60, 150] {
        append_numbers(&mut log, end, 4).await;
        log.sync().await.unwrap();
        old.push(storage.read_blob("checkpoint").await.unwrap());
    }
    append_numbers(&mut log, 200, 4).await;
    drop(log);
    for (at, checkpoint) in old.into_iter().enumerate() {
        let copy = with_content(&storage, -1, &[]).await;
        match &checkpoint {
            Some(content) => copy
                .write_blob("checkpoint", content.clone())
                .await
                .unwrap(),
            None => copy.remove_blob("checkpoint").await.unwrap(),
        }
        let (log, report) = open(&copy, small()).await;
        assert_eq!(report.rebuilt.len(), usize::from(at < 2), "{report:?}");
        assert_eq!(report.cut, None);
        drop(log);
        holds_and_goes_on(&copy, &small(), 200, &format!("checkpoint {at}")).await;
    }
}

#[async_test]
async fn every_flipped_byte_of_the_checkpoint_is_noticed() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    append_numbers(&mut log, 60, 4).await;
    log.close().await.unwrap();
    let good = storage.read_blob("checkpoint").await.unwrap().unwrap();
    for at in 0..good.len() {
        let mut wrong = good.to_vec();
        wrong[at] ^= 1;
        storage
            .write_blob("checkpoint", wrong.into())
            .await
            .unwrap();
        let (log, report) = open(&storage, small()).await;
        assert_eq!(report.rebuilt.len(), 1);
        assert!(!report.clean);
        assert_eq!(records(&log.reader()).await, numbers(0, 60), "byte {at}");
    }
}

#[async_test]
async fn lost_or_wrong_indexes_are_rebuilt_by_whoever_needs_them() {
    for wrong in [None, Some(&b"garbage"[..]), Some(&b""[..])] {
        let storage = memory();
        let (mut log, _) = open(&storage, small()).await;
        append_numbers(&mut log, 100, 4).await;
        log.close().await.unwrap();
        let mut good = Vec::new();
        for name in storage.list_blobs().await.unwrap() {
            if !name.ends_with("index") {
                continue;
            }
            good.push((name.clone(), storage.read_blob(&name).await.unwrap()));
            match wrong {
                Some(content) => storage.write_blob(&name, content.into()).await.unwrap(),
                None => storage.remove_blob(&name).await.unwrap(),
            }
        }
        assert!(good.len() >= 6);
        let (log, report) = open(&storage, small()).await;
        assert!(report.clean && report.scanned_bytes == 0);
        assert_eq!(records(&log.reader()).await, numbers(0, 100));
        for (name, content) in good {
            assert_eq!(storage.read_blob(&name).await.unwrap(), content, "{name}");
        }
    }
}

#[async_test]
async fn opening_reads_no_sealed_segment() {
    let faulty = FaultyStorage::new(1);
    let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
    let (mut log, _) = open(&storage, small()).await;
    append_numbers(&mut log, 500, 4).await;
    log.close().await.unwrap();
    let segments = storage.list().await.unwrap();
    assert!(segments.len() > 20);
    for segment in &segments[..segments.len() - 1] {
        faulty.damage(segment.base_offset, 0..segment.len).unwrap();
    }
    let (log, report) = open(&storage, small()).await;
    assert!(report.clean && report.damaged.is_empty());
    assert_eq!(log.reader().segments().len(), segments.len());
}

#[async_test]
async fn a_crash_on_a_memory_log_raises_the_leader_epoch() {
    let storage = memory();
    let config = LogConfig {
        durability: Durability::Memory,
        ..LogConfig::default()
    };
    let (mut log, report) = open(&storage, config.clone()).await;
    assert!(!report.epoch_raised);
    append_numbers(&mut log, 4, 2).await;
    drop(log);
    let (mut log, report) = open(&storage, config.clone()).await;
    assert!(report.epoch_raised);
    assert_eq!(log.positions().leader_epoch, LeaderEpoch(1));
    append_numbers(&mut log, 6, 2).await;
    log.close().await.unwrap();
    let (log, report) = open(&storage, config).await;
    assert!(!report.epoch_raised);
    assert_eq!(
        log.leader_epochs(),
        [(LeaderEpoch(0), Offset(0)), (LeaderEpoch(1), Offset(4))]
    );
}

#[async_test]
async fn a_memory_log_is_cut_at_the_first_damage_whatever_follows() {
    let storage = memory();
    let config = LogConfig {
        durability: Durability::Memory,
        ..small_groups()
    };
    let (mut log, _) = open(&storage, config.clone()).await;
    append_numbers(&mut log, 100, 4).await;
    drop(log);
    let mut torn = content(&storage, 0).await;
    let at = boundaries(&torn)[5];
    torn[at + 30] ^= 1;
    let torn = with_content(&storage, 0, &torn).await;
    let (_, report) = open(&torn, config.clone()).await;
    assert_eq!(report.cut.unwrap().end, Offset(20));
    holds_and_goes_on(&torn, &config, 20, "after the cut").await;
}

/// Power cuts at random moments, over a disk that keeps any subset of the unsynced pages.
#[async_test]
async fn no_durable_record_is_lost_in_a_hundred_power_cuts() {
    for seed in 0..100 {
        let faulty = FaultyStorage::new(seed);
        let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
        let mut durable = 0;
        for _ in 0..4 {
            let (mut log, report) = open(&storage, small()).await;
            assert_eq!(report.damaged, [], "seed {seed}");
            let end = log.positions().end.0;
            assert!(end >= durable, "seed {seed}: {end} < {durable}");
            assert_eq!(records(&log.reader()).await, numbers(0, end), "seed {seed}");
            append_numbers(&mut log, end + 1 + (seed as i64 * 7) % 50, 3).await;
            durable = log.positions().durable.0;
            faulty.set_plan(FaultPlan {
                pause_polls_max: 3,
                ..FaultPlan::default()
            });
            append_halfway(&mut log, seed % 30);
            faulty.set_plan(FaultPlan::default());
            drop(log);
            faulty.crash();
        }
    }
}

/// Starts to append numbers, over a few segments, and is dropped after so many polls.
fn append_halfway(log: &mut Log, polls: u64) {
    let from = log.positions().end.0;
    let values: Vec<String> = (from..from + 40).map(|n| n.to_string()).collect();
    let group = values
        .chunks(4)
        .map(|chunk| {
            let values: Vec<&str> = chunk.iter().map(String::as_str).collect();
            request(batch(&values))
        })
        .collect();
    let mut append = std::pin::pin!(log.append(group));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..polls {
        if append.as_mut().poll(&mut context).is_ready() {
            return;
        }
    }
}

#[async_test]
async fn a_checkpoint_of_a_newer_format_is_refused_and_nothing_is_touched() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    append_numbers(&mut log, 60, 4).await;
    drop(log);
    let good = storage.read_blob("checkpoint").await.unwrap().unwrap();
    let mut newer = good.to_vec();
    newer[15] += 1;
    let crc = crc32c::crc32c(&newer[12..]);
    newer[8..12].copy_from_slice(&crc.to_be_bytes());
    let newer = bytes::Bytes::from(newer);
    storage
        .write_blob("checkpoint", newer.clone())
        .await
        .unwrap();
    let refused = Log::open(Arc::clone(&storage), small(), clock()).await;
    assert!(matches!(refused, Err(LogError::Storage(_))));
    assert_eq!(storage.read_blob("checkpoint").await.unwrap(), Some(newer));
    storage.write_blob("checkpoint", good).await.unwrap();
    holds_and_goes_on(&storage, &small(), 60, "the older format").await;
}

#[async_test]
async fn a_lost_checkpoint_does_not_bring_an_old_leader_epoch_back() {
    let storage = memory();
    let config = LogConfig {
        durability: Durability::Memory,
        ..LogConfig::default()
    };
    for _ in 0..3 {
        open(&storage, config.clone()).await;
    }
    let (log, _) = open(&storage, config.clone()).await;
    let before = log.positions().leader_epoch;
    drop(log);
    storage.remove_blob("checkpoint").await.unwrap();
    let (log, _) = open(&storage, config).await;
    assert!(log.positions().leader_epoch > before);
}
