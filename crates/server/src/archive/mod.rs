//! The archive of a server: which partitions have one, who works on it, and what it is doing.

mod config;
mod flush;
mod partition;
mod restore;
mod restored_offsets;
mod status;
mod tombs;
mod worker;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use comlog_archive::{
    ArchiveError, ArchiveStore, ArchivedTopic, Catalog, PartitionKeys, PartitionList, StoreOptions,
    Writer,
};
use comlog_log::LogError;
use comlog_log::frame::{Kind, Owner};
use comlog_storage::{BlockCache, CacheOptions, Storage, StorageError, TieredStorage};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub use config::ArchiveConfig;
pub use restore::{RestoreError, RestoreProgress, Restored, restore};
pub use restored_offsets::ClampedOffset;

use crate::meta_file::{Found, MetaFile, Place};
use crate::topic_store::{self, TopicMeta};
use partition::Slot;

/// Where the data directory keeps its name as a writer, twice.
pub(crate) const WRITER_BLOBS: [&str; 2] = ["archive-writer", "archive-writer.copy"];
/// What that file is.
pub(crate) const WRITER_KIND: Kind = Kind {
    magic: *b"comlogAW",
    format: 1,
};

/// A topic's id and one of its partitions.
type SlotKey = (String, u32);

/// The archive of this server.
pub(crate) struct Archive {
    store: ArchiveStore,
    cache: BlockCache,
    config: ArchiveConfig,
    meta: Arc<dyn Storage>,
    writer_id: String,
    /// Known once the store was found fit.
    writer: RwLock<Option<Writer>>,
    slots: RwLock<HashMap<SlotKey, Arc<Slot>>>,
    /// The metadata of topics that the store has, by id.
    topics: Mutex<HashMap<String, Arc<TopicMeta>>>,
    /// The lists of partitions that the store has, by topic id.
    lists: Mutex<HashMap<String, PartitionList>>,
    /// One change of a list at a time.
    listing: tokio::sync::Mutex<()>,
    /// When what is left of deleted topics is looked at again.
    tombs_at: Mutex<Option<Instant>>,
    /// Why nothing is archived any more, or not yet.
    stopped: Mutex<Option<Stop>>,
    uploads: Arc<Semaphore>,
    wake: Notify,
    pub(crate) counters: ArchiveCounters,
}

/// Why nothing is archived.
#[derive(Debug, Clone)]
struct Stop {
    reason: String,
    kind: StopKind,
}

/// What has to happen before anything is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopKind {
    /// The store has to answer.
    Waiting,
    /// Another server has taken over: nothing, until somebody ends one of them.
    Fenced,
    /// The store was found unfit, or holds what this version does not know: somebody has to change
    /// the one or the other, and start the server anew.
    Refused,
}

impl Stop {
    fn of(error: &ArchiveError) -> Stop {
        let kind = match error {
            ArchiveError::Fenced { .. } => StopKind::Fenced,
            error if error.is_final() => StopKind::Refused,
            _ => StopKind::Waiting,
        };
        let reason = error.to_string();
        Stop { reason, kind }
    }

    /// Whether waiting cannot help.
    fn is_final(&self) -> bool {
        self.kind != StopKind::Waiting
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct ArchiveCounters {
    pub(crate) uploaded_segments: AtomicU64,
    pub(crate) uploaded_bytes: AtomicU64,
    pub(crate) evicted_segments: AtomicU64,
    pub(crate) removed_segments: AtomicU64,
    pub(crate) removed_orphans: AtomicU64,
    pub(crate) errors: AtomicU64,
    /// Gauges, as of the last look.
    pub(crate) backlog_segments: AtomicU64,
    pub(crate) backlog_bytes: AtomicU64,
    pub(crate) oldest_unarchived_ms: AtomicU64,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Archive {
    /// The archive that the configuration names, if it names one. The store is not asked yet, so a
    /// server starts while it is away.
    pub(crate) async fn open(
        config: &ArchiveConfig,
        meta: Arc<dyn Storage>,
    ) -> Result<Option<Arc<Archive>>, ArchiveError> {
        if config.url.is_empty() {
            return Ok(None);
        }
        let timeout = Duration::from_millis(config.request_timeout_ms);
        let (url, options) = (
            config.url.clone(),
            StoreOptions {
                timeout,
                ..StoreOptions::default()
            },
        );
        let opened = tokio::task::spawn_blocking(move || ArchiveStore::open(&url, options)).await;
        let store = opened.map_err(|error| ArchiveError::Config(error.to_string()))??;
        if !store.may_be_conditional() && !config.single_writer {
            return Err(ArchiveError::Config(format!(
                "{} has no conditional writes, so two servers could overwrite each other's manifests; \
                 if this server is the only writer, say so with --archive-single-writer",
                store.name()
            )));
        }
        let cache = BlockCache::new(
            store.object_store().clone(),
            CacheOptions {
                bytes_max: config.cache_bytes_max,
                prefetch_bytes: config.prefetch_bytes,
                timeout,
                ..CacheOptions::default()
            },
        );
        let writer_id = writer_id(meta.clone()).await?;
        Ok(Some(Arc::new(Archive {
            store,
            cache,
            meta,
            writer_id,
            writer: RwLock::new(None),
            slots: RwLock::default(),
            topics: Mutex::default(),
            lists: Mutex::default(),
            listing: tokio::sync::Mutex::default(),
            tombs_at: Mutex::default(),
            stopped: Mutex::new(Some(Stop {
                reason: "the store has not been looked at yet".to_owned(),
                kind: StopKind::Waiting,
            })),
            uploads: Arc::new(Semaphore::new(config.uploads_max as usize)),
            wake: Notify::new(),
            counters: ArchiveCounters::default(),
            config: config.clone(),
        })))
    }

    pub(crate) fn roll_interval(&self) -> Duration {
        Duration::from_millis(self.config.roll_interval_ms)
    }

    pub(crate) fn prefetch_bytes(&self) -> u64 {
        self.config.prefetch_bytes
    }

    /// Blocks of archived segments that were fetched: GETs, their bytes, failures.
    pub(crate) fn reads(&self) -> (u64, u64, u64) {
        let stats = self.cache.stats();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (
            load(&stats.gets),
            load(&stats.get_bytes),
            load(&stats.errors),
        )
    }

    /// Why nothing is archived now; `None` when all is well.
    pub(crate) fn stop_kind(&self) -> Option<StopKind> {
        self.stopped.lock().as_ref().map(|stop| stop.kind)
    }

    /// Whether nothing is archived any more until the next start.
    fn is_stopped(&self) -> bool {
        self.stopped.lock().as_ref().is_some_and(Stop::is_final)
    }

    /// Stands before the local storage of a partition from now on.
    async fn add(
        &self,
        meta: &TopicMeta,
        partition: u32,
        local: Arc<dyn Storage>,
    ) -> Result<Arc<dyn Storage>, ArchiveError> {
        let keys = PartitionKeys::new(&meta.id, partition);
        let (store, cache) = (self.store.clone(), self.cache.clone());
        let catalog = Arc::new(Catalog::open(local.clone(), keys, store, cache).await?);
        let storage = Arc::new(TieredStorage::new(local, catalog.clone()));
        let slot = Arc::new(Slot::new(meta, partition, catalog, storage.clone()));
        self.slots
            .write()
            .insert((meta.id.clone(), partition), slot);
        Ok(storage)
    }

    fn slot(&self, topic_id: &str, partition: u32) -> Option<Arc<Slot>> {
        self.slots
            .read()
            .get(&(topic_id.to_owned(), partition))
            .cloned()
    }
}

/// The storage of a partition: its directory, with the archive behind it if there is one.
///
/// # Errors
/// The server has no archive, and some of the partition's segments are nowhere else.
pub(crate) async fn in_front_of(
    archive: Option<&Arc<Archive>>,
    meta: &TopicMeta,
    partition: u32,
    local: Arc<dyn Storage>,
) -> Result<Arc<dyn Storage>, LogError> {
    let opened = match archive {
        Some(archive) => archive.add(meta, partition, local).await,
        None => Catalog::evicted(&*local).await.and_then(|evicted| match evicted {
            0 => Ok(local),
            count => Err(ArchiveError::Config(format!(
                "{count} segments of this partition are in an archive only; start with --archive"
            ))),
        }),
    };
    opened.map_err(|error| match error {
        ArchiveError::Local(error) => LogError::Storage(error),
        error => LogError::from(StorageError::InvalidInput {
            what: error.to_string(),
        }),
    })
}

/// What is wrong with an archived topic beside its manifests and what they name: its metadata, and
/// the list of its partitions.
///
/// # Errors
/// [`ArchiveError::Unavailable`]: then nothing is known.
pub async fn audit_topic(
    store: &ArchiveStore,
    topic: &ArchivedTopic,
) -> Result<Vec<ArchiveError>, ArchiveError> {
    let read = |id: &str, content: &[u8]| topic_store::decode(id, content).map(drop);
    comlog_archive::audit(store, topic, read).await
}

/// The name of this data directory, made with the first start.
async fn writer_id(meta: Arc<dyn Storage>) -> Result<String, StorageError> {
    let place = |blob: &str| Place {
        storage: meta.clone(),
        blob: blob.to_owned(),
        path: format!("meta/{blob}"),
    };
    let file = MetaFile {
        kind: WRITER_KIND,
        owner: Owner::SERVER,
        places: WRITER_BLOBS.map(place).to_vec(),
    };
    match file.read().await {
        Found::Content(mut content) => {
            file.mend(&mut content).await;
            if let Ok(id) = std::str::from_utf8(&content.payload) {
                return Ok(id.to_owned());
            }
        }
        Found::Damaged { reason, .. } => tracing::error!(
            reason,
            "the name of this data directory is damaged, it gets a new one: the archive takes \
             this server for another one that took over"
        ),
        Found::Nothing => {}
    }
    let id = crate::topics::random_id();
    file.write(1, id.as_bytes()).await?;
    Ok(id)
}
