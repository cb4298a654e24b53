//! Becoming the writer of a partition's archive, unless it has gone on without this server.

use comlog_record::Offset;
use comlog_storage::Storage;

use super::{LogState, PartitionArchive, Writer};
use crate::manifest::Manifest;
use crate::manifest_file::ManifestFile;
use crate::upload::crc_of;
use crate::{ArchiveError, Result, key};

impl PartitionArchive {
    /// Makes this server the writer of the partition's archive, if it is not yet.
    ///
    /// # Errors
    /// [`ArchiveError::Fenced`], [`ArchiveError::Diverged`]: the archive has gone on without this
    /// server, or is not of this log; [`ArchiveError::Unavailable`].
    pub async fn take_over(&mut self, writer: &Writer, log: &LogState) -> Result<()> {
        match self.file {
            Some(_) => Ok(()),
            None => self.claim(writer, log).await,
        }
    }

    /// Makes this server the writer, unless the archive has gone on without it.
    async fn claim(&mut self, writer: &Writer, log: &LogState) -> Result<()> {
        let object = self.keys.manifest().to_string();
        if let Some(known) = self.catalog.archive_id()
            && known != writer.archive_id
        {
            let reason = format!(
                "the segments are in archive {known}, this is {}",
                writer.archive_id
            );
            return Err(ArchiveError::Diverged { object, reason });
        }
        let opened = ManifestFile::open(writer.store.clone(), self.keys.clone(), writer.writes);
        let mut file = opened.await?;
        let next = match file.manifest() {
            None => self.first_manifest(writer, log)?,
            Some(found) => self.next_manifest(writer, log, found).await?,
        };
        file.replace(next.clone()).await?;
        self.catalog.publish(&writer.archive_id, next).await?;
        self.file = Some(file);
        Ok(())
    }

    fn first_manifest(&self, writer: &Writer, log: &LogState) -> Result<Manifest> {
        let known = self.catalog.manifest();
        if known.is_some_and(|known| !known.segments.is_empty()) {
            return Err(ArchiveError::Diverged {
                object: self.keys.manifest().to_string(),
                reason: "it is gone, and segments were archived".to_owned(),
            });
        }
        Ok(Manifest {
            topic: self.topic.clone(),
            topic_id: self.topic_id.clone(),
            partition: self.partition,
            revision: 1,
            writer_epoch: 1,
            writer_id: writer.writer_id.clone(),
            log_start_offset: key::offset(log.start),
            leader_epoch: log.leader_epoch.0,
            fencing_token: log.fencing_token,
            state: None,
            segments: Vec::new(),
        })
    }

    async fn next_manifest(
        &self,
        writer: &Writer,
        log: &LogState,
        found: &Manifest,
    ) -> Result<Manifest> {
        let known = self.catalog.manifest();
        let held = known.as_ref().map_or(0, |known| known.writer_epoch);
        if found.writer_id != writer.writer_id && found.writer_epoch != held {
            return Err(ArchiveError::Fenced {
                object: self.keys.manifest().to_string(),
                current: found.writer_epoch,
                held,
            });
        }
        self.check_same_log(log, found, known.as_ref()).await?;
        Ok(Manifest {
            revision: found.revision + 1,
            writer_epoch: found.writer_epoch + 1,
            writer_id: writer.writer_id.clone(),
            leader_epoch: found.leader_epoch.max(log.leader_epoch.0),
            ..found.clone()
        })
    }

    /// That what is archived is what is here, wherever both can be seen.
    async fn check_same_log(
        &self,
        log: &LogState,
        found: &Manifest,
        known: Option<&Manifest>,
    ) -> Result<()> {
        let diverged = |reason: String| ArchiveError::Diverged {
            object: self.keys.manifest().to_string(),
            reason,
        };
        if found.end_offset() > log.end {
            let (archived, end) = (found.end_offset(), log.end);
            return Err(diverged(format!(
                "archived up to {archived}, the log ends at {end}"
            )));
        }
        for entry in &found.segments {
            let base = Offset(entry.base_offset);
            let at = log
                .segments
                .binary_search_by_key(&base, |segment| segment.base_offset);
            let Ok(at) = at else { continue };
            let local = &log.segments[at];
            if !local.sealed
                || key::offset(local.end_offset) != entry.end_offset
                || local.len != entry.len
            {
                return Err(diverged(format!("the segment at {base} is another one")));
            }
            // What this data directory has not archived itself may come from a copy of it.
            let archived_here = known.is_some_and(|known| known.segment(base) == Some(entry));
            if !archived_here && crc_of(&*self.storage.open(base).await?).await? != entry.crc {
                return Err(diverged(format!("the segment at {base} has other records")));
            }
        }
        let forgotten = self.catalog.forgotten();
        let known = known.map_or(&[][..], |known| &known.segments);
        let lost = known.iter().find(|entry| {
            let base = Offset(entry.base_offset);
            !forgotten.contains(&entry.base_offset) && found.segment(base) != Some(entry)
        });
        match lost {
            Some(entry) => Err(diverged(format!(
                "it does not name the segment at {}",
                entry.base_offset
            ))),
            None => Ok(()),
        }
    }
}
