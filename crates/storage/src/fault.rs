//! A disk that fails, from a seed: for tests of what stands on [`Storage`].
//!
//! [`FaultyStorage`] keeps of every segment what readers see and what the disk holds, page by
//! page. [`FaultyStorage::crash`] leaves what the disk holds and a random subset of the pages
//! that were not yet synced, some of them torn; [`FaultyStorage::kill`] ends only the process.
//! A [`FaultPlan`] makes calls fail, wait and lie; damage is done to chosen positions. All of it
//! follows from the seed and the order of calls: nothing here reads a clock or waits for one.

mod file;
mod plan;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::Offset;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{
    MARK_LEN, Mark, Result, SegmentMeta, SegmentReader, SegmentWriter, Storage, StorageError,
    check_blob_name, segment_name,
};
use file::{File, SharedFile};
pub use plan::FaultPlan;
use plan::Pause;
use writer::FaultyWriter;

/// Most bytes that a segment is given ahead of its content.
const PREALLOCATE_BYTES_MAX: u64 = 1 << 20;

/// A seeded in-memory disk. Clones share it.
#[derive(Clone)]
pub struct FaultyStorage {
    disk: Arc<Mutex<Disk>>,
}

struct Disk {
    rng: StdRng,
    plan: FaultPlan,
    files: BTreeMap<Offset, SharedFile>,
    /// Removed from view, but a crash may bring them back.
    removing: Vec<(Offset, SharedFile)>,
    blobs: BTreeMap<String, Blob>,
    /// The slots for marks, as seen and as a crash may leave them instead.
    marks: [MarkSlot; 2],
    /// How often the machine restarted.
    life: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct MarkSlot {
    seen: Option<Mark>,
    durable: Option<Mark>,
}

impl MarkSlot {
    /// Old, new, a mixture, or nothing.
    fn crash(&mut self, rng: &mut StdRng) {
        let left = match (rng.random_range(0..4), self.seen) {
            (0, _) => self.durable,
            (1, Some(seen)) => {
                let mut torn = self.durable.unwrap_or([0; MARK_LEN]);
                let cut = rng.random_range(0..MARK_LEN);
                torn[..cut].copy_from_slice(&seen[..cut]);
                Some(torn)
            }
            (_, seen) => seen,
        };
        *self = MarkSlot {
            seen: left,
            durable: left,
        };
    }
}

/// A blob as seen, and as a crash may leave it instead.
#[derive(Debug, Clone, Default, PartialEq)]
struct Blob {
    seen: Option<Bytes>,
    durable: Option<Bytes>,
}

impl Disk {
    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability.min(1.0))
    }

    /// What was done to names and blobs is durable, by whatever call: they share a directory.
    fn sync_directory(&mut self) {
        for file in self.files.values() {
            file::lock(file).named = true;
        }
        self.removing.clear();
        for blob in self.blobs.values_mut() {
            blob.durable = blob.seen.clone();
        }
    }

    fn file(&self, base_offset: Offset) -> Result<SharedFile> {
        self.files
            .get(&base_offset)
            .cloned()
            .ok_or_else(|| StorageError::NotFound {
                what: segment_name(base_offset),
            })
    }
}

impl FaultyStorage {
    /// An empty disk on which nothing fails yet, except that a crash takes what was not synced.
    #[must_use]
    pub fn new(seed: u64) -> FaultyStorage {
        let disk = Disk {
            rng: StdRng::seed_from_u64(seed),
            plan: FaultPlan::default(),
            files: BTreeMap::new(),
            removing: Vec::new(),
            blobs: BTreeMap::new(),
            marks: [MarkSlot::default(); 2],
            life: 0,
        };
        FaultyStorage {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// What fails from now on.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.lock().plan = plan;
    }

    /// Cuts the power: what was synced stays, any part of the rest may be there or not, names and
    /// blobs whose change was under way are old or new. Drop every writer, reader and future of
    /// before first.
    pub fn crash(&self) {
        let mut guard = self.lock();
        let disk = &mut *guard;
        let mut left = BTreeMap::new();
        for (base_offset, file) in std::mem::take(&mut disk.files) {
            let kept = file::lock(&file).named || disk.rng.random_bool(0.5);
            if kept {
                left.insert(base_offset, file::after_crash(&file, &mut disk.rng));
            }
        }
        for (base_offset, file) in std::mem::take(&mut disk.removing) {
            if disk.rng.random_bool(0.5) && !left.contains_key(&base_offset) {
                left.insert(base_offset, file::after_crash(&file, &mut disk.rng));
            }
        }
        disk.files = left;
        for blob in disk.blobs.values_mut() {
            if disk.rng.random_bool(0.5) {
                blob.seen = blob.durable.clone();
            }
            blob.durable = blob.seen.clone();
        }
        for slot in &mut disk.marks {
            slot.crash(&mut disk.rng);
        }
        disk.life += 1;
    }

    /// Ends the process, not the machine: everything written is still there, and no more durable
    /// than before. Pages that a failed sync lost show what the disk holds. Drop every writer,
    /// reader and future of before first.
    pub fn kill(&self) {
        let mut disk = self.lock();
        for file in disk.files.values_mut() {
            *file = file::after_kill(file);
        }
    }

    /// Flips the bits of `mask` in one byte, on the disk and as readers see it; `false` when there
    /// is no such byte.
    pub fn corrupt(&self, base_offset: Offset, position: u64, mask: u8) -> bool {
        let file = self.lock().file(base_offset);
        file.is_ok_and(|file| file::lock(&file).corrupt(position, mask))
    }

    /// Flips the bits of `mask` in one byte of a blob; `false` when there is no such byte.
    pub fn corrupt_blob(&self, name: &str, position: usize, mask: u8) -> bool {
        let mut disk = self.lock();
        let Some(blob) = disk.blobs.get_mut(name) else {
            return false;
        };
        let Some(seen) = blob.seen.as_ref().filter(|seen| position < seen.len()) else {
            return false;
        };
        let mut content = seen.to_vec();
        content[position] ^= mask;
        blob.seen = Some(content.into());
        blob.durable = blob.seen.clone();
        true
    }

    /// Flips the bits of `mask` in one byte of the slots for marks; `false` when there is none.
    pub fn corrupt_mark(&self, slot: usize, position: usize, mask: u8) -> bool {
        let mut disk = self.lock();
        let Some(mark) = disk.marks.get_mut(slot).and_then(|slot| slot.seen.as_mut()) else {
            return false;
        };
        mark[position % MARK_LEN] ^= mask;
        disk.marks[slot].durable = disk.marks[slot].seen;
        true
    }

    /// Loses the marks.
    pub fn remove_marks(&self) {
        self.lock().marks = [MarkSlot::default(); 2];
    }

    /// Takes a segment away, as somebody who tidies up.
    ///
    /// # Errors
    /// [`StorageError::NotFound`].
    pub fn lose(&self, base_offset: Offset) -> Result<()> {
        let mut disk = self.lock();
        disk.file(base_offset)?;
        disk.files.remove(&base_offset);
        Ok(())
    }

    /// Makes every read that touches `range` fail with [`StorageError::Damaged`], as a bad sector
    /// does.
    ///
    /// # Errors
    /// [`StorageError::NotFound`].
    pub fn damage(&self, base_offset: Offset, range: Range<u64>) -> Result<()> {
        let file = self.lock().file(base_offset)?;
        file::lock(&file).damaged.push(range);
        Ok(())
    }

    /// Cuts a segment to `len` bytes under its readers, who keep their length: a short read.
    ///
    /// # Errors
    /// [`StorageError::NotFound`].
    pub fn cut_short(&self, base_offset: Offset, len: u64) -> Result<()> {
        let file = self.lock().file(base_offset)?;
        file::lock(&file).cut_short(len);
        Ok(())
    }

    /// What readers see of a segment, allocated zeros included, past every fault.
    ///
    /// # Errors
    /// [`StorageError::NotFound`].
    pub fn content(&self, base_offset: Offset) -> Result<Vec<u8>> {
        let file = self.lock().file(base_offset)?;
        Ok(file::lock(&file).cache.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pends for some polls, so that the caller's future can be dropped here.
    async fn pause(&self) {
        let polls = {
            let mut disk = self.lock();
            let most = disk.plan.pause_polls_max;
            if most == 0 {
                0
            } else {
                disk.rng.random_range(0..=most)
            }
        };
        Pause(polls).await;
    }

    fn check_space(&self, what: &str) -> Result<()> {
        let mut disk = self.lock();
        let full = disk.plan.no_space;
        if disk.happens(full) {
            let what = what.to_owned();
            return Err(StorageError::NoSpace { what });
        }
        Ok(())
    }

    /// Fails as the directory's own writes do.
    fn check_name(&self, what: &str) -> Result<()> {
        let mut disk = self.lock();
        let probability = disk.plan.name_error;
        if disk.happens(probability) {
            return Err(io_error(what));
        }
        Ok(())
    }

    fn writer(&self, base_offset: Offset, file: SharedFile) -> Box<dyn SegmentWriter> {
        Box::new(FaultyWriter::new(self.clone(), base_offset, file))
    }

    fn reader(&self, base_offset: Offset, file: SharedFile) -> Arc<dyn SegmentReader> {
        Arc::new(FaultyReader {
            storage: self.clone(),
            base_offset,
            file,
        })
    }

    fn show_blob(&self, name: &str, content: Option<Bytes>) {
        let mut disk = self.lock();
        disk.blobs.entry(name.to_owned()).or_default().seen = content;
    }

    /// Sets what is seen of a blob, then what a crash leaves.
    async fn set_blob(&self, name: &str, content: Option<Bytes>) -> Result<()> {
        self.pause().await;
        if content.is_some() {
            self.check_space(name)?;
        }
        self.check_name(name)?;
        self.show_blob(name, content);
        self.pause().await;
        self.check_name(name)?;
        self.lock().sync_directory();
        self.pause().await;
        Ok(())
    }
}

#[async_trait]
impl Storage for FaultyStorage {
    async fn list(&self) -> Result<Vec<SegmentMeta>> {
        self.pause().await;
        let meta = |(&base_offset, file): (&Offset, &SharedFile)| SegmentMeta {
            base_offset,
            len: file::lock(file).cache.len() as u64,
            max_timestamp: None,
        };
        Ok(self.lock().files.iter().map(meta).collect())
    }

    async fn create(&self, base_offset: Offset, len_hint: u64) -> Result<Box<dyn SegmentWriter>> {
        let name = segment_name(base_offset);
        self.pause().await;
        if self.lock().files.contains_key(&base_offset) {
            return Err(StorageError::AlreadyExists { what: name });
        }
        self.check_space(&name)?;
        self.check_name(&name)?;
        let file = File::allocated(len_hint.min(PREALLOCATE_BYTES_MAX));
        self.lock().files.insert(base_offset, file.clone());
        self.pause().await;
        self.check_name(&name)?;
        self.lock().sync_directory();
        self.pause().await;
        Ok(self.writer(base_offset, file))
    }

    async fn reopen(
        &self,
        base_offset: Offset,
        len: u64,
        len_hint: u64,
    ) -> Result<Box<dyn SegmentWriter>> {
        let name = segment_name(base_offset);
        self.pause().await;
        let file = self.lock().file(base_offset)?;
        if len > file::lock(&file).cache.len() as u64 {
            let what = format!("{name} is shorter than {len} bytes");
            return Err(StorageError::InvalidInput { what });
        }
        self.check_name(&name)?;
        file::lock(&file).cut_cache(len);
        self.pause().await;
        self.check_name(&name)?;
        file::lock(&file).cut_disk(len);
        file::lock(&file).allocate(len_hint.min(PREALLOCATE_BYTES_MAX));
        self.pause().await;
        Ok(self.writer(base_offset, file))
    }

    async fn open(&self, base_offset: Offset) -> Result<Arc<dyn SegmentReader>> {
        self.pause().await;
        let file = self.lock().file(base_offset)?;
        Ok(self.reader(base_offset, file))
    }

    async fn remove(&self, base_offset: Offset) -> Result<()> {
        let name = segment_name(base_offset);
        self.pause().await;
        self.lock().file(base_offset)?;
        self.check_name(&name)?;
        {
            let mut disk = self.lock();
            let file = disk.file(base_offset)?;
            disk.files.remove(&base_offset);
            disk.removing.push((base_offset, file));
        }
        self.pause().await;
        self.check_name(&name)?;
        self.lock().sync_directory();
        self.pause().await;
        Ok(())
    }

    async fn read_blob(&self, name: &str) -> Result<Option<Bytes>> {
        check_blob_name(name)?;
        self.pause().await;
        let disk = self.lock();
        Ok(disk.blobs.get(name).and_then(|blob| blob.seen.clone()))
    }

    async fn write_blob(&self, name: &str, content: Bytes) -> Result<()> {
        check_blob_name(name)?;
        self.set_blob(name, Some(content)).await
    }

    async fn remove_blob(&self, name: &str) -> Result<()> {
        check_blob_name(name)?;
        self.set_blob(name, None).await
    }

    async fn list_blobs(&self) -> Result<Vec<String>> {
        self.pause().await;
        let disk = self.lock();
        let seen = disk.blobs.iter().filter(|(_, blob)| blob.seen.is_some());
        Ok(seen.map(|(name, _)| name.clone()).collect())
    }

    async fn read_marks(&self) -> Result<Vec<Mark>> {
        self.pause().await;
        let disk = self.lock();
        Ok(disk.marks.iter().filter_map(|slot| slot.seen).collect())
    }

    fn incarnation(&self) -> Option<Bytes> {
        let life = self.lock().life;
        Some(Bytes::copy_from_slice(&life.to_be_bytes()))
    }
}

impl fmt::Debug for FaultyStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.lock();
        f.debug_struct("FaultyStorage")
            .field("segments", &disk.files.len())
            .field("plan", &disk.plan)
            .finish_non_exhaustive()
    }
}

/// Reads what is seen of one segment.
#[derive(Debug)]
struct FaultyReader {
    storage: FaultyStorage,
    base_offset: Offset,
    file: SharedFile,
}

#[async_trait]
impl SegmentReader for FaultyReader {
    fn len(&self) -> u64 {
        file::lock(&self.file).len
    }

    fn try_read(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>> {
        let bytes = file::lock(&self.file).read(self.base_offset, range)?;
        let mut disk = self.storage.lock();
        let misses = disk.plan.try_read_misses;
        Ok((!disk.happens(misses)).then_some(vec![bytes]))
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        self.storage.pause().await;
        let bytes = file::lock(&self.file).read(self.base_offset, range)?;
        // Two chunks, so that nobody counts on one.
        let half = bytes.len() / 2;
        Ok(vec![bytes.slice(..half), bytes.slice(half..)])
    }
}

fn io_error(what: &str) -> StorageError {
    StorageError::Io {
        what: what.to_owned(),
        source: io::Error::other("injected error of the device"),
    }
}
