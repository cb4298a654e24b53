//! Which partitions of a topic have a manifest, so that one that is gone is missed.

use bytes::Bytes;
use object_store::{PutMode, UpdateVersion};
use serde::{Deserialize, Serialize};

use crate::frame::{self, Kind};
use crate::identity::Writes;
use crate::key::list_key;
use crate::store::{ArchiveStore, Put};
use crate::{ArchiveError, Result};

const PARTITIONS: Kind = Kind {
    name: "partitions",
    format: 1,
};
/// No topic has more partitions: what a damaged list may ask for is bounded.
const PARTITIONS_MAX: u32 = 1 << 20;
/// How often it is tried again when somebody else changed the list meanwhile.
const ATTEMPTS: u32 = 10;

/// The partitions of one topic that have a manifest: one is named after its manifest was put, and
/// before its first segment is. It only grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionList {
    topic_id: String,
    /// Half-open, ascending, apart from one another.
    ranges: Vec<(u32, u32)>,
}

impl PartitionList {
    /// The list of a topic with this id that names `partitions`.
    #[must_use]
    pub fn new(topic_id: &str, partitions: impl IntoIterator<Item = u32>) -> PartitionList {
        let mut list = PartitionList {
            topic_id: topic_id.to_owned(),
            ranges: Vec::new(),
        };
        list.extend(partitions);
        list
    }

    fn extend(&mut self, partitions: impl IntoIterator<Item = u32>) {
        let mut all: Vec<u32> = self.partitions().chain(partitions).collect();
        all.sort_unstable();
        all.dedup();
        self.ranges.clear();
        for partition in all {
            match self.ranges.last_mut() {
                Some((_, end)) if *end == partition => *end += 1,
                _ => self.ranges.push((partition, partition.saturating_add(1))),
            }
        }
    }

    /// The partitions, ascending.
    pub fn partitions(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(start, end)| start..end)
    }

    /// Whether it names a partition.
    #[must_use]
    pub fn names(&self, partition: u32) -> bool {
        let mut ranges = self.ranges.iter();
        ranges.any(|&(start, end)| (start..end).contains(&partition))
    }

    /// Above the largest partition (exclusive); 0 when it names none.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.ranges.last().map_or(0, |&(_, end)| end)
    }

    /// The content of the object.
    ///
    /// # Errors
    /// None that the types above allow.
    pub fn encode(&self) -> Result<Bytes> {
        frame::encode(PARTITIONS, self)
    }

    /// What [`PartitionList::encode`] made for the topic with this id.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`], also when it is another topic's; [`ArchiveError::UnknownFormat`].
    pub fn decode(topic_id: &str, content: &[u8]) -> Result<PartitionList> {
        let object = list_key(topic_id);
        let list: PartitionList = frame::decode(PARTITIONS, object.as_ref(), content)?;
        if list.topic_id != topic_id {
            let reason = format!("it is the list of topic {}", list.topic_id);
            return Err(ArchiveError::damaged(&object, reason));
        }
        let bounds = list.ranges.iter().flat_map(|&(start, end)| [start, end]);
        if !bounds.is_sorted_by(|one, next| one < next) || list.end() > PARTITIONS_MAX {
            let reason = "its partitions are out of order or too many";
            return Err(ArchiveError::damaged(&object, reason));
        }
        Ok(list)
    }

    /// The list of a topic; `None` when there is none.
    ///
    /// # Errors
    /// As [`PartitionList::decode`]; [`ArchiveError::Unavailable`].
    pub async fn load(store: &ArchiveStore, topic_id: &str) -> Result<Option<PartitionList>> {
        let found = store.get(&list_key(topic_id)).await?;
        found
            .map(|(content, _)| PartitionList::decode(topic_id, &content))
            .transpose()
    }

    /// Adds partitions to the list in the store, and returns it as it is there then. A damaged list
    /// is written anew.
    ///
    /// # Errors
    /// [`ArchiveError::UnknownFormat`], [`ArchiveError::Unavailable`]; [`ArchiveError::Config`] for a
    /// partition that is too large.
    pub async fn add(
        store: &ArchiveStore,
        writes: Writes,
        topic_id: &str,
        partitions: &[u32],
    ) -> Result<PartitionList> {
        if partitions
            .iter()
            .any(|&partition| partition >= PARTITIONS_MAX)
        {
            let message = format!("a topic has at most {PARTITIONS_MAX} archived partitions");
            return Err(ArchiveError::Config(message));
        }
        for _ in 0..ATTEMPTS {
            let (mut list, version) = stored(store, topic_id).await?;
            if partitions.iter().all(|&partition| list.names(partition)) {
                return Ok(list);
            }
            list.extend(partitions.iter().copied());
            let mode = match (writes, version) {
                (Writes::SingleWriter, _) => PutMode::Overwrite,
                (Writes::Conditional, None) => PutMode::Create,
                (Writes::Conditional, Some(version)) => PutMode::Update(version),
            };
            let content = vec![list.encode()?];
            if let Put::Done(_) = store.put(&list_key(topic_id), content, mode).await? {
                return Ok(list);
            }
        }
        let what = format!("put {}", list_key(topic_id));
        Err(ArchiveError::unavailable(
            what,
            "it is replaced again and again",
        ))
    }
}

/// What the store has, empty when that is nothing or unreadable, and which version of it.
async fn stored(
    store: &ArchiveStore,
    topic_id: &str,
) -> Result<(PartitionList, Option<UpdateVersion>)> {
    let Some((content, version)) = store.get(&list_key(topic_id)).await? else {
        return Ok((PartitionList::new(topic_id, []), None));
    };
    let list = match PartitionList::decode(topic_id, &content) {
        Err(error @ ArchiveError::Damaged { .. }) => {
            tracing::error!(%error, "written anew, with the partitions that this server knows");
            PartitionList::new(topic_id, [])
        }
        list => list?,
    };
    Ok((list, Some(version)))
}
