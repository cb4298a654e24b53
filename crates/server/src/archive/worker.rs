//! The task that looks for work and hands it out, a bounded number of partitions at a time.
//!
//! Appends never wait for any of it: it reads what is sealed, and asks the owners of the tails for
//! nothing but a fencing token.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use comlog_archive::{
    ArchiveError, ArchiveStore, Identity, LogState, PartitionArchive, PartitionList, Progress,
    Writer, Writes, topic_key,
};
use comlog_log::Clock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::partition::{self, Slot};
use super::{Archive, Stop};
use crate::partition::Partition;
use crate::topic::Topic;
use crate::topic_config::TopicDefaults;
use crate::topic_name;
use crate::topic_store;
use crate::topics::Topics;

/// Waited after the first failure to reach the store.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A store that seems to ignore conditions is asked this often.
const PROBES: u32 = 3;

struct Worker {
    archive: Arc<Archive>,
    topics: Arc<Topics>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Archive {
    /// Starts to work; ends when `closing` is cancelled.
    pub(crate) fn start(
        self: &Arc<Self>,
        topics: &Arc<Topics>,
        clock: &Arc<dyn Clock>,
        tasks: &TaskTracker,
        closing: &CancellationToken,
    ) {
        let worker = Worker {
            archive: self.clone(),
            topics: topics.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
            closing: closing.clone(),
        };
        let closing = closing.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = worker.run() => {}
                // Breaking off is as safe as a crash, and no append waits.
                () = closing.cancelled() => {}
            }
        });
    }

    /// Whether an error concerns the whole server, which then archives nothing any more.
    fn stop(&self, error: &ArchiveError) {
        if !matches!(error, ArchiveError::Fenced { .. }) {
            return;
        }
        let stop = Stop::of(error);
        tracing::error!(%error, "another server has taken the archive over: this one serves on, but \
            uploads and deletes nothing any more");
        *self.stopped.lock() = Some(stop);
    }

    /// Whether the store has the metadata of a topic as it is now.
    fn has_topic(&self, topic: &Topic) -> bool {
        let topics = self.topics.lock();
        let known = topics.get(topic.id());
        known.is_some_and(|known| Arc::ptr_eq(known, &topic.meta()))
    }

    /// Whether the store's list of the topic's partitions names this one.
    fn is_listed(&self, topic_id: &str, partition: u32) -> bool {
        let lists = self.lists.lock();
        lists
            .get(topic_id)
            .is_some_and(|list| list.names(partition))
    }

    /// The partition that brings the topic's metadata to the store, if that is not there yet: the
    /// first that works. A new one is claimed after the metadata knows of it, so that no crash leaves
    /// a manifest that is beyond the topic.
    fn leader(&self, topic: &Topic) -> Option<u32> {
        if self.has_topic(topic) {
            return None;
        }
        let works = |partition: &Arc<Partition>| {
            let slot = self.slot(topic.id(), partition.key().partition);
            slot.is_some_and(|slot| slot.error().is_none()) && partition.reader().is_ok()
        };
        let first = topic.partitions().into_iter().find(works);
        first.map(|partition| partition.key().partition)
    }

    pub(super) fn add_progress(&self, progress: &Progress) {
        let add = |counter: &std::sync::atomic::AtomicU64, amount| {
            counter.fetch_add(amount, Ordering::Relaxed);
        };
        let counters = &self.counters;
        add(&counters.uploaded_segments, progress.uploaded_segments);
        add(&counters.uploaded_bytes, progress.uploaded_bytes);
        add(&counters.evicted_segments, progress.evicted_segments);
        add(&counters.removed_segments, progress.removed_segments);
        add(&counters.removed_orphans, progress.removed_orphans);
    }
}

impl Worker {
    async fn run(self) {
        let interval = Duration::from_millis(self.archive.config.interval_ms);
        // Which partition is looked at first, so that each has its turn.
        let mut turn = 0;
        let writer = self.find_writer();
        tokio::pin!(writer);
        let writer = loop {
            tokio::select! {
                writer = &mut writer => break writer,
                // What waits meanwhile is counted.
                () = tokio::time::sleep(interval) => self.look_around(None, turn),
            }
        };
        loop {
            if !self.archive.is_stopped() {
                self.archive.clear_tombs(&writer).await;
                turn = turn.wrapping_add(1);
                self.look_around(Some(&writer), turn);
            }
            tokio::select! {
                () = self.archive.wake.notified() => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// Finds out whether the store keeps its promises; for as long as it does not answer.
    async fn find_writer(&self) -> Writer {
        let pause_max = Duration::from_millis(self.archive.config.backoff_max_ms);
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_writer().await {
                Ok(writer) => {
                    *self.archive.writer.write() = Some(writer.clone());
                    *self.archive.stopped.lock() = None;
                    return writer;
                }
                Err(error) => {
                    self.archive.counters.errors.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "nothing is archived yet");
                    *self.archive.stopped.lock() = Some(Stop::of(&error));
                    if error.is_final() {
                        // What is archived is still read; nothing else is to do here.
                        std::future::pending::<()>().await;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
    }

    async fn try_writer(&self) -> Result<Writer, ArchiveError> {
        let archive = &self.archive;
        let writes = if archive.config.single_writer {
            tracing::warn!(
                archive = archive.store.name(),
                "archive.single_writer: the operator promises that no other server writes there"
            );
            Writes::SingleWriter
        } else {
            probe(&archive.store).await?
        };
        let identity = Identity::load_or_create(&archive.store, writes).await?;
        tracing::info!(
            archive = archive.store.name(),
            id = identity.id,
            ?writes,
            "archiving"
        );
        Ok(Writer {
            store: archive.store.clone(),
            archive_id: identity.id,
            writes,
            writer_id: archive.writer_id.clone(),
        })
    }

    /// Looks at every partition once, counts what waits, and starts work where there is some, room for
    /// it and a writer.
    fn look_around(&self, writer: Option<&Writer>, turn: usize) {
        let topics = self.topics.list();
        let mut all: Vec<(&Arc<Topic>, TopicDefaults, Arc<Partition>)> = Vec::new();
        for topic in &topics {
            let effective = effective(&self.topics, topic);
            let partitions = topic.partitions().into_iter();
            all.extend(partitions.map(|partition| (topic, effective.clone(), partition)));
        }
        let leaders = topics
            .iter()
            .map(|topic| (topic.id(), self.archive.leader(topic)));
        let leaders: HashMap<&str, Option<u32>> = leaders.collect();
        let (mut segments, mut bytes, mut oldest) = (0, 0, Duration::ZERO);
        let (behind, ahead) = all.split_at(turn % all.len().max(1));
        for (topic, effective, partition) in ahead.iter().chain(behind) {
            let Some(slot) = self.archive.slot(topic.id(), partition.key().partition) else {
                continue;
            };
            let now = self.clock.settled();
            let Ok(mut log) = partition::log_state(partition, effective, now) else {
                continue;
            };
            if effective.archive {
                let (backlog, age) = slot.backlog(&log.segments);
                segments += backlog.segments;
                bytes += backlog.bytes;
                oldest = oldest.max(age.unwrap_or_default());
            } else if slot.catalog.archive_id().is_some() {
                // What it has stays as it is, but for what its retention removes.
                log.segments
                    .retain(|segment| slot.catalog.entry(segment.base_offset).is_some());
            } else {
                continue;
            }
            let number = partition.key().partition;
            let leader = leaders.get(topic.id()).copied().flatten();
            if let Some(writer) = writer
                && leader.is_none_or(|leader| leader == number)
            {
                self.start_work(writer, topic, partition, slot, log);
            }
        }
        let counters = &self.archive.counters;
        counters.backlog_segments.store(segments, Ordering::Relaxed);
        counters.backlog_bytes.store(bytes, Ordering::Relaxed);
        let oldest = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
        counters
            .oldest_unarchived_ms
            .store(oldest, Ordering::Relaxed);
    }

    fn start_work(
        &self,
        writer: &Writer,
        topic: &Arc<Topic>,
        partition: &Arc<Partition>,
        slot: Arc<Slot>,
        log: LogState,
    ) {
        let orphans = slot.are_orphans_due();
        let Ok(work) = slot.work.clone().try_lock_owned() else {
            return;
        };
        let is_due = orphans
            || work.has_work(&log)
            || !self.archive.has_topic(topic)
            || !self
                .archive
                .is_listed(topic.id(), partition.key().partition);
        if !slot.is_due() || !is_due {
            return;
        }
        let Ok(room) = self.archive.uploads.clone().try_acquire_owned() else {
            return;
        };
        let job = Job {
            archive: self.archive.clone(),
            writer: writer.clone(),
            topic: topic.clone(),
            partition: partition.clone(),
            slot,
            log,
            orphans,
        };
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            let mut work = work;
            tokio::select! {
                () = job.run(&mut work) => {}
                () = closing.cancelled() => {}
            }
            drop(room);
        });
    }
}

/// Probes the store; what it finds ends the archiving, so it must be found more than once.
async fn probe(store: &ArchiveStore) -> Result<Writes, ArchiveError> {
    let mut probed = Writes::probe(store).await;
    for _ in 1..PROBES {
        if !matches!(probed, Err(ArchiveError::Config(_))) {
            break;
        }
        tokio::time::sleep(FIRST_PAUSE).await;
        probed = Writes::probe(store).await;
    }
    probed
}

/// What is in force for the archive: committed offsets are archived whenever anything is, and read
/// whole at each start, so they stay local too.
pub(super) fn effective(topics: &Topics, topic: &Topic) -> TopicDefaults {
    let mut effective = topics.effective(topic);
    if topic_name::is_reserved(topic.name()) {
        effective.archive = true;
        effective.local_retention_bytes = -1;
        effective.local_retention_ms = -1;
    }
    effective
}

/// Work on one partition.
struct Job {
    archive: Arc<Archive>,
    writer: Writer,
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    slot: Arc<Slot>,
    log: LogState,
    /// Whether it is time to look for orphans.
    orphans: bool,
}

impl Job {
    async fn run(mut self, work: &mut PartitionArchive) {
        let mut progress = Progress::default();
        let started = Instant::now();
        let outcome = self.try_run(work, &mut progress).await;
        self.archive.add_progress(&progress);
        let pause_max = Duration::from_millis(self.archive.config.backoff_max_ms);
        let news = self.slot.note(&outcome, pause_max);
        let key = self.partition.key();
        match outcome {
            Ok(()) if progress.uploaded_segments > 0 => {
                tracing::debug!(partition = %key, bytes = progress.uploaded_bytes,
                    took = ?started.elapsed(), "segment archived");
                // There may be more.
                self.archive.wake.notify_one();
            }
            Ok(()) => {}
            Err(error) => {
                self.archive.counters.errors.fetch_add(1, Ordering::Relaxed);
                self.archive.stop(&error);
                if news {
                    tracing::error!(partition = %key, %error, "cannot archive");
                }
            }
        }
    }

    async fn try_run(
        &mut self,
        work: &mut PartitionArchive,
        progress: &mut Progress,
    ) -> Result<(), ArchiveError> {
        let Ok(owner) = self.partition.describe().await else {
            // The partition has closed, which is told elsewhere.
            return Ok(());
        };
        self.log.fencing_token = owner.fencing_token;
        // Behind the take-over: a server that was superseded must not change the topic either.
        work.take_over(&self.writer, &self.log).await?;
        if !self.archive.has_topic(&self.topic) {
            work.confirm().await?;
            self.put_topic().await?;
            // The other partitions waited for it.
            self.archive.wake.notify_one();
        }
        if !self
            .archive
            .is_listed(self.topic.id(), self.partition.key().partition)
        {
            self.list().await?;
        }
        let config = &self.archive.config;
        let grace = Duration::from_millis(config.orphan_grace_ms);
        let grace = self.orphans.then_some(grace);
        partition::work(work, &self.writer, &self.log, grace, progress).await?;
        if self.orphans {
            let interval = Duration::from_millis(config.orphan_scan_interval_ms);
            self.slot.note_orphan_scan(interval);
        }
        Ok(())
    }

    /// Adds the partitions that this server has claimed to the topic's list, before the first segment
    /// of this one comes.
    async fn list(&self) -> Result<(), ArchiveError> {
        let (archive, topic_id) = (&self.archive, self.topic.id());
        let _listing = archive.listing.lock().await;
        let claimed: Vec<u32> = {
            let slots = archive.slots.read();
            let ours = slots.iter().filter(|(key, _)| key.0 == topic_id);
            let claimed = ours.filter(|(_, slot)| slot.catalog.manifest().is_some());
            claimed.map(|(key, _)| key.1).collect()
        };
        let Writer { store, writes, .. } = &self.writer;
        let list = PartitionList::add(store, *writes, topic_id, &claimed).await?;
        archive.lists.lock().insert(topic_id.to_owned(), list);
        Ok(())
    }

    /// The topic's metadata lies in the archive before anything of its partitions does.
    async fn put_topic(&self) -> Result<(), ArchiveError> {
        let meta = self.topic.meta();
        let content = topic_store::encode(&meta)?;
        self.writer
            .store
            .overwrite(&topic_key(&meta.id), content)
            .await?;
        self.archive.topics.lock().insert(meta.id.clone(), meta);
        Ok(())
    }
}
