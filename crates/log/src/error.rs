//! What can go wrong, and what to do about it.

use std::sync::Arc;

use comlog_record::{DecodeError, LeaderEpoch, Offset, OffsetRange};
use comlog_storage::StorageError;

/// What a caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request can never succeed as it is.
    Invalid,
    /// The offset lies outside the log.
    OutOfRange,
    /// A condition of the request does not hold (expected offset, fencing token, sequence).
    Conflict,
    /// There is no room, or no file descriptor: try again later.
    NoSpace,
    /// Stored bytes are damaged.
    Corrupt,
    /// The log was closed.
    Closed,
    /// An archive does not answer: try again later.
    Unavailable,
    /// The log failed and takes no appends until it is opened again.
    Internal,
}

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The batch is not one that clients may send.
    #[error(transparent)]
    Invalid(#[from] DecodeError),
    /// `expected_offset` is not the log end offset.
    #[error("expected offset {expected}, the log ends at {actual}")]
    UnexpectedOffset {
        /// What the request expected.
        expected: Offset,
        /// The log end offset.
        actual: Offset,
    },
    /// The fencing token is not the partition's.
    #[error("fenced: the partition's token is {current}, the request carries {given:?}")]
    Fenced {
        /// What the request carried.
        given: Option<u64>,
        /// The partition's.
        current: u64,
    },
    /// A batch of this producer is missing before this one.
    #[error("out of order: producer {producer_id} sent sequence {found}, expected {expected}")]
    OutOfOrderSequence {
        /// Who.
        producer_id: i64,
        /// The next sequence.
        expected: i32,
        /// The one sent.
        found: i32,
    },
    /// A newer instance of this producer has taken over.
    #[error("producer {producer_id} epoch {found} is fenced by epoch {current}")]
    ProducerFenced {
        /// Who.
        producer_id: i64,
        /// The newest epoch seen.
        current: i16,
        /// The one sent.
        found: i16,
    },
    /// A retry of a batch so old that its offsets are no longer known; it is in the log already.
    #[error("duplicate of a batch of producer {producer_id} older than the last sixteen")]
    DuplicateSequence {
        /// Who.
        producer_id: i64,
    },
    /// An earlier batch of the same chain was refused.
    #[error("an earlier batch of the same chain was refused")]
    Suspended,
    /// No room; nothing was kept.
    #[error("no space left")]
    NoSpace,
    /// No file descriptor is left; nothing was kept.
    #[error("no file descriptor left")]
    NoDescriptors,
    /// The log has failed: see the source.
    #[error("the partition has failed and takes no appends until it is restarted: {0}")]
    Failed(Arc<StorageError>),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl AppendError {
    /// What [`StorageError::is_scarcity`] means for an append.
    pub(crate) fn of_scarcity(error: &StorageError) -> AppendError {
        match error {
            StorageError::NoDescriptors { .. } => AppendError::NoDescriptors,
            _ => AppendError::NoSpace,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            AppendError::Invalid(_) => ErrorKind::Invalid,
            AppendError::UnexpectedOffset { .. }
            | AppendError::Fenced { .. }
            | AppendError::OutOfOrderSequence { .. }
            | AppendError::ProducerFenced { .. }
            | AppendError::DuplicateSequence { .. }
            | AppendError::Suspended => ErrorKind::Conflict,
            AppendError::NoSpace | AppendError::NoDescriptors => ErrorKind::NoSpace,
            AppendError::Failed(_) => ErrorKind::Internal,
            AppendError::Closed => ErrorKind::Closed,
        }
    }
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The offset lies before the log start offset or behind the high watermark.
    #[error("offset {requested} is outside the log {log}")]
    OutOfRange {
        /// What was asked for.
        requested: Offset,
        /// From the log start offset to the high watermark.
        log: OffsetRange,
    },
    /// The bytes there are damaged; reading can go on at `offsets.end`.
    #[error("offsets {offsets} are damaged: {reason}")]
    Corrupt {
        /// What is lost.
        offsets: OffsetRange,
        /// What is wrong.
        reason: String,
    },
    /// The storage failed.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl ReadError {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            ReadError::OutOfRange { .. } => ErrorKind::OutOfRange,
            ReadError::Corrupt { .. } => ErrorKind::Corrupt,
            ReadError::Storage(error) if matches!(**error, StorageError::Unavailable { .. }) => {
                ErrorKind::Unavailable
            }
            ReadError::Storage(_) => ErrorKind::Internal,
            ReadError::Closed => ErrorKind::Closed,
        }
    }
}

/// Why opening, syncing, trimming or another operation on the whole log failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The offset lies outside the log.
    #[error("offset {requested} is outside the log {log}")]
    OutOfRange {
        /// What was asked for.
        requested: Offset,
        /// The offsets that are allowed.
        log: OffsetRange,
    },
    /// The fencing token is not above the current one.
    #[error("fencing token {given} is not above the current {current}")]
    StaleToken {
        /// What was asked for.
        given: u64,
        /// The partition's.
        current: u64,
    },
    /// The leader epoch is not above the current one.
    #[error("leader epoch {given} is not above the current {current}")]
    StaleEpoch {
        /// What was asked for.
        given: LeaderEpoch,
        /// The log's.
        current: LeaderEpoch,
    },
    /// A read that the operation needs failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The storage failed.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            LogError::OutOfRange { .. } => ErrorKind::OutOfRange,
            LogError::StaleToken { .. } | LogError::StaleEpoch { .. } => ErrorKind::Conflict,
            LogError::Read(error) => error.kind(),
            LogError::Storage(error) if error.is_scarcity() => ErrorKind::NoSpace,
            LogError::Storage(_) => ErrorKind::Internal,
            LogError::Closed => ErrorKind::Closed,
        }
    }
}

impl From<StorageError> for LogError {
    fn from(error: StorageError) -> LogError {
        LogError::Storage(Arc::new(error))
    }
}
