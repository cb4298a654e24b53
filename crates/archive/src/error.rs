//! What can go wrong with the archive, said so that the caller knows what to do.

use std::sync::Arc;

use comlog_storage::StorageError;
use object_store::path::Path;

/// Why an operation on the archive failed. Nothing local was lost by it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The URL, or what the environment says about the store.
    #[error("archive: {0}")]
    Config(String),
    /// The store does not answer, or not as it should: try again later.
    #[error("archive: {what}: {reason}")]
    Unavailable {
        /// What was being done, and to which object.
        what: String,
        /// The store's word.
        reason: String,
    },
    /// An object is not what the archive says it is.
    #[error("archive: {object} is damaged: {reason}")]
    Damaged {
        /// Which.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer version.
    #[error("archive: {object} has format {found}, which this version does not know")]
    UnknownFormat {
        /// Which.
        object: String,
        /// What it says of itself.
        found: String,
    },
    /// Another writer has taken over: nothing may be uploaded or deleted any more.
    #[error(
        "archive: fenced: {object} was taken over by writer epoch {current}, this server holds {held}"
    )]
    Fenced {
        /// The manifest.
        object: String,
        /// The epoch there.
        current: u64,
        /// The one this writer had.
        held: u64,
    },
    /// The archive and the local log are not the same log.
    #[error("archive: {object} and the local log contradict each other: {reason}")]
    Diverged {
        /// The manifest.
        object: String,
        /// Where.
        reason: String,
    },
    /// The local disk.
    #[error("archive: {0}")]
    Local(Arc<StorageError>),
}

impl ArchiveError {
    /// Whether trying again cannot help until somebody intervenes.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            ArchiveError::Fenced { .. }
                | ArchiveError::Diverged { .. }
                | ArchiveError::UnknownFormat { .. }
                | ArchiveError::Config(_)
        )
    }

    pub(crate) fn damaged(object: &Path, reason: impl ToString) -> ArchiveError {
        ArchiveError::Damaged {
            object: object.to_string(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn unavailable(what: impl Into<String>, reason: impl ToString) -> ArchiveError {
        ArchiveError::Unavailable {
            what: what.into(),
            reason: reason.to_string(),
        }
    }
}

impl From<StorageError> for ArchiveError {
    fn from(error: StorageError) -> ArchiveError {
        ArchiveError::Local(Arc::new(error))
    }
}
