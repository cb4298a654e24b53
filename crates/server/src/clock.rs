//! The clock of servers that run for real.

use std::time::{SystemTime, UNIX_EPOCH};

use comlog_log::Clock;
use comlog_record::Timestamp;

/// The system's clock; follows it when it is set back.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // Before 1970 there is no time to tell.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default().as_millis();
        Timestamp(i64::try_from(since).unwrap_or(i64::MAX))
    }
}
