//! One manifest in the store: read it, and replace it only if nobody else did.

use object_store::{PutMode, UpdateVersion};

use crate::identity::Writes;
use crate::key::PartitionKeys;
use crate::manifest::Manifest;
use crate::store::{ArchiveStore, Put};
use crate::{ArchiveError, Result};

/// A manifest as it was last seen.
#[derive(Debug)]
pub struct ManifestFile {
    store: ArchiveStore,
    keys: PartitionKeys,
    writes: Writes,
    /// What is known to be there.
    seen: Option<(Manifest, UpdateVersion)>,
    /// A replacement of which nobody knows whether it was done.
    pending: Option<Manifest>,
}

impl ManifestFile {
    /// Reads what is there.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn open(
        store: ArchiveStore,
        keys: PartitionKeys,
        writes: Writes,
    ) -> Result<ManifestFile> {
        let mut file = ManifestFile {
            store,
            keys,
            writes,
            seen: None,
            pending: None,
        };
        file.seen = file.read().await?;
        Ok(file)
    }

    /// What was there when it was last looked at.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.seen.as_ref().map(|(manifest, _)| manifest)
    }

    /// Whether nobody knows what became of the last replacement.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    pub(crate) fn object(&self) -> String {
        self.keys.manifest().to_string()
    }

    async fn read(&self) -> Result<Option<(Manifest, UpdateVersion)>> {
        let Some((content, version)) = self.store.get(&self.keys.manifest()).await? else {
            return Ok(None);
        };
        let manifest = self.keys.decode_manifest(&content)?;
        Ok(Some((manifest, version)))
    }

    /// Looks again; what is there must be what this writer wrote last.
    ///
    /// # Errors
    /// [`ArchiveError::Fenced`] when it is not; [`ArchiveError::Unavailable`].
    pub async fn refresh(&mut self) -> Result<()> {
        let found = self.read().await?;
        let there = found.as_ref().map(|(manifest, _)| manifest);
        if there != self.manifest() && (there.is_none() || there != self.pending.as_ref()) {
            return Err(self.fenced(there));
        }
        self.seen = found;
        self.pending = None;
        Ok(())
    }

    /// Puts `next` in the place of what was seen. After an error it may or may not be there; the next
    /// call finds out first.
    ///
    /// # Errors
    /// [`ArchiveError::Fenced`] when somebody else replaced it; [`ArchiveError::Unavailable`].
    pub async fn replace(&mut self, next: Manifest) -> Result<()> {
        if self.pending.is_some() || self.writes == Writes::SingleWriter {
            self.refresh().await?;
        }
        let content = next.encode()?;
        let mode = match (self.writes, &self.seen) {
            (Writes::SingleWriter, _) => PutMode::Overwrite,
            (Writes::Conditional, None) => PutMode::Create,
            (Writes::Conditional, Some((_, version))) => PutMode::Update(version.clone()),
        };
        self.pending = Some(next);
        match self
            .store
            .put(&self.keys.manifest(), vec![content], mode)
            .await?
        {
            Put::Done(version) if version.e_tag.is_some() || version.version.is_some() => {
                self.seen = self.pending.take().map(|next| (next, version));
                Ok(())
            }
            // The answer to an earlier, repeated request may have been lost.
            Put::Done(_) | Put::Refused | Put::Unsupported => {
                let next = self.pending.clone();
                self.refresh().await?;
                if self.manifest() == next.as_ref() {
                    return Ok(());
                }
                Err(ArchiveError::unavailable(
                    format!("put {}", self.object()),
                    "the store refused a condition that holds",
                ))
            }
        }
    }

    fn fenced(&self, there: Option<&Manifest>) -> ArchiveError {
        ArchiveError::Fenced {
            object: self.object(),
            current: there.map_or(0, |there| there.writer_epoch),
            held: self.manifest().map_or(0, |seen| seen.writer_epoch),
        }
    }
}
