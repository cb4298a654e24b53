//! What the broker counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the broker counts, for whoever shows it. All of it only rises, but the gauges named so.
#[derive(Debug, Default)]
pub struct Counters {
    /// Batches appended (duplicates not counted).
    pub appended_batches: AtomicU64,
    /// Records appended.
    pub appended_records: AtomicU64,
    /// Bytes of batches appended.
    pub appended_bytes: AtomicU64,
    /// Batches refused.
    pub refused_batches: AtomicU64,
    /// Groups handed to logs: appends that shared one write.
    pub groups: AtomicU64,
    /// Bytes handed out to readers and tails.
    pub fetched_bytes: AtomicU64,
    /// Gauge: batches that wait for their partition, or are being written or synced.
    pub appending_batches: AtomicU64,
    /// Gauge: tails that run.
    pub tails: AtomicU64,
}

impl Counters {
    pub(crate) fn subtract(gauge: &AtomicU64, amount: u64) {
        gauge.fetch_sub(amount, Ordering::Relaxed);
    }

    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}
