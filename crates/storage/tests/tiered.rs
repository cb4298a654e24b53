//! The suite over a local storage with an archive behind it, and what only the two together do.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::Offset;
use comlog_storage::conformance::{Fixture, SealedSegment, check_reader, check_writer, fill};
use comlog_storage::{
    BLOCK_BYTES, BlockCache, CacheOptions, ColdSegments, MemoryStorage, ObjectReader, Result,
    SegmentMeta, SegmentReader, Storage, StorageError, SumsBuilder, TieredStorage,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// Segments on an object store in memory.
#[derive(Debug)]
struct Cold {
    cache: BlockCache,
    /// Length and CRC-32C, by base offset.
    segments: Mutex<BTreeMap<Offset, (u64, u32)>>,
}

impl Cold {
    fn new(store: Arc<dyn ObjectStore>) -> Arc<Cold> {
        Arc::new(Cold {
            cache: BlockCache::new(store, CacheOptions::default()),
            segments: Mutex::default(),
        })
    }

    fn keys(base: Offset) -> (Path, Path) {
        (
            Path::from(format!("{base}.log")),
            Path::from(format!("{base}.sums")),
        )
    }

    async fn put(&self, base: Offset, chunks: &[Bytes]) {
        let mut sums = SumsBuilder::default();
        chunks.iter().for_each(|chunk| sums.update(chunk));
        let sums = sums.finish();
        let (log, sums_at) = Cold::keys(base);
        let store = self.cache.store();
        store.put(&log, chunks.concat().into()).await.unwrap();
        store.put(&sums_at, sums.encode().into()).await.unwrap();
        let described = (sums.object_len(), sums.crc());
        self.segments.lock().unwrap().insert(base, described);
    }

    fn reader(&self, base: Offset) -> Option<ObjectReader> {
        let (len, crc) = *self.segments.lock().unwrap().get(&base)?;
        let (log, sums) = Cold::keys(base);
        Some(ObjectReader::new(self.cache.clone(), &log, sums, len, crc))
    }
}

#[async_trait]
impl ColdSegments for Cold {
    fn list(&self) -> Vec<SegmentMeta> {
        let segments = self.segments.lock().unwrap();
        let meta = |(&base_offset, &(len, _)): (&Offset, &(u64, u32))| SegmentMeta {
            base_offset,
            len,
            max_timestamp: None,
        };
        segments.iter().map(meta).collect()
    }

    fn open(&self, base: Offset) -> Option<Arc<dyn SegmentReader>> {
        Some(Arc::new(self.reader(base)?))
    }

    async fn read_blob(&self, _name: &str) -> Result<Option<Bytes>> {
        Ok(None)
    }

    async fn forget(&self, base: Offset) -> Result<()> {
        self.segments.lock().unwrap().remove(&base);
        Ok(())
    }
}

struct Tiered {
    local: MemoryStorage,
    cold: Arc<Cold>,
    now: Arc<dyn Storage>,
}

impl Tiered {
    fn new() -> Tiered {
        let (local, cold) = (MemoryStorage::new(), Cold::new(Arc::new(InMemory::new())));
        let now = Arc::new(TieredStorage::new(Arc::new(local.clone()), cold.clone()));
        Tiered { local, cold, now }
    }
}

#[async_trait]
impl Fixture for Tiered {
    fn storage(&self) -> Arc<dyn Storage> {
        self.now.clone()
    }

    async fn restart(&mut self) {
        let local = Arc::new(self.local.clone());
        self.now = Arc::new(TieredStorage::new(local, self.cold.clone()));
    }
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn archived_segments_read_as_the_contract_says() {
    check_reader(|segments: Vec<SealedSegment>| async move {
        let it = Tiered::new();
        for (base, chunks) in &segments {
            it.cold.put(*base, chunks).await;
        }
        it.storage()
    })
    .await;
}

#[tokio::test]
async fn half_archived_segments_read_as_the_contract_says() {
    check_reader(|segments: Vec<SealedSegment>| async move {
        let it = Tiered::new();
        for (at, segment) in segments.into_iter().enumerate() {
            match at % 2 {
                0 => it.cold.put(segment.0, &segment.1).await,
                _ => fill(&it.storage(), vec![segment]).await,
            }
        }
        it.storage()
    })
    .await;
}

#[tokio::test]
async fn it_writes_as_the_contract_says() {
    check_writer(|| async { Tiered::new() }).await;
}

#[tokio::test]
async fn readers_go_on_in_the_archive_when_the_local_copy_goes() {
    let it = Tiered::new();
    let content = pattern(100_000);
    let storage = TieredStorage::new(Arc::new(it.local.clone()), it.cold.clone());
    let mut writer = storage.create(Offset(0), 0).await.unwrap();
    writer.append(std::slice::from_ref(&content)).await.unwrap();
    let sealed = writer.seal().await.unwrap();
    let opened = storage.open(Offset(0)).await.unwrap();
    let refused = storage.evict(Offset(0), &[]).await;
    assert!(
        matches!(refused, Err(StorageError::NotFound { .. })),
        "not archived"
    );
    it.cold.put(Offset(0), std::slice::from_ref(&content)).await;
    storage.evict(Offset(0), &[]).await.unwrap();
    assert!(it.local.list().await.unwrap().is_empty());
    for reader in [sealed, opened, storage.open(Offset(0)).await.unwrap()] {
        assert!(reader.read(7..99_999).await.unwrap().concat() == content[7..99_999]);
    }
    assert_eq!(storage.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_archived_segment_can_be_written_to_again() {
    let it = Tiered::new();
    let content = pattern(10_000);
    it.cold.put(Offset(0), std::slice::from_ref(&content)).await;
    let mut writer = it.storage().reopen(Offset(0), 9_000, 0).await.unwrap();
    writer.append(&[Bytes::from_static(b"new")]).await.unwrap();
    let sealed = writer.seal().await.unwrap();
    let expected = [&content[..9_000], b"new"].concat();
    assert!(sealed.read(0..9_003).await.unwrap().concat() == expected);
    assert!(
        it.cold.list().is_empty(),
        "the archived one is another segment now"
    );
}

#[tokio::test]
async fn a_removed_segment_is_gone_from_both() {
    let it = Tiered::new();
    it.cold.put(Offset(0), &[pattern(10)]).await;
    it.storage().remove(Offset(0)).await.unwrap();
    let again = it.storage().remove(Offset(0)).await;
    assert!(matches!(again, Err(StorageError::NotFound { .. })));
    assert!(it.storage().list().await.unwrap().is_empty());
}

#[tokio::test]
async fn many_readers_of_one_cold_range_cause_one_get() {
    let cold = Cold::new(Arc::new(InMemory::new()));
    let content = pattern(BLOCK_BYTES as usize / 2);
    cold.put(Offset(0), std::slice::from_ref(&content)).await;
    let readers = (0..64).map(|_| {
        let reader = cold.reader(Offset(0)).unwrap();
        tokio::spawn(async move { reader.read(0..1_000).await.unwrap().concat() })
    });
    for read in futures_util::future::join_all(readers).await {
        assert!(read.unwrap() == content[..1_000]);
    }
    assert_eq!(cold.cache.stats().gets.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn wrong_bytes_are_asked_for_again_and_then_lost_for_that_block_only() {
    let cold = Cold::new(Arc::new(InMemory::new()));
    let block = u64::from(BLOCK_BYTES);
    let content = pattern(3 * block as usize);
    cold.put(Offset(0), std::slice::from_ref(&content)).await;
    let mut wrong = content.to_vec();
    wrong[block as usize + 5] ^= 1;
    let (log, _) = Cold::keys(Offset(0));
    cold.cache.store().put(&log, wrong.into()).await.unwrap();
    let reader = cold.reader(Offset(0)).unwrap();
    assert!(reader.read(0..100).await.is_ok());
    let lost = reader.read(0..block + 1).await;
    let range = match lost {
        Err(StorageError::Lost { what, range, .. }) => {
            assert_eq!(what, "0.log");
            range
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(range, block..2 * block);
    assert!(
        cold.cache.stats().errors.load(Ordering::Relaxed) > 1,
        "asked more than once"
    );
    let behind = reader.read(2 * block..3 * block).await.unwrap().concat();
    assert!(behind == content[2 * block as usize..]);
    // It was not remembered: the object may be put right.
    cold.cache
        .store()
        .put(&log, content.clone().into())
        .await
        .unwrap();
    assert!(reader.read(0..3 * block).await.unwrap().concat() == content);
}

#[tokio::test]
async fn block_checksums_that_are_gone_are_made_anew() {
    let cold = Cold::new(Arc::new(InMemory::new()));
    let content = pattern(5_000);
    cold.put(Offset(0), std::slice::from_ref(&content)).await;
    let (log, sums) = Cold::keys(Offset(0));
    cold.cache.store().delete(&sums).await.unwrap();
    let reader = cold.reader(Offset(0)).unwrap();
    assert!(reader.read(0..5_000).await.unwrap().concat() == content);
    // Without them the whole object must be right.
    cold.cache
        .store()
        .put(&log, content.slice(..4_999).into())
        .await
        .unwrap();
    let lost = cold.reader(Offset(0)).unwrap().read(0..10).await;
    assert!(matches!(lost, Err(StorageError::Lost { .. })), "{lost:?}");
}

#[tokio::test]
async fn a_sequential_reader_finds_the_next_blocks_there() {
    let cold = Cold::new(Arc::new(InMemory::new()));
    let content = pattern(4 * BLOCK_BYTES as usize);
    cold.put(Offset(0), std::slice::from_ref(&content)).await;
    let reader = cold.reader(Offset(0)).unwrap();
    reader.read(0..10).await.unwrap();
    let last = 3 * u64::from(BLOCK_BYTES);
    // It comes by itself; a test that waits for ever is ended as a whole.
    while reader.try_read(last..last + 10).unwrap().is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_fetched_ahead_is_fetched_once_and_with_few_gets() {
    let cold = Cold::new(Arc::new(InMemory::new()));
    let block = u64::from(BLOCK_BYTES);
    let content = pattern(13 * block as usize + 7);
    cold.put(Offset(0), std::slice::from_ref(&content)).await;
    let reader = cold.reader(Offset(0)).unwrap();
    let len = content.len() as u64;
    let mut position = 0;
    while position < len {
        let end = (position + block / 2).min(len);
        let read = reader.read(position..end).await.unwrap().concat();
        assert!(read == content[position as usize..end as usize]);
        position = end;
        // Let it go on with what it fetches.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    let stats = cold.cache.stats();
    assert_eq!(stats.get_bytes.load(Ordering::Relaxed), len);
    assert_eq!(stats.errors.load(Ordering::Relaxed), 0);
    // One for the first block, one for each four behind it, and one for the rest.
    assert_eq!(stats.gets.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn an_object_that_ends_early_is_read_up_to_there() {
    let cold = Cold::new(Arc::new(InMemory::new()));
    let block = BLOCK_BYTES as usize;
    let content = pattern(6 * block);
    cold.put(Offset(0), std::slice::from_ref(&content)).await;
    let (log, _) = Cold::keys(Offset(0));
    let cut = content.slice(..3 * block + 5);
    cold.cache.store().put(&log, cut.into()).await.unwrap();
    let reader = cold.reader(Offset(0)).unwrap();
    for at in 0..3 {
        let range = at * block..(at + 1) * block;
        let read = reader.read(range.start as u64..range.end as u64).await;
        assert!(read.unwrap().concat() == content[range]);
    }
    let lost = reader.read(3 * block as u64..6 * block as u64).await;
    let begins_at = match lost {
        Err(StorageError::Lost { range, .. }) => range.start,
        other => panic!("{other:?}"),
    };
    assert_eq!(begins_at, 3 * block as u64);
}
