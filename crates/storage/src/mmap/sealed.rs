//! Sealed segments: read through a memory map, zero-copy.
#![allow(clippy::disallowed_methods, reason = "this is the local disk")]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use memmap2::{Advice, Mmap};

use super::sigbus::Watch;
use super::{blocking, check_range, io_error};
use crate::{Result, SegmentReader, StorageError};

/// Bytes whose residency is remembered together.
const GRANULE: u64 = 64 << 10;

/// The maps of one disk, bounded: one not used lately goes when another comes.
#[derive(Debug)]
pub(super) struct Maps {
    max: usize,
    mapped: Mutex<VecDeque<Weak<SealedReader>>>,
}

impl Maps {
    /// At most `max` maps at a time (more only while their `Bytes` are held).
    pub(super) fn new(max: usize) -> Maps {
        Maps {
            max: max.max(1),
            mapped: Mutex::default(),
        }
    }

    fn added(&self, reader: Weak<SealedReader>) {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.push_back(reader);
        // Second chance: who was read since the last round goes to the back once.
        for _ in 0..2 * mapped.len() {
            if mapped.len() <= self.max {
                return;
            }
            let Some(oldest) = mapped.pop_front().and_then(|oldest| oldest.upgrade()) else {
                continue;
            };
            if oldest.used.swap(false, Ordering::Relaxed) {
                mapped.push_back(Arc::downgrade(&oldest));
            } else {
                oldest.set_map(None);
            }
        }
    }
}

/// A mapping under watch. Fields drop in order: the watch ends before the memory goes.
#[derive(Debug)]
struct Mapping {
    watch: Watch,
    mmap: Mmap,
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.mmap
    }
}

/// A mapped segment, shared by every `Bytes` cut from it.
#[derive(Debug, Clone)]
struct Map {
    mapping: Arc<Mapping>,
    /// The whole mapping; slices of it keep it alive.
    whole: Bytes,
    /// A bit per granule: set when its pages were brought in.
    resident: Arc<[AtomicU64]>,
}

/// `Bytes` wants an owner by value.
struct Owner(Arc<Mapping>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
}

impl Map {
    #[allow(unsafe_code)]
    fn new(file: &File) -> io::Result<Option<Map>> {
        // SAFETY: the file is a sealed segment in a directory that this process has locked; comlog
        // never changes or cuts it again. If another program does, the guard (sigbus.rs) or the
        // checksum of the batch catches it.
        let mmap = unsafe { Mmap::map(file)? };
        mmap.advise(Advice::Random)?;
        let Some(watch) = Watch::new(mmap.as_ptr() as usize, mmap.len()) else {
            return Ok(None);
        };
        let words = (mmap.len() as u64).div_ceil(GRANULE).div_ceil(64);
        let mapping = Arc::new(Mapping { watch, mmap });
        Ok(Some(Map {
            whole: Bytes::from_owner(Owner(mapping.clone())),
            resident: (0..words).map(|_| AtomicU64::new(0)).collect(),
            mapping,
        }))
    }

    fn granules(range: &Range<u64>) -> Range<u64> {
        range.start / GRANULE..range.end.div_ceil(GRANULE)
    }

    /// Whether the map reaches that far: it is shorter than the segment when the file was cut
    /// before it was mapped.
    fn covers(&self, range: &Range<u64>) -> bool {
        range.end <= self.whole.len() as u64
    }

    /// `range` must be covered.
    fn is_resident(&self, range: &Range<u64>) -> bool {
        let is_set = |granule: u64| {
            let word = self.resident[(granule / 64) as usize].load(Ordering::Relaxed);
            word & 1 << (granule % 64) != 0
        };
        Map::granules(range).all(is_set)
    }

    /// Brings the pages of `range` in; an error when the file no longer backs them.
    fn populate(&self, range: &Range<u64>) -> io::Result<()> {
        let granules = Map::granules(range);
        let start = granules.start * GRANULE;
        let end = (granules.end * GRANULE).min(self.whole.len() as u64);
        let advise = |advice| {
            let mmap = &self.mapping.mmap;
            mmap.advise_range(advice, start as usize, (end - start) as usize)
        };
        // Random advice makes a populate read page by page, each waiting for the one before; so
        // the whole range is asked for first. A hint: when it fails, it is only slow.
        let _ = advise(Advice::WillNeed);
        advise(Advice::PopulateRead)?;
        for granule in granules {
            self.resident[(granule / 64) as usize].fetch_or(1 << (granule % 64), Ordering::Relaxed);
        }
        Ok(())
    }

    fn slice(&self, range: &Range<u64>) -> Bytes {
        self.whole.slice(range.start as usize..range.end as usize)
    }
}

/// Reads one sealed segment.
#[derive(Debug)]
pub(super) struct SealedReader {
    path: PathBuf,
    /// What it was when it was opened; it never changes, unless somebody damages it.
    len: u64,
    file: Arc<File>,
    map: Mutex<Option<Map>>,
    used: AtomicBool,
    /// None when the segment may still be cut, and so must not be mapped.
    maps: Option<Arc<Maps>>,
    own: Weak<SealedReader>,
}

impl SealedReader {
    /// Opens the segment file at `path`; nothing is mapped or read yet. Without `maps` it never
    /// is mapped, but copied.
    pub(super) fn open(path: &Path, maps: Option<Arc<Maps>>) -> Result<Arc<SealedReader>> {
        let file = File::open(path).map_err(|error| io_error("open", path, error))?;
        SealedReader::of(path, Arc::new(file), maps)
    }

    /// As [`SealedReader::open`], of a file that is open already.
    pub(super) fn of(
        path: &Path,
        file: Arc<File>,
        maps: Option<Arc<Maps>>,
    ) -> Result<Arc<SealedReader>> {
        let len = file
            .metadata()
            .map_err(|error| io_error("stat", path, error))?
            .len();
        Ok(Arc::new_cyclic(|own| SealedReader {
            path: path.to_owned(),
            len,
            file,
            map: Mutex::new(None),
            used: AtomicBool::new(false),
            maps,
            own: own.clone(),
        }))
    }

    fn map(&self) -> Option<Map> {
        self.map
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_map(&self, map: Option<Map>) {
        *self.map.lock().unwrap_or_else(PoisonError::into_inner) = map;
    }

    fn damaged(&self, range: Range<u64>) -> StorageError {
        StorageError::Damaged {
            what: self.path.display().to_string(),
            range,
        }
    }

    /// Blocks: checks the file, maps it if need be, brings the pages in.
    fn read_blocking(&self, range: &Range<u64>) -> Result<Bytes> {
        let there = self
            .file
            .metadata()
            .map_err(|error| io_error("stat", &self.path, error))?
            .len();
        if there < range.end {
            return Err(self.damaged(range.start.max(there)..range.end));
        }
        let Some(map) = self.map().or_else(|| self.new_map()) else {
            return self.read_copied(range);
        };
        if !map.covers(range) {
            self.set_map(None);
            return self.read_copied(range);
        }
        match map.populate(range) {
            Ok(()) if map.mapping.watch.damaged() => {
                // The zeros put into this mapping are not the file's: look at the file again.
                self.set_map(None);
                self.read_copied(range)
            }
            Ok(()) => Ok(map.slice(range)),
            // EFAULT and EHWPOISON mean that pages are gone; an old kernel knows no populate.
            Err(_) => self.read_copied(range),
        }
    }

    /// Maps the file; `None` when it may not or cannot be mapped.
    fn new_map(&self) -> Option<Map> {
        let maps = self.maps.as_ref()?;
        // Without a map (the kernel has a bound on them, too) the bytes are copied.
        let map = Map::new(&self.file).ok().flatten();
        if map.is_some() {
            self.set_map(map.clone());
            maps.added(self.own.clone());
        }
        map
    }

    fn read_copied(&self, range: &Range<u64>) -> Result<Bytes> {
        let mut out = vec![0; (range.end - range.start) as usize];
        match self.file.read_exact_at(&mut out, range.start) {
            Ok(()) => Ok(out.into()),
            // A short read or a bad sector: these bytes cannot be had.
            Err(_) => Err(self.damaged(range.clone())),
        }
    }
}

#[async_trait]
impl SegmentReader for SealedReader {
    fn len(&self) -> u64 {
        self.len
    }

    fn try_read(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>> {
        check_range(&self.path, &range, self.len)?;
        if range.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(map) = map.as_ref() else {
            return Ok(None);
        };
        if map.mapping.watch.damaged() || !map.covers(&range) || !map.is_resident(&range) {
            return Ok(None);
        }
        self.used.store(true, Ordering::Relaxed);
        Ok(Some(vec![map.slice(&range)]))
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        if let Some(found) = self.try_read(range.clone())? {
            return Ok(found);
        }
        let Some(own) = self.own.upgrade() else {
            return Err(StorageError::Failed {
                what: self.path.display().to_string(),
            });
        };
        let read = blocking(move || own.read_blocking(&range)).await?;
        Ok(vec![read])
    }
}
