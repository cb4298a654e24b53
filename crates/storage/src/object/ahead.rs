//! Fetches blocks before they are asked for, several with one GET.
//!
//! A store answers one long GET for less than many short ones. The blocks of an answer are handed
//! out as they arrive; who asks for one that is on its way waits for it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::future::{join, join_all};
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use tokio::sync::{Semaphore, oneshot};

use super::cache::{BlockCache, Inner, Key, Missing};
use super::sums::{BLOCK_BYTES, BlockSums, block_range};

/// What is being fetched ahead.
pub(super) struct Ahead {
    gets: Arc<Semaphore>,
    marked: Mutex<HashSet<Key>>,
}

impl Ahead {
    pub(super) fn new(gets_max: usize) -> Ahead {
        Ahead {
            gets: Arc::new(Semaphore::new(gets_max)),
            marked: Mutex::default(),
        }
    }

    fn marked(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks of an object that follow each other, marked as being fetched ahead until this is dropped.
struct Run {
    inner: Arc<Inner>,
    object: Arc<str>,
    blocks: Range<u32>,
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut marked = self.inner.ahead.marked();
        for block in self.blocks.clone() {
            marked.remove(&(Arc::clone(&self.object), block));
        }
    }
}

impl BlockCache {
    /// Fetches the blocks behind `after` in the background, as far as there is room; failures show
    /// when they are read.
    ///
    /// One GET is for half of what may be fetched ahead: the other half is read meanwhile.
    pub(super) fn prefetch(&self, object: &Arc<str>, after: u32, sums: &Arc<BlockSums>) {
        let blocks = self.0.options.prefetch_bytes / u64::from(BLOCK_BYTES);
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let run_max = blocks.div_ceil(2);
        let mut next = after.saturating_add(1);
        let end = next.saturating_add(blocks).min(sums.block_count());
        while next < end {
            let run = self.mark(object, next..next.saturating_add(run_max).min(end));
            next = run.blocks.end.max(next + 1);
            // At the end of the window, a short one will soon be a long one.
            let grows = run.blocks.end == end && end < sums.block_count();
            if run.blocks.is_empty() || (grows && (run.blocks.len() as u32) < run_max) {
                continue;
            }
            let Ok(permit) = Arc::clone(&self.0.ahead.gets).try_acquire_owned() else {
                return;
            };
            let sums = Arc::clone(sums);
            tokio::spawn(async move {
                run.fetch(&sums).await;
                drop(permit);
            });
        }
    }

    /// Marks the first of these blocks, up to one that is here or marked already.
    fn mark(&self, object: &Arc<str>, blocks: Range<u32>) -> Run {
        let mut marked = self.0.ahead.marked();
        let mut is_missing =
            |block| !self.holds(object, block) && marked.insert((Arc::clone(object), block));
        let end = blocks.clone().find(|&block| !is_missing(block));
        Run {
            inner: Arc::clone(&self.0),
            object: Arc::clone(object),
            blocks: blocks.start..end.unwrap_or(blocks.end),
        }
    }
}

impl Run {
    async fn fetch(&self, sums: &BlockSums) {
        let (senders, arrivals): (Vec<_>, Vec<_>) =
            self.blocks.clone().map(|_| oneshot::channel()).unzip();
        let blocks = self.blocks.clone().zip(arrivals);
        let arrive = join_all(blocks.map(|(block, arrival)| self.arrive(block, arrival)));
        let get = async {
            if let Err(reason) = self.get(sums, senders).await {
                self.inner.count_error();
                tracing::debug!(object = %self.object, blocks = ?self.blocks, reason,
                    "archived bytes not fetched ahead");
            }
        };
        join(get, arrive).await;
    }

    /// Puts a block into the cache when it arrives, unless a reader has fetched it by then.
    async fn arrive(&self, block: u32, arrival: oneshot::Receiver<Bytes>) {
        let key = (Arc::clone(&self.object), block);
        let arrival = async { arrival.await.map_err(|_| Missing::NotFetchedAhead) };
        drop(self.inner.blocks.try_get_with(key, arrival).await);
    }

    async fn get(
        &self,
        sums: &BlockSums,
        senders: Vec<oneshot::Sender<Bytes>>,
    ) -> Result<(), String> {
        let range = |block| block_range(block, sums.object_len());
        let whole = range(self.blocks.start).start..range(self.blocks.end - 1).end;
        let options = GetOptions {
            range: Some(GetRange::Bounded(whole.clone())),
            ..GetOptions::default()
        };
        let location = Path::from(self.object.as_ref());
        let answer = self.inner.store.get_opts(&location, options);
        let mut content = Content {
            stream: self.in_time(answer).await?.into_stream(),
            rest: Bytes::new(),
        };
        for (block, sender) in self.blocks.clone().zip(senders) {
            let range = range(block);
            let bytes = content.take((range.end - range.start) as usize);
            let bytes = self.in_time(bytes).await?;
            if sums.check(block, &bytes) {
                // Nobody waits for it when a reader has fetched it.
                drop(sender.send(bytes));
            } else {
                self.inner.count_error();
            }
        }
        self.inner.count_get((whole.end - whole.start) as usize);
        Ok(())
    }

    async fn in_time<T>(
        &self,
        future: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, String> {
        let timeout = self.inner.options.timeout;
        match tokio::time::timeout(timeout, future).await {
            Ok(got) => got.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer in {timeout:?}")),
        }
    }
}

/// The body of an answer.
struct Content {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    rest: Bytes,
}

impl Content {
    /// The next `len` bytes, or fewer if it ends before.
    async fn take(&mut self, len: usize) -> object_store::Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(len);
        while bytes.len() < len {
            if self.rest.is_empty() {
                match self.stream.try_next().await? {
                    Some(next) => self.rest = next,
                    None => break,
                }
            }
            let wanted = self.rest.len().min(len - bytes.len());
            bytes.extend_from_slice(&self.rest.split_to(wanted));
        }
        Ok(bytes.freeze())
    }
}
