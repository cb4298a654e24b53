//! Object keys. They are made of ids, offsets, the writer's epoch and the checksum, so that neither a
//! topic made anew nor another writer ever meets a key that is taken.

use comlog_log::Owner;
use comlog_record::Offset;
use object_store::path::Path;

use crate::ArchiveError;
use crate::manifest::{Manifest, SegmentEntry, StateEntry};

/// The folder of all topics.
pub(crate) const TOPICS: &str = "topics";

/// The key of a topic's metadata.
#[must_use]
pub fn topic_key(topic_id: &str) -> Path {
    topic_dir(topic_id).join("topic")
}

/// The folder of a topic.
pub(crate) fn topic_dir(topic_id: &str) -> Path {
    Path::from_iter([TOPICS, topic_id])
}

/// The key of the list of a topic's partitions.
pub(crate) fn list_key(topic_id: &str) -> Path {
    topic_dir(topic_id).join("partitions")
}

/// The key of the mark that a topic was deleted.
pub(crate) fn deleted_key(topic_id: &str) -> Path {
    topic_dir(topic_id).join("deleted")
}

/// What an object below a topic's folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Topic,
    List,
    Deleted,
    Manifest(u32),
    /// Any other object of a partition.
    OfPartition(u32),
}

/// The topic's id and the role of a key; `None` for one that no version makes.
pub(crate) fn role(key: &Path) -> Option<(String, Role)> {
    let mut parts = key.parts();
    let (_, id) = (parts.next()?, parts.next()?);
    let (first, second) = (parts.next()?, parts.next());
    let role = match (first.as_ref(), second.as_ref().map(AsRef::as_ref)) {
        ("topic", None) => Role::Topic,
        ("partitions", None) => Role::List,
        ("deleted", None) => Role::Deleted,
        (partition, Some("manifest")) => Role::Manifest(number(partition)?),
        (partition, Some(_)) => Role::OfPartition(number(partition)?),
        _ => return None,
    };
    Some((id.as_ref().to_owned(), role))
}

/// A partition as a key has it, written in one way only.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The keys of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionKeys {
    topic_id: String,
    partition: u32,
    dir: Path,
    owner: Owner,
}

impl PartitionKeys {
    /// Those of partition `partition` of the topic with this id.
    #[must_use]
    pub fn new(topic_id: &str, partition: u32) -> PartitionKeys {
        PartitionKeys {
            topic_id: topic_id.to_owned(),
            partition,
            dir: topic_dir(topic_id).join(partition.to_string()),
            owner: Owner::named(topic_id, partition),
        }
    }

    /// The partition, as the small files of its log name it.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Checks that a manifest found at these keys, or kept for them, is that of their partition.
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<(), String> {
        if (&manifest.topic_id, manifest.partition) == (&self.topic_id, self.partition) {
            return Ok(());
        }
        let Manifest {
            topic_id,
            partition,
            ..
        } = manifest;
        Err(format!(
            "it is the manifest of partition {partition} of topic {topic_id}"
        ))
    }

    /// [`Manifest::decode`] of the object at [`PartitionKeys::manifest`], which must be of this
    /// partition.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`], [`ArchiveError::UnknownFormat`].
    pub(crate) fn decode_manifest(&self, content: &[u8]) -> Result<Manifest, ArchiveError> {
        let object = self.manifest();
        let manifest = Manifest::decode(object.as_ref(), content)?;
        match self.check(&manifest) {
            Ok(()) => Ok(manifest),
            Err(reason) => Err(ArchiveError::damaged(&object, reason)),
        }
    }

    /// The partition, counted from 0.
    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }

    /// Their folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> Path {
        self.dir.clone().join("manifest")
    }

    /// The segment itself.
    #[must_use]
    pub fn segment(&self, entry: &SegmentEntry) -> Path {
        self.of_segment(entry, "log")
    }

    /// Its offset index.
    #[must_use]
    pub fn index(&self, entry: &SegmentEntry) -> Path {
        self.of_segment(entry, "index")
    }

    /// Its time index.
    #[must_use]
    pub fn time_index(&self, entry: &SegmentEntry) -> Path {
        self.of_segment(entry, "timeindex")
    }

    /// The checksums of its blocks.
    #[must_use]
    pub fn sums(&self, entry: &SegmentEntry) -> Path {
        self.of_segment(entry, "sums")
    }

    /// Everything that belongs to a segment, itself first.
    #[must_use]
    pub fn all_of(&self, entry: &SegmentEntry) -> [Path; 4] {
        ["log", "index", "timeindex", "sums"].map(|suffix| self.of_segment(entry, suffix))
    }

    /// The log's state at the end of the last segment.
    #[must_use]
    pub fn state(&self, entry: &StateEntry) -> Path {
        let (end, epoch, crc) = (entry.end_offset, entry.epoch, entry.crc);
        self.dir
            .clone()
            .join(format!("state-{end:020}-{epoch}-{crc:08x}"))
    }

    fn of_segment(&self, entry: &SegmentEntry, suffix: &str) -> Path {
        let (base, end) = (entry.base_offset, entry.end_offset);
        let (epoch, crc) = (entry.epoch, entry.crc);
        self.dir
            .clone()
            .join(format!("{base:020}-{end:020}-{epoch}-{crc:08x}.{suffix}"))
    }
}

/// The writer epoch in the name of an object; `None` for names that no writer of this version makes.
pub(crate) fn epoch_in(name: &str) -> Option<u64> {
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    let mut words = stem.split('-');
    let (_, _, epoch) = (words.next()?, words.next()?, words.next()?);
    let (crc, None) = (words.next().unwrap_or_default(), words.next()) else {
        return None;
    };
    if stem.starts_with("state-") {
        return Some(epoch).and_then(|epoch| epoch.parse().ok());
    }
    (crc.len() == 8).then(|| epoch.parse().ok())?
}

/// As it stands in a manifest.
pub(crate) fn offset(offset: Offset) -> i64 {
    offset.0
}
