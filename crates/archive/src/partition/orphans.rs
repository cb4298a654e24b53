//! Objects that no manifest names go after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use object_store::path::Path;
use tokio::time::Instant;

use super::{PartitionArchive, Progress, Writer};
use crate::Result;
use crate::key;
use crate::manifest::Manifest;

impl PartitionArchive {
    /// Removes objects that no manifest named for at least `grace`, as far as this process saw: it
    /// compares no clocks. Never one that the manifest names, nor one of a later writer.
    ///
    /// # Errors
    /// [`crate::ArchiveError`].
    pub async fn remove_orphans(
        &mut self,
        writer: &Writer,
        grace: Duration,
        progress: &mut Progress,
    ) -> Result<()> {
        let objects = writer.store.list(self.keys.dir()).await?;
        // Behind the listing, so that what it names was there.
        self.file()?.refresh().await?;
        let Some(manifest) = self.file()?.manifest().cloned() else {
            return Ok(());
        };
        let named = self.named(&manifest);
        let now = Instant::now();
        let mut seen = BTreeMap::new();
        for object in objects {
            let key = object.location;
            let ours = key.filename().and_then(key::epoch_in);
            if named.contains(&key) || ours.is_none_or(|epoch| epoch > manifest.writer_epoch) {
                continue;
            }
            let since = *self.orphans.get(&key).unwrap_or(&now);
            if now.duration_since(since) < grace {
                seen.insert(key, since);
                continue;
            }
            writer.store.delete(&key).await?;
            tracing::info!(%key, "orphaned object removed from the archive");
            progress.removed_orphans += 1;
        }
        self.orphans = seen;
        Ok(())
    }

    fn named(&self, manifest: &Manifest) -> BTreeSet<Path> {
        let segments = manifest.segments.iter();
        let mut named: BTreeSet<Path> =
            segments.flat_map(|entry| self.keys.all_of(entry)).collect();
        named.insert(self.keys.manifest());
        named.extend(manifest.state.as_ref().map(|state| self.keys.state(state)));
        named
    }
}
