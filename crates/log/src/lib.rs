//! An append-only, segmented, crash-safe log of record batches over any `Storage`.
//!
//! [`Log`] is the one owner of a partition's tail: it assigns offsets, detects duplicates, writes
//! groups and recovers. [`LogReader`]s are cheap clones that read what is visible, from any task.
//!
//! ```text
//!        log start          high watermark      durable   written
//!            |                     |               |         |
//!   trimmed  v      visible        v               v         v
//!   .........[=====================)---------------)---------)
//!                                             log end offset ^
//! ```
//! On `durable` logs the high watermark follows the durable position; on `memory` logs the
//! written one; under replication it will follow what is committed.
//!
//! # What it promises
//!
//! - A batch is in the log whole or not at all. Offsets are given in the order of the appends, and
//!   one that was visible on a durable log is never given again.
//! - After a crash the log holds every durable batch and at most a whole prefix of what followed.
//!   Opening costs what was appended since the last checkpoint, not the size of the log.
//! - Damage is fenced and reported with its offsets: never skipped silently, never overwritten.
//! - A retried batch of an idempotent producer is answered with its first offsets, after a crash
//!   too.
//!
//! The files are described in `format.md` beside this crate; `examples/embed.rs` shows a log inside
//! another program.
//!
//! # Runtime and features
//!
//! The crate has no features and starts no task or thread; it holds no clock, no randomness and no
//! file system: those are passed in. Its futures run on any executor, but for what the storage
//! needs: `comlog_storage::MemoryStorage` nothing, the local disk (feature `mmap` of
//! `comlog-storage`) a tokio runtime. It compiles for wasm32-unknown-unknown. Minimum supported
//! Rust: 1.95.
#![deny(clippy::disallowed_methods)]

mod append;
mod checkpoint;
mod clock;
mod config;
mod epoch;
mod error;
mod fence;
mod fetch;
#[cfg(test)]
mod format_test;
pub mod frame;
mod inspect;
mod library;
mod log;
mod mark;
mod offset_index;
mod producer_state;
mod reader;
mod recovery;
mod retention;
mod scan;
mod segment;
mod segment_scan;
mod snapshot;
mod tail;
mod time_index;
mod truncate;
mod types;
mod watermark;

pub use clock::{Clock, ManualClock, SettledTime};
pub use config::{Durability, LogConfig, Validation};
pub use error::{AppendError, ErrorKind, LogError, ReadError};
pub use frame::Owner;
pub use inspect::{InspectError, Inspected, InspectedCheckpoint, InspectedSegment};
pub use log::Log;
pub use producer_state::PRODUCER_ID_RESERVED_MAX;
pub use reader::LogReader;
pub use segment::index_blob_names;
pub use segment_scan::{SegmentItem, SegmentPlace, SegmentScan};
pub use snapshot::{CHECKPOINT_BLOB, SegmentSummary, Snapshot};
pub use types::{
    AppendRequest, Appended, Cut, DamagedRange, Fetched, Positions, RecoveryReport, SegmentInfo,
    TimestampedOffset,
};
