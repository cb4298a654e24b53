//! The way out of a damaged log of committed offsets: what can be read of it is written anew.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use comlog_archive::{ArchiveError, Catalog};
use comlog_log::{AppendRequest, Clock, Log, LogConfig};
use comlog_record::OffsetRange;
use comlog_storage::{DataDir, DiskOptions, StorageError};

use crate::clock::SystemClock;
use crate::dirs::DiskDirs;
use crate::group_state::{self, Change};
use crate::status::ServiceError;
use crate::topic_config::TopicDefaults;
use crate::topic_store::{Stage, TopicMeta, TopicStore};
use crate::{broker, groups};

/// Commits written in one batch: far below what a batch may hold.
const CHANGES_PER_BATCH: usize = 256;

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// There is no topic of committed offsets whose metadata can be used.
    #[error("there is no topic of committed offsets with usable metadata; see `comlog verify`")]
    NoGroups,
    /// Some segments of it are in an archive only.
    #[error(
        "{0} segments of the committed offsets are in an archive only: restore from it instead"
    )]
    Archived(usize),
    /// What is known of the archive is damaged.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The disk, or another process has the directory open.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log of commits cannot be opened or written.
    #[error("committed offsets: {0}")]
    Log(ServiceError),
}

/// What a repair kept and gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairedGroups {
    /// Groups that have something committed.
    pub groups: u64,
    /// Their committed offsets.
    pub offsets: u64,
    /// Offsets of the log of commits that could not be read, and are gone now.
    pub lost: Vec<OffsetRange>,
    /// The directory of the log of commits was gone, and was made anew.
    pub made_anew: bool,
}

/// Writes what can be read of the committed offsets of a data directory anew, and drops the rest;
/// durable on return. A commit that was lost falls back to the group's one before it, or to none.
/// Changes nothing when all can be read. No server may have the directory open.
///
/// # Errors
/// [`RepairError`].
pub async fn repair_groups(data_dir: &Path) -> Result<RepairedGroups, RepairError> {
    let path = data_dir.to_owned();
    let open = move || DataDir::open(&path, DiskOptions::default());
    let opened = tokio::task::spawn_blocking(open).await;
    let data_dir =
        opened.map_err(|error| RepairError::Log(ServiceError::internal(error.to_string())))??;
    let meta = data_dir.storage(broker::META_DIR)?;
    let dirs = Arc::new(DiskDirs::new(data_dir.clone()));
    let topics = TopicStore::new(meta, dirs).load().await?.topics;
    let topic = topics
        .iter()
        .find(|topic| topic.name == groups::TOPIC && topic.stage == Stage::Live);
    let topic = topic.ok_or(RepairError::NoGroups)?;
    let made_anew = !data_dir.list(&topic.dir())?.contains(&"0".to_owned());
    let storage = data_dir.storage(&topic.partition_dir(0))?;
    match Catalog::evicted(&*storage).await? {
        0 => {}
        count => return Err(RepairError::Archived(count)),
    }
    let repaired = rewrite(storage, topic).await.map_err(RepairError::Log)?;
    Ok(RepairedGroups {
        made_anew,
        ..repaired
    })
}

async fn rewrite(
    storage: Arc<dyn comlog_storage::Storage>,
    topic: &TopicMeta,
) -> Result<RepairedGroups, ServiceError> {
    let config = topic.config.over(&TopicDefaults::default());
    let limits = config.limits();
    let clock = Arc::new(SystemClock::new(Duration::ZERO));
    let config = LogConfig {
        owner: topic.owner(0),
        ..config.to_log_config()
    };
    let (mut log, _) = Log::open(storage, config, clock.clone()).await?;
    let head = log.reader().positions().high_watermark;
    let state = group_state::replay(&log.reader()).await?;
    if !state.lost.is_empty() {
        log.roll().await?;
        let all = state.groups.values().flatten();
        let live: Vec<Change> = all
            .map(|(key, value)| (key.clone(), Some(value.clone())))
            .collect();
        for changes in live.chunks(CHANGES_PER_BATCH) {
            let batch = group_state::encode(changes, limits, clock.now())?;
            for answer in log.append(vec![AppendRequest::new(batch)]).await {
                answer?;
            }
        }
        // Before this a crash leaves both, and replaying both gives the same state.
        log.trim(head).await?;
    }
    log.close().await?;
    Ok(RepairedGroups {
        groups: state.groups.len() as u64,
        offsets: state.offsets as u64,
        lost: state.lost,
        made_anew: false,
    })
}
