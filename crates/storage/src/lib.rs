//! Where the segments of one partition live: one contract, several backends.
//!
//! A [`Storage`] holds the files of *one* log: segments of record batches, and small named blobs
//! (indexes, checkpoints, producer state). It knows nothing of offsets inside a segment, of
//! batches, or of what is acknowledged: that is the log's.
//!
//! # The contract
//!
//! *Positions* count bytes from the start of a segment. Ranges are half-open.
//!
//! **Written, durable.** [`SegmentWriter::append`] makes bytes readable at once through every
//! reader of that segment in this process; they are durable (survive a crash of process, kernel
//! and power) only when a later [`SegmentWriter::sync`] returned `Ok`. A crash may keep any
//! subset of the pages written since the last sync, in any order, and nothing of what was synced
//! is touched by it. A segment is durable as a name when [`Storage::create`] returned.
//!
//! **One writer.** At most one [`SegmentWriter`] per segment exists at a time; the caller starts
//! no write before the previous sync ended. Readers are many, cheap, and may outlive the
//! segment: a reader of a removed segment, and every `Bytes` it handed out, stays valid. What
//! was written before a [`Storage::reopen`] is made durable by the new writer's first sync.
//!
//! **Sealing.** A sealed segment never changes again. Sealing cuts whatever the backend had
//! allocated ahead, so the length of a sealed segment is the length of its content. After a
//! crash an unsealed segment may be longer than what was written: the rest reads as zeros.
//! While a writer lives, [`Storage::list`] gives at least what it has written.
//!
//! **Failure.** [`StorageError::NoSpace`] from `append` or `create` means that nothing was kept: the
//! segment reads, and after a crash recovers, as before the call, and later appends may succeed.
//! [`StorageError::NoDescriptors`] from any call but a writer's means the same.
//! Every other error of `append`, and any error of `sync`, `truncate` or `seal`, is final for
//! that writer: each later call answers [`StorageError::Failed`], because a second sync
//! may report success for pages that the first one lost.
//!
//! **Cancellation.** Dropping the future of a writer's method leaves the writer failed. Dropping
//! any other future loses nothing but its answer.
//!
//! **Marks** are two fixed slots of [`MARK_LEN`] bytes in which the caller notes how far it got:
//! [`SegmentWriter::mark_next`] goes with a write or a sync, and is there once that call returned.
//! It costs no sync of its own, so a crash of the process keeps it, and a crash of the machine may
//! leave an older content, the new one, a mixture, or nothing. Content is not checksummed here.
//!
//! **Lives.** [`Storage::incarnation`] tells a crash of the process, after which every written byte
//! is still there, from one of the machine, after which only what was synced is.
//!
//! **Blobs** are replaced whole: after a crash a reader finds the old content or the new, never a
//! mixture, and the new one once `write_blob` returned. Content is not checksummed here.
//!
//! # Runtime and features
//!
//! | Feature | Adds | Needs |
//! |---|---|---|
//! | (none) | the contract, [`MemoryStorage`], [`TieredStorage`] | nothing; compiles for wasm32-unknown-unknown |
//! | `mmap` | `DataDir` and `MmapStorage`, the local disk; `install_sigbus_guard` | Linux; a tokio runtime |
//! | `object` | `ObjectReader` and `BlockCache`, sealed segments on an object store | a tokio runtime |
//! | `test-util` | `conformance`, the suite for backends; `FaultyStorage`, a seeded disk that fails | nothing |
//!
//! With `mmap` every future of `MmapStorage`, its writers and its readers must be polled within a
//! tokio runtime, for the sake of its blocking threads; `try_read` and `len` need none. The calls
//! of `DataDir` block: from a task, make them in `tokio::task::spawn_blocking`. A binary that maps
//! files should call `install_sigbus_guard` first; a library leaves that to its program.
//! Minimum supported Rust: 1.95.
#![deny(clippy::disallowed_methods)]

#[cfg(feature = "test-util")]
pub mod conformance;
mod error;
#[cfg(feature = "test-util")]
mod fault;
mod memory;
#[cfg(feature = "mmap")]
mod mmap;
mod name;
#[cfg(feature = "object")]
mod object;
mod tiered;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::{Offset, Timestamp};

pub use error::StorageError;
#[cfg(feature = "test-util")]
pub use fault::{FaultPlan, FaultyStorage};
pub use memory::MemoryStorage;
#[cfg(feature = "mmap")]
pub use mmap::{DataDir, DiskOptions, FORMAT, MmapStorage, install_sigbus_guard};
pub use name::{check_blob_name, parse_segment_name, segment_name};
#[cfg(feature = "object")]
pub use object::{
    BLOCK_BYTES, BlockCache, BlockSums, CacheOptions, CacheStats, ObjectReader, SumsBuilder,
};
pub use tiered::{ColdSegments, TieredStorage};

/// The result of a storage operation.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// Bytes of one slot for a mark.
pub const MARK_LEN: usize = 100;

/// What stands in one slot for a mark: the caller's.
pub type Mark = [u8; MARK_LEN];

/// One segment, as [`Storage::list`] finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentMeta {
    /// The offset of its first batch; its name.
    pub base_offset: Offset,
    /// Its length in bytes; for an unsealed segment after a crash, allocated zeros included.
    pub len: u64,
    /// The largest timestamp in it, where the backend knows it without reading: it spares a search
    /// by time a look into each segment.
    pub max_timestamp: Option<Timestamp>,
}

/// The segments and blobs of one log. See the crate's documentation for the contract.
#[async_trait]
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Every segment, ascending by base offset.
    async fn list(&self) -> Result<Vec<SegmentMeta>>;

    /// Creates an empty segment, durable as a name on return, and the right to append to it.
    ///
    /// `len_hint` says how many bytes will be appended at most, as far as is known; a backend
    /// may allocate ahead by it, and need not.
    ///
    /// # Errors
    /// [`StorageError::AlreadyExists`], [`StorageError::NoSpace`], ...
    async fn create(&self, base_offset: Offset, len_hint: u64) -> Result<Box<dyn SegmentWriter>>;

    /// Opens an existing segment for appending behind its first `len` bytes; whatever follows
    /// them is gone, durably, on return, and so is the segment's seal.
    ///
    /// # Errors
    /// [`StorageError::NotFound`]; [`StorageError::InvalidInput`] when the segment is shorter.
    async fn reopen(
        &self,
        base_offset: Offset,
        len: u64,
        len_hint: u64,
    ) -> Result<Box<dyn SegmentWriter>>;

    /// Opens a segment that nobody appends to, for reading.
    ///
    /// # Errors
    /// [`StorageError::NotFound`].
    async fn open(&self, base_offset: Offset) -> Result<Arc<dyn SegmentReader>>;

    /// Removes a segment, durably on return. Open readers stay valid.
    ///
    /// # Errors
    /// [`StorageError::NotFound`].
    async fn remove(&self, base_offset: Offset) -> Result<()>;

    /// The content of a blob, `None` when there is no such blob.
    async fn read_blob(&self, name: &str) -> Result<Option<Bytes>>;

    /// Creates or replaces a blob, atomically, durable on return. For names see [`check_blob_name`].
    async fn write_blob(&self, name: &str, content: Bytes) -> Result<()>;

    /// Removes a blob, durably on return; no error when there is none.
    async fn remove_blob(&self, name: &str) -> Result<()>;

    /// The names of every blob, ascending.
    async fn list_blobs(&self) -> Result<Vec<String>>;

    /// What stands in the slots for marks, as far as anything does; unchecked, and in any order.
    /// A backend that keeps no marks has none.
    async fn read_marks(&self) -> Result<Vec<Mark>> {
        Ok(Vec::new())
    }

    /// A value that stays the same as long as nothing that was written can have been lost: until
    /// the machine restarts, or the file system is mounted anew. At most 255 bytes. `None` when
    /// that cannot be known, which is to be taken for a change.
    fn incarnation(&self) -> Option<Bytes> {
        None
    }
}

/// The right to append to one unsealed segment.
#[async_trait]
pub trait SegmentWriter: fmt::Debug + Send + 'static {
    /// Bytes written (and readable) so far.
    fn len(&self) -> u64;

    /// Whether nothing is written yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A reader that follows this writer: its length grows with each append.
    fn reader(&self) -> Arc<dyn SegmentReader>;

    /// Writes `chunks` back to back behind what is there. Readable on return, not yet durable.
    ///
    /// The backend may keep the chunks to serve reads of the recent tail from them.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`] when nothing was kept; any other error is final.
    async fn append(&mut self, chunks: &[Bytes]) -> Result<()>;

    /// The next [`SegmentWriter::append`], [`SegmentWriter::sync`] or
    /// [`SegmentWriter::append_and_sync`] puts `mark` into `slot` (0 or 1) once all else of it is
    /// done, and before it returns success; when it fails the mark is forgotten, or there. A backend
    /// that keeps no marks ignores it; one that does implements `append_and_sync` itself.
    fn mark_next(&mut self, slot: usize, mark: Mark) {
        let _ = (slot, mark);
    }

    /// Makes every byte written so far durable.
    ///
    /// # Errors
    /// Any error is final.
    async fn sync(&mut self) -> Result<()>;

    /// [`SegmentWriter::append`] then [`SegmentWriter::sync`]; a backend whose calls block does
    /// both in one hand-over to another thread.
    ///
    /// # Errors
    /// As both; [`StorageError::NoSpace`] only from the append.
    async fn append_and_sync(&mut self, chunks: &[Bytes]) -> Result<()> {
        self.append(chunks).await?;
        self.sync().await
    }

    /// Cuts everything from position `len` on, durably on return.
    ///
    /// # Errors
    /// [`StorageError::InvalidInput`] when `len` is beyond the end (nothing changes); any other error is final.
    async fn truncate(&mut self, len: u64) -> Result<()>;

    /// Syncs, cuts what was allocated ahead, and ends writing, durably on return.
    ///
    /// # Errors
    /// Any error is final.
    async fn seal(self: Box<Self>) -> Result<Arc<dyn SegmentReader>>;
}

/// Reads ranges of one segment, from any thread.
#[async_trait]
pub trait SegmentReader: fmt::Debug + Send + Sync + 'static {
    /// Bytes that can be read now.
    fn len(&self) -> u64;

    /// Whether there is nothing to read yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `range` if they can be had without waiting, else `None`.
    ///
    /// The chunks, concatenated, are the range; their boundaries mean nothing.
    ///
    /// # Errors
    /// As [`SegmentReader::read`].
    fn try_read(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>>;

    /// The bytes of `range`, in chunks as of [`SegmentReader::try_read`].
    ///
    /// # Errors
    /// [`StorageError::InvalidInput`] when the range is not inside `0..len()`;
    /// [`StorageError::Damaged`] when the medium no longer holds it.
    async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>>;
}
