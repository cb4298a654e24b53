//! What the archive holds of one partition, kept on the local disk too: so that a server starts, and
//! knows its whole log, while the store is away.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use bytes::Bytes;
use comlog_log::index_blob_names;
use comlog_record::{Offset, Timestamp};
use comlog_storage::{
    BlockCache, ColdSegments, ObjectReader, SegmentMeta, SegmentReader, Storage, StorageError,
};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::frame::{self, Kind};
use crate::key::PartitionKeys;
use crate::manifest::{Manifest, SegmentEntry};
use crate::store::ArchiveStore;
use crate::{ArchiveError, Result};

/// The local blob it is kept in.
pub const ARCHIVE_BLOB: &str = "archive";

const ARCHIVED: Kind = Kind {
    name: "archived",
    format: 1,
};

/// What the blob holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    /// Which archive.
    archive_id: String,
    /// As it was when last written there.
    manifest: Manifest,
    /// Segments of it that are no part of the log any more.
    forgotten: BTreeSet<i64>,
}

impl Content {
    /// What is part of the log.
    fn kept(&self) -> impl Iterator<Item = &SegmentEntry> {
        let segments = self.manifest.segments.iter();
        segments.filter(|entry| !self.forgotten.contains(&entry.base_offset))
    }
}

/// The archived segments of one partition.
#[derive(Debug)]
pub struct Catalog {
    local: Arc<dyn Storage>,
    keys: PartitionKeys,
    store: ArchiveStore,
    cache: BlockCache,
    content: RwLock<Option<Content>>,
    /// One change at a time.
    changes: tokio::sync::Mutex<()>,
}

impl Catalog {
    /// Reads what the local disk says; the store is not asked.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`], [`ArchiveError::UnknownFormat`]: without it nobody knows which
    /// segments are in the archive only.
    pub async fn open(
        local: Arc<dyn Storage>,
        keys: PartitionKeys,
        store: ArchiveStore,
        cache: BlockCache,
    ) -> Result<Catalog> {
        let content = read(&*local).await?;
        if let Some(content) = &content {
            let checked = keys.check(&content.manifest);
            checked.map_err(|reason| ArchiveError::Damaged {
                object: ARCHIVE_BLOB.to_owned(),
                reason,
            })?;
        }
        Ok(Catalog {
            local,
            keys,
            store,
            cache,
            content: RwLock::new(content),
            changes: tokio::sync::Mutex::default(),
        })
    }

    /// How many segments of a partition are in an archive only, by what its storage says.
    ///
    /// # Errors
    /// As [`Catalog::open`].
    pub async fn evicted(local: &dyn Storage) -> Result<usize> {
        let Some(content) = read(local).await? else {
            return Ok(0);
        };
        let here = local.list().await?;
        let is_here = |entry: &&SegmentEntry| {
            let base = Offset(entry.base_offset);
            let at = here.binary_search_by_key(&base, |segment| segment.base_offset);
            at.is_ok_and(|at| here[at].len >= entry.len)
        };
        let kept = content.kept();
        Ok(kept.filter(|entry| !is_here(entry)).count())
    }

    /// The archived segments that are part of a partition's log, by what its storage says; ascending.
    ///
    /// # Errors
    /// As [`Catalog::open`].
    pub async fn kept(local: &dyn Storage) -> Result<Vec<SegmentEntry>> {
        let content = read(local).await?;
        Ok(content.iter().flat_map(Content::kept).cloned().collect())
    }

    /// Writes the blob for a data directory that was rebuilt from `manifest`.
    ///
    /// # Errors
    /// Those of the local disk.
    pub async fn restore(local: &dyn Storage, archive_id: &str, manifest: Manifest) -> Result<()> {
        let content = Content {
            archive_id: archive_id.to_owned(),
            manifest,
            forgotten: BTreeSet::new(),
        };
        write(local, &content).await
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Content>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which archive it speaks of; `None` when it says nothing yet.
    #[must_use]
    pub fn archive_id(&self) -> Option<String> {
        self.read()
            .as_ref()
            .map(|content| content.archive_id.clone())
    }

    /// The manifest as last written, with what the log has forgotten since.
    #[must_use]
    pub fn manifest(&self) -> Option<Manifest> {
        self.read().as_ref().map(|content| content.manifest.clone())
    }

    /// What is archived ends here (exclusive); `None` before the manifest is written.
    #[must_use]
    pub fn end_offset(&self) -> Option<Offset> {
        self.read()
            .as_ref()
            .map(|content| content.manifest.end_offset())
    }

    /// Base offsets that the log has forgotten and the archive has not.
    #[must_use]
    pub fn forgotten(&self) -> BTreeSet<i64> {
        let content = self.read();
        content
            .as_ref()
            .map(|content| content.forgotten.clone())
            .unwrap_or_default()
    }

    /// The entry of a segment that is part of the log.
    #[must_use]
    pub fn entry(&self, base_offset: Offset) -> Option<SegmentEntry> {
        let content = self.read();
        let content = content.as_ref()?;
        if content.forgotten.contains(&base_offset.0) {
            return None;
        }
        content.manifest.segment(base_offset).cloned()
    }

    /// Takes over a manifest that the store has; durable on return. What it does not name any more
    /// need not be remembered as forgotten.
    ///
    /// # Errors
    /// Those of the local disk.
    pub async fn publish(&self, archive_id: &str, manifest: Manifest) -> Result<()> {
        let _changing = self.changes.lock().await;
        let mut forgotten = self.forgotten();
        forgotten.retain(|base| manifest.segment(Offset(*base)).is_some());
        let content = Content {
            archive_id: archive_id.to_owned(),
            manifest,
            forgotten,
        };
        write(&*self.local, &content).await?;
        *self.content.write().unwrap_or_else(PoisonError::into_inner) = Some(content);
        Ok(())
    }

    /// Fetches the content of an index of a segment.
    async fn fetch(&self, key: &Path) -> std::result::Result<Option<Bytes>, StorageError> {
        let found = self.store.get(key).await;
        let found = found.map_err(|error| StorageError::Unavailable {
            what: key.to_string(),
            reason: error.to_string(),
        })?;
        Ok(found.map(|(content, _)| content))
    }
}

#[async_trait]
impl ColdSegments for Catalog {
    fn list(&self) -> Vec<SegmentMeta> {
        let content = self.read();
        let Some(content) = content.as_ref() else {
            return Vec::new();
        };
        let kept = content.kept();
        kept.map(|entry| SegmentMeta {
            base_offset: Offset(entry.base_offset),
            len: entry.len,
            max_timestamp: entry.max_timestamp.map(Timestamp),
        })
        .collect()
    }

    fn open(&self, base_offset: Offset) -> Option<Arc<dyn SegmentReader>> {
        let entry = self.entry(base_offset)?;
        let (location, sums_at) = (self.keys.segment(&entry), self.keys.sums(&entry));
        let cache = self.cache.clone();
        let reader = ObjectReader::new(cache, &location, sums_at, entry.len, entry.crc);
        Some(Arc::new(reader))
    }

    async fn read_blob(&self, name: &str) -> std::result::Result<Option<Bytes>, StorageError> {
        let digits = name.split_once('.').map(|(digits, _)| digits.parse());
        let Some(entry) = digits.and_then(|base| self.entry(Offset(base.ok()?))) else {
            return Ok(None);
        };
        let [index, time_index] = index_blob_names(Offset(entry.base_offset));
        match name {
            _ if name == index => self.fetch(&self.keys.index(&entry)).await,
            _ if name == time_index => self.fetch(&self.keys.time_index(&entry)).await,
            _ => Ok(None),
        }
    }

    async fn forget(&self, base_offset: Offset) -> std::result::Result<(), StorageError> {
        let _changing = self.changes.lock().await;
        let Some(mut content) = self.read().clone() else {
            return Ok(());
        };
        content.forgotten.insert(base_offset.0);
        write(&*self.local, &content)
            .await
            .map_err(|error| match error {
                ArchiveError::Local(error) => StorageError::Io {
                    what: format!("note that {base_offset} is no longer part of the log"),
                    source: std::io::Error::other(error),
                },
                error => StorageError::InvalidInput {
                    what: error.to_string(),
                },
            })?;
        *self.content.write().unwrap_or_else(PoisonError::into_inner) = Some(content);
        Ok(())
    }
}

async fn read(local: &dyn Storage) -> Result<Option<Content>> {
    let Some(blob) = local.read_blob(ARCHIVE_BLOB).await? else {
        return Ok(None);
    };
    let content: Content = frame::decode(ARCHIVED, ARCHIVE_BLOB, &blob)?;
    Ok(Some(content))
}

async fn write(local: &dyn Storage, content: &Content) -> Result<()> {
    let encoded = frame::encode(ARCHIVED, content)?;
    Ok(local.write_blob(ARCHIVE_BLOB, encoded).await?)
}
