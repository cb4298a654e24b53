//! The active segment: written by `pwritev`, synced by `fdatasync`, never through a mapping.
#![allow(clippy::disallowed_methods, reason = "this is the local disk")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::marks::Marks;
use super::sealed::SealedReader;
use super::tail::Tail;
use super::write::{Then, write_all};
use super::{Disk, blocking, check_range, io_error, no_space_or};
use crate::{Mark, Result, SegmentReader, SegmentWriter, StorageError};

/// What is allocated ahead first; doubled with each allocation, up to the disk's maximum. A
/// partition that is written once takes no more than this.
const PREALLOCATE_BYTES_MIN: u64 = 16 << 10;
/// How long a segment may stay locked by calls whose futures were dropped, before reopening fails.
const HOLD_WAIT_MAX: Duration = Duration::from_secs(30);
const HOLD_WAIT_STEP: Duration = Duration::from_millis(2);

/// A segment being written: what the writer and its readers share.
#[derive(Debug)]
struct Active {
    path: PathBuf,
    /// Shared with the reader of the sealed segment: no descriptor has to be had for it.
    file: Arc<File>,
    /// Bytes written.
    len: AtomicU64,
    tail: Arc<Tail>,
    marks: Arc<Marks>,
    disk: Arc<Disk>,
}

/// A segment's file, and what it shares with others.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) marks: Arc<Marks>,
    pub(super) disk: Arc<Disk>,
}

/// A mark that goes with a call, and its slot.
type NextMark = Option<(usize, Mark)>;

impl Active {
    fn read_blocking(&self, range: &Range<u64>) -> Result<Bytes> {
        let mut out = vec![0; (range.end - range.start) as usize];
        let read = self.file.read_exact_at(&mut out, range.start);
        // A truncation meanwhile is no damage, and what stands behind it was never written.
        check_range(&self.path, range, self.len.load(Ordering::Acquire))?;
        match read {
            Ok(()) => Ok(out.into()),
            Err(_) => {
                let what = self.path.display().to_string();
                Err(StorageError::Damaged {
                    what,
                    range: range.clone(),
                })
            }
        }
    }

    /// Cuts what stands behind the first `len` bytes, and what was allocated, durably.
    fn cut(&self, len: u64) -> Result<()> {
        self.file
            .set_len(len)
            .map_err(|error| io_error("truncate", &self.path, error))?;
        self.file
            .sync_all()
            .map_err(|error| io_error("sync", &self.path, error))
    }

    fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|error| io_error("sync", &self.path, error))
    }

    fn write_mark(&self, mark: &NextMark) -> Result<()> {
        match mark {
            Some((slot, mark)) => self.marks.write(*slot, mark),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl SegmentReader for Arc<Active> {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn try_read(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>> {
        check_range(&self.path, &range, SegmentReader::len(self))?;
        if range.is_empty() {
            return Ok(Some(Vec::new()));
        }
        Ok(self.tail.get(&range))
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        if let Some(found) = self.try_read(range.clone())? {
            return Ok(found);
        }
        let own = self.clone();
        Ok(vec![blocking(move || own.read_blocking(&range)).await?])
    }
}

/// The right to write to a segment's file, a lock on it. The writer has it, and so has each of its
/// calls: these go on when their future is dropped, and must end before the file is reopened.
#[derive(Debug)]
struct Hold(Arc<Active>);

impl Hold {
    /// Blocks while calls of the writer before are still under way.
    fn take(active: Arc<Active>) -> Result<Hold> {
        let failed = |error| io_error("lock", &active.path, error);
        let mut waited = Duration::ZERO;
        loop {
            match rustix::fs::flock(&*active.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Hold(active)),
                Err(Errno::WOULDBLOCK) if waited < HOLD_WAIT_MAX => {
                    std::thread::sleep(HOLD_WAIT_STEP);
                    waited += HOLD_WAIT_STEP;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Readers keep the file open, so closing it does not do this. It cannot fail.
        let _ = rustix::fs::flock(&*self.0.file, FlockOperation::Unlock);
    }
}

/// Appends to one segment file.
#[derive(Debug)]
pub(super) struct ActiveWriter {
    active: Arc<Active>,
    hold: Arc<Hold>,
    /// Bytes the file has, allocated ones included; the next write must fit or allocate.
    allocated: u64,
    len_hint: u64,
    /// Set while a call runs, so that a dropped future leaves it set.
    failed: bool,
    mark: NextMark,
}

impl ActiveWriter {
    /// A writer of a file that was created empty. Blocks.
    pub(super) fn create(part: Part, len_hint: u64) -> Result<ActiveWriter> {
        ActiveWriter::new(part, 0, len_hint)
    }

    /// A writer behind the first `len` bytes of a file; what follows them is cut, durably. Blocks,
    /// also while a call of the writer before is under way.
    ///
    /// # Errors
    /// [`StorageError::InvalidInput`] when the file is shorter.
    pub(super) fn reopen(part: Part, len: u64, len_hint: u64) -> Result<ActiveWriter> {
        let writer = ActiveWriter::new(part, len, len_hint)?;
        let Active { path, file, .. } = &*writer.active;
        let metadata = file.metadata();
        let there = metadata.map_err(|error| io_error("stat", path, error))?;
        check_range(path, &(0..len), there.len())?;
        writer.active.cut(len)?;
        Ok(writer)
    }

    fn new(part: Part, len: u64, len_hint: u64) -> Result<ActiveWriter> {
        let active = Arc::new(Active {
            path: part.path,
            file: Arc::new(part.file),
            len: AtomicU64::new(len),
            tail: Arc::new(Tail::default()),
            marks: part.marks,
            disk: part.disk,
        });
        Ok(ActiveWriter {
            hold: Arc::new(Hold::take(active.clone())?),
            active,
            allocated: len,
            len_hint,
            failed: false,
            mark: None,
        })
    }

    fn failed_error(&self) -> StorageError {
        StorageError::Failed {
            what: self.active.path.display().to_string(),
        }
    }

    /// Runs `work` on a thread that may block; only success and `NoSpace` leave the writer usable.
    async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Active) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(self.failed_error());
        }
        let hold = self.hold.clone();
        let result = self.active.disk.calls.run(move || work(&hold.0)).await;
        self.failed = !matches!(result, Ok(_) | Err(StorageError::NoSpace { .. }));
        result
    }

    async fn write(&mut self, chunks: &[Bytes], sync: bool) -> Result<()> {
        let len: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let position = SegmentWriter::len(self);
        let end = position + len;
        let room = Room {
            allocated: self.allocated,
            end,
            target: self.allocation_for(end),
        };
        let mark = self.mark.take();
        let markable = mark.is_none() || self.active.marks.is_open();
        if !sync
            && markable
            && self.is_small(len, room)
            && self.write_here(chunks, position, &mark)?
        {
            self.written(chunks, position, end);
            return Ok(());
        }
        let kept = chunks.to_vec();
        let result = self
            .run(move |active| {
                let then = if sync { Then::Sync } else { Then::Nothing };
                write_at(active, &kept, position, room, then, &mark)
            })
            .await;
        match result {
            Ok(allocated) => {
                self.allocated = allocated;
                self.written(chunks, position, end);
                Ok(())
            }
            Err(error) => {
                self.allocated = position;
                Err(error)
            }
        }
    }

    /// Makes what was written readable.
    fn written(&self, chunks: &[Bytes], position: u64, end: u64) {
        let Active {
            tail, disk, len, ..
        } = &*self.active;
        disk.tails.push(tail, position, chunks);
        len.store(end, Ordering::Release);
    }

    /// Whether a write without sync is done sooner than another thread is woken: it goes to the
    /// page cache, and to room that the file has already.
    fn is_small(&self, len: u64, room: Room) -> bool {
        len <= self.active.disk.options.inline_bytes_max as u64 && room.target <= room.allocated
    }

    /// Writes on this thread, in one go, so that a dropped future leaves nothing under way.
    /// False when there was no room after all: what to do then is for a thread that may block.
    fn write_here(&mut self, chunks: &[Bytes], position: u64, mark: &NextMark) -> Result<bool> {
        if self.failed {
            return Err(self.failed_error());
        }
        match write_all(&self.active.file, chunks, position, Then::Nothing) {
            Ok(()) => match self.active.write_mark(mark) {
                Ok(()) => Ok(true),
                Err(StorageError::NoSpace { .. }) => Ok(false),
                Err(error) => {
                    self.failed = true;
                    Err(error)
                }
            },
            Err(error) if is_no_space(&error) => Ok(false),
            Err(error) => {
                self.failed = true;
                Err(io_error("write", &self.active.path, error))
            }
        }
    }

    /// How long the file shall be to take bytes up to `end`: allocation doubles, within bounds.
    fn allocation_for(&self, end: u64) -> u64 {
        if end <= self.allocated {
            return self.allocated;
        }
        let step = self.allocated.clamp(
            PREALLOCATE_BYTES_MIN,
            self.active.disk.options.preallocate_bytes_max,
        );
        (self.allocated + step).min(self.len_hint).max(end)
    }
}

/// What a write needs of its file.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// How long the file is, allocation included.
    allocated: u64,
    /// Where the write ends.
    end: u64,
    /// How long the file should become, for this write and some to come: `allocated` when the
    /// write fits, else at least `end`.
    target: u64,
}

/// Allocates if need be, writes, syncs if wanted, and marks; without room nothing is kept, not even
/// after a crash. Returns how long the file is then.
fn write_at(
    active: &Active,
    chunks: &[Bytes],
    position: u64,
    room: Room,
    then: Then,
    mark: &NextMark,
) -> Result<u64> {
    if mark.is_some() {
        active.marks.prepare()?;
    }
    let written = allocate(&active.file, room).and_then(|allocated| {
        write_all(&active.file, chunks, position, then)?;
        Ok(allocated)
    });
    let written = written.map_err(|error| no_space_or(&active.path, "write", error));
    let marked = written.and_then(|allocated| {
        if then == Then::Sync {
            active.sync()?;
        }
        active.write_mark(mark)?;
        Ok(allocated)
    });
    match marked {
        Err(StorageError::NoSpace { what }) => {
            active.cut(position)?;
            Err(StorageError::NoSpace { what })
        }
        marked => marked,
    }
}

/// Returns how long the file is then.
fn allocate(file: &File, room: Room) -> io::Result<u64> {
    let Room {
        allocated,
        end,
        target,
    } = room;
    if target <= allocated {
        return Ok(allocated);
    }
    match extend(file, allocated, target) {
        Ok(()) => Ok(target),
        // No room for what may come: perhaps for what is here.
        Err(error) if is_no_space(&error) && end < target => {
            file.set_len(allocated)?;
            extend(file, allocated, end)?;
            Ok(end)
        }
        // This file system cannot: the file then grows as it is written.
        Err(error) if is_one_of(&error, &[Errno::OPNOTSUPP, Errno::NOSYS]) => Ok(end),
        Err(error) => Err(error),
    }
}

fn extend(file: &File, from: u64, to: u64) -> io::Result<()> {
    let extend = || rustix::fs::fallocate(file, FallocateFlags::empty(), from, to - from);
    Ok(rustix::io::retry_on_intr(extend)?)
}

/// No room on the file system, in the quota, or under the process's file size limit.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::NOSPC, Errno::DQUOT, Errno::FBIG])
}

/// No file descriptor is left, of the process or of the machine.
pub(super) fn is_no_descriptor(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::MFILE, Errno::NFILE])
}

fn is_one_of(error: &io::Error, errnos: &[Errno]) -> bool {
    let code = error.raw_os_error();
    errnos
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

#[async_trait]
impl SegmentWriter for ActiveWriter {
    fn len(&self) -> u64 {
        self.active.len.load(Ordering::Acquire)
    }

    fn reader(&self) -> Arc<dyn SegmentReader> {
        Arc::new(self.active.clone())
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<()> {
        self.write(chunks, false).await
    }

    fn mark_next(&mut self, slot: usize, mark: Mark) {
        self.mark = Some((slot, mark));
    }

    async fn sync(&mut self) -> Result<()> {
        let mark = self.mark.take();
        let synced = self.run(move |active| {
            active.sync()?;
            active.write_mark(&mark)
        });
        match synced.await {
            // All else of it is done, and a mark may be behind.
            Err(StorageError::NoSpace { .. }) => Ok(()),
            synced => synced,
        }
    }

    async fn append_and_sync(&mut self, chunks: &[Bytes]) -> Result<()> {
        self.write(chunks, true).await
    }

    async fn truncate(&mut self, len: u64) -> Result<()> {
        if self.failed {
            return Err(self.failed_error());
        }
        check_range(&self.active.path, &(0..len), SegmentWriter::len(self))?;
        self.active.tail.clear();
        self.active.len.store(len, Ordering::Release);
        self.allocated = len;
        self.run(move |active| active.cut(len)).await
    }

    async fn seal(mut self: Box<Self>) -> Result<Arc<dyn SegmentReader>> {
        let len = SegmentWriter::len(&*self);
        self.run(move |active| {
            active.sync()?;
            active.cut(len)?;
            let maps = Some(active.disk.maps.clone());
            let file = active.file.clone();
            Ok(SealedReader::of(&active.path, file, maps)? as Arc<dyn SegmentReader>)
        })
        .await
    }
}
