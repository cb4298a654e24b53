//! Damage that is no tear: fenced, reported, never skipped silently, never overwritten.

use std::sync::Arc;

use comlog_log::{AppendError, DamagedRange, Durability, LogConfig, LogReader, Owner, ReadError};
use comlog_record::{Offset, OffsetRange};
use comlog_storage::{FaultyStorage, Storage};

use crate::support::*;

/// Reads from `from` as a consumer does: behind damage it goes on; what is lost is in the second.
async fn read_over(reader: &LogReader, from: i64) -> (Vec<i64>, Vec<OffsetRange>) {
    let (mut seen, mut lost) = (Vec::new(), Vec::new());
    let mut from = Offset(from);
    while from < reader.positions().high_watermark {
        match reader.read(from, 250).await {
            Ok(fetched) => {
                seen.extend(fetched.offsets.start.0..fetched.offsets.end.0);
                from = fetched.offsets.end;
            }
            Err(ReadError::Corrupt { offsets, .. }) => {
                assert!(offsets.contains(from), "{offsets} for {from}");
                lost.push(offsets);
                from = offsets.end;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (seen, lost)
}

fn range(start: i64, end: i64) -> OffsetRange {
    OffsetRange::new(Offset(start), Offset(end))
}

fn numbers_but(end: i64, lost: OffsetRange) -> Vec<i64> {
    (0..end).filter(|n| !lost.contains(Offset(*n))).collect()
}

#[async_test]
async fn damage_in_the_active_segment_far_from_its_end_is_fenced_by_recovery() {
    let storage = memory();
    let (mut log, _) = open(&storage, small_groups()).await;
    append_numbers(&mut log, 100, 4).await;
    drop(log);
    let whole = content(&storage, 0).await;
    let start = boundaries(&whole)[5];
    let end = boundaries(&whole)[6];
    for at in start..end {
        if (12..16).contains(&(at - start)) {
            continue; // the leader epoch lies outside the checksum
        }
        let mut flipped = whole.clone();
        flipped[at] ^= 0x04;
        let storage = with_content(&storage, 0, &flipped).await;
        let (mut log, report) = open(&storage, small_groups()).await;
        let what = format!("byte {}", at - start);
        assert_eq!(report.cut, None, "{what}");
        assert_eq!(report.damaged.len(), 1, "{what}");
        assert_eq!(report.damaged[0].offsets, range(20, 24), "{what}");
        assert_eq!(log.positions().end, Offset(100), "{what}");
        append_numbers(&mut log, 120, 4).await;
        let lost = vec![range(20, 24)];
        let expected = (numbers_but(120, lost[0]), lost);
        assert_eq!(read_over(&log.reader(), 0).await, expected, "{what}");
        drop(log);
        assert_eq!(
            content(&storage, 0).await[start..end],
            flipped[start..end],
            "{what}"
        );
        let (log, report) = open(&storage, small_groups()).await;
        assert_eq!(report.damaged, [], "{what}: it was reported already");
        assert_eq!(
            read_over(&log.reader(), 0).await,
            expected,
            "{what} reopened"
        );
    }
}

#[async_test]
async fn a_damaged_header_in_a_sealed_segment_is_found_by_reading() {
    // Base offset, length, magic, last offset delta.
    for byte in [0, 7, 8, 9, 16, 23] {
        let faulty = FaultyStorage::new(3);
        let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
        let (mut log, _) = open(&storage, small()).await;
        append_numbers(&mut log, 100, 4).await;
        let second = log.reader().segments()[1];
        let at = boundaries(&content(&storage, second.base_offset.0).await)[1] as u64;
        assert!(faulty.corrupt(second.base_offset, at + byte, 0x20));
        let lost = range(second.base_offset.0 + 4, second.base_offset.0 + 8);
        let reader = log.reader();
        // From inside, and by reading up to it.
        let inside = reader.read(Offset(lost.start.0 + 1), 100).await;
        assert!(
            matches!(inside, Err(ReadError::Corrupt { offsets, .. }) if offsets == lost),
            "byte {byte}: {inside:?}"
        );
        let expected = (numbers_but(100, lost), vec![lost]);
        assert_eq!(read_over(&reader, 0).await, expected, "byte {byte}");
        assert_eq!(reader.known_damage(range(0, 100)).len(), 1);
        assert_eq!(reader.known_damage(range(0, lost.start.0)), []);
    }
}

#[async_test]
async fn verify_finds_what_reading_leaves_to_the_checksum() {
    let faulty = FaultyStorage::new(3);
    let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
    let (mut log, _) = open(&storage, small()).await;
    append_numbers(&mut log, 100, 4).await;
    let reader = log.reader();
    assert_eq!(reader.verify().await.unwrap(), []);
    let segments = reader.segments();
    let mut expected = Vec::new();
    for segment in [segments[0], segments[2]] {
        assert!(faulty.corrupt(segment.base_offset, 70, 1));
        let base = segment.base_offset.0;
        expected.push(range(base, base + 4));
    }
    let ranges = |found: Vec<DamagedRange>| -> Vec<OffsetRange> {
        found.iter().map(|range| range.offsets).collect()
    };
    assert_eq!(ranges(reader.verify().await.unwrap()), expected);
    assert_eq!(ranges(reader.verify().await.unwrap()), expected);
    assert_eq!(read_over(&reader, 0).await.1, expected);
}

#[async_test]
async fn unreadable_sectors_lose_only_what_they_hold() {
    let faulty = FaultyStorage::new(3);
    let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
    let config = LogConfig {
        segment_bytes_max: 40_000,
        ..small()
    };
    let (mut log, _) = open(&storage, config).await;
    append_numbers(&mut log, 4_000, 4).await;
    let base = log.reader().segments()[1].base_offset;
    let at = boundaries(&content(&storage, base.0).await);
    faulty.damage(base, 8_192..12_288).unwrap();
    let batches_before = at.iter().filter(|end| **end <= 8_192).count() as i64 - 1;
    let batches_within = at.iter().filter(|start| **start < 12_288).count() as i64;
    let expected = range(base.0 + batches_before * 4, base.0 + batches_within * 4);
    let (seen, lost) = read_over(&log.reader(), 0).await;
    assert_eq!(lost, [expected]);
    assert_eq!(seen, numbers_but(4_000, expected));
}

#[async_test]
async fn a_segment_cut_short_or_gone_loses_its_records_and_no_others() {
    for gone in [false, true] {
        let storage = memory();
        let (mut log, _) = open(&storage, small()).await;
        append_numbers(&mut log, 100, 4).await;
        let second = log.reader().segments()[1];
        log.close().await.unwrap();
        let (from, to) = (second.base_offset.0, second.end_offset.0);
        let storage = if gone {
            storage.remove(second.base_offset).await.unwrap();
            storage
        } else {
            let bytes = content(&storage, from).await;
            with_content(&storage, from, &bytes[..bytes.len() - 1]).await
        };
        let (mut log, report) = open(&storage, small()).await;
        assert!(report.clean);
        append_numbers(&mut log, 120, 4).await;
        let lost = range(if gone { from } else { to - 4 }, to);
        let expected = (numbers_but(120, lost), vec![lost]);
        assert_eq!(read_over(&log.reader(), 0).await, expected, "gone {gone}");
    }
}

#[async_test]
async fn offsets_of_a_lost_active_segment_are_not_given_again() {
    for gone in [false, true] {
        let storage = memory();
        let (mut log, _) = open(&storage, small()).await;
        append_numbers(&mut log, 101, 4).await;
        log.close().await.unwrap();
        let last = last_base(&storage).await;
        let storage = if gone {
            storage.remove(Offset(last)).await.unwrap();
            storage
        } else {
            with_content(&storage, last, &[]).await
        };
        let (mut log, report) = open(&storage, small()).await;
        assert!(!report.clean);
        assert_eq!(report.damaged.len(), 1);
        assert_eq!(report.damaged[0].offsets, range(last, 101));
        append_numbers(&mut log, 120, 4).await;
        let lost = vec![range(last, 101)];
        assert_eq!(
            read_over(&log.reader(), 0).await,
            (numbers_but(120, lost[0]), lost)
        );
    }
}

/// A log on a disk of which the process ended, the machine did not.
async fn killed(config: LogConfig, end: i64) -> (FaultyStorage, Arc<dyn Storage>) {
    let faulty = FaultyStorage::new(5);
    let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
    let (mut log, _) = open(&storage, config).await;
    append_numbers(&mut log, end, 1).await;
    drop(log);
    faulty.kill();
    (faulty, storage)
}

#[async_test]
async fn a_flipped_bit_after_a_kill_loses_one_batch_and_no_offset_is_given_again() {
    for durability in [Durability::Durable, Durability::Memory] {
        let config = LogConfig {
            durability,
            ..LogConfig::default()
        };
        let ends = boundaries(&content(&killed(config.clone(), 100).await.1, 0).await);
        for batch in [0, 50, 99] {
            let (faulty, storage) = killed(config.clone(), 100).await;
            assert!(faulty.corrupt(Offset(0), ends[batch] as u64 + 63, 1));
            let (mut log, report) = open(&storage, config.clone()).await;
            let what = format!("{durability:?}, batch {batch}: {report:?}");
            let lost = range(batch as i64, batch as i64 + 1);
            assert_eq!(report.cut, None, "{what}");
            assert_eq!(report.damaged.len(), 1, "{what}");
            assert_eq!(report.damaged[0].offsets, lost, "{what}");
            append_numbers(&mut log, 102, 1).await;
            let expected = (numbers_but(102, lost), vec![lost]);
            assert_eq!(read_over(&log.reader(), 0).await, expected, "{what}");
        }
    }
}

#[async_test]
async fn whole_batches_behind_a_tear_are_cut_loudly_and_kept() {
    let ends = boundaries(&content(&killed(LogConfig::default(), 100).await.1, 0).await);
    let (faulty, storage) = killed(LogConfig::default(), 100).await;
    faulty.corrupt(Offset(0), ends[40] as u64 + 63, 1);
    // A copy has no marks, and is another life.
    let torn = with_content(&storage, -1, &[]).await;
    let (log, report) = open(&torn, LogConfig::default()).await;
    // All of it could have been one group: it is cut, said so, and kept.
    let cut = report.cut.unwrap();
    assert_eq!((cut.end, cut.batches), (Offset(40), Some(range(41, 100))));
    assert!(report.epoch_raised && report.damaged.is_empty());
    assert_eq!(log.positions().end, Offset(40));
    let kept = torn.read_blob("00000000000000000000.cut").await.unwrap();
    assert_eq!(kept.unwrap().len() as u64, cut.bytes);
}

#[async_test]
async fn an_active_segment_that_is_missing_or_short_after_a_kill_is_reported() {
    for left in [None, Some(0), Some(700)] {
        let (faulty, storage) = killed(LogConfig::default(), 50).await;
        match left {
            None => faulty.lose(Offset(0)).unwrap(),
            Some(len) => faulty.cut_short(Offset(0), len).unwrap(),
        }
        faulty.kill();
        let (mut log, report) = open(&storage, LogConfig::default()).await;
        assert_eq!(report.damaged.len(), 1, "{left:?}: {report:?}");
        let lost = report.damaged[0].offsets;
        assert_eq!(lost.end, Offset(50), "{left:?}");
        assert_eq!(log.positions().end, Offset(50), "{left:?}");
        append_numbers(&mut log, 53, 1).await;
        let expected = (numbers_but(53, lost), vec![lost]);
        assert_eq!(read_over(&log.reader(), 0).await, expected, "{left:?}");
        drop(log);
        let (log, _) = open(&storage, LogConfig::default()).await;
        assert_eq!(read_over(&log.reader(), 0).await, expected, "{left:?}");
    }
}

#[async_test]
async fn without_a_mark_a_missing_active_segment_gives_no_offset_again() {
    let (faulty, storage) = killed(LogConfig::default(), 50).await;
    faulty.lose(Offset(0)).unwrap();
    faulty.remove_marks();
    let (log, report) = open(&storage, LogConfig::default()).await;
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert!(log.positions().end > Offset(50));
}

#[async_test]
async fn an_older_checkpoint_put_back_is_reported() {
    let faulty = FaultyStorage::new(5);
    let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    append_numbers(&mut log, 10, 1).await;
    let old = storage.read_blob("checkpoint").await.unwrap().unwrap();
    log.fence(4).await.unwrap();
    let mut fenced = request(batch(&["10"]));
    fenced.fencing_token = Some(4);
    log.append(vec![fenced]).await.remove(0).unwrap();
    drop(log);
    faulty.kill();
    storage.write_blob("checkpoint", old).await.unwrap();
    let (_, report) = open(&storage, LogConfig::default()).await;
    assert_eq!(report.contradictions.len(), 1, "{report:?}");
    assert_eq!(report.damaged, []);
}

#[async_test]
async fn a_checkpoint_of_another_log_is_not_used() {
    let mut logs = Vec::new();
    for (partition, end) in [(0, 20), (1, 40)] {
        let config = LogConfig {
            owner: Owner::partition(7, partition),
            ..LogConfig::default()
        };
        let storage = memory();
        let (mut log, _) = open(&storage, config.clone()).await;
        append_numbers(&mut log, end, 1).await;
        log.close().await.unwrap();
        let checkpoint = storage.read_blob("checkpoint").await.unwrap().unwrap();
        logs.push((storage, config, end, checkpoint));
    }
    for (at, (storage, config, end, _)) in logs.iter().enumerate() {
        let other = logs[1 - at].3.clone();
        storage.write_blob("checkpoint", other).await.unwrap();
        let (log, report) = open(storage, config.clone()).await;
        assert_eq!(report.rebuilt.len(), 1, "{report:?}");
        assert_eq!(records(&log.reader()).await, numbers(0, *end));
    }
}

#[async_test]
async fn without_a_checkpoint_the_fence_and_the_log_start_still_hold() {
    for wrong in [None, Some(&b"garbage"[..])] {
        let storage = memory();
        let (mut log, _) = open(&storage, LogConfig::default()).await;
        append_numbers(&mut log, 20, 1).await;
        log.trim(Offset(7)).await.unwrap();
        log.fence(4).await.unwrap();
        drop(log);
        match wrong {
            Some(content) => storage
                .write_blob("checkpoint", content.into())
                .await
                .unwrap(),
            None => storage.remove_blob("checkpoint").await.unwrap(),
        }
        let (mut log, report) = open(&storage, LogConfig::default()).await;
        assert_eq!(report.rebuilt.len(), 1);
        assert_eq!((log.positions().start, log.fencing_token()), (Offset(7), 4));
        let unfenced = log.append(vec![request(batch(&["x"]))]).await.remove(0);
        assert!(
            matches!(unfenced, Err(AppendError::Fenced { .. })),
            "{unfenced:?}"
        );
        // And the other way round.
        log.close().await.unwrap();
        storage.remove_blob("fence").await.unwrap();
        let (log, report) = open(&storage, LogConfig::default()).await;
        assert_eq!(report.contradictions.len(), 1, "{report:?}");
        assert_eq!((log.positions().start, log.fencing_token()), (Offset(7), 4));
    }
}
