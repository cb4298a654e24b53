//! How a log stands: what its archive is brought up to.

use std::time::Duration;

use comlog_log::{LogConfig, SegmentInfo};
use comlog_record::{LeaderEpoch, Offset, Timestamp};

/// How much of what is archived stays local.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalRetention {
    /// At least this many of the newest bytes; older segments may go. `None` keeps all.
    pub bytes: Option<u64>,
    /// Segments whose newest record is older may go. `None` keeps all.
    pub age: Option<Duration>,
}

/// How the log stands when the archive is brought up to it.
#[derive(Debug, Clone)]
pub struct LogState {
    /// Ascending; those in the archive only included.
    pub segments: Vec<SegmentInfo>,
    /// Log start offset.
    pub start: Offset,
    /// Log end offset.
    pub end: Offset,
    /// The current one.
    pub leader_epoch: LeaderEpoch,
    /// 0 before the first.
    pub fencing_token: u64,
    /// What the log is configured by.
    pub config: LogConfig,
    /// What stays local.
    pub local: LocalRetention,
    /// The server's clock.
    pub now: Timestamp,
}
