//! What topics exist and how they are configured.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use comlog_log::{Log, LogConfig, LogError};
use comlog_proto::v1::Reason;
use comlog_storage::StorageError;
use futures_util::{StreamExt, stream};
use parking_lot::RwLock;
use tokio::sync::{Mutex, MutexGuard};

use crate::archive;
use crate::partition::Partition;
use crate::status::{PartitionKey, ServiceError};
use crate::topic::{Topic, close_all};
use crate::topic_config::{TopicDefaults, TopicOverrides};
use crate::topic_name;
use crate::topic_store::{Refused, Stage, TOPICS_DIR, TopicMeta, TopicStore};
use crate::topics_env::TopicsEnv;

/// The registry of topics.
#[derive(Debug)]
pub(crate) struct Topics {
    env: TopicsEnv,
    live: RwLock<HashMap<String, Arc<Topic>>>,
    /// One change of what topics there are at a time. Held over I/O, but no append or read of a
    /// topic that exists ever takes it.
    changes: Mutex<TopicStore>,
    /// Set under `changes`: what would be opened now, nobody would close.
    closed: AtomicBool,
    producer_id_max: AtomicI64,
    /// What is there and cannot be served, as found at the start.
    refused: Vec<Refused>,
    /// Topics that were deleted before the start, and whose commits may not all be forgotten.
    deleted: Vec<String>,
}

impl Topics {
    /// Opens every topic, its partitions in parallel within a bound. A partition that cannot be
    /// opened is served as failed; a topic whose metadata is gone or damaged is not served, and
    /// kept as it is.
    pub(crate) async fn open(
        env: TopicsEnv,
        store: TopicStore,
    ) -> Result<Arc<Topics>, StorageError> {
        let loaded = store.load().await?;
        let mut topics = Topics {
            env,
            live: RwLock::new(HashMap::new()),
            changes: Mutex::new(store),
            closed: AtomicBool::new(false),
            producer_id_max: AtomicI64::new(-1),
            refused: loaded.refused,
            deleted: Vec::new(),
        };
        let mut live = Vec::new();
        for meta in loaded.topics {
            match meta.stage {
                Stage::Live => live.push(meta),
                Stage::Creating => topics.go_on_removing(&meta).await,
                Stage::Deleting => {
                    topics.go_on_removing(&meta).await;
                    topics.deleted.push(meta.id);
                }
            }
        }
        let live = topics.refuse_doubles(live);
        for refused in &topics.refused {
            let (id, name) = (&refused.id, refused.name.as_deref());
            tracing::error!(id, name, "{}", refused.reason);
        }
        topics.open_all(live).await;
        Ok(Arc::new(topics))
    }

    /// Of topics with one name the oldest is served: a file that was put back meets what was made
    /// meanwhile under its name.
    fn refuse_doubles(&mut self, mut metas: Vec<TopicMeta>) -> Vec<TopicMeta> {
        metas.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        let mut served: HashMap<String, String> = HashMap::new();
        metas.retain(|meta| match served.get(&meta.name) {
            None => {
                served.insert(meta.name.clone(), meta.id.clone());
                true
            }
            Some(older) => {
                let (name, id) = (meta.name.clone(), meta.id.clone());
                let reason = format!(
                    "topic {id} is not served, and nothing of it was changed: the older topic \
                     {older} is called {name:?} too. To serve {id} instead, stop the server and move \
                     meta/topic-{older} and {TOPICS_DIR}/{older} to another place; to give it up, \
                     remove meta/topic-{id} and {TOPICS_DIR}/{id}"
                );
                let name = Some(name);
                self.refused.push(Refused { id, name, reason });
                false
            }
        });
        metas
    }

    /// Whether some topic is there whose name nobody knows, or one that is called `name`: then that
    /// `name` is not served does not mean that it never was.
    pub(crate) fn may_have_lost(&self, name: &str) -> bool {
        let mut refused = self.refused.iter();
        self.find(name).is_none()
            && refused.any(|refused| refused.name.as_deref().is_none_or(|known| known == name))
    }

    /// Whether there is nothing of any topic.
    pub(crate) fn is_empty(&self) -> bool {
        self.live.read().is_empty() && self.refused.is_empty() && self.deleted.is_empty()
    }

    /// How many topics are there and not served.
    pub(crate) fn refused_count(&self) -> usize {
        self.refused.len()
    }

    /// Why a topic of this name is there and not served.
    fn check_refused(&self, name: &str) -> Result<(), ServiceError> {
        let mut refused = self.refused.iter();
        match refused.find(|refused| refused.name.as_deref() == Some(name)) {
            None => Ok(()),
            Some(refused) => {
                let error = ServiceError::new(Reason::Corrupt, refused.reason.clone());
                Err(error.at_topic(name))
            }
        }
    }

    async fn open_all(&self, metas: Vec<TopicMeta>) {
        let shells: Vec<(Arc<Topic>, u32)> = metas
            .into_iter()
            .flat_map(|meta| {
                let count = meta.partitions;
                let topic = Arc::new(Topic::new(meta));
                (0..count).map(move |partition| (topic.clone(), partition))
            })
            .collect();
        let opened: BTreeMap<(String, u32), (Arc<Topic>, Arc<Partition>)> = stream::iter(shells)
            .map(|(topic, partition)| async move {
                let opened = self.open_partition(&topic, partition, Expect::There).await;
                ((topic.id().to_owned(), partition), (topic, opened))
            })
            .buffer_unordered(self.env.config.open_parallel as usize)
            .collect()
            .await;
        let mut live = self.live.write();
        for (topic, partition) in opened.into_values() {
            topic.add_partitions([partition]);
            live.entry(topic.name().to_string()).or_insert(topic);
        }
    }

    async fn open_partition(
        &self,
        topic: &Topic,
        partition: u32,
        expect: Expect,
    ) -> Arc<Partition> {
        let meta = topic.meta();
        let config = meta.config.over(&self.env.defaults);
        let key = PartitionKey {
            topic: topic.name().clone(),
            partition,
        };
        let opened = match self.check_directory(&meta, partition, expect).await {
            Ok(()) => self.open_log(&meta, partition, &config).await,
            Err(error) => Err(LogError::from(error)),
        };
        match &opened {
            Ok(log) => {
                let seen = log.producer_id_max();
                self.producer_id_max.fetch_max(seen, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::error!(partition = %key, %error, "partition cannot be opened, the others are served");
            }
        }
        let deleted = topic.deleted();
        let limits = self.env.log_config(topic.name(), &config).limits;
        Arc::new(Partition::new(
            key,
            opened,
            limits,
            deleted,
            &self.env.owner,
        ))
    }

    /// A directory that is gone must not be made anew, empty: its offsets were given out.
    async fn check_directory(
        &self,
        meta: &TopicMeta,
        partition: u32,
        expect: Expect,
    ) -> Result<(), StorageError> {
        if expect == Expect::New {
            return Ok(());
        }
        let there = self.env.dirs.list(&meta.dir()).await?;
        if there.contains(&partition.to_string()) {
            return Ok(());
        }
        let reason = "the directory is gone, and its records with it: put it back from a backup and \
                      start again, or restore from an archive, or delete the topic";
        Err(StorageError::Lost {
            what: meta.partition_dir(partition),
            range: 0..0,
            reason: reason.to_owned(),
        })
    }

    async fn open_log(
        &self,
        meta: &TopicMeta,
        partition: u32,
        config: &TopicDefaults,
    ) -> Result<Log, LogError> {
        let dir = meta.partition_dir(partition);
        let local = self.env.dirs.storage(&dir).await?;
        let storage =
            archive::in_front_of(self.env.archive.as_ref(), meta, partition, local).await?;
        let config = LogConfig {
            owner: meta.owner(partition),
            ..self.env.log_config(&meta.name, config)
        };
        let (log, report) = Log::open(storage, config, self.env.clock.clone()).await?;
        if report.scanned_bytes > 0 || report.cut.is_some() {
            tracing::info!(topic = meta.name, partition, scanned_bytes = report.scanned_bytes,
                cut = ?report.cut, epoch_raised = report.epoch_raised, "partition recovered");
        }
        for what in report.rebuilt.iter().chain(&report.contradictions) {
            tracing::warn!(
                topic = meta.name,
                partition,
                what,
                "a file of the partition is wrong"
            );
        }
        if let Some(batches) = report.cut.and_then(|cut| cut.batches) {
            tracing::error!(topic = meta.name, partition, offsets = %batches,
                "batches behind a torn one were cut: their bytes are kept beside the segment");
        }
        for damage in &report.damaged {
            tracing::error!(topic = meta.name, partition, offsets = %damage.offsets,
                reason = damage.reason, "offsets are damaged");
        }
        Ok(log)
    }

    /// The largest producer id in any log when it was opened.
    pub(crate) fn producer_id_max(&self) -> i64 {
        self.producer_id_max.load(Ordering::Relaxed)
    }

    /// Every topic, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<Arc<Topic>> = self.live.read().values().cloned().collect();
        topics.sort_by(|a, b| a.name().cmp(b.name()));
        topics
    }

    pub(crate) fn get(&self, name: &str) -> Result<Arc<Topic>, ServiceError> {
        if let Some(topic) = self.find(name) {
            return Ok(topic);
        }
        topic_name::check(name)?;
        self.check_refused(name)?;
        Err(ServiceError::topic_not_found(name))
    }

    fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.live.read().get(name).cloned()
    }

    pub(crate) fn partition(
        &self,
        topic: &str,
        partition: u32,
    ) -> Result<Arc<Partition>, ServiceError> {
        self.get(topic)?.partition(partition)
    }

    /// The partition to append to; makes the topic if the configuration allows it.
    pub(crate) async fn partition_for_append(
        self: &Arc<Self>,
        topic: &str,
        partition: u32,
    ) -> Result<Arc<Partition>, ServiceError> {
        if topic_name::is_reserved(topic) {
            topic_name::check_writable(topic)?;
        }
        if let Some(found) = self.find(topic) {
            return found.partition(partition);
        }
        topic_name::check_writable(topic)?;
        self.check_refused(topic)?;
        if !self.env.config.auto_create {
            return Err(ServiceError::topic_not_found(topic));
        }
        let made = self
            .create(topic, 0, TopicOverrides::default(), true)
            .await?;
        made.partition(partition)
    }

    /// What is in force for a topic.
    pub(crate) fn effective(&self, topic: &Topic) -> TopicDefaults {
        topic.meta().config.over(&self.env.defaults)
    }

    /// Makes a topic; durable on return. `partitions` 0 means the default.
    ///
    /// # Errors
    /// It exists (unless `if_not_exists`), a value is out of range, a bound is reached, the disk.
    pub(crate) async fn create(
        self: &Arc<Self>,
        name: &str,
        partitions: u32,
        config: TopicOverrides,
        if_not_exists: bool,
    ) -> Result<Arc<Topic>, ServiceError> {
        let (topics, name) = (self.clone(), name.to_owned());
        self.to_the_end(async move {
            topics
                .create_now(&name, partitions, config, if_not_exists)
                .await
        })
        .await
    }

    /// Changes the configuration of a topic or adds partitions; durable on return. Returns the
    /// topic and warnings.
    pub(crate) async fn alter(
        self: &Arc<Self>,
        name: String,
        changes: TopicOverrides,
        reset: Vec<String>,
        partitions: Option<u32>,
    ) -> Result<(Arc<Topic>, Vec<String>), ServiceError> {
        let topics = self.clone();
        self.to_the_end(async move { topics.alter_now(&name, &changes, &reset, partitions).await })
            .await
    }

    /// Deletes a topic and its records; durable on return.
    pub(crate) async fn delete(self: &Arc<Self>, name: String) -> Result<Arc<Topic>, ServiceError> {
        let topics = self.clone();
        self.to_the_end(async move { topics.delete_now(&name).await })
            .await
    }

    /// Runs a change in a task of its own: a caller that goes away in the middle must not leave
    /// what is stored and what is served apart.
    async fn to_the_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let done = self.env.owner.tasks.spawn(change).await;
        done.unwrap_or_else(|_| Err(ServiceError::internal("a change of topics broke off")))
    }

    async fn begin_change(&self) -> Result<MutexGuard<'_, TopicStore>, ServiceError> {
        let store = self.changes.lock().await;
        if self.closed.load(Ordering::Relaxed) {
            return Err(ServiceError::shutting_down());
        }
        Ok(store)
    }

    async fn create_now(
        &self,
        name: &str,
        partitions: u32,
        config: TopicOverrides,
        if_not_exists: bool,
    ) -> Result<Arc<Topic>, ServiceError> {
        topic_name::check(name)?;
        self.env.check_config(&config)?;
        let partitions = match partitions {
            0 => self.env.config.default_partitions,
            given => given,
        };
        let store = self.begin_change().await?;
        if let Some(topic) = self.find(name) {
            if if_not_exists {
                return Ok(topic);
            }
            let message = format!("topic {name:?} exists already");
            return Err(ServiceError::new(Reason::TopicExists, message).at_topic(name));
        }
        self.check_refused(name)?;
        self.check_room(1, partitions)?;
        let meta = TopicMeta {
            name: name.to_owned(),
            id: random_id(),
            partitions,
            created_ms: self.env.clock.now().0,
            stage: Stage::Creating,
            config,
        };
        self.make(&store, meta).await
    }

    /// Creates a topic, its directories between the two writes of its metadata.
    async fn make(&self, store: &TopicStore, meta: TopicMeta) -> Result<Arc<Topic>, ServiceError> {
        store.save(&meta).await.map_err(|error| disk(&error))?;
        let topic = Arc::new(Topic::new(meta));
        let opened = self
            .open_partitions(&topic, 0..topic.meta().partitions)
            .await;
        let live = Arc::new(TopicMeta {
            stage: Stage::Live,
            ..(*topic.meta()).clone()
        });
        let made = match opened {
            Ok(partitions) => {
                topic.add_partitions(partitions);
                store.save(&live).await.map_err(|error| disk(&error))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            topic.mark_deleted();
            close_all(&topic.partitions()).await;
            // If this fails too, the next start does it: the topic is still `creating`.
            drop(self.remove_unseen(store, &topic.meta()).await);
            return Err(error.at_topic(topic.name()));
        }
        topic.set_meta(live);
        self.live
            .write()
            .insert(topic.name().to_string(), topic.clone());
        tracing::info!(
            topic = &**topic.name(),
            id = topic.id(),
            partitions = topic.meta().partitions,
            "topic created"
        );
        Ok(topic)
    }

    /// Opens new partitions: all of them, or none and the reason.
    async fn open_partitions(
        &self,
        topic: &Topic,
        range: std::ops::Range<u32>,
    ) -> Result<Vec<Arc<Partition>>, ServiceError> {
        let opened: Vec<Arc<Partition>> = stream::iter(range)
            .map(|partition| self.open_partition(topic, partition, Expect::New))
            .buffered(self.env.config.open_parallel as usize)
            .collect()
            .await;
        let failure = opened.iter().find_map(|partition| partition.open_failure());
        match failure.map(|error| ServiceError::from(error.clone())) {
            None => Ok(opened),
            Some(error) => {
                close_all(&opened).await;
                Err(error)
            }
        }
    }

    async fn alter_now(
        &self,
        name: &str,
        changes: &TopicOverrides,
        reset: &[String],
        partitions: Option<u32>,
    ) -> Result<(Arc<Topic>, Vec<String>), ServiceError> {
        topic_name::check_writable(name)?;
        let store = self.begin_change().await?;
        let topic = self.get(name)?;
        let before = topic.meta();
        let mut config = before.config.clone();
        for field in reset {
            config.reset(field)?;
        }
        let config = config.changed_by(changes);
        self.env.check_config(&config)?;
        let count = partitions.unwrap_or(before.partitions);
        self.check_growth(&before, count)?;
        let added = self
            .open_partitions(&topic, before.partitions..count)
            .await?;
        let meta = TopicMeta {
            partitions: count,
            config,
            ..(*before).clone()
        };
        if let Err(error) = store.save(&meta).await {
            close_all(&added).await;
            return Err(disk(&error).at_topic(name));
        }
        drop(store);
        let mut warnings = Vec::new();
        if !added.is_empty() {
            warnings.push(format!(
                "{name:?} has {count} partitions instead of {}: keys map to other partitions than before",
                before.partitions
            ));
        }
        topic.set_meta(Arc::new(meta));
        topic.add_partitions(added);
        self.apply_config(&topic, &mut warnings).await;
        Ok((topic, warnings))
    }

    /// Hands the configuration in force to every partition.
    async fn apply_config(&self, topic: &Topic, warnings: &mut Vec<String>) {
        let log_config = self.env.log_config(topic.name(), &self.effective(topic));
        for partition in topic.partitions() {
            if let Err(error) = partition.configure(log_config.clone()).await {
                warnings.push(format!(
                    "partition {} follows it from the next start: {error}",
                    partition.key().partition
                ));
            }
        }
    }

    async fn delete_now(&self, name: &str) -> Result<Arc<Topic>, ServiceError> {
        topic_name::check_writable(name)?;
        let store = self.begin_change().await?;
        let topic = self.get(name)?;
        let meta = TopicMeta {
            stage: Stage::Deleting,
            ..(*topic.meta()).clone()
        };
        store.save(&meta).await.map_err(|error| disk(&error))?;
        topic.mark_deleted();
        self.live.write().remove(name);
        close_all(&topic.partitions()).await;
        if let Err(error) = self.remove_files(&meta).await {
            tracing::warn!(topic = name, %error, "deleted topic's files are left for the next start");
        }
        tracing::info!(topic = name, id = meta.id, "topic deleted");
        Ok(topic)
    }

    /// Removes the directories of a topic that nobody sees. Its archive is removed later: that it
    /// has to be is noted first.
    async fn remove_files(&self, meta: &TopicMeta) -> Result<(), StorageError> {
        if let Some(archive) = &self.env.archive {
            archive.bury(&meta.id).await?;
        }
        self.env.dirs.remove(&meta.dir()).await
    }

    /// Removes all of a topic that nobody ever saw.
    async fn remove_unseen(
        &self,
        store: &TopicStore,
        meta: &TopicMeta,
    ) -> Result<(), StorageError> {
        self.remove_files(meta).await?;
        store.forget(&meta.id).await
    }

    /// Goes on with what a crash broke off. The metadata of a deleted topic stays, for the commits
    /// of groups: see [`Topics::forget_deleted`].
    async fn go_on_removing(&self, meta: &TopicMeta) {
        let removed = match meta.stage {
            Stage::Creating => {
                let store = self.changes.lock().await;
                self.remove_unseen(&store, meta).await
            }
            _ => self.remove_files(meta).await,
        };
        if let Err(error) = removed {
            tracing::warn!(topic = meta.name, id = meta.id, %error,
                "cannot remove the rest of a topic yet; the next start does");
        }
    }

    /// The ids of topics that were deleted before the start: the commits for them have to be
    /// forgotten, then [`Topics::forget_deleted`].
    pub(crate) fn deleted(&self) -> &[String] {
        &self.deleted
    }

    /// Removes the metadata of a deleted topic once no commit of a group names it any more. It stays
    /// for as long as there are files: the next start goes on removing them.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) async fn forget_deleted(&self, id: &str) -> Result<(), StorageError> {
        let store = self.changes.lock().await;
        let directories = self.env.dirs.list(TOPICS_DIR).await?;
        if directories.iter().any(|directory| directory == id) {
            return Ok(());
        }
        store.forget(id).await
    }

    /// Answers every append, then closes every log.
    pub(crate) async fn close(&self) {
        let changes = self.changes.lock().await;
        self.closed.store(true, Ordering::Relaxed);
        drop(changes);
        let partitions: Vec<Arc<Partition>> = self
            .list()
            .iter()
            .flat_map(|topic| topic.partitions())
            .collect();
        close_all(&partitions).await;
    }

    fn check_growth(&self, before: &TopicMeta, count: u32) -> Result<(), ServiceError> {
        match count.checked_sub(before.partitions) {
            Some(added) => self.check_room(0, added),
            None => Err(ServiceError::invalid(format!(
                "partitions: {:?} has {}, fewer is not possible",
                before.name, before.partitions
            ))),
        }
    }

    fn check_room(&self, topics: usize, partitions: u32) -> Result<(), ServiceError> {
        let live = self.live.read();
        if live.len() + topics > self.env.config.topics_max as usize {
            return Err(ServiceError::overloaded(
                "there are as many topics as topics.topics_max allows",
            ));
        }
        let taken: u64 = live
            .values()
            .map(|topic| u64::from(topic.meta().partitions))
            .sum();
        if taken + u64::from(partitions) > u64::from(self.env.config.partitions_max) {
            return Err(ServiceError::overloaded(format!(
                "partitions: {partitions} more than the {taken} there are exceed topics.partitions_max, {}",
                self.env.config.partitions_max
            )));
        }
        Ok(())
    }
}

/// What the directory of a partition has to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// It was made with the topic, or when partitions were added.
    There,
    /// It is made now; an attempt that broke off may have left one, which is empty.
    New,
}

/// 128 random bits in hex.
pub(crate) fn random_id() -> String {
    uuid::Uuid::from_u128(rand::random()).simple().to_string()
}

fn disk(error: &comlog_storage::StorageError) -> ServiceError {
    ServiceError::from(error)
}
