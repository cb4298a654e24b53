//! Who archives, and what came of it.

use crate::identity::Writes;
use crate::store::ArchiveStore;

/// Who writes, and where to.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The archive.
    pub store: ArchiveStore,
    /// Its identity.
    pub archive_id: String,
    /// How manifests are replaced.
    pub writes: Writes,
    /// The data directory: 32 hex digits.
    pub writer_id: String,
}

/// What a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Segments that are in the archive now and were not before.
    pub uploaded_segments: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
    /// Segments whose local copy went.
    pub evicted_segments: u64,
    /// Archived segments that were removed.
    pub removed_segments: u64,
    /// Objects removed that no manifest named.
    pub removed_orphans: u64,
}
