//! The consumer's options, validated once.

use std::time::Duration;

use comlog_record::{Limits, Offset, Timestamp};

use comlog_proto::v1;

use crate::config::{SPAN_MAX, check_span};
use crate::{Error, Result};

/// Where to start in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The log start offset.
    Earliest,
    /// The high watermark: only what is appended from now on.
    Latest,
    /// This offset.
    Offset(Offset),
    /// The first record at or after this time; the end when there is none.
    Timestamp(Timestamp),
    /// Where the group has committed; else as [`ConsumerConfig::offset_reset`] says.
    Committed,
}

impl StartAt {
    /// As the protocol says it; `None` for [`StartAt::Committed`], which only this side knows.
    pub(crate) fn to_message(self) -> Option<v1::StartAt> {
        use v1::start_at::{At, Earliest, Latest};
        let at = match self {
            StartAt::Earliest => At::Earliest(Earliest {}),
            StartAt::Latest => At::Latest(Latest {}),
            StartAt::Offset(offset) => At::Offset(offset.0),
            StartAt::Timestamp(timestamp) => At::TimestampMs(timestamp.0),
            StartAt::Committed => return None,
        };
        Some(v1::StartAt { at: Some(at) })
    }
}

/// Where to go on when there is no committed offset, or the position is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// The log start offset.
    Earliest,
    /// The high watermark.
    #[default]
    Latest,
    /// Nowhere: [`Consumer::poll`](crate::Consumer::poll) fails with
    /// [`Error::OutOfRange`], and the partition rests until it is sought.
    Error,
}

impl OffsetReset {
    pub(crate) fn start(self) -> Option<StartAt> {
        match self {
            OffsetReset::Earliest => Some(StartAt::Earliest),
            OffsetReset::Latest => Some(StartAt::Latest),
            OffsetReset::Error => None,
        }
    }
}

/// How a [`Consumer`](crate::Consumer) reads and commits.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    pub(crate) group: Option<String>,
    pub(crate) offset_reset: OffsetReset,
    pub(crate) auto_commit: Option<Duration>,
    pub(crate) fetch_bytes_max: u32,
    pub(crate) prefetch_bytes: u32,
    pub(crate) poll_bytes_max: usize,
    pub(crate) tail_partitions_max: u32,
    pub(crate) metadata_age_max: Duration,
    pub(crate) unavailable_timeout: Duration,
    pub(crate) limits: Limits,
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            group: None,
            offset_reset: OffsetReset::default(),
            auto_commit: None,
            fetch_bytes_max: 1 << 20,
            prefetch_bytes: 4 << 20,
            poll_bytes_max: 4 << 20,
            tail_partitions_max: 1_000,
            metadata_age_max: Duration::from_secs(60),
            unavailable_timeout: Duration::from_secs(60),
            limits: Limits {
                // A message is in memory already, and what is stored is never too large.
                batch_bytes_max: i32::MAX as usize,
                ..Limits::DEFAULT
            },
        }
    }
}

impl ConsumerConfig {
    /// The defaults named at each option.
    #[must_use]
    pub fn new() -> ConsumerConfig {
        ConsumerConfig::default()
    }

    /// The group whose committed offsets are used (default none: no commits). Groups do not share
    /// out partitions: every consumer reads all that it is assigned.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> ConsumerConfig {
        self.group = Some(group.into());
        self
    }

    /// Where to go on when there is no position or it is not in the log (default latest).
    #[must_use]
    pub fn offset_reset(mut self, reset: OffsetReset) -> ConsumerConfig {
        self.offset_reset = reset;
        self
    }

    /// Commits the positions in the background, at the first poll after so long and on close
    /// (default: never). Records of the last poll are committed by the next one at the earliest.
    #[must_use]
    pub fn auto_commit(mut self, interval: Duration) -> ConsumerConfig {
        self.auto_commit = Some(interval);
        self
    }

    /// Most bytes of one message from the server, but at least one batch (default 1 MiB).
    #[must_use]
    pub fn fetch_bytes_max(mut self, bytes: u32) -> ConsumerConfig {
        self.fetch_bytes_max = bytes;
        self
    }

    /// Bytes the server may send ahead of what was polled, 64 KiB to 1 GiB (default 4 MiB): the
    /// HTTP/2 window, so a consumer that does not poll holds no more than this and one message, for
    /// each [`tail_partitions_max`](ConsumerConfig::tail_partitions_max) partitions that it follows.
    #[must_use]
    pub fn prefetch_bytes(mut self, bytes: u32) -> ConsumerConfig {
        self.prefetch_bytes = bytes;
        self
    }

    /// A poll returns what is there, up to about so many bytes, unpacked (default 4 MiB).
    #[must_use]
    pub fn poll_bytes_max(mut self, bytes: usize) -> ConsumerConfig {
        self.poll_bytes_max = bytes;
        self
    }

    /// Most partitions that one tail follows (default 1,000, as many as a server allows unless its
    /// `fetch.tail_partitions_max` says otherwise). More are read by more tails, each on a
    /// connection of its own.
    #[must_use]
    pub fn tail_partitions_max(mut self, partitions: u32) -> ConsumerConfig {
        self.tail_partitions_max = partitions;
        self
    }

    /// How often subscribed topics are looked at for added partitions (default 1 min).
    #[must_use]
    pub fn metadata_age_max(mut self, age: Duration) -> ConsumerConfig {
        self.metadata_age_max = age;
        self
    }

    /// How long the server may be unreachable before a poll says so (default 1 min). Polling
    /// again then tries on.
    #[must_use]
    pub fn unavailable_timeout(mut self, timeout: Duration) -> ConsumerConfig {
        self.unavailable_timeout = timeout;
        self
    }

    /// Bounds on decoded batches (default: of any size, with records of at most 64 MiB). A batch
    /// that unpacks to a lot is handed out in pieces; a record beyond its bound is
    /// [`Error::RecordTooLarge`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> ConsumerConfig {
        self.limits = limits;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first that is wrong.
    pub fn validate(&self) -> Result<()> {
        let wrong = |message: &str| Err(Error::config(message));
        let group_len = self.group.as_ref().map_or(1, String::len);
        if group_len == 0 || group_len > 249 {
            return wrong("group must have 1 to 249 characters");
        }
        if self.auto_commit.is_some() && self.group.is_none() {
            return wrong("auto_commit needs a group");
        }
        if !(1 << 16..=1 << 30).contains(&self.prefetch_bytes) {
            return wrong("prefetch_bytes must be 64 KiB to 1 GiB");
        }
        if self.tail_partitions_max == 0 {
            return wrong("tail_partitions_max must be at least 1");
        }
        check_span("metadata_age_max", self.metadata_age_max)?;
        check_span("auto_commit", self.auto_commit.unwrap_or(SPAN_MAX))?;
        if self.unavailable_timeout > SPAN_MAX {
            return wrong("unavailable_timeout must be at most 10,000 days");
        }
        Ok(())
    }
}
