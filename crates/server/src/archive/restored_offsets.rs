//! Committed offsets of a log that was restored: the archive may know more commits than records.
//!
//! Partitions are archived independently of one another, so what a group committed last can lie
//! behind the end of what was archived. The records that are appended next get those offsets, and the
//! group would pass them over; so such a commit is set back to the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use comlog_log::{AppendRequest, Clock, Log, LogConfig};
use comlog_record::Offset;
use comlog_storage::Storage;

use crate::clock::SystemClock;
use crate::group_state;
use crate::group_state::{Change, OffsetKey, OffsetValue, State};
use crate::status::ServiceError;
use crate::topic_config::TopicDefaults;
use crate::topic_store::TopicMeta;

/// Commits rewritten in one batch: far below what a batch may hold.
const CHANGES_PER_BATCH: usize = 256;

/// Where the restored partitions end, by topic id and partition.
pub(super) type Ends = BTreeMap<(String, u32), Offset>;

/// A commit that was set back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClampedOffset {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// Counted from 0.
    pub partition: u32,
    /// What the group had committed.
    pub committed: Offset,
    /// Where the restored partition ends, which is committed now.
    pub end: Offset,
}

/// Sets commits behind the end of their partition back to it; durable on return. `storage` holds the
/// log of commits, with all of its segments; commits for topics without an end stay as they are.
///
/// # Errors
/// The log cannot be opened, read or written, or is not one of commits.
pub(super) async fn clamp(
    storage: Arc<dyn Storage>,
    meta: &TopicMeta,
    ends: &Ends,
) -> Result<Vec<ClampedOffset>, ServiceError> {
    let config = meta.config.over(&TopicDefaults::default());
    let limits = config.limits();
    let clock = Arc::new(SystemClock::new(Duration::ZERO));
    let config = LogConfig {
        owner: meta.owner(0),
        ..config.to_log_config()
    };
    let opened = Log::open(storage, config, clock.clone()).await;
    let (mut log, _) = opened?;
    let state = group_state::replay(&log.reader()).await?;
    let (clamped, changes) = beyond(&state, ends);
    for changes in changes.chunks(CHANGES_PER_BATCH) {
        let batch = group_state::encode(changes, limits, clock.now())?;
        let answers = log.append(vec![AppendRequest::new(batch)]).await;
        for answer in answers {
            answer?;
        }
    }
    log.close().await?;
    Ok(clamped)
}

/// The commits behind the end of their partition, and what puts them right.
fn beyond(state: &State, ends: &Ends) -> (Vec<ClampedOffset>, Vec<Change>) {
    let commits = state.groups.values().flatten();
    let beyond = commits.filter_map(|(key, value)| {
        let end = *ends.get(&(key.topic_id.clone(), key.partition))?;
        (value.offset > end.0).then(|| set_back(key, value, end))
    });
    beyond.unzip()
}

fn set_back(key: &OffsetKey, value: &OffsetValue, end: Offset) -> (ClampedOffset, Change) {
    let clamped = ClampedOffset {
        group: key.group.clone(),
        topic: key.topic.clone(),
        partition: key.partition,
        committed: Offset(value.offset),
        end,
    };
    let value = OffsetValue {
        offset: end.0,
        ..value.clone()
    };
    (clamped, (key.clone(), Some(value)))
}
