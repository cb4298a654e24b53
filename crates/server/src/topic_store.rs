//! The metadata of topics, a file each, crash-safe.
//!
//! A file is replaced atomically and durably, so it is the commit point of every change. A topic
//! is `creating` until its directories are there and `deleting` until they are gone and no commit
//! of a group names it any more: a start after a crash finishes the removal of both. It is kept in
//! `meta` and, once the topic is live, beside its partitions; see `format.md`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use comlog_log::frame::{Kind, Owner};
use comlog_storage::{Storage, StorageError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::dirs::LogDirs;
use crate::meta_file::{self, Found, MetaFile, Place};
use crate::topic_config::TopicOverrides;
use crate::topic_name;

/// What a file of metadata is.
pub(crate) const KIND: Kind = Kind {
    magic: *b"comlogTM",
    format: 1,
};
/// In `meta`, before the id.
pub(crate) const BLOB_PREFIX: &str = "topic-";
/// Beside the partitions.
pub(crate) const COPY_BLOB: &str = "topic";
/// The directory of all topics.
pub(crate) const TOPICS_DIR: &str = "topics";

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

/// A topic that cannot be served, though something of it is there. Nothing of it is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// As its file or directory is named.
    pub(crate) id: String,
    /// As far as it can be made out.
    pub(crate) name: Option<String>,
    /// What is wrong, and how to put it right.
    pub(crate) reason: String,
}

/// Everything that [`TopicStore::load`] found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Every topic, whatever its stage, by id.
    pub(crate) topics: Vec<TopicMeta>,
    pub(crate) refused: Vec<Refused>,
}

/// The files.
#[derive(Debug)]
pub(crate) struct TopicStore {
    meta: Arc<dyn Storage>,
    dirs: Arc<dyn LogDirs>,
    /// How often each topic's file was written.
    generations: Mutex<HashMap<String, u64>>,
}

impl TopicStore {
    pub(crate) fn new(meta: Arc<dyn Storage>, dirs: Arc<dyn LogDirs>) -> TopicStore {
        TopicStore {
            meta,
            dirs,
            generations: Mutex::default(),
        }
    }

    /// Every topic; one copy of a file that is unusable is written anew from the other.
    ///
    /// # Errors
    /// Those of listing; a topic that cannot be read is among the refused.
    pub(crate) async fn load(&self) -> Result<Loaded, StorageError> {
        let blobs = self.meta.list_blobs().await?;
        let named = blobs
            .iter()
            .filter_map(|blob| blob.strip_prefix(BLOB_PREFIX));
        let directories = self.dirs.list(TOPICS_DIR).await?;
        let ours = |name: &String| Owner::parse_topic_id(name).is_some();
        let directories: BTreeSet<String> = directories.into_iter().filter(ours).collect();
        let mut ids = directories.clone();
        ids.extend(named.map(str::to_owned));
        let mut loaded = Loaded::default();
        for id in ids {
            match self.load_one(&id, directories.contains(&id)).await? {
                Ok(topic) => loaded.topics.push(topic),
                Err(refused) => loaded.refused.push(refused),
            }
        }
        Ok(loaded)
    }

    async fn load_one(
        &self,
        id: &str,
        has_directory: bool,
    ) -> Result<Result<TopicMeta, Refused>, StorageError> {
        let file = self.file(id, has_directory).await?;
        let (problem, name) = match file.read().await {
            Found::Nothing => ("its metadata is gone".to_owned(), None),
            Found::Damaged { reason, raw } => {
                let name = salvage_name(id, &raw);
                (format!("its metadata is damaged ({reason})"), name)
            }
            Found::Content(mut content) => match parse(id, &content.payload) {
                Ok(topic) => {
                    file.mend(&mut content).await;
                    let mut generations = self.generations.lock();
                    generations.insert(id.to_owned(), content.generation);
                    return Ok(Ok(topic));
                }
                Err(reason) => (format!("its metadata is damaged ({reason})"), None),
            },
        };
        let reason = format!(
            "topic {id} is not served, and nothing of it was changed: {problem}. Put \
             meta/{BLOB_PREFIX}{id} back from a backup and start again; to give its records up, \
             stop the server and remove {TOPICS_DIR}/{id} and meta/{BLOB_PREFIX}{id}"
        );
        let id = id.to_owned();
        Ok(Err(Refused { id, name, reason }))
    }

    /// The places of a topic's file; the second is only there with its directory.
    async fn file(&self, id: &str, has_directory: bool) -> Result<MetaFile, StorageError> {
        let blob = format!("{BLOB_PREFIX}{id}");
        let mut places = vec![Place {
            storage: self.meta.clone(),
            path: format!("meta/{blob}"),
            blob,
        }];
        if has_directory {
            let dir = format!("{TOPICS_DIR}/{id}");
            places.push(Place {
                storage: self.dirs.storage(&dir).await?,
                path: format!("{dir}/{COPY_BLOB}"),
                blob: COPY_BLOB.to_owned(),
            });
        }
        Ok(MetaFile {
            kind: KIND,
            owner: owner(id),
            places,
        })
    }

    /// Durable on return.
    pub(crate) async fn save(&self, topic: &TopicMeta) -> Result<(), StorageError> {
        let payload = to_json(topic)?;
        // A topic that comes or goes has no directory, or soon none.
        let file = self.file(&topic.id, topic.stage == Stage::Live).await?;
        let generation = {
            let mut generations = self.generations.lock();
            let generation = generations.entry(topic.id.clone()).or_default();
            *generation += 1;
            *generation
        };
        file.write(generation, payload.as_bytes()).await
    }

    /// Durable on return.
    pub(crate) async fn forget(&self, id: &str) -> Result<(), StorageError> {
        self.generations.lock().remove(id);
        self.meta.remove_blob(&format!("{BLOB_PREFIX}{id}")).await
    }
}

pub(crate) fn owner(id: &str) -> Owner {
    // A name that is no id belongs to nothing, and no file is found whole under it.
    Owner::topic(Owner::parse_topic_id(id).unwrap_or(0))
}

fn to_json(topic: &TopicMeta) -> Result<String, StorageError> {
    serde_json::to_string(topic).map_err(|error| StorageError::InvalidInput {
        what: format!("topic metadata: {error}"),
    })
}

fn parse(id: &str, payload: &[u8]) -> Result<TopicMeta, String> {
    let topic: TopicMeta = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    if topic.id != id {
        return Err(format!("it is that of topic {}", topic.id.escape_default()));
    }
    topic_name::check(&topic.name).map_err(|error| error.message)?;
    Ok(topic)
}

/// The name in a damaged file, if it can still be made out: so that nobody makes a new topic of it
/// unawares.
fn salvage_name(id: &str, raw: &[u8]) -> Option<String> {
    // The frame before the JSON, random ids and checksums, may hold the byte it begins with, too.
    let starts = raw.iter().enumerate().filter(|(_, byte)| **byte == b'{');
    starts.map(|(start, _)| &raw[start..]).find_map(|json| {
        let mut values = serde_json::Deserializer::from_slice(json).into_iter::<TopicMeta>();
        let topic = values.next()?.ok()?;
        (topic.id == id && topic_name::check(&topic.name).is_ok()).then_some(topic.name)
    })
}

/// The content of a topic's file, as the archive keeps it.
pub(crate) fn encode(topic: &TopicMeta) -> Result<Bytes, StorageError> {
    let payload = to_json(topic)?;
    Ok(meta_file::encode(
        KIND,
        owner(&topic.id),
        0,
        payload.as_bytes(),
    ))
}

/// What [`encode`] or [`TopicStore::save`] made, or what is wrong with it.
pub(crate) fn decode(id: &str, content: &[u8]) -> Result<TopicMeta, String> {
    let decoded = meta_file::decode(KIND, owner(id), content);
    let (_, payload) = decoded.map_err(|error| error.to_string())?;
    parse(id, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_out_behind_any_frame() {
        let json = to_json(&topic()).expect("encodes");
        let raw = [b"{..{".as_slice(), json.as_bytes()].concat();
        assert_eq!(salvage_name(&topic().id, &raw), Some(topic().name));
        assert_eq!(salvage_name("another", &raw), None);
    }

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
        let id = topic().id;
        assert_eq!(decode(&id, &content), Ok(topic()));
        assert!(decode(&id.replace('0', "1"), &content).is_err());
        for position in 0..content.len() {
            let mut broken = content.to_vec();
            broken[position] ^= 0x10;
            assert!(decode(&id, &broken).is_err(), "byte {position}");
        }
    }

    #[test]
    fn the_stored_form_does_not_change() {
        let content = encode(&topic()).expect("encodes");
        let expected = concat!(
            r#"{"name":"greetings","id":"0123456789abcdef0123456789abcdef","partitions":3,"#,
            r#""created_ms":1700000000000,"stage":"live","config":{"retention_ms":5}}"#
        );
        assert!(content.ends_with(expected.as_bytes()));
    }
}
