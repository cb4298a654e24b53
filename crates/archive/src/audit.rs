//! Whether everything of a topic is there that its objects speak of, and is its own.
//!
//! Whatever is put last says that the rest is there: a partition's manifest comes before the topic's
//! metadata, that before the list of partitions names it, and that before its first segment. So what
//! a crash left half done holds no segment and is not listed, and is no damage.

use crate::key::{list_key, topic_key};
use crate::store::ArchiveStore;
use crate::survey::{ArchivedPartition, ArchivedTopic, Survey};
use crate::{ArchiveError, Result};

/// What is wrong with a topic beside its manifests and what they name. `read` understands its
/// metadata, and says what is wrong with it or that it is another topic's. The server may go on meanwhile, so what seems wrong is looked at twice.
///
/// # Errors
/// [`ArchiveError::Unavailable`]: then nothing is known.
pub async fn audit(
    store: &ArchiveStore,
    topic: &ArchivedTopic,
    read: impl Fn(&str, &[u8]) -> Result<(), String>,
) -> Result<Vec<ArchiveError>> {
    let mut faults = faults(topic, &read);
    if faults.is_empty() {
        return Ok(faults);
    }
    let again = Survey::topic(store, &topic.id).await?;
    let again = self::faults(&again, &read);
    let again: Vec<String> = again.iter().map(ToString::to_string).collect();
    faults.retain(|fault| again.contains(&fault.to_string()));
    Ok(faults)
}

fn faults(
    topic: &ArchivedTopic,
    read: &impl Fn(&str, &[u8]) -> Result<(), String>,
) -> Vec<ArchiveError> {
    match &topic.deleted {
        Ok(true) => return Vec::new(),
        Err(error) => return vec![error.clone()],
        Ok(false) => {}
    }
    let meta = meta_fault(topic, read);
    meta.into_iter().chain(list_faults(topic)).collect()
}

fn meta_fault(
    topic: &ArchivedTopic,
    read: &impl Fn(&str, &[u8]) -> Result<(), String>,
) -> Option<ArchiveError> {
    let reason = match &topic.meta {
        None if topic.is_begun() => return None,
        None => "it is gone, and partitions of the topic are archived".to_owned(),
        Some(content) => read(&topic.id, content).err()?,
    };
    Some(ArchiveError::damaged(&topic_key(&topic.id), reason))
}

fn list_faults(topic: &ArchivedTopic) -> Vec<ArchiveError> {
    let key = list_key(&topic.id);
    let has_segments = |found: &&ArchivedPartition| {
        let manifest = found.manifest.as_ref();
        manifest.is_ok_and(|manifest| !manifest.segments.is_empty())
    };
    let mut with_segments = topic.partitions.iter().filter(has_segments);
    match &topic.list {
        Err(error) => vec![error.clone()],
        Ok(None) => {
            let first = with_segments.next();
            let gone = |_| ArchiveError::damaged(&key, "it is gone, and partitions are archived");
            first.map(gone).into_iter().collect()
        }
        Ok(Some(list)) => {
            let missing = with_segments.filter(|found| !list.names(found.partition));
            let damage = missing.map(|found| {
                let partition = found.partition;
                let reason = format!("it does not name partition {partition}, which has segments");
                ArchiveError::damaged(&key, reason)
            });
            damage.collect()
        }
    }
}

impl ArchivedTopic {
    /// Whether it was only begun: nothing of it was ever archived, as far as anything says.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        let is_listed = !matches!(self.list, Ok(None));
        !is_listed
            && !self
                .partitions
                .iter()
                .any(ArchivedPartition::holds_something)
    }
}
