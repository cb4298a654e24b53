//! One segment: what readers see, and what a crash leaves.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use comlog_record::Offset;
use rand::Rng;
use rand::rngs::StdRng;

use crate::{Result, StorageError, segment_name};

/// What the kernel writes back at a time.
const PAGE: u64 = 4096;
/// What the device writes whole.
const SECTOR: u64 = 512;

pub(super) type SharedFile = Arc<Mutex<File>>;

pub(super) fn lock(file: &SharedFile) -> MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    /// What readers see, and behind it what was allocated or left by a failed append.
    pub(super) cache: Vec<u8>,
    /// How much of `cache` readers see.
    pub(super) len: u64,
    /// What a crash leaves whatever happens.
    disk: Vec<u8>,
    /// Pages of `cache` that the disk does not hold yet.
    dirty: BTreeSet<u64>,
    /// Pages that a failed sync gave up: not on the disk, and no sync will bring them there.
    lost: BTreeSet<u64>,
    /// Ranges whose reading fails.
    pub(super) damaged: Vec<Range<u64>>,
    /// Whether the name is durable.
    pub(super) named: bool,
}

impl File {
    pub(super) fn allocated(len: u64) -> SharedFile {
        let mut file = File::default();
        file.allocate(len);
        Arc::new(Mutex::new(file))
    }

    /// Makes room up to `len`, zeros on the disk too, as fallocate does.
    pub(super) fn allocate(&mut self, len: u64) {
        let len = len as usize;
        self.cache.resize(len.max(self.cache.len()), 0);
        self.disk.resize(len.max(self.disk.len()), 0);
    }

    /// Writes `bytes` at `position`; readers see no more of it than before.
    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = position as usize;
        let end = start + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
        }
        self.cache[start..end].copy_from_slice(bytes);
        for page in position / PAGE..=(end as u64 - 1) / PAGE {
            self.dirty.insert(page);
            self.lost.remove(&page);
        }
    }

    pub(super) fn read(&self, base_offset: Offset, range: Range<u64>) -> Result<Bytes> {
        let what = segment_name(base_offset);
        if range.start > range.end || range.end > self.len {
            let (start, end) = (range.start, range.end);
            let what = format!("bytes {start}..{end} of {what}, which has {}", self.len);
            return Err(StorageError::InvalidInput { what });
        }
        let missing = self.cache.len() as u64..self.len;
        for bad in self.damaged.iter().chain([&missing]) {
            let range = bad.start.max(range.start)..bad.end.min(range.end);
            if range.start < range.end {
                return Err(StorageError::Damaged { what, range });
            }
        }
        let bytes = &self.cache[range.start as usize..range.end as usize];
        Ok(Bytes::copy_from_slice(bytes))
    }

    /// Everything that a sync covers reaches the disk.
    pub(super) fn flush(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.flush_range(page * PAGE..(page + 1) * PAGE);
        }
        self.disk.resize(self.cache.len().max(self.disk.len()), 0);
    }

    /// Some pages reach the disk before they are asked to.
    pub(super) fn flush_some(&mut self, rng: &mut StdRng) {
        let pages: Vec<u64> = self.dirty.iter().copied().collect();
        for page in pages {
            if rng.random_bool(0.5) {
                self.dirty.remove(&page);
                self.flush_range(page * PAGE..(page + 1) * PAGE);
            }
        }
    }

    /// Some pages reach the disk, the others are forgotten though readers still see them.
    pub(super) fn lose_some(&mut self, rng: &mut StdRng) {
        self.flush_some(rng);
        self.lost.append(&mut self.dirty);
    }

    fn flush_range(&mut self, range: Range<u64>) {
        let end = (range.end as usize).min(self.cache.len());
        let start = (range.start as usize).min(end);
        if start == end {
            return;
        }
        self.disk.resize(end.max(self.disk.len()), 0);
        self.disk[start..end].copy_from_slice(&self.cache[start..end]);
    }

    pub(super) fn cut_cache(&mut self, len: u64) {
        self.cache.truncate(len as usize);
        self.len = len;
        self.dirty.retain(|page| page * PAGE < len);
        self.lost.retain(|page| page * PAGE < len);
    }

    pub(super) fn cut_disk(&mut self, len: u64) {
        self.disk.truncate(len as usize);
    }

    pub(super) fn cut_short(&mut self, len: u64) {
        self.cache.truncate(len as usize);
        self.disk.truncate(len as usize);
    }

    pub(super) fn corrupt(&mut self, position: u64, mask: u8) -> bool {
        let position = position as usize;
        if position >= self.cache.len() {
            return false;
        }
        self.cache[position] ^= mask;
        if let Some(byte) = self.disk.get_mut(position) {
            *byte ^= mask;
        }
        true
    }

    fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.lost.is_empty() && self.len == self.cache.len() as u64
    }

    /// Decides the fate of each page that was not synced: there, not there, or torn.
    fn settle(&mut self, rng: &mut StdRng) {
        for page in std::mem::take(&mut self.dirty) {
            let start = page * PAGE;
            match rng.random_range(0..4) {
                0 => {}
                1 => self.flush_range(start..start + PAGE),
                2 => {
                    let sectors = rng.random_range(0..PAGE / SECTOR);
                    self.flush_range(start..start + sectors * SECTOR);
                }
                _ => self.flush_sectors(start, rng),
            }
        }
        if rng.random_bool(0.5) {
            self.disk.resize(self.cache.len().max(self.disk.len()), 0);
        }
    }

    fn flush_sectors(&mut self, start: u64, rng: &mut StdRng) {
        for sector in 0..PAGE / SECTOR {
            if rng.random_bool(0.5) {
                let start = start + sector * SECTOR;
                self.flush_range(start..start + SECTOR);
            }
        }
    }

    fn restarted(disk: Vec<u8>, cache: Vec<u8>, before: &File) -> File {
        File {
            len: cache.len() as u64,
            cache,
            disk,
            dirty: before.dirty.clone(),
            lost: BTreeSet::new(),
            damaged: before.damaged.clone(),
            named: before.named,
        }
    }
}

/// The file as a power cut leaves it.
pub(super) fn after_crash(file: &SharedFile, rng: &mut StdRng) -> SharedFile {
    let mut guard = lock(file);
    if guard.is_clean() && guard.disk.len() == guard.cache.len() {
        guard.named = true;
        drop(guard);
        return file.clone();
    }
    let mut before = guard.clone();
    before.settle(rng);
    before.named = true;
    let left = File::restarted(before.disk.clone(), before.disk.clone(), &before);
    Arc::new(Mutex::new(left))
}

/// The file as the next process finds it.
pub(super) fn after_kill(file: &SharedFile) -> SharedFile {
    let before = lock(file);
    if before.is_clean() {
        return file.clone();
    }
    let mut cache = before.cache.clone();
    for page in &before.lost {
        let range = (page * PAGE) as usize..(((page + 1) * PAGE) as usize).min(cache.len());
        for position in range {
            cache[position] = before.disk.get(position).copied().unwrap_or(0);
        }
    }
    let left = File::restarted(before.disk.clone(), cache, &before);
    Arc::new(Mutex::new(left))
}
