//! What can go wrong with storage, said so that the caller knows what to do.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Why a storage operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// There is no such segment.
    #[error("{what} does not exist")]
    NotFound {
        /// The segment or blob.
        what: String,
    },
    /// There is one already.
    #[error("{what} exists already")]
    AlreadyExists {
        /// The segment.
        what: String,
    },
    /// No room, and nothing was kept: try again when there is room.
    #[error("no space left for {what}")]
    NoSpace {
        /// What was being written.
        what: String,
    },
    /// No file descriptor is left, and nothing was changed: try again when others were closed.
    #[error("no file descriptor left for {what} (the process's limit of open files)")]
    NoDescriptors {
        /// What was being opened.
        what: String,
    },
    /// The medium no longer holds these bytes (a file cut short, a bad sector, a bad checksum).
    #[error("{what} is damaged at bytes {}..{}", range.start, range.end)]
    Damaged {
        /// The segment.
        what: String,
        /// The bytes that cannot be had.
        range: Range<u64>,
    },
    /// An archive does not answer: try again later, nothing is wrong with what it holds.
    #[error("{what} cannot be had from the archive now: {reason}")]
    Unavailable {
        /// The object.
        what: String,
        /// The last error.
        reason: String,
    },
    /// An archive gives other bytes than were archived, or none, however often it is asked. Unlike
    /// [`StorageError::Damaged`] this may mend itself, so nobody should remember it.
    #[error("{what} is lost at bytes {}..{}: {reason}", range.start, range.end)]
    Lost {
        /// The object.
        what: String,
        /// The bytes that cannot be had.
        range: Range<u64>,
        /// What came instead.
        reason: String,
    },
    /// The caller asked for something that cannot be.
    #[error("invalid storage request: {what}")]
    InvalidInput {
        /// What is wrong with it.
        what: String,
    },
    /// An earlier error of this writer was final.
    #[error("{what} failed earlier and takes no more writes until it is opened again")]
    Failed {
        /// The segment.
        what: String,
    },
    /// Another process has the data directory open.
    #[error("data directory {} is in use by process {}", path.display(), pid.map_or("unknown".to_owned(), |pid| pid.to_string()))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds the lock, when its name could be read.
        pid: Option<u32>,
    },
    /// Written by a newer version, or not by comlog; nothing was touched.
    #[error("{} has format {found}, this version reads up to {supported}", path.display())]
    UnknownFormat {
        /// The file or directory.
        path: PathBuf,
        /// What it says of itself.
        found: String,
        /// The newest format this version knows.
        supported: u32,
    },
    /// Any other error of the operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to which file.
        what: String,
        /// The operating system's word.
        source: io::Error,
    },
}

impl StorageError {
    /// Whether nothing was kept for want of room or of a file descriptor: the same call may succeed
    /// later, and nothing has failed for good.
    #[must_use]
    pub fn is_scarcity(&self) -> bool {
        matches!(
            self,
            StorageError::NoSpace { .. } | StorageError::NoDescriptors { .. }
        )
    }
}
