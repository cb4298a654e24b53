//! One archived segment.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use tokio::sync::OnceCell;

use super::cache::{BlockCache, Missing};
use super::sums::{BLOCK_BYTES, BlockSums, SumsBuilder, block_range};
use crate::{Result, SegmentReader, StorageError};

/// Blocks of one read fetched at once.
const BLOCKS_AT_ONCE: usize = 8;

/// Reads ranges of one object, whose length and CRC-32C are known from elsewhere.
///
/// Needs a tokio runtime. Bytes are checked before they are handed out, against checksums of
/// blocks that are fetched with the first read; where these are gone or wrong, they are made anew
/// from the whole object.
#[derive(Debug)]
pub struct ObjectReader {
    object: Arc<str>,
    sums_at: Path,
    len: u64,
    crc: u32,
    sums: OnceCell<Arc<BlockSums>>,
    cache: BlockCache,
}

impl ObjectReader {
    /// A reader of the object at `location`; its block checksums lie at `sums_at`.
    #[must_use]
    pub fn new(
        cache: BlockCache,
        location: &Path,
        sums_at: Path,
        len: u64,
        crc: u32,
    ) -> ObjectReader {
        ObjectReader {
            object: location.as_ref().into(),
            sums_at,
            len,
            crc,
            sums: OnceCell::new(),
            cache,
        }
    }

    async fn sums(&self) -> Result<&Arc<BlockSums>> {
        self.sums.get_or_try_init(|| self.load_sums()).await
    }

    async fn load_sums(&self) -> Result<Arc<BlockSums>> {
        let timeout = self.cache.options().timeout;
        let get = async { self.cache.store().get(&self.sums_at).await?.bytes().await };
        match tokio::time::timeout(timeout, get).await {
            Ok(Ok(content)) => {
                let sums = BlockSums::decode(&content).filter(|sums| self.is_described_by(sums));
                if let Some(sums) = sums {
                    return Ok(Arc::new(sums));
                }
            }
            Ok(Err(Error::NotFound { .. })) => {}
            Ok(Err(error)) => return Err(self.unavailable(error.to_string())),
            Err(_) => return Err(self.unavailable(format!("no answer in {timeout:?}"))),
        }
        tracing::warn!(object = %self.object, "block checksums are gone, made anew from the object");
        self.rebuild_sums().await
    }

    fn is_described_by(&self, sums: &BlockSums) -> bool {
        sums.object_len() == self.len && sums.crc() == self.crc
    }

    async fn rebuild_sums(&self) -> Result<Arc<BlockSums>> {
        let location = Path::from(self.object.as_ref());
        let mut builder = SumsBuilder::default();
        let mut content = match self.cache.store().get(&location).await {
            Ok(found) => found.into_stream(),
            Err(error @ Error::NotFound { .. }) => {
                return Err(self.lost(0..self.len, error.to_string()));
            }
            Err(error) => return Err(self.unavailable(error.to_string())),
        };
        loop {
            let next = tokio::time::timeout(self.cache.options().timeout, content.try_next());
            match next.await {
                Ok(Ok(Some(bytes))) => builder.update(&bytes),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(self.unavailable(error.to_string())),
                Err(_) => return Err(self.unavailable("no answer".to_owned())),
            }
        }
        let sums = builder.finish();
        if self.is_described_by(&sums) {
            Ok(Arc::new(sums))
        } else {
            let reason = "checksum mismatch of the whole object".to_owned();
            Err(self.lost(0..self.len, reason))
        }
    }

    fn unavailable(&self, reason: String) -> StorageError {
        StorageError::Unavailable {
            what: self.object.to_string(),
            reason,
        }
    }

    fn lost(&self, range: Range<u64>, reason: String) -> StorageError {
        StorageError::Lost {
            what: self.object.to_string(),
            range,
            reason,
        }
    }

    async fn block(&self, block: u32, sums: &Arc<BlockSums>) -> Result<(u32, Bytes)> {
        match self.cache.block(&self.object, block, sums).await {
            Ok(bytes) => Ok((block, bytes)),
            Err(Missing::Unavailable(reason)) => Err(self.unavailable(reason)),
            Err(Missing::NotFetchedAhead) => Err(self.unavailable("it breaks off".to_owned())),
            Err(Missing::Lost(reason)) => Err(self.lost(block_range(block, self.len), reason)),
        }
    }

    /// Fetches ahead if this looks like one of many reads in a row.
    fn look_ahead(&self, first: u32, last: u32, sums: &Arc<BlockSums>) {
        let begun = first == 0 || self.cache.holds(&self.object, first - 1);
        if begun {
            self.cache.prefetch(&self.object, last, sums);
        }
    }

    fn check(&self, range: &Range<u64>) -> Result<()> {
        if range.start <= range.end && range.end <= self.len {
            return Ok(());
        }
        let (start, end) = (range.start, range.end);
        let what = format!(
            "bytes {start}..{end} of {}, which has {}",
            self.object, self.len
        );
        Err(StorageError::InvalidInput { what })
    }
}

/// The part of a block that lies in `range`.
fn part((block, bytes): (u32, Bytes), range: &Range<u64>) -> Bytes {
    let start = u64::from(block) * u64::from(BLOCK_BYTES);
    let from = range.start.saturating_sub(start).min(bytes.len() as u64);
    let to = (range.end - start).min(bytes.len() as u64);
    bytes.slice(from as usize..to as usize)
}

/// The first and the last block of a range that is not empty.
fn blocks(range: &Range<u64>) -> (u32, u32) {
    let number =
        |position: u64| u32::try_from(position / u64::from(BLOCK_BYTES)).unwrap_or(u32::MAX);
    (number(range.start), number(range.end - 1))
}

#[async_trait]
impl SegmentReader for ObjectReader {
    fn len(&self) -> u64 {
        self.len
    }

    fn try_read(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>> {
        self.check(&range)?;
        if range.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let Some(sums) = self.sums.get() else {
            return Ok(None);
        };
        let (first, last) = blocks(&range);
        let mut chunks = Vec::with_capacity((last - first) as usize + 1);
        for block in first..=last {
            // Looking into the cache never waits, though it is written as if it might.
            match self
                .cache
                .at_hand(&self.object, block)
                .now_or_never()
                .flatten()
            {
                Some(bytes) => chunks.push(part((block, bytes), &range)),
                None => return Ok(None),
            }
        }
        self.look_ahead(first, last, sums);
        Ok(Some(chunks))
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        self.check(&range)?;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let sums = self.sums().await?;
        let (first, last) = blocks(&range);
        self.look_ahead(first, last, sums);
        stream::iter(first..=last)
            .map(|block| self.block(block, sums))
            .buffered(BLOCKS_AT_ONCE)
            .map_ok(|block| part(block, &range))
            .try_collect()
            .await
    }
}
