//! The producer's options, validated once.

use std::time::Duration;

use comlog_proto::v1::Durability;
use comlog_record::Compression;

use crate::accumulator::Bounds;
use crate::config::{SPAN_MAX, check_span};
use crate::{Error, Result};

/// The server remembers this many batches per producer: no more can be told from duplicates.
pub(crate) const IN_FLIGHT_MAX: usize = 16;

/// How a [`Producer`](crate::Producer) batches, sends and retries.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    pub(crate) batch_bytes: usize,
    pub(crate) batch_records_max: u32,
    pub(crate) linger: Duration,
    pub(crate) buffer_bytes_max: usize,
    pub(crate) record_bytes_max: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) idempotence: bool,
    pub(crate) compression: Compression,
    pub(crate) durability: Durability,
    pub(crate) metadata_age_max: Duration,
    pub(crate) retry_failed_partitions: bool,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            batch_bytes: 1 << 20,
            batch_records_max: 100_000,
            linger: Duration::ZERO,
            buffer_bytes_max: 64 << 20,
            record_bytes_max: 1 << 20,
            in_flight_max: IN_FLIGHT_MAX,
            delivery_timeout: Duration::from_secs(120),
            idempotence: true,
            compression: Compression::None,
            durability: Durability::Unspecified,
            metadata_age_max: Duration::from_secs(300),
            retry_failed_partitions: false,
        }
    }
}

impl ProducerConfig {
    /// The defaults named at each option.
    #[must_use]
    pub fn new() -> ProducerConfig {
        ProducerConfig::default()
    }

    /// Bytes at which a batch is full, uncompressed (default 1 MiB), or the topic's limit when that
    /// is smaller. A larger record goes alone. A batch that the server finds too large all the same
    /// is split and sent again.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> ProducerConfig {
        self.batch_bytes = bytes;
        self
    }

    /// Records at which a batch is full (default 100,000).
    #[must_use]
    pub fn batch_records_max(mut self, records: u32) -> ProducerConfig {
        self.batch_records_max = records;
        self
    }

    /// How long a batch that is not full waits for more records (default 0). With 0 a batch goes
    /// out at once when nothing of its partition is under way, and else gathers until it is full
    /// or what is under way is acknowledged: low latency when idle, large batches under load.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> ProducerConfig {
        self.linger = linger;
        self
    }

    /// Bound of all records that are not acknowledged, in bytes (default 64 MiB).
    #[must_use]
    pub fn buffer_bytes_max(mut self, bytes: usize) -> ProducerConfig {
        self.buffer_bytes_max = bytes;
        self
    }

    /// Bound of one record, in bytes (default 1 MiB).
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> ProducerConfig {
        self.record_bytes_max = bytes;
        self
    }

    /// Most batches of a partition under way at once (default 16, which is also the most when
    /// idempotent). Beyond 5 only full ones, and no more than 4 MiB together, so that many small
    /// requests still become few batches and large ones do not pile up. Their order is kept
    /// whatever the number, also over failures.
    #[must_use]
    pub fn in_flight_max(mut self, batches: usize) -> ProducerConfig {
        self.in_flight_max = batches;
        self
    }

    /// How long a record may take from `send` to its acknowledgement, retries included (default
    /// 2 min); then it fails with [`Error::DeliveryTimeout`].
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> ProducerConfig {
        self.delivery_timeout = timeout;
        self
    }

    /// Whether the server recognises retries, so that none doubles a record (default true).
    #[must_use]
    pub fn idempotence(mut self, idempotence: bool) -> ProducerConfig {
        self.idempotence = idempotence;
        self
    }

    /// How batches are compressed (default none).
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> ProducerConfig {
        self.compression = compression;
        self
    }

    /// What an acknowledgement promises; the topic's durability is a floor (default: the topic's).
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> ProducerConfig {
        self.durability = durability;
        self
    }

    /// How old what is known of a topic's partitions may become (default 5 min).
    #[must_use]
    pub fn metadata_age_max(mut self, age: Duration) -> ProducerConfig {
        self.metadata_age_max = age;
        self
    }

    /// Whether records for a partition that has failed (`PARTITION_FAILED`: its disk did) are tried
    /// until their delivery timeout, since a restart of the server may mend it, instead of failing
    /// at once (default false). Has no effect without [`idempotence`](ProducerConfig::idempotence),
    /// which recognises what was in the log after all.
    #[must_use]
    pub fn retry_failed_partitions(mut self, retry: bool) -> ProducerConfig {
        self.retry_failed_partitions = retry;
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first that is wrong.
    pub fn validate(&self) -> Result<()> {
        let wrong = |message: &str| Err(Error::config(message));
        if self.batch_bytes < 1_024 || self.batch_bytes > 1 << 30 {
            return wrong("batch_bytes must be 1 KiB to 1 GiB");
        }
        if self.batch_records_max == 0 || self.batch_records_max > 1_000_000 {
            return wrong("batch_records_max must be 1 to 1,000,000");
        }
        if self.record_bytes_max == 0 || self.record_bytes_max > 1 << 30 {
            return wrong("record_bytes_max must be 1 to 1 GiB");
        }
        let least = self.batch_bytes.max(self.record_bytes_max) + 1_024;
        if self.buffer_bytes_max < least {
            return wrong("buffer_bytes_max must exceed batch_bytes and record_bytes_max by 1 KiB");
        }
        if self.in_flight_max == 0 || (self.idempotence && self.in_flight_max > IN_FLIGHT_MAX) {
            return wrong("in_flight_max must be at least 1, and at most 16 when idempotent");
        }
        if self.linger >= self.delivery_timeout {
            return wrong("delivery_timeout must be above 0 and above linger");
        }
        if self.metadata_age_max > SPAN_MAX {
            return wrong("metadata_age_max must be at most 10,000 days");
        }
        check_span("delivery_timeout", self.delivery_timeout)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            batch_bytes: self.batch_bytes,
            batch_records_max: self.batch_records_max,
            linger: self.linger,
            buffer_bytes_max: self.buffer_bytes_max,
            record_bytes_max: self.record_bytes_max,
        }
    }
}
