//! Removing what the archive holds of a deleted topic, so that a half of it is no damage.

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::frame::{self, Kind};
use crate::key::{deleted_key, topic_dir};
use crate::store::ArchiveStore;
use crate::survey::ArchivedTopic;
use crate::{ArchiveError, Result};

const DELETED: Kind = Kind {
    name: "deleted",
    format: 1,
};

/// The mark that a topic was deleted.
#[derive(Debug, Serialize, Deserialize)]
struct Deleted {
    topic_id: String,
}

/// Whether the topic with this id was deleted and is only being removed.
///
/// # Errors
/// [`ArchiveError::Damaged`] for a mark that is not this topic's; [`ArchiveError::Unavailable`].
pub(crate) async fn is_deleted(store: &ArchiveStore, topic_id: &str) -> Result<bool> {
    let key = deleted_key(topic_id);
    let Some((content, _)) = store.get(&key).await? else {
        return Ok(false);
    };
    let mark: Deleted = frame::decode(DELETED, key.as_ref(), &content)?;
    if mark.topic_id == topic_id {
        return Ok(true);
    }
    let reason = format!("it is the mark of topic {}", mark.topic_id);
    Err(ArchiveError::damaged(&key, reason))
}

/// Removes everything of a topic: a mark that it was deleted comes before the first object goes,
/// and goes after the last, so that whoever looks meanwhile, or after a crash, misses nothing.
///
/// # Errors
/// [`ArchiveError::Unavailable`]; the next call goes on where this one ended.
pub async fn remove_topic(store: &ArchiveStore, topic: &ArchivedTopic) -> Result<()> {
    let dir = topic_dir(&topic.id);
    if store.list(&dir).await?.is_empty() {
        return Ok(());
    }
    let mark = deleted_key(&topic.id);
    let deleted = Deleted {
        topic_id: topic.id.clone(),
    };
    let content = frame::encode(DELETED, &deleted)?;
    store.overwrite(&mark, content).await?;
    // The manifests first, so that nothing is named that is gone.
    for partition in &topic.partitions {
        store.delete(&partition.keys.manifest()).await?;
    }
    let objects = store.list(&dir).await?.into_iter();
    let rest: Vec<Path> = objects.map(|object| object.location).collect();
    for key in rest.iter().filter(|key| **key != mark) {
        store.delete(key).await?;
    }
    store.delete(&mark).await
}
