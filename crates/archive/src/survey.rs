//! Everything an archive holds, found from the store alone: for restoring and verifying.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use object_store::path::Path;

use crate::identity::Identity;
use crate::key::{PartitionKeys, Role, TOPICS, deleted_key, list_key, role, topic_dir, topic_key};
use crate::manifest::Manifest;
use crate::partition_list::PartitionList;
use crate::removal::is_deleted;
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
    /// 32 hex digits, as its key has it.
    pub id: String,
    /// Whether it was deleted, so that what is left of it is only being removed; or why its mark
    /// cannot be read.
    pub deleted: Result<bool>,
    /// Its metadata as the server wrote it; `None` when it is not there.
    pub meta: Option<Bytes>,
    /// Which partitions have a manifest; `None` when there is no list, an error when it cannot be
    /// read.
    pub list: Result<Option<PartitionList>>,
    /// By number: those that have an object, and those that the list names.
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

impl ArchivedPartition {
    /// Whether there are segments, as far as anybody knows.
    #[must_use]
    pub fn holds_something(&self) -> bool {
        let manifest = self.manifest.as_ref();
        manifest.map_or(true, |manifest| !manifest.segments.is_empty())
    }
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
        for (id, role) in objects.iter().filter_map(|object| role(&object.location)) {
            note(topics.entry(id).or_default(), role);
        }
        let mut survey = Survey {
            identity,
            topics: Vec::with_capacity(topics.len()),
            orphans: (0, 0),
        };
        let mut named = BTreeSet::new();
        for (id, partitions) in topics {
            let topic = read_topic(store, id, partitions).await?;
            topic.add_named(&mut named);
            survey.topics.push(topic);
        }
        let mut orphans = (0, 0);
        for object in &objects {
            if !survey.is_known(&object.location, &named) {
                orphans.0 += 1;
                orphans.1 += object.size;
            }
        }
        survey.orphans = orphans;
        Ok(Some(survey))
    }

    /// One topic as it is now.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`].
    pub async fn topic(store: &ArchiveStore, topic_id: &str) -> Result<ArchivedTopic> {
        let mut partitions = BTreeSet::new();
        for object in store.list(&topic_dir(topic_id)).await? {
            if let Some((_, role)) = role(&object.location) {
                note(&mut partitions, role);
            }
        }
        read_topic(store, topic_id.to_owned(), partitions).await
    }

    /// Whether an object is named, or nobody can say because its manifest cannot be read.
    fn is_known(&self, key: &Path, named: &BTreeSet<Path>) -> bool {
        if named.contains(key) {
            return true;
        }
        let Some((id, Role::OfPartition(partition))) = role(key) else {
            return false;
        };
        let topic = self.topics.binary_search_by(|topic| topic.id.cmp(&id));
        let found = topic.map(|at| self.topics[at].partition(partition));
        found.is_ok_and(|found| found.is_some_and(|found| found.manifest.is_err()))
    }
}

impl ArchivedTopic {
    fn partition(&self, partition: u32) -> Option<&ArchivedPartition> {
        let by_number = |found: &ArchivedPartition| found.partition;
        let at = self.partitions.binary_search_by_key(&partition, by_number);
        at.ok().map(|at| &self.partitions[at])
    }

    /// Adds every object that is part of it.
    fn add_named(&self, named: &mut BTreeSet<Path>) {
        named.extend([
            topic_key(&self.id),
            list_key(&self.id),
            deleted_key(&self.id),
        ]);
        for ArchivedPartition { keys, manifest, .. } in &self.partitions {
            named.insert(keys.manifest());
            if let Ok(manifest) = manifest {
                let segments = manifest.segments.iter();
                named.extend(segments.flat_map(|entry| keys.all_of(entry)));
                named.extend(manifest.state.as_ref().map(|state| keys.state(state)));
            }
        }
    }
}

/// Notes the partition that an object belongs to.
fn note(partitions: &mut BTreeSet<u32>, role: Role) {
    if let Role::Manifest(partition) | Role::OfPartition(partition) = role {
        partitions.insert(partition);
    }
}

async fn read_topic(
    store: &ArchiveStore,
    id: String,
    mut partitions: BTreeSet<u32>,
) -> Result<ArchivedTopic> {
    let list = known(PartitionList::load(store, &id).await)?;
    if let Ok(Some(list)) = &list {
        partitions.extend(list.partitions());
    }
    let mut found = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let keys = PartitionKeys::new(&id, partition);
        // None when its topic was deleted since it was listed.
        if let Some(manifest) = read_manifest(store, &id, &keys).await? {
            found.push(ArchivedPartition {
                partition,
                keys,
                manifest,
            });
        }
    }
    // After the manifests: it is there before a manifest names anything.
    let meta = store
        .get(&topic_key(&id))
        .await?
        .map(|(content, _)| content);
    Ok(ArchivedTopic {
        deleted: known(is_deleted(store, &id).await)?,
        id,
        meta,
        list,
        partitions: found,
    })
}

/// What was found out about an object, which includes that it is damaged; any other error ends the
/// survey.
fn known<T>(read: Result<T>) -> Result<Result<T>> {
    match read {
        Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::UnknownFormat { .. })) => {
            Ok(Err(error))
        }
        Err(error) => Err(error),
        Ok(value) => Ok(Ok(value)),
    }
}

/// The manifest of a partition that has an object or is listed, or what is wrong with it; `None` when
/// its topic was deleted.
async fn read_manifest(
    store: &ArchiveStore,
    topic_id: &str,
    keys: &PartitionKeys,
) -> Result<Option<Result<Manifest>>> {
    let key = keys.manifest();
    if let Some((content, _)) = store.get(&key).await? {
        return Ok(Some(keys.decode_manifest(&content)));
    }
    // A log that is left out is a log that is lost, so one answer is not enough. The mark of a
    // deleted topic is there until its last object is gone, so it is looked for first.
    if known(is_deleted(store, topic_id).await)?.unwrap_or(false) {
        return Ok(None);
    }
    let objects = store.list(keys.dir()).await?.len();
    let is_listed = match known(PartitionList::load(store, topic_id).await)? {
        Ok(Some(list)) => list.names(keys.partition()),
        _ => false,
    };
    let reason = match (objects, is_listed) {
        (0, false) => return Ok(None),
        (0, true) => "it is gone: the list of partitions names it".to_owned(),
        (objects, _) => format!("it is gone: {objects} objects of its partition are there"),
    };
    Ok(Some(Err(ArchiveError::damaged(&key, reason))))
}
