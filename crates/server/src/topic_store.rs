//! The metadata of topics, one blob each, crash-safe.
//!
//! A blob is replaced atomically and durably, so it is the commit point of every change. A topic
//! is `creating` until its directories are there and `deleting` until they are gone: a start after
//! a crash finishes the removal of both. Layout: a line `comlog topic 1 CRC`, with the CRC-32C of
//! what follows in hex; then JSON.

use std::sync::Arc;

use bytes::Bytes;
use comlog_log::Owner;
use comlog_storage::{Storage, StorageError};
use serde::{Deserialize, Serialize};

use crate::topic_config::TopicOverrides;

const MAGIC: &str = "comlog topic 1 ";
const BLOB_PREFIX: &str = "topic-";

/// Where a topic is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// Nobody has seen it yet.
    Creating,
    Live,
    /// Nobody will see it again.
    Deleting,
}

/// What is stored of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicMeta {
    pub(crate) name: String,
    /// 32 hex digits, random.
    pub(crate) id: String,
    pub(crate) partitions: u32,
    pub(crate) created_ms: i64,
    pub(crate) stage: Stage,
    pub(crate) config: TopicOverrides,
}

impl TopicMeta {
    /// The directory of all of its partitions.
    pub(crate) fn dir(&self) -> String {
        format!("topics/{}", self.id)
    }

    /// Whose the small files of a partition are.
    pub(crate) fn owner(&self, partition: u32) -> Owner {
        Owner::named(&self.id, partition)
    }

    /// The directory of one partition.
    pub(crate) fn partition_dir(&self, partition: u32) -> String {
        format!("topics/{}/{partition}", self.id)
    }
}

/// Why the metadata could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("metadata blob {blob:?} is damaged or of an unknown format: {reason}")]
    Damaged { blob: String, reason: String },
}

/// The blobs.
#[derive(Debug)]
pub(crate) struct TopicStore {
    storage: Arc<dyn Storage>,
}

impl TopicStore {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> TopicStore {
        TopicStore { storage }
    }

    /// Every topic, whatever its stage.
    pub(crate) async fn load(&self) -> Result<Vec<TopicMeta>, StoreError> {
        let mut topics = Vec::new();
        for blob in self.storage.list_blobs().await? {
            if !blob.starts_with(BLOB_PREFIX) {
                continue;
            }
            if let Some(content) = self.storage.read_blob(&blob).await? {
                let decoded = decode(&content);
                topics.push(decoded.map_err(|reason| StoreError::Damaged { blob, reason })?);
            }
        }
        Ok(topics)
    }

    /// Durable on return.
    pub(crate) async fn save(&self, topic: &TopicMeta) -> Result<(), StorageError> {
        let content = encode(topic)?;
        self.storage
            .write_blob(&blob_name(&topic.id), content)
            .await
    }

    /// Durable on return.
    pub(crate) async fn forget(&self, id: &str) -> Result<(), StorageError> {
        self.storage.remove_blob(&blob_name(id)).await
    }
}

fn blob_name(id: &str) -> String {
    format!("{BLOB_PREFIX}{id}")
}

/// The content of a topic's blob.
pub(crate) fn encode(topic: &TopicMeta) -> Result<Bytes, StorageError> {
    let json = serde_json::to_string(topic).map_err(|error| StorageError::InvalidInput {
        what: format!("topic metadata: {error}"),
    })?;
    let crc = crc32c::crc32c(json.as_bytes());
    Ok(Bytes::from(format!("{MAGIC}{crc:08x}\n{json}")))
}

/// What [`encode`] made, or what is wrong with it.
pub(crate) fn decode(content: &[u8]) -> Result<TopicMeta, String> {
    let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
    let rest = text.strip_prefix(MAGIC).ok_or("wrong magic or format")?;
    let (crc, json) = rest.split_once('\n').ok_or("no content")?;
    let crc = u32::from_str_radix(crc, 16).map_err(|error| error.to_string())?;
    if crc != crc32c::crc32c(json.as_bytes()) {
        return Err("checksum mismatch".to_owned());
    }
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> TopicMeta {
        TopicMeta {
            name: "greetings".to_owned(),
            id: "0123456789abcdef0123456789abcdef".to_owned(),
            partitions: 3,
            created_ms: 1_700_000_000_000,
            stage: Stage::Live,
            config: TopicOverrides {
                retention_ms: Some(5),
                ..TopicOverrides::default()
            },
        }
    }

    #[test]
    fn what_is_stored_comes_back_and_damage_is_seen() {
        let content = encode(&topic()).expect("encodes");
        assert_eq!(decode(&content), Ok(topic()));
        for position in 0..content.len() {
            let mut broken = content.to_vec();
            broken[position] ^= 0x10;
            assert!(decode(&broken).is_err(), "byte {position}");
        }
    }

    #[test]
    fn the_stored_form_does_not_change() {
        let content = encode(&topic()).expect("encodes");
        let expected = concat!(
            r#"{"name":"greetings","id":"0123456789abcdef0123456789abcdef","partitions":3,"#,
            r#""created_ms":1700000000000,"stage":"live","config":{"retention_ms":5}}"#
        );
        let text = std::str::from_utf8(&content).expect("text");
        assert_eq!(text.split_once('\n').expect("two parts").1, expected);
    }
}
