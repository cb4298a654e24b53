//! Everything an archive holds, found from the store alone: for restoring and verifying.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use object_store::path::Path;

use crate::identity::Identity;
use crate::key::{PartitionKeys, TOPICS, topic_key};
use crate::manifest::Manifest;
use crate::store::ArchiveStore;
use crate::{ArchiveError, Result};

/// What an archive holds.
#[derive(Debug)]
pub struct Survey {
    /// Which archive it is.
    pub identity: Identity,
    /// By id.
    pub topics: Vec<ArchivedTopic>,
    /// Objects that no manifest names, which the server removes after a while: how many, and their
    /// bytes.
    pub orphans: (u64, u64),
}

/// A topic in the archive.
#[derive(Debug)]
pub struct ArchivedTopic {
    /// 32 hex digits.
    pub id: String,
    /// Its metadata as the server wrote it; `None` when it is not there.
    pub meta: Option<Bytes>,
    /// By number.
    pub partitions: Vec<ArchivedPartition>,
}

/// A partition in the archive.
#[derive(Debug)]
pub struct ArchivedPartition {
    /// Counted from 0.
    pub partition: u32,
    /// Where its objects are.
    pub keys: PartitionKeys,
    /// What it holds, or why that cannot be read.
    pub manifest: Result<Manifest>,
}

impl Survey {
    /// Looks at a whole archive: every manifest is read, no segment is. `None` when there is none.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn take(store: &ArchiveStore) -> Result<Option<Survey>> {
        let Some(identity) = Identity::load(store).await? else {
            return Ok(None);
        };
        let objects = store.list(&Path::from(TOPICS)).await?;
        let mut topics: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for object in &objects {
            let parts: Vec<String> = object
                .location
                .parts()
                .map(|part| part.as_ref().to_owned())
                .collect();
            match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                [_, id, "topic"] => drop(topics.entry(id.to_owned()).or_default()),
                [_, id, partition, "manifest"] => {
                    if let Ok(partition) = partition.parse() {
                        topics.entry(id.to_owned()).or_default().insert(partition);
                    }
                }
                _ => {}
            }
        }
        let mut survey = Survey {
            identity,
            topics: Vec::with_capacity(topics.len()),
            orphans: (0, 0),
        };
        let mut named = BTreeSet::new();
        for (id, partitions) in topics {
            let topic = read_topic(store, id, &partitions, &mut named).await?;
            survey.topics.push(topic);
        }
        for object in objects
            .iter()
            .filter(|object| !named.contains(&object.location))
        {
            survey.orphans.0 += 1;
            survey.orphans.1 += object.size;
        }
        Ok(Some(survey))
    }

    /// The partitions of one topic, as far as manifests say.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn partitions_of(
        store: &ArchiveStore,
        topic_id: &str,
    ) -> Result<Vec<ArchivedPartition>> {
        let objects = store.list(&Path::from_iter([TOPICS, topic_id])).await?;
        let manifests = objects.iter().filter_map(|object| {
            let parts: Vec<_> = object.location.parts().collect();
            let [_, _, partition, name] = &parts[..] else {
                return None;
            };
            (name.as_ref() == "manifest").then(|| partition.as_ref().parse().ok())?
        });
        let partitions = manifests.collect();
        let mut named = BTreeSet::new();
        let topic = read_topic(store, topic_id.to_owned(), &partitions, &mut named);
        Ok(topic.await?.partitions)
    }
}

async fn read_topic(
    store: &ArchiveStore,
    id: String,
    partitions: &BTreeSet<u32>,
    named: &mut BTreeSet<Path>,
) -> Result<ArchivedTopic> {
    let mut found = Vec::with_capacity(partitions.len());
    for &partition in partitions {
        let keys = PartitionKeys::new(&id, partition);
        let Some(manifest) = read_manifest(store, &keys).await? else {
            // Its topic was deleted since it was listed.
            continue;
        };
        named.insert(keys.manifest());
        if let Ok(manifest) = &manifest {
            let segments = manifest.segments.iter();
            named.extend(segments.flat_map(|entry| keys.all_of(entry)));
            named.extend(manifest.state.as_ref().map(|state| keys.state(state)));
        }
        found.push(ArchivedPartition {
            partition,
            keys,
            manifest,
        });
    }
    // Behind the manifests: it is there before a manifest names anything.
    let key = topic_key(&id);
    let meta = store.get(&key).await?.map(|(content, _)| content);
    named.insert(key);
    Ok(ArchivedTopic {
        id,
        meta,
        partitions: found,
    })
}

/// A manifest that was listed, or what is wrong with it; `None` when it was deleted since.
async fn read_manifest(
    store: &ArchiveStore,
    keys: &PartitionKeys,
) -> Result<Option<Result<Manifest>>> {
    let key = keys.manifest();
    if let Some((content, _)) = store.get(&key).await? {
        return Ok(Some(Manifest::decode(key.as_ref(), &content)));
    }
    // A log that is left out is a log that is lost, so one answer is not enough.
    let listed = store.list(keys.dir()).await?;
    let is_listed = listed.iter().any(|object| object.location == key);
    let damaged = ArchiveError::Damaged {
        object: key.to_string(),
        reason: "it is listed, and not there".to_owned(),
    };
    Ok(is_listed.then_some(Err(damaged)))
}
