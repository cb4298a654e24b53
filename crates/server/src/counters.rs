//! What the broker counts.

use std::sync::atomic::{AtomicU64, Ordering};

use comlog_proto::v1::Reason;
use prometheus_client::metrics::histogram::Histogram;

/// Reasons are numbers below this.
const REASONS_MAX: usize = 32;
/// From one batch alone to a full group.
const GROUP_BATCHES: [f64; 7] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];
/// In seconds, from a fast disk's sync to a stalled one's.
const COMMIT_SECONDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0,
];

/// What the broker counts, for whoever shows it. All of it only rises, but the gauges named so.
#[derive(Debug)]
pub struct Counters {
    /// Batches appended (duplicates not counted).
    pub appended_batches: AtomicU64,
    /// Records appended.
    pub appended_records: AtomicU64,
    /// Bytes of batches appended.
    pub appended_bytes: AtomicU64,
    /// Batches refused, by [`Reason`].
    refused_batches: [AtomicU64; REASONS_MAX],
    /// Groups handed to logs: appends that shared one write.
    pub groups: AtomicU64,
    /// Batches of each group.
    pub group_batches: Histogram,
    /// How long each group took to be written and, where promised, synced, in seconds.
    pub commit_seconds: Histogram,
    /// Bytes handed out to readers and tails.
    pub fetched_bytes: AtomicU64,
    /// Gauge: batches that wait for their partition, or are being written or synced.
    pub appending_batches: AtomicU64,
    /// Gauge: tails that run.
    pub tails: AtomicU64,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            appended_batches: AtomicU64::default(),
            appended_records: AtomicU64::default(),
            appended_bytes: AtomicU64::default(),
            refused_batches: Default::default(),
            groups: AtomicU64::default(),
            group_batches: Histogram::new(GROUP_BATCHES),
            commit_seconds: Histogram::new(COMMIT_SECONDS),
            fetched_bytes: AtomicU64::default(),
            appending_batches: AtomicU64::default(),
            tails: AtomicU64::default(),
        }
    }
}

impl Counters {
    pub(crate) fn refuse(&self, reason: Reason) {
        let index = usize::try_from(reason as i32).unwrap_or(0);
        if let Some(counter) = self.refused_batches.get(index) {
            Counters::add(counter, 1);
        }
    }

    /// How many batches were refused for each reason that occurred.
    pub fn refused_batches(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let counts = self.refused_batches.iter().zip(0..);
        counts.filter_map(|(count, index)| {
            let reason = Reason::try_from(index).ok()?;
            let count = count.load(Ordering::Relaxed);
            (count > 0).then_some((reason, count))
        })
    }

    pub(crate) fn subtract(gauge: &AtomicU64, amount: u64) {
        gauge.fetch_sub(amount, Ordering::Relaxed);
    }

    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}
