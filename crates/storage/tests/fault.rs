//! The suite over the faulty disk without faults, and each fault by itself.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::Offset;
use comlog_storage::conformance::{Fixture, check_reader, check_writer, fill};
use comlog_storage::{FaultPlan, FaultyStorage, SegmentWriter, Storage, StorageError};
use futures_util::FutureExt;
#[cfg(not(target_arch = "wasm32"))]
use std::prelude::v1::test as sync_test;
#[cfg(not(target_arch = "wasm32"))]
use tokio::test as async_test;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::{wasm_bindgen_test as async_test, wasm_bindgen_test as sync_test};

const ZERO: Offset = Offset(0);

struct Faulty(FaultyStorage);

#[async_trait]
impl Fixture for Faulty {
    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.0.clone())
    }

    async fn restart(&mut self) {
        self.0.kill();
    }
}

/// Nothing fails, but futures pend and early reads miss.
fn slow() -> FaultPlan {
    FaultPlan {
        pause_polls_max: 3,
        try_read_misses: 0.3,
        writeback: 0.3,
        ..FaultPlan::default()
    }
}

fn with_plan(seed: u64, plan: FaultPlan) -> FaultyStorage {
    let storage = FaultyStorage::new(seed);
    storage.set_plan(plan);
    storage
}

#[async_test]
async fn without_faults_it_is_a_storage() {
    for plan in [FaultPlan::default(), slow()] {
        check_reader(|segments| async move {
            let storage: Arc<dyn Storage> = Arc::new(with_plan(1, plan));
            fill(&storage, segments).await;
            storage
        })
        .await;
        check_writer(|| async { Faulty(with_plan(2, plan)) }).await;
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

fn create(storage: &FaultyStorage, hint: u64) -> Box<dyn SegmentWriter> {
    block_on(storage.create(ZERO, hint)).unwrap()
}

/// `count` pages, each filled with its number from 1.
fn pages(count: u8) -> Vec<Bytes> {
    let page = |number| Bytes::from(vec![number; 4096]);
    (1..=count).map(page).collect()
}

#[sync_test]
fn a_crash_keeps_what_was_synced_and_any_part_of_the_rest() {
    let mut kept_out_of_order = 0;
    let mut torn = 0;
    let mut lost = 0;
    for seed in 0..100 {
        let storage = FaultyStorage::new(seed);
        let mut writer = create(&storage, 64 << 10);
        let synced = pages(2);
        block_on(writer.append_and_sync(&synced)).unwrap();
        block_on(writer.append(&pages(6)[2..])).unwrap();
        drop(writer);
        storage.crash();
        let content = storage.content(ZERO).unwrap();
        assert_eq!(content.len(), 64 << 10, "allocated zeros survive");
        assert_eq!(content[..8192], synced.concat());
        let page = |number: usize| &content[number * 4096..(number + 1) * 4096];
        let full = |number: usize| page(number).iter().all(|byte| *byte as usize == number + 1);
        let empty = |number: usize| page(number).iter().all(|byte| *byte == 0);
        torn += (2..6)
            .filter(|&number| !full(number) && !empty(number))
            .count();
        lost += (2..6).filter(|&number| empty(number)).count();
        kept_out_of_order += usize::from(empty(2) && full(3));
    }
    assert!(
        torn > 50 && lost > 50 && kept_out_of_order > 2,
        "{torn} {lost} {kept_out_of_order}"
    );
}

#[sync_test]
fn a_kill_keeps_what_was_written() {
    let storage = FaultyStorage::new(1);
    let mut writer = create(&storage, 0);
    block_on(writer.append(&pages(6))).unwrap();
    drop(writer);
    storage.kill();
    assert_eq!(storage.content(ZERO).unwrap(), pages(6).concat());
    let mut writer = block_on(storage.reopen(ZERO, 6 * 4096, 0)).unwrap();
    block_on(writer.sync()).unwrap();
    storage.crash();
    assert_eq!(storage.content(ZERO).unwrap(), pages(6).concat());
}

#[sync_test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let storage = with_plan(seed, slow());
        let mut writer = futures_block_on(storage.create(ZERO, 0)).unwrap();
        for _ in 0..5 {
            futures_block_on(writer.append(&pages(5))).unwrap();
        }
        storage.crash();
        storage.content(ZERO).ok()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// Polls until it is ready: every future here wakes itself.
fn futures_block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Some(output) = future.as_mut().now_or_never() {
            return output;
        }
    }
}

#[sync_test]
fn a_failed_sync_is_final_and_its_pages_are_lost() {
    let mut lost = 0;
    for seed in 0..20 {
        let storage = FaultyStorage::new(seed);
        let mut writer = create(&storage, 0);
        block_on(writer.append(&pages(8))).unwrap();
        storage.set_plan(FaultPlan {
            sync_error: 1.0,
            ..FaultPlan::default()
        });
        let failed = block_on(writer.sync());
        assert!(matches!(failed, Err(StorageError::Io { .. })));
        storage.set_plan(FaultPlan::default());
        let again = block_on(writer.sync());
        assert!(matches!(again, Err(StorageError::Failed { .. })));
        let again = block_on(writer.append(&pages(1)));
        assert!(matches!(again, Err(StorageError::Failed { .. })));
        drop(writer);
        let mut writer = block_on(storage.reopen(ZERO, 8 * 4096, 0)).unwrap();
        block_on(writer.sync()).unwrap();
        storage.crash();
        lost += usize::from(storage.content(ZERO).unwrap() != pages(8).concat());
    }
    assert!(
        lost > 15,
        "a second sync succeeds and saves nothing: {lost}"
    );
}

#[sync_test]
fn no_space_keeps_nothing_and_passes() {
    let storage = FaultyStorage::new(1);
    let mut writer = create(&storage, 0);
    block_on(writer.append_and_sync(&pages(1))).unwrap();
    storage.set_plan(FaultPlan {
        no_space: 1.0,
        ..FaultPlan::default()
    });
    let full = block_on(writer.append(&pages(3)));
    assert!(matches!(full, Err(StorageError::NoSpace { .. })));
    let full = block_on(storage.create(Offset(1), 0));
    assert!(matches!(full, Err(StorageError::NoSpace { .. })));
    let full = block_on(storage.write_blob("vote", Bytes::new()));
    assert!(matches!(full, Err(StorageError::NoSpace { .. })));
    block_on(writer.sync()).unwrap();
    assert_eq!(writer.len(), 4096);
    assert_eq!(block_on(storage.list()).unwrap().len(), 1);
    assert_eq!(block_on(storage.list_blobs()).unwrap().len(), 0);
    storage.set_plan(FaultPlan::default());
    block_on(writer.append_and_sync(&pages(3)[1..])).unwrap();
    storage.crash();
    assert_eq!(storage.content(ZERO).unwrap(), pages(3).concat());
}

#[sync_test]
fn a_failed_append_leaves_a_part_and_a_failed_writer() {
    let storage = FaultyStorage::new(1);
    let mut writer = create(&storage, 0);
    block_on(writer.append_and_sync(&pages(1))).unwrap();
    storage.set_plan(FaultPlan {
        append_error: 1.0,
        ..FaultPlan::default()
    });
    let failed = block_on(writer.append(&pages(3)[1..]));
    assert!(matches!(failed, Err(StorageError::Io { .. })));
    let again = block_on(writer.sync());
    assert!(matches!(again, Err(StorageError::Failed { .. })));
    assert_eq!(writer.len(), 4096);
}

#[sync_test]
fn a_change_of_names_under_way_is_old_or_new_after_a_crash() {
    let mut seen = [[0; 2]; 3];
    for seed in 0..200 {
        let storage = with_plan(seed, slow());
        let old = futures_block_on(storage.create(Offset(5), 0)).unwrap();
        drop(futures_block_on(old.seal()).unwrap());
        futures_block_on(storage.write_blob("vote", Bytes::from("old"))).unwrap();
        poll_some(storage.create(Offset(6), 0), seed);
        poll_some(storage.remove(Offset(5)), seed);
        poll_some(storage.write_blob("vote", Bytes::from("new")), seed);
        storage.crash();
        let list = futures_block_on(storage.list()).unwrap();
        let has = |offset| list.iter().any(|segment| segment.base_offset == offset);
        let vote = futures_block_on(storage.read_blob("vote"))
            .unwrap()
            .unwrap();
        assert!(vote == "old" || vote == "new");
        for (counts, new) in seen
            .iter_mut()
            .zip([has(Offset(6)), !has(Offset(5)), vote == "new"])
        {
            counts[usize::from(new)] += 1;
        }
    }
    assert!(seen.iter().flatten().all(|count| *count > 20), "{seen:?}");
}

/// Polls a few times, then drops the future.
fn poll_some<T>(future: impl Future<Output = T>, polls: u64) {
    let mut future = Box::pin(future);
    for _ in 0..polls % 6 {
        if future.as_mut().now_or_never().is_some() {
            return;
        }
    }
}

#[sync_test]
fn damage_is_where_it_was_done() {
    let storage = FaultyStorage::new(1);
    let mut writer = create(&storage, 0);
    block_on(writer.append(&pages(4))).unwrap();
    let reader = block_on(writer.seal()).unwrap();
    storage.damage(ZERO, 100..200).unwrap();
    assert!(block_on(reader.read(0..100)).is_ok());
    let damaged = block_on(reader.read(150..4096));
    assert!(matches!(damaged, Err(StorageError::Damaged { range, .. }) if range == (150..200)));
    assert!(storage.corrupt(ZERO, 4096, 0x80));
    assert!(!storage.corrupt(ZERO, 4 * 4096, 0x80));
    assert_eq!(
        block_on(reader.read(4096..4098)).unwrap().concat(),
        [0x82, 2]
    );
    storage.cut_short(ZERO, 10_000).unwrap();
    let short = reader.try_read(9_000..11_000);
    assert!(matches!(short, Err(StorageError::Damaged { range, .. }) if range == (10_000..11_000)));
    storage.crash();
    assert_eq!(storage.content(ZERO).unwrap().len(), 10_000);
    block_on(storage.write_blob("vote", Bytes::from("abc"))).unwrap();
    assert!(storage.corrupt_blob("vote", 1, 1));
    assert_eq!(block_on(storage.read_blob("vote")).unwrap().unwrap(), "acc");
}

#[sync_test]
fn a_sync_that_lies_is_found_out_by_a_crash() {
    let plan = FaultPlan {
        sync_lies: true,
        ..FaultPlan::default()
    };
    let storage = with_plan(1, plan);
    let mut writer = create(&storage, 0);
    block_on(writer.append_and_sync(&pages(20))).unwrap();
    storage.crash();
    assert_ne!(storage.content(ZERO).unwrap(), pages(20).concat());
}
