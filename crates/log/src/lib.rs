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
//! On `durable` topics the high watermark follows the durable position; on `memory` topics the
//! written one; under replication it will follow what is committed.
#![deny(clippy::disallowed_methods)]

mod append;
mod checkpoint;
mod clock;
mod codec;
mod config;
mod epoch;
mod error;
mod fetch;
#[cfg(test)]
mod format_test;
mod inspect;
mod library;
mod log;
mod offset_index;
mod producer_state;
mod reader;
mod recovery;
mod retention;
mod scan;
mod segment;
mod tail;
mod time_index;
mod types;
mod watermark;

pub use clock::{Clock, ManualClock};
pub use config::{Durability, LogConfig, Validation};
pub use error::{AppendError, ErrorKind, LogError, ReadError};
pub use inspect::{InspectError, Inspected, InspectedCheckpoint, InspectedSegment};
pub use log::Log;
pub use reader::LogReader;
pub use types::{
    AppendRequest, Appended, Cut, DamagedRange, Fetched, Positions, RecoveryReport, SegmentInfo,
    TimestampedOffset,
};
