//! Segments in memory: for tests, simulation and wasm. Nothing outlives the value.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::Offset;

use crate::{
    Mark, Result, SegmentMeta, SegmentReader, SegmentWriter, Storage, StorageError,
    check_blob_name, segment_name,
};

/// Segments and blobs in memory. Clones share their content, so a clone is a "restart".
///
/// "Durable" means as durable as the process: nothing is lost while the storage lives.
#[derive(Debug, Clone)]
pub struct MemoryStorage {
    state: Arc<Mutex<State>>,
    /// Its own among those of the process.
    number: u64,
    bytes_max: Option<u64>,
}

impl Default for MemoryStorage {
    fn default() -> MemoryStorage {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        MemoryStorage {
            state: Arc::default(),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            bytes_max: None,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<Offset, Arc<Segment>>,
    blobs: BTreeMap<String, Bytes>,
    marks: [Option<Mark>; 2],
}

impl State {
    fn segment(&self, base_offset: Offset) -> Result<Arc<Segment>> {
        self.segments
            .get(&base_offset)
            .cloned()
            .ok_or_else(|| not_found(base_offset))
    }

    fn bytes(&self) -> u64 {
        self.segments
            .values()
            .map(|segment| segment.lock().len)
            .sum()
    }
}

impl MemoryStorage {
    /// An empty storage without a bound.
    #[must_use]
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    /// An empty storage that drops its oldest sealed segments, whole, while it holds more than
    /// `bytes_max` bytes. The unsealed segment is never dropped.
    #[must_use]
    pub fn with_budget(bytes_max: u64) -> MemoryStorage {
        MemoryStorage {
            bytes_max: Some(bytes_max),
            ..MemoryStorage::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self, segment: Arc<Segment>) -> Box<dyn SegmentWriter> {
        Box::new(MemoryWriter {
            storage: self.clone(),
            segment,
            mark: None,
        })
    }

    fn drop_over_budget(&self) {
        let Some(bytes_max) = self.bytes_max else {
            return;
        };
        let mut state = self.lock();
        while state.bytes() > bytes_max {
            let oldest = state
                .segments
                .iter()
                .find(|(_, segment)| segment.lock().sealed);
            let Some((&base_offset, _)) = oldest else {
                return;
            };
            state.segments.remove(&base_offset);
        }
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn list(&self) -> Result<Vec<SegmentMeta>> {
        let state = self.lock();
        let meta = |(&base_offset, segment): (&Offset, &Arc<Segment>)| SegmentMeta {
            base_offset,
            len: segment.lock().len,
            max_timestamp: None,
        };
        Ok(state.segments.iter().map(meta).collect())
    }

    async fn create(&self, base_offset: Offset, _len_hint: u64) -> Result<Box<dyn SegmentWriter>> {
        let segment = Arc::new(Segment::new(base_offset));
        let mut state = self.lock();
        if state.segments.contains_key(&base_offset) {
            return Err(StorageError::AlreadyExists {
                what: segment_name(base_offset),
            });
        }
        state.segments.insert(base_offset, segment.clone());
        Ok(self.writer(segment))
    }

    async fn reopen(
        &self,
        base_offset: Offset,
        len: u64,
        _len_hint: u64,
    ) -> Result<Box<dyn SegmentWriter>> {
        let segment = self.lock().segment(base_offset)?;
        // Readers of before keep what they have; the writer goes on in a segment of its own.
        let reopened = Arc::new(segment.prefix(len)?);
        self.lock().segments.insert(base_offset, reopened.clone());
        Ok(self.writer(reopened))
    }

    async fn open(&self, base_offset: Offset) -> Result<Arc<dyn SegmentReader>> {
        Ok(self.lock().segment(base_offset)?)
    }

    async fn remove(&self, base_offset: Offset) -> Result<()> {
        let removed = self.lock().segments.remove(&base_offset);
        removed.map(|_| ()).ok_or_else(|| not_found(base_offset))
    }

    async fn read_blob(&self, name: &str) -> Result<Option<Bytes>> {
        check_blob_name(name)?;
        Ok(self.lock().blobs.get(name).cloned())
    }

    async fn write_blob(&self, name: &str, content: Bytes) -> Result<()> {
        check_blob_name(name)?;
        self.lock().blobs.insert(name.to_owned(), content);
        Ok(())
    }

    async fn remove_blob(&self, name: &str) -> Result<()> {
        check_blob_name(name)?;
        self.lock().blobs.remove(name);
        Ok(())
    }

    async fn list_blobs(&self) -> Result<Vec<String>> {
        Ok(self.lock().blobs.keys().cloned().collect())
    }

    async fn read_marks(&self) -> Result<Vec<Mark>> {
        Ok(self.lock().marks.iter().flatten().copied().collect())
    }

    fn incarnation(&self) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(&self.number.to_be_bytes()))
    }
}

/// One segment: the chunks that were appended, and where each begins.
#[derive(Debug)]
struct Segment {
    base_offset: Offset,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    /// Not empty, ascending by position, without gaps.
    chunks: Vec<(u64, Bytes)>,
    len: u64,
    sealed: bool,
}

impl Content {
    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            let position = self.len;
            self.len += chunk.len() as u64;
            self.chunks.push((position, chunk));
        }
    }

    fn slice(&self, range: Range<u64>) -> Vec<Bytes> {
        let first = self
            .chunks
            .partition_point(|(position, _)| *position <= range.start);
        let overlapping = self.chunks[first.saturating_sub(1)..].iter();
        overlapping
            .take_while(|(position, _)| *position < range.end)
            .map(|(position, chunk)| {
                let from = range.start.saturating_sub(*position) as usize;
                let to = (range.end - position).min(chunk.len() as u64) as usize;
                chunk.slice(from.min(to)..to)
            })
            .filter(|chunk| !chunk.is_empty())
            .collect()
    }
}

impl Segment {
    fn new(base_offset: Offset) -> Segment {
        Segment {
            base_offset,
            content: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prefix(&self, len: u64) -> Result<Segment> {
        let content = self.lock();
        check_range(self.base_offset, &(0..len), content.len)?;
        let mut prefix = Content::default();
        content
            .slice(0..len)
            .into_iter()
            .for_each(|chunk| prefix.push(chunk));
        Ok(Segment {
            base_offset: self.base_offset,
            content: Mutex::new(prefix),
        })
    }
}

#[async_trait]
impl SegmentReader for Segment {
    fn len(&self) -> u64 {
        self.lock().len
    }

    fn try_read(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>> {
        let content = self.lock();
        check_range(self.base_offset, &range, content.len)?;
        Ok(Some(content.slice(range)))
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        Ok(self.try_read(range)?.unwrap_or_default())
    }
}

#[derive(Debug)]
struct MemoryWriter {
    storage: MemoryStorage,
    segment: Arc<Segment>,
    mark: Option<(usize, Mark)>,
}

impl MemoryWriter {
    fn write_mark(&mut self) {
        if let Some((slot, mark)) = self.mark.take() {
            self.storage.lock().marks[slot % 2] = Some(mark);
        }
    }
}

#[async_trait]
impl SegmentWriter for MemoryWriter {
    fn len(&self) -> u64 {
        self.segment.lock().len
    }

    fn reader(&self) -> Arc<dyn SegmentReader> {
        self.segment.clone()
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<()> {
        let mut content = self.segment.lock();
        chunks.iter().for_each(|chunk| content.push(chunk.clone()));
        drop(content);
        self.write_mark();
        self.storage.drop_over_budget();
        Ok(())
    }

    fn mark_next(&mut self, slot: usize, mark: Mark) {
        self.mark = Some((slot, mark));
    }

    async fn sync(&mut self) -> Result<()> {
        self.write_mark();
        Ok(())
    }

    async fn truncate(&mut self, len: u64) -> Result<()> {
        let mut content = self.segment.lock();
        check_range(self.segment.base_offset, &(0..len), content.len)?;
        let kept = content.slice(0..len);
        content.chunks.clear();
        content.len = 0;
        kept.into_iter().for_each(|chunk| content.push(chunk));
        Ok(())
    }

    async fn seal(self: Box<Self>) -> Result<Arc<dyn SegmentReader>> {
        self.segment.lock().sealed = true;
        self.storage.drop_over_budget();
        Ok(self.segment)
    }
}

fn not_found(base_offset: Offset) -> StorageError {
    StorageError::NotFound {
        what: segment_name(base_offset),
    }
}

fn check_range(base_offset: Offset, range: &Range<u64>, len: u64) -> Result<()> {
    if range.start <= range.end && range.end <= len {
        return Ok(());
    }
    let what = format!(
        "bytes {}..{} of {}, which has {len}",
        range.start,
        range.end,
        segment_name(base_offset)
    );
    Err(StorageError::InvalidInput { what })
}
