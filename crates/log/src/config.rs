//! How one log behaves.

use std::time::Duration;

use comlog_record::{Limits, TimestampType};

use crate::Owner;

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Durability {
    /// Acknowledged and visible when written; a power cut may take back what was not synced yet.
    Memory,
    /// Acknowledged and visible once a sync has covered it.
    #[default]
    Durable,
}

/// How much of a batch from a client is checked before it is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Validation {
    /// Header and CRC; no record is decoded.
    #[default]
    Header,
    /// Every record, decompressed if need be.
    Full,
}

/// How one log behaves; may be changed while it is open ([`crate::Log::set_config`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The partition whose log this is, noted in each of its small files, so that those of another
    /// log are not used (default [`Owner::SERVER`]: of no topic). That of the opening holds.
    pub owner: Owner,
    /// The active segment is rolled before it would exceed this many bytes (default 128 MiB).
    pub segment_bytes_max: u64,
    /// The active segment is rolled when its first record was appended this long ago (default none).
    pub segment_age_max: Option<Duration>,
    /// A sparse index entry each so many bytes (default 4 KiB).
    pub index_interval_bytes: u32,
    /// How far before the end of a segment [`crate::LogReader::look_ahead`] offers to make the next
    /// one ready (default 16 MiB); 0 never.
    pub look_ahead_bytes: u64,
    /// Most bytes of one group: one write and one sync; at least `limits.batch_bytes_max` (default 16 MiB).
    pub group_bytes_max: usize,
    /// The floor that a request may raise (default durable).
    pub durability: Durability,
    /// Whose clock stamps the records (default the producer's).
    pub timestamp_type: TimestampType,
    /// What is checked (default header and CRC).
    pub validation: Validation,
    /// Bounds of a batch.
    pub limits: Limits,
    /// The checkpoint (recovery point, index so far, producer state) is renewed each so many appended bytes (default 32 MiB).
    pub checkpoint_bytes: u64,
    /// A producer not heard of for this long is forgotten (default 1 day).
    pub producer_expiry: Duration,
    /// Most producers remembered; the least recent is forgotten first (default 100,000).
    pub producers_max: usize,
    /// Delete the oldest sealed segments while the log is larger than this (default never).
    pub retention_bytes: Option<u64>,
    /// Delete sealed segments whose newest record is older than this (default never).
    pub retention_age: Option<Duration>,
}

/// Groups up to this size need no bound to be raised.
const GROUP_BOUND_MIN: u64 = 64 << 10;

impl LogConfig {
    /// Most bytes of one group: at least one batch must fit.
    pub(crate) fn group_bytes_limit(&self) -> usize {
        self.group_bytes_max.max(self.limits.batch_bytes_max)
    }

    /// The bound for groups that hold `bytes` at most: a power of two.
    pub(crate) fn group_bound(&self, bytes: u64) -> u64 {
        let limit = self.group_bytes_limit() as u64;
        bytes.max(GROUP_BOUND_MIN).min(limit).next_power_of_two()
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            owner: Owner::SERVER,
            segment_bytes_max: 128 << 20,
            segment_age_max: None,
            index_interval_bytes: 4 << 10,
            look_ahead_bytes: 16 << 20,
            group_bytes_max: 16 << 20,
            durability: Durability::Durable,
            timestamp_type: TimestampType::CreateTime,
            validation: Validation::Header,
            limits: Limits::DEFAULT,
            checkpoint_bytes: 32 << 20,
            producer_expiry: Duration::from_secs(24 * 60 * 60),
            producers_max: 100_000,
            retention_bytes: None,
            retention_age: None,
        }
    }
}
