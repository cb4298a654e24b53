//! Which queue a record goes to: what is known of topics and their partitions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comlog_proto::v1::Reason;

use crate::accumulator::Accumulator;
use crate::answer::PARTITIONS_MAX;
use crate::partitioner::partition_for_key;
use crate::{Client, Error, ProducerRecord, Result};

/// When to ask again for a topic that did not exist.
const MISSING_AGE_MAX: Duration = Duration::from_secs(1);
/// No queue was made for this partition yet.
const NO_QUEUE: usize = usize::MAX;

/// A partition that records were sent to; its index is that of its queue.
#[derive(Debug)]
pub(crate) struct KnownPartition {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) fencing_token: Option<u64>,
    /// Where the next record must land.
    pub(crate) expected_offset: Option<i64>,
    /// The largest batch that its topic takes, as far as is known.
    pub(crate) batch_bytes_max: usize,
}

/// What a topic says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) partitions: u32,
    pub(crate) batch_bytes_max: usize,
}

/// A topic that does not exist may be made by the first record, with one partition.
const MISSING: Described = Described {
    partitions: 1,
    batch_bytes_max: usize::MAX,
};

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Routes {
    age_max: Duration,
    topics: HashMap<Arc<str>, Topic>,
    pub(crate) partitions: Vec<KnownPartition>,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    /// 0 while not known.
    partitions: u32,
    /// The largest batch that it takes, as far as is known.
    batch_bytes_max: usize,
    refresh_at: Instant,
    /// By partition.
    queues: Vec<usize>,
    /// Where records without a key go until their batch is full.
    sticky: u32,
}

impl Routes {
    pub(crate) fn new(age_max: Duration) -> Routes {
        Routes {
            age_max,
            topics: HashMap::new(),
            partitions: Vec::new(),
        }
    }

    /// The queue of a record, and whether it is time to ask for the topic's partitions again.
    ///
    /// # Errors
    /// [`Error::TopicNotPrepared`]; [`Error::Config`] for a partition that no topic has.
    pub(crate) fn route(
        &mut self,
        record: &ProducerRecord<'_>,
        now: impl FnOnce() -> Instant,
        accumulator: &mut Accumulator,
    ) -> Result<(usize, bool)> {
        if let Some(partition) = record.partition {
            let queue = self.queue(record.topic, partition, accumulator)?;
            return Ok((queue, false));
        }
        let not_prepared = || Error::TopicNotPrepared(Arc::from(record.topic));
        let topic = self.topics.get_mut(record.topic).ok_or_else(not_prepared)?;
        if topic.partitions == 0 {
            return Err(not_prepared());
        }
        let partition = match record.key {
            Some(key) => partition_for_key(key, topic.partitions),
            None => topic.stick(accumulator),
        };
        let queue = topic.queue(partition, &mut self.partitions, accumulator);
        // Once in a batch is often enough to look at the clock.
        let stale = accumulator.begins_batch(queue) && topic.is_stale(now(), self.age_max);
        Ok((queue, stale))
    }

    /// The queue of a partition, made if need be.
    ///
    /// # Errors
    /// [`Error::Config`] for a partition that no topic has.
    pub(crate) fn queue(
        &mut self,
        topic: &str,
        partition: u32,
        accumulator: &mut Accumulator,
    ) -> Result<usize> {
        if partition >= PARTITIONS_MAX {
            let message = format!("no topic has a partition {partition}");
            return Err(Error::config(message));
        }
        self.insert(topic);
        let not_prepared = || Error::TopicNotPrepared(Arc::from(topic));
        let topic = self.topics.get_mut(topic).ok_or_else(not_prepared)?;
        Ok(topic.queue(partition, &mut self.partitions, accumulator))
    }

    /// Notes what a topic says of itself; `None` when it does not exist.
    pub(crate) fn learn(
        &mut self,
        topic: &str,
        described: Option<Described>,
        now: Instant,
        accumulator: &mut Accumulator,
    ) {
        let age = if described.is_some() {
            self.age_max
        } else {
            MISSING_AGE_MAX
        };
        let described = described.unwrap_or(MISSING);
        self.insert(topic);
        let Some(topic) = self.topics.get_mut(topic) else {
            return;
        };
        topic.partitions = described.partitions;
        topic.batch_bytes_max = described.batch_bytes_max;
        topic.refresh_at = now + age;
        for &queue in topic.queues.iter().filter(|&&queue| queue != NO_QUEUE) {
            accumulator.limit_batches(queue, described.batch_bytes_max);
            self.partitions[queue].batch_bytes_max = described.batch_bytes_max;
        }
    }

    fn insert(&mut self, topic: &str) {
        if self.topics.contains_key(topic) {
            return;
        }
        let name: Arc<str> = Arc::from(topic);
        let topic = Topic {
            name: name.clone(),
            partitions: 0,
            batch_bytes_max: usize::MAX,
            refresh_at: Instant::now(),
            queues: Vec::new(),
            sticky: 0,
        };
        self.topics.insert(name, topic);
    }
}

impl Topic {
    /// Whether to ask again; if so, the next time is put off.
    fn is_stale(&mut self, now: Instant, age_max: Duration) -> bool {
        let stale = now >= self.refresh_at;
        if stale {
            self.refresh_at = now + age_max.max(MISSING_AGE_MAX);
        }
        stale
    }

    /// The partition for a record without a key: the same until its batch is full or sent.
    fn stick(&mut self, accumulator: &Accumulator) -> u32 {
        if self.partitions == 1 {
            return 0;
        }
        let queue = self.queues.get(self.sticky as usize).copied();
        let gathering =
            queue.is_some_and(|queue| queue != NO_QUEUE && !accumulator.begins_batch(queue));
        if !gathering || self.sticky >= self.partitions {
            self.sticky = rand::random_range(0..self.partitions);
        }
        self.sticky
    }

    fn queue(
        &mut self,
        partition: u32,
        partitions: &mut Vec<KnownPartition>,
        accumulator: &mut Accumulator,
    ) -> usize {
        let index = partition as usize;
        if index >= self.queues.len() {
            self.queues.resize(index + 1, NO_QUEUE);
        }
        if self.queues[index] == NO_QUEUE {
            self.queues[index] = accumulator.add_queue();
            accumulator.limit_batches(self.queues[index], self.batch_bytes_max);
            partitions.push(KnownPartition {
                topic: self.name.clone(),
                partition,
                fencing_token: None,
                expected_offset: None,
                batch_bytes_max: self.batch_bytes_max,
            });
        }
        self.queues[index]
    }
}

/// Asks what a topic says of itself; `None` when it does not exist.
pub(crate) async fn describe(client: &Client, topic: &str) -> Result<Option<Described>> {
    match client.describe_topic(topic).await {
        Ok(described) => {
            let limit = described
                .effective
                .and_then(|in_force| in_force.max_batch_bytes);
            Ok(Some(Described {
                partitions: described.topic.unwrap_or_default().partitions,
                batch_bytes_max: limit.map_or(usize::MAX, |bytes| bytes as usize),
            }))
        }
        Err(error) if error.reason() == Reason::TopicNotFound => Ok(None),
        Err(error) => Err(error),
    }
}
