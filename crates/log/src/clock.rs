//! The clock that is passed in.

use std::sync::atomic::{AtomicI64, Ordering};

use comlog_record::Timestamp;

/// Tells the time. The core never reads a real clock.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// Now, in Unix milliseconds. May go backwards, as real clocks do.
    fn now(&self) -> Timestamp;
}

/// A clock that stands still until it is set; for tests, simulation and replay.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock(AtomicI64::new(now.0))
    }

    /// Sets the time.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}
