//! The clock of servers that run for real.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use comlog_log::{Clock, SettledTime};
use comlog_record::Timestamp;
use parking_lot::Mutex;

/// The system's clock; follows it when it is set back, and waits when it jumps ahead.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    settled: Mutex<SettledTime>,
}

impl SystemClock {
    /// A clock whose jumps ahead are believed after `jump_wait`: see [`SettledTime`].
    #[must_use]
    pub fn new(jump_wait: Duration) -> SystemClock {
        let clock = SystemClock {
            started: Instant::now(),
            settled: Mutex::new(SettledTime::new(jump_wait)),
        };
        if since_1970().is_none() {
            tracing::warn!(
                "the clock shows a time before 1970: only HTTP/2 is served until it is set"
            );
        }
        // The first look is believed, so it comes now and not after a jump.
        clock.settled();
        clock
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = since_1970().unwrap_or_default().as_millis();
        Timestamp(i64::try_from(since).unwrap_or(i64::MAX))
    }

    fn settled(&self) -> Timestamp {
        // Looks come in order, so both clocks are read under the lock.
        let mut settled = self.settled.lock();
        settled.look(self.now(), self.started.elapsed())
    }
}

/// What the system's clock shows; `None` before 1970, when there is no time to tell.
pub(crate) fn since_1970() -> Option<Duration> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok()
}
