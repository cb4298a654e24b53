//! Brings one sealed segment to the store, and looks whether it arrived.

use std::sync::Arc;

use bytes::Bytes;
use comlog_log::{LogConfig, SegmentInfo, Snapshot};
use comlog_record::Timestamp;
use comlog_storage::{BlockSums, SegmentReader, SumsBuilder};
use object_store::PutMode;
use object_store::path::Path;

use crate::key::{self, PartitionKeys};
use crate::manifest::{SegmentEntry, StateEntry};
use crate::store::{ArchiveStore, Put};
use crate::{ArchiveError, Result};

/// Bytes of a segment read at once.
const READ_BYTES: u64 = 4 << 20;

/// A segment on its way.
pub(crate) struct Upload<'a> {
    pub(crate) store: &'a ArchiveStore,
    pub(crate) keys: &'a PartitionKeys,
    pub(crate) epoch: u64,
    pub(crate) config: &'a LogConfig,
    pub(crate) now: Timestamp,
}

impl Upload<'_> {
    /// Uploads a segment, everything that belongs to it, and the log's state at its end, which it
    /// moves `state` to. On return all of it was read back and found right.
    pub(crate) async fn run(
        &self,
        reader: &Arc<dyn SegmentReader>,
        segment: &SegmentInfo,
        state: &mut Snapshot,
    ) -> Result<(SegmentEntry, StateEntry)> {
        let summary = state
            .follow(&**reader, segment, self.config, self.now)
            .await?;
        for damage in &summary.damaged {
            tracing::error!(offsets = %damage.offsets, reason = damage.reason,
                "a damaged segment is archived as it is");
        }
        let (content, sums) = read_segment(&**reader).await?;
        let entry = SegmentEntry {
            base_offset: key::offset(segment.base_offset),
            end_offset: key::offset(segment.end_offset),
            len: sums.object_len(),
            crc: sums.crc(),
            epoch: self.epoch,
            max_timestamp: summary.max_timestamp.map(|timestamp| timestamp.0),
            archived_ms: self.now.0,
        };
        let [offsets, times] = summary.indexes;
        self.put_checked(&self.keys.index(&entry), offsets).await?;
        self.put_checked(&self.keys.time_index(&entry), times)
            .await?;
        self.put_checked(&self.keys.sums(&entry), sums.encode())
            .await?;
        let encoded = state.encode();
        let state = StateEntry {
            end_offset: entry.end_offset,
            len: encoded.len() as u64,
            crc: crc32c::crc32c(&encoded),
            epoch: self.epoch,
        };
        self.put_checked(&self.keys.state(&state), encoded).await?;
        self.put_segment(&entry, content).await?;
        Ok((entry, state))
    }

    async fn put_segment(&self, entry: &SegmentEntry, content: Vec<Bytes>) -> Result<()> {
        let key = self.keys.segment(entry);
        match self
            .store
            .put(&key, content.clone(), PutMode::Create)
            .await?
        {
            Put::Done(_) => {}
            // An attempt whose answer was lost: nobody else makes this key.
            Put::Refused
                if read_back(self.store, &key, entry.len, entry.crc)
                    .await
                    .is_ok() =>
            {
                return Ok(());
            }
            Put::Refused | Put::Unsupported => {
                self.store.put(&key, content, PutMode::Overwrite).await?;
            }
        }
        read_back(self.store, &key, entry.len, entry.crc).await
    }

    async fn put_checked(&self, key: &Path, content: Bytes) -> Result<()> {
        self.store
            .put(key, vec![content.clone()], PutMode::Overwrite)
            .await?;
        match self.store.get(key).await? {
            Some((found, _)) if found == content => Ok(()),
            _ => Err(ArchiveError::damaged(
                key,
                "what was written does not come back",
            )),
        }
    }
}

/// Reads an object and compares it with what it must be.
///
/// # Errors
/// [`ArchiveError::Damaged`] when it is another, or not there; [`ArchiveError::Unavailable`].
pub async fn read_back(store: &ArchiveStore, key: &Path, len: u64, crc: u32) -> Result<()> {
    let (mut found_len, mut found_crc) = (0, 0);
    let mut content = store.pieces(key).await?;
    while let Some(bytes) = content.next().await? {
        found_len += bytes.len() as u64;
        found_crc = crc32c::crc32c_append(found_crc, &bytes);
    }
    if found_len != len {
        return Err(ArchiveError::damaged(
            key,
            format!("{found_len} bytes instead of {len}"),
        ));
    }
    if found_crc != crc {
        return Err(ArchiveError::damaged(
            key,
            format!("checksum {found_crc:08x} instead of {crc:08x}"),
        ));
    }
    Ok(())
}

/// The CRC-32C of a segment.
pub(crate) async fn crc_of(reader: &dyn SegmentReader) -> Result<u32> {
    let (_, sums) = read_segment(reader).await?;
    Ok(sums.crc())
}

async fn read_segment(reader: &dyn SegmentReader) -> Result<(Vec<Bytes>, BlockSums)> {
    let mut content = Vec::new();
    let mut sums = SumsBuilder::default();
    let mut position = 0;
    while position < reader.len() {
        let end = (position + READ_BYTES).min(reader.len());
        for chunk in reader.read(position..end).await? {
            sums.update(&chunk);
            content.push(chunk);
        }
        position = end;
    }
    Ok((content, sums.finish()))
}
