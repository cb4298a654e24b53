//! Reads an archived partition whole and checks every checksum.
//!
//! The server may go on meanwhile. So nothing is called damage before the manifest was read again
//! and still names it.

use comlog_log::Snapshot;
use comlog_storage::BlockSums;
use object_store::path::Path;

use crate::manifest::{Manifest, SegmentEntry, StateEntry};
use crate::store::ArchiveStore;
use crate::survey::ArchivedPartition;
use crate::upload::read_back;
use crate::{ArchiveError, Result};

/// The state of a log is replaced with every upload; it is looked for this often.
const STATE_ATTEMPTS: u32 = 10;

/// What was found out about a partition.
#[derive(Debug, Default)]
pub struct Verified {
    /// Everything that is wrong.
    pub damage: Vec<ArchiveError>,
    /// Segments that the server removed meanwhile, as its manifest says.
    pub removed: u64,
}

/// Checks everything that the manifest of `partition` names, as far as the archive still does;
/// `count` is told the bytes of each segment when it was looked at.
///
/// # Errors
/// [`ArchiveError::Unavailable`]: then nothing is known.
pub async fn verify_partition(
    store: &ArchiveStore,
    partition: &ArchivedPartition,
    count: &mut (dyn FnMut(u64) + Send),
) -> Result<Verified> {
    let mut verified = Verified::default();
    let manifest = match &partition.manifest {
        Ok(manifest) => manifest,
        Err(error) => {
            verified.damage.push(error.clone());
            return Ok(verified);
        }
    };
    for entry in &manifest.segments {
        if let Some(damage) = damage(check_segment(store, partition, entry).await)? {
            if still_names(store, partition, entry).await? {
                verified.damage.push(damage);
            } else {
                verified.removed += 1;
            }
        }
        count(entry.len);
    }
    let state = verify_state(store, partition, manifest).await?;
    verified.damage.extend(state);
    Ok(verified)
}

/// Damage, if that is what a check found; any other error ends the verification.
fn damage(checked: Result<()>) -> Result<Option<ArchiveError>> {
    match checked {
        Ok(()) => Ok(None),
        Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::UnknownFormat { .. })) => {
            Ok(Some(error))
        }
        Err(error) => Err(error),
    }
}

/// The manifest as it is now; `None` when it is gone, with everything that it named.
async fn manifest_now(
    store: &ArchiveStore,
    partition: &ArchivedPartition,
) -> Result<Option<Manifest>> {
    let found = store.get(&partition.keys.manifest()).await?;
    found
        .map(|(content, _)| partition.keys.decode_manifest(&content))
        .transpose()
}

async fn still_names(
    store: &ArchiveStore,
    partition: &ArchivedPartition,
    entry: &SegmentEntry,
) -> Result<bool> {
    let now = match manifest_now(store, partition).await {
        Ok(now) => now,
        // Then the manifest is no excuse.
        error => return damage(error.map(drop)).map(|damage| damage.is_some()),
    };
    Ok(now.is_some_and(|now| now.segments.contains(entry)))
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
        return Err(ArchiveError::damaged(
            &sums_at,
            "not the checksums of its segment",
        ));
    }
    for key in [keys.index(entry), keys.time_index(entry)] {
        let index = content(store, &key).await?;
        comlog_log::Inspected::decode(&index)
            .map_err(|error| ArchiveError::damaged(&key, error))?;
    }
    Ok(())
}

/// Checks the state that `manifest` names, or the one that has taken its place.
async fn verify_state(
    store: &ArchiveStore,
    partition: &ArchivedPartition,
    manifest: &Manifest,
) -> Result<Option<ArchiveError>> {
    let mut named = manifest.state.clone();
    for _ in 0..STATE_ATTEMPTS {
        let Some(entry) = &named else {
            return Ok(None);
        };
        let Some(found) = damage(check_state(store, partition, entry).await)? else {
            return Ok(None);
        };
        let now = match manifest_now(store, partition).await {
            Ok(now) => now,
            error => return damage(error.map(drop)),
        };
        let now = now.and_then(|now| now.state);
        if now == named {
            return Ok(Some(found));
        }
        named = now;
    }
    let what = format!("get the state of {}", partition.keys.dir());
    Err(ArchiveError::unavailable(
        what,
        "it is replaced again and again",
    ))
}

async fn check_state(
    store: &ArchiveStore,
    partition: &ArchivedPartition,
    entry: &StateEntry,
) -> Result<()> {
    let key = partition.keys.state(entry);
    let state = content(store, &key).await?;
    if crc32c::crc32c(&state) != entry.crc {
        return Err(ArchiveError::damaged(&key, "checksum mismatch"));
    }
    Snapshot::decode(partition.keys.owner(), &state)
        .map(drop)
        .map_err(|error| ArchiveError::damaged(&key, error))
}

async fn content(store: &ArchiveStore, key: &Path) -> Result<bytes::Bytes> {
    let found = store.get(key).await?;
    let found = found.ok_or_else(|| ArchiveError::damaged(key, "the object is not there"))?;
    Ok(found.0)
}
