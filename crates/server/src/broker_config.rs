//! The bounds and habits of the broker, one struct per component.

use serde::{Deserialize, Serialize};

use crate::archive::ArchiveConfig;
use crate::topic_config::TopicDefaults;

/// Everything the broker itself is configured by; every queue and buffer has its bound here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// What topics there may be.
    pub topics: TopicsConfig,
    /// What topics follow unless they say otherwise.
    pub topic_defaults: TopicDefaults,
    /// Appends.
    pub append: AppendConfig,
    /// Reads and tails.
    pub fetch: FetchConfig,
    /// Committed offsets of consumer groups.
    pub groups: GroupsConfig,
    /// The second home of the records.
    pub archive: ArchiveConfig,
}

/// What topics there may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsConfig {
    /// Whether the first append makes a topic (default true).
    pub auto_create: bool,
    /// Partitions of a topic made without a number (default 1).
    pub default_partitions: u32,
    /// Most topics (default 10,000).
    pub topics_max: u32,
    /// Most partitions of all topics (default 20,000).
    pub partitions_max: u32,
    /// The topic of the original API (default `comlog`); made at start.
    pub legacy_topic: String,
    /// Logs opened at once at start (default 32).
    pub open_parallel: u32,
}

impl Default for TopicsConfig {
    fn default() -> TopicsConfig {
        TopicsConfig {
            auto_create: true,
            default_partitions: 1,
            topics_max: 10_000,
            partitions_max: 20_000,
            legacy_topic: "comlog".to_owned(),
            open_parallel: 32,
        }
    }
}

/// Appends: what may be under way, and when what is in memory is synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppendConfig {
    /// Most bytes of one request (default 16 MiB).
    pub request_bytes_max: u32,
    /// Largest record (default 1 MiB): key, value and headers. Of an encoded batch it is known where
    /// that is not compressed, or the topic validates in full; numbers may then take 4 KiB more.
    pub record_bytes_max: u32,
    /// A message must have come whole this long after its first byte, and a call that is no stream
    /// this long after it began (default 30,000 ms).
    pub request_timeout_ms: u64,
    /// Most bytes of requests in the whole server, from their arrival until their appends are
    /// answered (default 512 MiB). Over it calls are refused, and streams
    /// of appends wait. A connection holds no more than is left free.
    pub inflight_bytes_max: u32,
    /// Most bytes of requests of one connection (default 64 MiB).
    pub inflight_bytes_per_connection_max: u32,
    /// Most bytes that decoding adds to requests under way (default 64 MiB): a record of a structured
    /// append takes some 250 beside its own. One connection may have a quarter of
    /// `inflight_bytes_per_connection_max`.
    pub decoded_bytes_max: u32,
    /// Most batches of one append stream that are not answered yet (default 1,024).
    pub stream_inflight_max: u32,
    /// Most commands that wait for one partition (default 4,096).
    pub partition_queue_max: u32,
    /// On topics of durability `memory`: synced this long after a write (default 1,000 ms).
    pub sync_interval_ms: u64,
    /// How often a partition looks for segments to roll by age or delete (default 10,000 ms).
    pub maintain_interval_ms: u64,
}

impl Default for AppendConfig {
    fn default() -> AppendConfig {
        AppendConfig {
            request_bytes_max: 16 << 20,
            record_bytes_max: 1 << 20,
            request_timeout_ms: 30_000,
            inflight_bytes_max: 512 << 20,
            inflight_bytes_per_connection_max: 64 << 20,
            decoded_bytes_max: 64 << 20,
            stream_inflight_max: 1_024,
            partition_queue_max: 4_096,
            sync_interval_ms: 1_000,
            maintain_interval_ms: 10_000,
        }
    }
}

/// Reads and tails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchConfig {
    /// Most bytes of one answer (default 8 MiB), but at least one batch as it is stored; records
    /// that the server decodes are held to it.
    pub fetch_bytes_max: u32,
    /// Most answers in the form of records that are decoded at once, small ones apart (default 16):
    /// others wait. What one of them takes follows the bytes of its answer, and 64 MiB at most of
    /// what its codec must remember.
    pub decodes_max: u32,
    /// Most bytes of answers to reads and tails in the whole server, from when they are read until
    /// they went to the socket (default 512 MiB). A connection holds no
    /// more than is left free; with less room an answer is smaller, but at least one batch.
    pub inflight_bytes_max: u32,
    /// Most bytes of answers of one connection (default 64 MiB).
    pub inflight_bytes_per_connection_max: u32,
    /// How long a read waits for room for its answer before it is refused (default 1,000 ms); tails
    /// wait for as long as it takes.
    pub inflight_wait_ms: u32,
    /// The longest a read waits (default 60,000 ms).
    pub wait_ms_max: u32,
    /// Most tails at once (default 1,024).
    pub tails_max: u32,
    /// Most partitions of one tail (default 1,000).
    pub tail_partitions_max: u32,
    /// Messages of one tail that wait for its reader (default 2).
    pub tail_messages_max: u32,
    /// Most bytes of one message of a tail, but at least one batch, or record (default 1 MiB).
    pub tail_bytes_max: u32,
    /// A tail that has nothing to say says so this often (default 15,000 ms).
    pub tail_idle_ms: u64,
}

impl Default for FetchConfig {
    fn default() -> FetchConfig {
        FetchConfig {
            fetch_bytes_max: 8 << 20,
            decodes_max: 16,
            inflight_bytes_max: 512 << 20,
            inflight_bytes_per_connection_max: 64 << 20,
            inflight_wait_ms: 1_000,
            wait_ms_max: 60_000,
            tails_max: 1_024,
            tail_partitions_max: 1_000,
            tail_messages_max: 2,
            tail_bytes_max: 1 << 20,
            tail_idle_ms: 15_000,
        }
    }
}

/// Committed offsets of consumer groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupsConfig {
    /// Most groups (default 10,000).
    pub groups_max: u32,
    /// Most committed offsets of all groups (default 100,000).
    pub offsets_max: u32,
    /// Most bytes of a commit's metadata (default 4 KiB).
    pub metadata_bytes_max: u32,
    /// Commits that wait for the log (default 1,024).
    pub queue_max: u32,
    /// The log of commits is rewritten when it holds this many records beyond twice the live ones (default 10,000).
    pub rewrite_records: u32,
}

impl Default for GroupsConfig {
    fn default() -> GroupsConfig {
        GroupsConfig {
            groups_max: 10_000,
            offsets_max: 100_000,
            metadata_bytes_max: 4 << 10,
            queue_max: 1_024,
            rewrite_records: 10_000,
        }
    }
}

impl BrokerConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn validate(&self) -> Result<(), String> {
        self.topic_defaults
            .validate()
            .map_err(|message| format!("topic_defaults.{message}"))?;
        self.archive.validate()?;
        let append = &self.append;
        if self.topic_defaults.max_batch_bytes > append.request_bytes_max {
            return Err(format!(
                "topic_defaults.max_batch_bytes: {} is above append.request_bytes_max, {}",
                self.topic_defaults.max_batch_bytes, append.request_bytes_max
            ));
        }
        crate::topic_name::check_writable(&self.topics.legacy_topic)
            .map_err(|error| format!("topics.legacy_topic: {error}"))?;
        let at_least_one = [
            ("topics.default_partitions", self.topics.default_partitions),
            ("topics.topics_max", self.topics.topics_max),
            ("topics.partitions_max", self.topics.partitions_max),
            ("topics.open_parallel", self.topics.open_parallel),
            ("append.request_bytes_max", append.request_bytes_max),
            ("append.record_bytes_max", append.record_bytes_max),
            ("append.inflight_bytes_max", append.inflight_bytes_max),
            (
                "append.inflight_bytes_per_connection_max",
                append.inflight_bytes_per_connection_max,
            ),
            ("append.decoded_bytes_max", append.decoded_bytes_max),
            ("fetch.inflight_bytes_max", self.fetch.inflight_bytes_max),
            (
                "fetch.inflight_bytes_per_connection_max",
                self.fetch.inflight_bytes_per_connection_max,
            ),
            ("append.stream_inflight_max", append.stream_inflight_max),
            ("append.partition_queue_max", append.partition_queue_max),
            ("fetch.fetch_bytes_max", self.fetch.fetch_bytes_max),
            ("fetch.tail_bytes_max", self.fetch.tail_bytes_max),
            ("fetch.decodes_max", self.fetch.decodes_max),
            ("fetch.tail_messages_max", self.fetch.tail_messages_max),
            ("groups.queue_max", self.groups.queue_max),
        ];
        for (field, value) in at_least_one {
            if value == 0 {
                return Err(format!("{field}: must be at least 1"));
            }
        }
        let intervals = [
            ("append.request_timeout_ms", append.request_timeout_ms),
            ("append.sync_interval_ms", append.sync_interval_ms),
            ("append.maintain_interval_ms", append.maintain_interval_ms),
            ("fetch.tail_idle_ms", self.fetch.tail_idle_ms),
        ];
        match intervals.iter().find(|(_, value)| *value == 0) {
            Some((field, _)) => Err(format!("{field}: must be at least 1")),
            None => Ok(()),
        }
    }
}
