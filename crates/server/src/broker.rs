//! The broker: everything behind the listener.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use comlog_archive::ArchiveError;
use comlog_log::Clock;
use comlog_record::Offset;
use comlog_storage::StorageError;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::archive::Archive;
use crate::broker_config::BrokerConfig;
use crate::budget::Budget;
use crate::counters::Counters;
use crate::dirs::LogDirs;
use crate::group_commit::OwnerEnv;
use crate::groups::Groups;
use crate::metrics::PartitionGauges;
use crate::producer_ids::ProducerIdAllocator;
use crate::service;
use crate::status::ServiceError;
use crate::tails::Tails;
use crate::topic_config::TopicOverrides;
use crate::topic_store::TopicStore;
use crate::topics::Topics;
use crate::topics_env::TopicsEnv;

/// The directory of what is not a partition.
pub(crate) const META_DIR: &str = "meta";

/// Why the broker could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A value of the configuration is out of range.
    #[error("configuration: {0}")]
    Config(String),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The archive's URL, or what the environment says about its store.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What is stored about topics, producer ids or groups cannot be understood.
    #[error("{0}")]
    Metadata(String),
}

/// Topics, partitions, groups and the services over them; clones share one broker.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

/// What the services share.
pub(crate) struct Shared {
    pub(crate) config: BrokerConfig,
    pub(crate) clock: Arc<dyn Clock>,
    /// The second home of the records, if there is one.
    pub(crate) archive: Option<Arc<Archive>>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) producer_ids: ProducerIdAllocator,
    pub(crate) groups: Groups,
    pub(crate) tails: Tails,
    health: HealthReporter,
    /// Of the bytes of requests and appends.
    pub(crate) request_budget: Budget,
    /// What decoding adds to requests under way.
    pub(crate) decoding_budget: Budget,
    /// Of the bytes of answers to reads and tails.
    pub(crate) answer_budget: Budget,
    /// Answers in the form of records that are decoded at once, where that takes long.
    pub(crate) decoding: Arc<Semaphore>,
    pub(crate) counters: Arc<Counters>,
    /// Cancelled when no new work is taken any more.
    pub(crate) closing: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Broker {
    /// Opens every topic and partition, recovering what a crash left. A partition that cannot be
    /// opened does not stop the others.
    ///
    /// # Errors
    /// The configuration, the storage of the metadata, or damaged metadata.
    pub async fn open(
        config: BrokerConfig,
        dirs: Arc<dyn LogDirs>,
        clock: Arc<dyn Clock>,
    ) -> Result<Broker, OpenError> {
        config.validate().map_err(OpenError::Config)?;
        let counters = Arc::new(Counters::default());
        let tasks = TaskTracker::new();
        let owner = owner_env(&config, counters.clone(), tasks.clone());
        let meta = dirs.storage(META_DIR).await?;
        let archive = Archive::open(&config.archive, meta.clone()).await?;
        let store = TopicStore::new(meta.clone(), dirs.clone());
        let ids_end = owner.producer_ids_end.clone();
        let env = TopicsEnv::new(dirs, clock.clone(), owner, &config, archive.clone());
        let topics = Topics::open(env, store).await?;
        let (seen, is_used) = (topics.producer_id_max(), !topics.is_empty());
        let producer_ids = ProducerIdAllocator::open(meta, seen, is_used, ids_end).await?;
        let groups = Groups::open(
            &config.groups,
            clock.clone(),
            &topics,
            config.append.request_bytes_max,
            &tasks,
        );
        let groups = groups.await;
        let groups = groups.map_err(|error| OpenError::Metadata(error.message))?;
        let shared = Shared {
            groups,
            health: HealthReporter::new(),
            tails: Tails::new(config.fetch.tails_max as usize, counters.clone()),
            request_budget: Budget::new(config.append.inflight_bytes_max),
            decoding_budget: Budget::new(config.append.decoded_bytes_max),
            answer_budget: Budget::new(config.fetch.inflight_bytes_max),
            decoding: Arc::new(Semaphore::new(config.fetch.decodes_max as usize)),
            config,
            clock,
            archive,
            topics,
            producer_ids,
            counters,
            closing: CancellationToken::new(),
            tasks,
        };
        for id in shared.topics.deleted() {
            shared.forget_commits(id).await;
        }
        shared.make_legacy_topic().await;
        if let Some(archive) = &shared.archive {
            archive.start(
                &shared.topics,
                &shared.clock,
                &shared.tasks,
                &shared.closing,
            );
        }
        service::set_health(&shared.health, true).await;
        Ok(Broker(Arc::new(shared)))
    }

    /// What the broker counts.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.0.counters.clone()
    }

    /// How many partitions there are, and how those stand that are open, at most `max` of them.
    pub(crate) fn partition_gauges(&self, max: usize) -> (usize, Vec<PartitionGauges>) {
        let topics = self.0.topics.list();
        let partitions: Vec<_> = topics.iter().flat_map(|topic| topic.partitions()).collect();
        let open = partitions.iter().filter_map(|partition| {
            let reader = partition.reader().ok()?;
            let (key, positions) = (partition.key(), reader.positions());
            let number = |offset: Offset| u64::try_from(offset.0).unwrap_or(0);
            Some(PartitionGauges {
                topic: key.topic.clone(),
                partition: key.partition,
                start: number(positions.start),
                high_watermark: number(positions.high_watermark),
                end: number(positions.end),
                size_bytes: reader.size_bytes(),
            })
        });
        (partitions.len(), open.take(max).collect())
    }

    /// How many partitions could not be opened, and how many topics are refused.
    pub(crate) fn not_served(&self) -> (u64, u64) {
        let topics = self.0.topics.list();
        let partitions = topics.iter().flat_map(|topic| topic.partitions());
        let failed = partitions.filter(|partition| partition.open_failure().is_some());
        (failed.count() as u64, self.0.topics.refused_count() as u64)
    }

    /// The second home of the records, if there is one.
    pub(crate) fn archive(&self) -> Option<&Arc<Archive>> {
        self.0.archive.as_ref()
    }

    /// Says by grpc.health.v1 that the server will go, while it still takes work.
    pub async fn announce_leaving(&self) {
        service::set_health(&self.0.health, false).await;
    }

    /// Takes no new work, answers every append that is queued, ends tails and waiting reads, and
    /// closes every log. Returns when all of that is done.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.announce_leaving().await;
        self.0.groups.close().await;
        self.0.topics.close().await;
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Every gRPC service, for the listener to put behind its own layers.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let health = HealthService::from_health_reporter(self.0.health.clone());
        service::routes(&self.0, HealthServer::new(health))
    }
}

impl Shared {
    /// # Errors
    /// Shutting down, from the moment [`Broker::close`] was called.
    pub(crate) fn check_open(&self) -> Result<(), ServiceError> {
        if self.closing.is_cancelled() {
            Err(ServiceError::shutting_down())
        } else {
            Ok(())
        }
    }

    /// Forgets what groups committed for a topic that was deleted, and then the topic: nothing else
    /// may drop a commit. When it fails, the next start tries again.
    pub(crate) async fn forget_commits(&self, topic_id: &str) {
        let forgotten = match self.groups.forget_topic(topic_id.to_owned()).await {
            Ok(()) => {
                let forgotten = self.topics.forget_deleted(topic_id).await;
                forgotten.map_err(|error| ServiceError::from(&error))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = forgotten {
            tracing::warn!(topic_id, %error,
                "cannot forget the committed offsets of a deleted topic yet; the next start does");
        }
    }

    /// The topic of the original API; where it cannot be made the others are served.
    async fn make_legacy_topic(&self) {
        let name = &self.config.topics.legacy_topic;
        let made = self
            .topics
            .create(name, 1, TopicOverrides::default(), true)
            .await;
        match made {
            Ok(_) => tracing::debug!(topic = name, "topic of the original API is there"),
            Err(error) => tracing::error!(topic = name, %error,
                "no topic for the original API; the others are served"),
        }
    }
}

fn owner_env(config: &BrokerConfig, counters: Arc<Counters>, tasks: TaskTracker) -> OwnerEnv {
    let append = &config.append;
    OwnerEnv {
        queue_max: append.partition_queue_max as usize,
        sync_interval: Duration::from_millis(append.sync_interval_ms),
        maintain_interval: Duration::from_millis(append.maintain_interval_ms),
        counters,
        tasks,
        producer_ids_end: Arc::default(),
    }
}
