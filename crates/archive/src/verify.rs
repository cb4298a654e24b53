//! Reads an archived partition whole and checks every checksum.

use comlog_log::Snapshot;
use comlog_storage::BlockSums;
use object_store::path::Path;

use crate::manifest::{Manifest, SegmentEntry};
use crate::store::ArchiveStore;
use crate::survey::ArchivedPartition;
use crate::upload::read_back;
use crate::{ArchiveError, Result};

/// Everything that is wrong with a partition; `count` is told the bytes of each segment when it was
/// read.
///
/// # Errors
/// [`ArchiveError::Unavailable`]: then nothing is known.
pub async fn verify_partition(
    store: &ArchiveStore,
    partition: &ArchivedPartition,
    count: &mut (dyn FnMut(u64) + Send),
) -> Result<Vec<ArchiveError>> {
    let manifest = match &partition.manifest {
        Ok(manifest) => manifest,
        Err(error) => return Ok(vec![error.clone()]),
    };
    let mut found = Vec::new();
    for entry in &manifest.segments {
        note(check_segment(store, partition, entry).await, &mut found)?;
        count(entry.len);
    }
    note(check_state(store, partition, manifest).await, &mut found)?;
    Ok(found)
}

/// Damage is found; anything else ends the check.
fn note(checked: Result<()>, found: &mut Vec<ArchiveError>) -> Result<()> {
    match checked {
        Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::UnknownFormat { .. })) => {
            found.push(error);
            Ok(())
        }
        checked => checked,
    }
}

async fn check_segment(
    store: &ArchiveStore,
    partition: &ArchivedPartition,
    entry: &SegmentEntry,
) -> Result<()> {
    let keys = &partition.keys;
    read_back(store, &keys.segment(entry), entry.len, entry.crc).await?;
    let sums_at = keys.sums(entry);
    let sums = content(store, &sums_at).await?;
    let right = BlockSums::decode(&sums)
        .is_some_and(|sums| (sums.object_len(), sums.crc()) == (entry.len, entry.crc));
    if !right {
        return Err(damaged(&sums_at, "not the checksums of its segment"));
    }
    for key in [keys.index(entry), keys.time_index(entry)] {
        let index = content(store, &key).await?;
        comlog_log::Inspected::decode(&index).map_err(|error| damaged(&key, error))?;
    }
    Ok(())
}

async fn check_state(
    store: &ArchiveStore,
    partition: &ArchivedPartition,
    manifest: &Manifest,
) -> Result<()> {
    let Some(entry) = &manifest.state else {
        return Ok(());
    };
    let key = partition.keys.state(entry);
    let state = content(store, &key).await?;
    if crc32c::crc32c(&state) != entry.crc {
        return Err(damaged(&key, "checksum mismatch"));
    }
    Snapshot::decode(&state)
        .map(drop)
        .map_err(|error| damaged(&key, error))
}

async fn content(store: &ArchiveStore, key: &Path) -> Result<bytes::Bytes> {
    let found = store.get(key).await?;
    let found = found.ok_or_else(|| damaged(key, "the object is not there"))?;
    Ok(found.0)
}

fn damaged(key: &Path, reason: impl ToString) -> ArchiveError {
    ArchiveError::Damaged {
        object: key.to_string(),
        reason: reason.to_string(),
    }
}
