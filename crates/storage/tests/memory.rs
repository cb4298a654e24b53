//! The suite over segments in memory, and the budget, which is memory's own.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::Offset;
use comlog_storage::conformance::{Fixture, check_reader, check_writer, fill};
use comlog_storage::{MemoryStorage, Storage};
use futures_util::FutureExt;
#[cfg(not(target_arch = "wasm32"))]
use std::prelude::v1::test as sync_test;
#[cfg(not(target_arch = "wasm32"))]
use tokio::test as async_test;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::{wasm_bindgen_test as async_test, wasm_bindgen_test as sync_test};

struct Memory(MemoryStorage);

#[async_trait]
impl Fixture for Memory {
    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.0.clone())
    }

    async fn restart(&mut self) {}
}

#[async_test]
async fn memory_reads_as_the_contract_says() {
    check_reader(|segments| async move {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        fill(&storage, segments).await;
        storage
    })
    .await;
}

#[async_test]
async fn memory_writes_as_the_contract_says() {
    check_writer(|| async { Memory(MemoryStorage::new()) }).await;
}

#[sync_test]
fn appended_chunks_are_handed_out_without_a_copy() {
    let storage = MemoryStorage::new();
    let mut writer = storage
        .create(Offset(0), 0)
        .now_or_never()
        .unwrap()
        .unwrap();
    let chunk = Bytes::from(vec![7; 100]);
    writer
        .append(std::slice::from_ref(&chunk))
        .now_or_never()
        .unwrap()
        .unwrap();
    let read = writer.reader().try_read(10..20).unwrap().unwrap();
    assert_eq!(read[0].as_ptr(), chunk[10..].as_ptr());
}

async fn bases(storage: &MemoryStorage) -> Vec<i64> {
    let list = storage.list().await.unwrap();
    list.iter().map(|segment| segment.base_offset.0).collect()
}

#[async_test]
async fn over_budget_the_oldest_sealed_segments_go_whole() {
    let storage = MemoryStorage::with_budget(100);
    let chunk = [Bytes::from(vec![1; 40])];
    let mut first = storage.create(Offset(0), 0).await.unwrap();
    first.append(&chunk).await.unwrap();
    let first = first.seal().await.unwrap();
    let mut second = storage.create(Offset(1), 0).await.unwrap();
    second.append(&chunk).await.unwrap();
    second.seal().await.unwrap();
    let mut active = storage.create(Offset(2), 0).await.unwrap();
    active.append(&[chunk[0].slice(..20)]).await.unwrap();
    assert_eq!(
        bases(&storage).await,
        [0, 1, 2],
        "100 bytes are within the budget"
    );
    active.append(&[chunk[0].slice(..1)]).await.unwrap();
    assert_eq!(bases(&storage).await, [1, 2]);
    assert_eq!(first.read(0..40).await.unwrap().concat(), vec![1; 40]);
    for _ in 0..5 {
        active.append(&chunk).await.unwrap();
    }
    assert_eq!(
        bases(&storage).await,
        [2],
        "the unsealed one is never dropped"
    );
    assert_eq!(active.len(), 221);
}
