//! Local first, archive second: one log whose older segments may live elsewhere.
//!
//! The log above sees one list of segments and does not know where they are. A reader that was
//! handed out before its segment was evicted goes on reading from the archive, so that nothing
//! holds the local file any longer than it takes to finish a read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::Offset;

use crate::{
    Mark, Result, SegmentMeta, SegmentReader, SegmentWriter, Storage, StorageError, segment_name,
};

/// Bytes copied at once when an archived segment is written to again.
const COPY_BYTES: u64 = 4 << 20;

/// What an archive holds of one log: sealed segments, and blobs that belong to them.
///
/// What is in it is known without asking the archive: only bytes are fetched.
#[async_trait]
pub trait ColdSegments: fmt::Debug + Send + Sync + 'static {
    /// Every segment, in any order.
    fn list(&self) -> Vec<SegmentMeta>;

    /// A reader of a segment; `None` when the archive does not hold it.
    fn open(&self, base_offset: Offset) -> Option<Arc<dyn SegmentReader>>;

    /// The content of a blob that belongs to a segment; `None` when there is none.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    async fn read_blob(&self, name: &str) -> Result<Option<Bytes>>;

    /// Forgets a segment, durably on return; it does not wait for the archive.
    ///
    /// # Errors
    /// Those of the medium that it is noted on.
    async fn forget(&self, base_offset: Offset) -> Result<()>;
}

/// A local storage in front of an archive.
///
/// New segments and blobs are local. Of a segment in both places the local copy is read, unless it
/// is shorter than the archived one. [`Storage::list_blobs`] gives the local blobs only.
#[derive(Debug)]
pub struct TieredStorage {
    local: Arc<dyn Storage>,
    cold: Arc<dyn ColdSegments>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Readers handed out, by segment.
    readers: HashMap<Offset, Vec<Weak<TieredReader>>>,
    /// Segments whose local file is going or gone.
    evicted: BTreeSet<Offset>,
}

impl TieredStorage {
    /// Puts `local` in front of `cold`.
    #[must_use]
    pub fn new(local: Arc<dyn Storage>, cold: Arc<dyn ColdSegments>) -> TieredStorage {
        TieredStorage {
            local,
            cold,
            shared: Arc::default(),
        }
    }

    /// The segments whose bytes are here, ascending.
    ///
    /// # Errors
    /// Those of the local storage.
    pub async fn list_local(&self) -> Result<Vec<SegmentMeta>> {
        self.local.list().await
    }

    /// The local storage.
    #[must_use]
    pub fn local(&self) -> &Arc<dyn Storage> {
        &self.local
    }

    /// Removes the local copy of a segment that the archive holds, and `blobs`; open readers go on
    /// in the archive. The caller has made sure that the archived copy is good.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when the archive does not hold it (nothing is removed then);
    /// those of the local storage.
    pub async fn evict(&self, base_offset: Offset, blobs: &[String]) -> Result<()> {
        let cold = self.cold.open(base_offset);
        let cold = cold.ok_or_else(|| not_found(base_offset))?;
        self.shared.switch(base_offset, &cold);
        match self.local.remove(base_offset).await {
            Ok(()) | Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        for blob in blobs {
            self.local.remove_blob(blob).await?;
        }
        Ok(())
    }

    /// The local copy of a segment, if it is here and whole.
    async fn open_local(&self, base_offset: Offset) -> Result<Option<Arc<dyn SegmentReader>>> {
        match self.local.open(base_offset).await {
            Ok(local) => Ok(Some(local)),
            Err(StorageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the first `len` bytes of an archived segment local.
    async fn copy_down(
        &self,
        base_offset: Offset,
        cold: &Arc<dyn SegmentReader>,
        len: u64,
    ) -> Result<()> {
        if len > cold.len() {
            let what = format!("{} has {} bytes", segment_name(base_offset), cold.len());
            return Err(StorageError::InvalidInput { what });
        }
        let mut writer = match self.local.create(base_offset, len).await {
            Ok(writer) => writer,
            // What a copy that was interrupted left behind.
            Err(StorageError::AlreadyExists { .. }) => {
                self.local.reopen(base_offset, 0, len).await?
            }
            Err(error) => return Err(error),
        };
        let mut position = 0;
        while position < len {
            let end = (position + COPY_BYTES).min(len);
            writer.append(&cold.read(position..end).await?).await?;
            position = end;
        }
        writer.sync().await
    }

    fn writer(&self, base_offset: Offset, inner: Box<dyn SegmentWriter>) -> Box<dyn SegmentWriter> {
        self.shared.lock().evicted.remove(&base_offset);
        Box::new(TieredWriter {
            base_offset,
            inner,
            shared: Arc::clone(&self.shared),
        })
    }
}

#[async_trait]
impl Storage for TieredStorage {
    async fn list(&self) -> Result<Vec<SegmentMeta>> {
        let local = self.local.list().await?;
        let mut all: BTreeMap<Offset, SegmentMeta> = self
            .cold
            .list()
            .into_iter()
            .map(|segment| (segment.base_offset, segment))
            .collect();
        for segment in local {
            let known = all.entry(segment.base_offset).or_insert(segment);
            known.len = known.len.max(segment.len);
        }
        Ok(all.into_values().collect())
    }

    async fn create(&self, base_offset: Offset, len_hint: u64) -> Result<Box<dyn SegmentWriter>> {
        if self.cold.open(base_offset).is_some() {
            let what = segment_name(base_offset);
            return Err(StorageError::AlreadyExists { what });
        }
        let writer = self.local.create(base_offset, len_hint).await?;
        Ok(self.writer(base_offset, writer))
    }

    async fn reopen(
        &self,
        base_offset: Offset,
        len: u64,
        len_hint: u64,
    ) -> Result<Box<dyn SegmentWriter>> {
        if let Some(cold) = self.cold.open(base_offset) {
            let local = self.open_local(base_offset).await?;
            if local.is_none_or(|local| local.len() < len.min(cold.len())) {
                self.copy_down(base_offset, &cold, len).await?;
            }
            // What is written from now on makes another segment than the archived one.
            self.cold.forget(base_offset).await?;
        }
        let writer = self.local.reopen(base_offset, len, len_hint).await?;
        Ok(self.writer(base_offset, writer))
    }

    async fn open(&self, base_offset: Offset) -> Result<Arc<dyn SegmentReader>> {
        let local = self.open_local(base_offset).await?;
        let reader = match (local, self.cold.open(base_offset)) {
            (Some(local), Some(cold)) if local.len() < cold.len() => cold,
            (Some(local), _) => local,
            (None, Some(cold)) => cold,
            (None, None) => return Err(not_found(base_offset)),
        };
        let tracked = self.shared.track(base_offset, reader);
        if self.shared.lock().evicted.contains(&base_offset)
            && let Some(cold) = self.cold.open(base_offset)
        {
            tracked.switch(&cold);
        }
        Ok(tracked)
    }

    async fn remove(&self, base_offset: Offset) -> Result<()> {
        let cold = self.cold.open(base_offset).is_some();
        if cold {
            self.cold.forget(base_offset).await?;
        }
        self.shared.lock().readers.remove(&base_offset);
        match self.local.remove(base_offset).await {
            Err(StorageError::NotFound { .. }) if cold => Ok(()),
            removed => removed,
        }
    }

    async fn read_blob(&self, name: &str) -> Result<Option<Bytes>> {
        match self.local.read_blob(name).await? {
            Some(content) => Ok(Some(content)),
            None => self.cold.read_blob(name).await,
        }
    }

    async fn write_blob(&self, name: &str, content: Bytes) -> Result<()> {
        self.local.write_blob(name, content).await
    }

    async fn remove_blob(&self, name: &str) -> Result<()> {
        self.local.remove_blob(name).await
    }

    async fn list_blobs(&self) -> Result<Vec<String>> {
        self.local.list_blobs().await
    }

    async fn read_marks(&self) -> Result<Vec<Mark>> {
        self.local.read_marks().await
    }

    fn incarnation(&self) -> Option<Bytes> {
        self.local.incarnation()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn track(&self, base_offset: Offset, reader: Arc<dyn SegmentReader>) -> Arc<TieredReader> {
        let tracked = Arc::new(TieredReader {
            current: RwLock::new(reader),
        });
        let mut state = self.lock();
        let readers = state.readers.entry(base_offset).or_default();
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(&tracked));
        tracked
    }

    /// Lets every reader of a segment go on in `cold`.
    fn switch(&self, base_offset: Offset, cold: &Arc<dyn SegmentReader>) {
        let mut state = self.lock();
        state.evicted.insert(base_offset);
        let readers = state.readers.remove(&base_offset).unwrap_or_default();
        let alive = readers.iter().filter_map(Weak::upgrade);
        alive.for_each(|reader| reader.switch(cold));
    }
}

/// A reader whose bytes may move to the archive.
#[derive(Debug)]
struct TieredReader {
    current: RwLock<Arc<dyn SegmentReader>>,
}

impl TieredReader {
    fn current(&self) -> Arc<dyn SegmentReader> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    fn switch(&self, cold: &Arc<dyn SegmentReader>) {
        let current = self.current.write();
        *current.unwrap_or_else(PoisonError::into_inner) = Arc::clone(cold);
    }
}

#[async_trait]
impl SegmentReader for TieredReader {
    fn len(&self) -> u64 {
        self.current().len()
    }

    fn try_read(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>> {
        self.current().try_read(range)
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        self.current().read(range).await
    }
}

/// A local writer whose readers can move to the archive later.
#[derive(Debug)]
struct TieredWriter {
    base_offset: Offset,
    inner: Box<dyn SegmentWriter>,
    shared: Arc<Shared>,
}

#[async_trait]
impl SegmentWriter for TieredWriter {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn reader(&self) -> Arc<dyn SegmentReader> {
        self.shared.track(self.base_offset, self.inner.reader())
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<()> {
        self.inner.append(chunks).await
    }

    fn mark_next(&mut self, slot: usize, mark: Mark) {
        self.inner.mark_next(slot, mark);
    }

    async fn sync(&mut self) -> Result<()> {
        self.inner.sync().await
    }

    async fn append_and_sync(&mut self, chunks: &[Bytes]) -> Result<()> {
        self.inner.append_and_sync(chunks).await
    }

    async fn truncate(&mut self, len: u64) -> Result<()> {
        self.inner.truncate(len).await
    }

    async fn seal(self: Box<Self>) -> Result<Arc<dyn SegmentReader>> {
        let sealed = self.inner.seal().await?;
        Ok(self.shared.track(self.base_offset, sealed))
    }
}

fn not_found(base_offset: Offset) -> StorageError {
    StorageError::NotFound {
        what: segment_name(base_offset),
    }
}
