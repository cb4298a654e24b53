//! The second home of a log: sealed segments on any object store, read back as if local.
//!
//! [`ArchiveStore`] is a place on an object store, by URL. [`PartitionArchive`] brings the sealed
//! segments of one partition there, and is the only one to change what the archive says of it; its
//! [`Catalog`] stands behind a [`comlog_storage::TieredStorage`] and lets the log read them. What
//! lies where, and what is safe after a crash at each step, stands in `format.md` beside this crate.
//!
//! The crate knows segments and manifests; topics, tasks and retention times are the server's. It
//! needs a tokio runtime.

mod audit;
mod catalog;
mod error;
mod frame;
mod identity;
mod key;
mod manifest;
mod manifest_file;
mod partition;
mod partition_list;
mod removal;
mod store;
mod survey;
mod upload;
mod verify;

pub use audit::audit;
pub use catalog::{ARCHIVE_BLOB, Catalog};
pub use error::ArchiveError;
pub use identity::{Identity, Writes};
pub use key::{PartitionKeys, topic_key};
pub use manifest::{Manifest, SegmentEntry, StateEntry};
pub use manifest_file::ManifestFile;
pub use partition::{LocalRetention, LogState, PartitionArchive, Progress, Writer};
pub use partition_list::PartitionList;
pub use removal::remove_topic;
pub use store::{ArchiveStore, Pieces, StoreOptions};
pub use survey::{ArchivedPartition, ArchivedTopic, Survey};
pub use upload::read_back;
pub use verify::{Verified, verify_partition};

/// The result of an operation on the archive.
pub type Result<T, E = ArchiveError> = std::result::Result<T, E>;
