//! Deleted topics: what the archive holds of them is removed once the store answers, whenever that is.
//!
//! That a topic's archive must go is noted in a blob before anything else of the topic goes, so that
//! nobody has to guess from what is missing: an archive is never cleared because a topic is unknown.

use std::time::Duration;

use comlog_archive::{ArchiveError, Survey, Writer, topic_key};
use comlog_storage::StorageError;
use object_store::path::Path;
use tokio::time::Instant;

use super::Archive;

const BLOB_PREFIX: &str = "archive-gone-";
/// After a failure it is tried again this much later.
const PAUSE: Duration = Duration::from_secs(30);

impl Archive {
    /// Notes that the archive of a topic must go, and who may remove it; durable on return.
    pub(crate) async fn bury(&self, topic_id: &str) -> Result<(), StorageError> {
        let blob = format!("{BLOB_PREFIX}{topic_id}");
        if self.meta.read_blob(&blob).await?.is_some() {
            return Ok(());
        }
        let mut content = String::new();
        for (key, slot) in self
            .slots
            .read()
            .iter()
            .filter(|(key, _)| key.0 == topic_id)
        {
            let epoch = slot
                .catalog
                .manifest()
                .map_or(0, |manifest| manifest.writer_epoch);
            content += &format!("{} {epoch}\n", key.1);
        }
        self.meta.write_blob(&blob, content.into()).await?;
        *self.tombs_at.lock() = None;
        self.wake.notify_one();
        Ok(())
    }

    /// Removes what is left of deleted topics, as far as the store answers.
    pub(super) async fn clear_tombs(&self, writer: &Writer) {
        if self.tombs_at.lock().is_some_and(|at| Instant::now() < at) {
            return;
        }
        let cleared = self.try_clear_tombs(writer).await;
        if let Err(error) = cleared {
            tracing::warn!(%error, "the archive of a deleted topic is not removed yet");
        }
        *self.tombs_at.lock() = Some(Instant::now() + PAUSE);
    }

    async fn try_clear_tombs(&self, writer: &Writer) -> Result<(), ArchiveError> {
        for blob in self.meta.list_blobs().await? {
            let Some(topic_id) = blob.strip_prefix(BLOB_PREFIX) else {
                continue;
            };
            let held = self.meta.read_blob(&blob).await?.unwrap_or_default();
            self.clear(writer, topic_id, &String::from_utf8_lossy(&held))
                .await?;
            self.meta.remove_blob(&blob).await?;
        }
        Ok(())
    }

    /// The manifests first, so that nothing is named that is gone; the metadata last.
    async fn clear(&self, writer: &Writer, topic_id: &str, held: &str) -> Result<(), ArchiveError> {
        let slots: Vec<_> = {
            let slots = self.slots.read();
            let ours = slots.iter().filter(|(key, _)| key.0 == topic_id);
            ours.map(|(_, slot)| slot.work.clone()).collect()
        };
        let mut idle = Vec::with_capacity(slots.len());
        for work in slots {
            // Whoever works on it notices soon that the topic is gone.
            idle.push(work.lock_owned().await);
        }
        let partitions = Survey::partitions_of(&writer.store, topic_id).await?;
        for found in &partitions {
            let Ok(manifest) = &found.manifest else {
                continue;
            };
            let known = format!("{} {}", found.partition, manifest.writer_epoch);
            if manifest.writer_id != self.writer_id && !held.lines().any(|line| line == known) {
                tracing::error!(
                    topic_id,
                    partition = found.partition,
                    "another server has taken over the archive of a deleted topic: it stays"
                );
                return Ok(());
            }
        }
        for found in &partitions {
            writer.store.delete(&found.keys.manifest()).await?;
        }
        let dir = Path::from_iter(["topics", topic_id]);
        for object in writer.store.list(&dir).await? {
            writer.store.delete(&object.location).await?;
        }
        writer.store.delete(&topic_key(topic_id)).await?;
        self.slots.write().retain(|key, _| key.0 != topic_id);
        tracing::info!(topic_id, "archive of a deleted topic removed");
        Ok(())
    }
}
