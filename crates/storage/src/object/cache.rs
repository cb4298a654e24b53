//! Blocks of archived objects, in memory up to a bound; many readers of one block cause one GET.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};

use super::ahead::Ahead;
use super::sums::{BlockSums, block_range};

/// What a cached block costs beside its bytes, about.
const BLOCK_OVERHEAD: u32 = 256;
/// A block whose bytes are wrong is asked for this often.
const ATTEMPTS: u32 = 4;
/// Waited before the second attempt; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How the cache behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// Most bytes of cached blocks (default 256 MiB).
    pub bytes_max: u64,
    /// Bytes fetched ahead of a sequential reader; 0 fetches nothing ahead (default 16 MiB).
    pub prefetch_bytes: u64,
    /// Most GETs that fetch ahead at once, over all readers (default 16).
    pub prefetches_max: usize,
    /// How long one GET may take (default 30 s).
    pub timeout: Duration,
}

impl Default for CacheOptions {
    fn default() -> CacheOptions {
        CacheOptions {
            bytes_max: 256 << 20,
            prefetch_bytes: 16 << 20,
            prefetches_max: 16,
            timeout: Duration::from_secs(30),
        }
    }
}

/// What the cache counts; all of it only rises.
#[derive(Debug, Default)]
pub struct CacheStats {
    /// GETs of blocks that answered.
    pub gets: AtomicU64,
    /// Their bytes.
    pub get_bytes: AtomicU64,
    /// GETs that failed, or whose bytes were wrong.
    pub errors: AtomicU64,
}

/// Which block of which object.
pub(super) type Key = (Arc<str>, u32);

/// Why a block cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    Unavailable(String),
    Lost(String),
    /// A GET that was to fetch it ahead failed: who wants it has to ask for it.
    NotFetchedAhead,
}

/// The cache; clones share it.
#[derive(Clone)]
pub struct BlockCache(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) options: CacheOptions,
    pub(super) blocks: Cache<Key, Bytes>,
    stats: Arc<CacheStats>,
    pub(super) ahead: Ahead,
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

impl BlockCache {
    /// An empty cache in front of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, options: CacheOptions) -> BlockCache {
        let weigh = |_: &Key, bytes: &Bytes| {
            u32::try_from(bytes.len()).map_or(u32::MAX, |len| len.saturating_add(BLOCK_OVERHEAD))
        };
        // Not by frequency: a block fetched ahead must stay until it is read.
        let blocks = Cache::builder()
            .max_capacity(options.bytes_max)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        BlockCache(Arc::new(Inner {
            store,
            options,
            blocks,
            stats: Arc::default(),
            ahead: Ahead::new(options.prefetches_max),
        }))
    }

    /// What was fetched so far.
    #[must_use]
    pub fn stats(&self) -> Arc<CacheStats> {
        Arc::clone(&self.0.stats)
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.0.store
    }

    /// How it behaves.
    #[must_use]
    pub fn options(&self) -> CacheOptions {
        self.0.options
    }

    /// A block, if it is here.
    pub(super) async fn at_hand(&self, object: &Arc<str>, block: u32) -> Option<Bytes> {
        self.0.blocks.get(&(Arc::clone(object), block)).await
    }

    pub(super) fn holds(&self, object: &Arc<str>, block: u32) -> bool {
        self.0.blocks.contains_key(&(Arc::clone(object), block))
    }

    /// A block, fetched if need be; those who ask at once share one GET.
    pub(super) async fn block(
        &self,
        object: &Arc<str>,
        block: u32,
        sums: &Arc<BlockSums>,
    ) -> Result<Bytes, Missing> {
        for _ in 0..ATTEMPTS {
            let key = (Arc::clone(object), block);
            let fetch = self.0.fetch(object, block, sums);
            match self.0.blocks.try_get_with(key, fetch).await {
                Ok(bytes) => return Ok(bytes),
                Err(missing) if *missing == Missing::NotFetchedAhead => {}
                Err(missing) => return Err((*missing).clone()),
            }
        }
        Err(Missing::NotFetchedAhead)
    }
}

impl Inner {
    pub(super) fn count_get(&self, bytes: usize) {
        self.stats.gets.fetch_add(1, Ordering::Relaxed);
        let bytes = bytes as u64;
        self.stats.get_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_error(&self) {
        self.stats.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks again while the bytes are wrong; a store that does not answer has been asked again by
    /// its client already.
    async fn fetch(
        &self,
        object: &Arc<str>,
        block: u32,
        sums: &BlockSums,
    ) -> Result<Bytes, Missing> {
        let range = block_range(block, sums.object_len());
        let location = Path::from(object.as_ref());
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let got = self.store.get_range(&location, range.clone());
            let failed = match tokio::time::timeout(self.options.timeout, got).await {
                Ok(Ok(bytes)) if sums.check(block, &bytes) => {
                    self.count_get(bytes.len());
                    return Ok(bytes);
                }
                Ok(Ok(bytes)) => Missing::Lost(format!(
                    "checksum mismatch ({} bytes came, asked for {})",
                    bytes.len(),
                    range.end - range.start
                )),
                Ok(Err(error @ Error::NotFound { .. })) => Missing::Lost(error.to_string()),
                Ok(Err(error)) => Missing::Unavailable(error.to_string()),
                Err(_) => Missing::Unavailable(format!("no answer in {:?}", self.options.timeout)),
            };
            self.count_error();
            tracing::debug!(%object, ?range, attempt, ?failed, "archived bytes not read");
            if attempt == ATTEMPTS || matches!(failed, Missing::Unavailable(_)) {
                return Err(failed);
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}
