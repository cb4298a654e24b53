//! Local copies go once the archive holds their segments.

use comlog_log::{SegmentInfo, index_blob_names};
use comlog_record::Offset;

use super::{LocalRetention, LogState, PartitionArchive, Progress, Writer};
use crate::manifest::SegmentEntry;
use crate::upload::read_back;
use crate::{ArchiveError, Result};

impl PartitionArchive {
    /// Removes local copies that are older or more than what should stay.
    pub(super) async fn evict(
        &mut self,
        writer: &Writer,
        log: &LogState,
        progress: &mut Progress,
    ) -> Result<()> {
        if log.local == LocalRetention::default() {
            return Ok(());
        }
        if self.resident.is_none() {
            let local = self.storage.list_local().await?;
            let bases = local.iter().map(|segment| segment.base_offset);
            let archived = bases.filter(|base| self.catalog.entry(*base).is_some());
            self.resident = Some(archived.collect());
        }
        while let Some(entry) = self.next_eviction(log) {
            self.check_object(writer, log, &entry).await?;
            let base = Offset(entry.base_offset);
            self.storage.evict(base, &index_blob_names(base)).await?;
            if let Some(resident) = &mut self.resident {
                resident.remove(&base);
            }
            progress.evicted_segments += 1;
        }
        Ok(())
    }

    /// The oldest local copy, if it is archived and too old or too much.
    pub(super) fn next_eviction(&self, log: &LogState) -> Option<SegmentEntry> {
        if log.local == LocalRetention::default() {
            return None;
        }
        let resident = self.resident.as_ref()?;
        let local = |segment: &&SegmentInfo| {
            resident.contains(&segment.base_offset)
                || self.catalog.entry(segment.base_offset).is_none()
        };
        let mut local = log.segments.iter().filter(local);
        let oldest = local.next()?;
        let entry = self.catalog.entry(oldest.base_offset)?;
        let rest: u64 = local.map(|segment| segment.len).sum();
        let surplus = log.local.bytes.is_some_and(|keep| rest >= keep);
        (surplus || is_expired(&entry, log)).then_some(entry)
    }

    /// That the object is what the manifest says. One that is not is no longer part of the archive,
    /// and will be uploaded again: the local copy is still there.
    async fn check_object(
        &mut self,
        writer: &Writer,
        log: &LogState,
        entry: &SegmentEntry,
    ) -> Result<()> {
        let key = self.keys.segment(entry);
        let base = Offset(entry.base_offset);
        let checked = if self.checked.contains(&base) {
            match writer.store.len(&key).await? {
                Some(len) if len == entry.len => Ok(()),
                found => Err(ArchiveError::Damaged {
                    object: key.to_string(),
                    reason: format!("{found:?} bytes instead of {}", entry.len),
                }),
            }
        } else {
            read_back(&writer.store, &key, entry.len, entry.crc).await
        };
        match checked {
            Ok(()) => {
                self.checked.insert(base);
                Ok(())
            }
            Err(error @ ArchiveError::Damaged { .. }) => {
                tracing::error!(%error, "archived object is not what it should be, uploading it again");
                self.replace(writer, log, |next| {
                    next.segments
                        .retain(|other| other.base_offset != entry.base_offset);
                })
                .await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_expired(entry: &SegmentEntry, log: &LogState) -> bool {
    let (Some(age), Some(newest)) = (log.local.age, entry.max_timestamp) else {
        return false;
    };
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    newest < log.now.0.saturating_sub(age)
}
