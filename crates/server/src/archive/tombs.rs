//! Deleted topics: what the archive holds of them is removed once the store answers, whenever that is.
//!
//! That a topic's archive must go is noted in a blob before anything else of the topic goes, so that
//! nobody has to guess from what is missing: an archive is never cleared because a topic is unknown.

use std::time::Duration;

use bytes::Bytes;
use comlog_archive::{ArchiveError, ArchivedTopic, Survey, Writer, remove_topic};
use comlog_log::frame::{Decoder, Encoder, Kind, Unusable};
use comlog_storage::StorageError;
use tokio::time::Instant;

use super::Archive;
use crate::topic_store;

const BLOB_PREFIX: &str = "archive-gone-";
const KIND: Kind = Kind {
    magic: *b"comlogAG",
    format: 1,
};
/// Bytes of a partition and its epoch in such a blob.
const HELD_BYTES: usize = 12;

/// The writer epochs that this server held of a topic's partitions.
type Held = Vec<(u32, u64)>;
/// After a failure it is tried again this much later.
const PAUSE: Duration = Duration::from_secs(30);

impl Archive {
    /// Notes that the archive of a topic must go, and who may remove it; durable on return.
    pub(crate) async fn bury(&self, topic_id: &str) -> Result<(), StorageError> {
        let blob = format!("{BLOB_PREFIX}{topic_id}");
        if self.meta.read_blob(&blob).await?.is_some() {
            return Ok(());
        }
        let content = encode(topic_id, &self.held(topic_id));
        self.meta.write_blob(&blob, content).await?;
        *self.tombs_at.lock() = None;
        self.wake.notify_one();
        Ok(())
    }

    fn held(&self, topic_id: &str) -> Held {
        let slots = self.slots.read();
        let ours = slots.iter().filter(|(key, _)| key.0 == topic_id);
        let held = ours.map(|(key, slot)| {
            let manifest = slot.catalog.manifest();
            (key.1, manifest.map_or(0, |manifest| manifest.writer_epoch))
        });
        held.collect()
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
            let content = self.meta.read_blob(&blob).await?.unwrap_or_default();
            let held = decode(topic_id, &content).unwrap_or_else(|error| {
                tracing::error!(blob, %error, "damaged; what this server wrote itself is removed");
                Held::new()
            });
            self.clear(writer, topic_id, &held).await?;
            self.meta.remove_blob(&blob).await?;
        }
        Ok(())
    }

    async fn clear(
        &self,
        writer: &Writer,
        topic_id: &str,
        held: &Held,
    ) -> Result<(), ArchiveError> {
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
        let topic = Survey::topic(&writer.store, topic_id).await?;
        if let Some(partition) = self.taken_over(&topic, held) {
            tracing::error!(
                topic_id,
                partition,
                "another server has taken over the archive of a deleted topic: it stays"
            );
            return Ok(());
        }
        remove_topic(&writer.store, &topic).await?;
        self.slots.write().retain(|key, _| key.0 != topic_id);
        self.lists.lock().remove(topic_id);
        tracing::info!(topic_id, "archive of a deleted topic removed");
        Ok(())
    }

    /// A partition that belongs to another server by now.
    fn taken_over(&self, topic: &ArchivedTopic, held: &Held) -> Option<u32> {
        let is_others = |partition: u32, writer_id: &str, epoch: u64| {
            writer_id != self.writer_id && !held.contains(&(partition, epoch))
        };
        let mut partitions = topic.partitions.iter();
        let found = partitions.find(|found| {
            let manifest = found.manifest.as_ref();
            manifest.is_ok_and(|manifest| {
                is_others(found.partition, &manifest.writer_id, manifest.writer_epoch)
            })
        });
        found.map(|found| found.partition)
    }
}

fn encode(topic_id: &str, held: &Held) -> Bytes {
    let mut encoder = Encoder::new(KIND, topic_store::owner(topic_id), 0);
    encoder.varint(held.len() as u64);
    for (partition, epoch) in held {
        encoder.u32(*partition);
        encoder.u64(*epoch);
    }
    encoder.finish()
}

fn decode(topic_id: &str, content: &[u8]) -> Result<Held, Unusable> {
    let mut decoder = Decoder::open(KIND, topic_store::owner(topic_id), content)?;
    let count = decoder.count(HELD_BYTES)?;
    let held = (0..count)
        .map(|_| Ok((decoder.u32()?, decoder.u64()?)))
        .collect::<Result<Held, Unusable>>()?;
    decoder.finish()?;
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn what_is_noted_comes_back_and_damage_is_seen() {
        let held = vec![(0, 3), (7, 1 << 40)];
        let content = encode(ID, &held);
        assert_eq!(decode(ID, &content).ok(), Some(held));
        let other = "fedcba9876543210fedcba9876543210";
        assert!(decode(other, &content).is_err(), "another topic's");
        for at in 0..content.len() {
            let mut broken = content.to_vec();
            broken[at] ^= 0x10;
            assert!(decode(ID, &broken).is_err(), "byte {at}");
        }
    }
}
