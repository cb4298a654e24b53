//! Committed offsets of consumer groups, kept durably in a log of their own.
//!
//! Every commit is one batch of the internal topic [`TOPIC`]: a record per partition, its key
//! [`OffsetKey`], its value [`OffsetValue`], a tombstone where a commit is forgotten. The state is
//! what a replay of that log gives. One task checks, appends and applies commits, so the state
//! follows the order of the log; commits that wait at once share a sync, as all appends do. When
//! the log has grown well beyond the live state, that is written anew and the head is trimmed.

use std::collections::HashSet;
use std::sync::Arc;

use comlog_log::Clock;
use comlog_proto::v1;
use comlog_record::OffsetRange;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::broker_config::GroupsConfig;
use crate::fetch;
use crate::group_keeper::{Keeper, Request};
use crate::group_state::{FORMAT, GroupState, OffsetKey, OffsetValue, State, replay};
use crate::status::ServiceError;
use crate::topic_config::{Durability, TimestampType, TopicDefaults, TopicOverrides};
use crate::topics::Topics;

/// The internal topic.
pub(crate) const TOPIC: &str = "__consumer_offsets";
const SEGMENT_BYTES: u64 = 16 << 20;

/// The committed offsets, for everyone.
#[derive(Debug)]
pub(crate) struct Groups {
    requests: mpsc::Sender<Request>,
    state: Arc<RwLock<State>>,
    config: GroupsConfig,
    clock: Arc<dyn Clock>,
    /// Why the state is not known: nothing is answered then, for an empty answer would send every
    /// consumer back to its start.
    unavailable: Option<ServiceError>,
}

impl Groups {
    /// Replays the log of commits. When that fails the groups are unavailable, the rest is not.
    ///
    /// # Errors
    /// The internal topic could not be created.
    pub(crate) async fn open(
        config: &GroupsConfig,
        clock: Arc<dyn Clock>,
        topics: &Arc<Topics>,
        request_bytes_max: u32,
        tasks: &TaskTracker,
    ) -> Result<Groups, ServiceError> {
        if topics.may_have_lost(TOPIC) {
            return Ok(Groups::unavailable(config, clock));
        }
        let overrides = topic_overrides(request_bytes_max);
        let topic = topics.create(TOPIC, 1, overrides, true).await?;
        let partition = topic.partition(0)?;
        let replayed = match partition.reader() {
            Ok(reader) => replay(reader)
                .await
                .map_err(|error| partition.explain(error)),
            Err(mut error) => {
                error.message += "; to begin without any commit, stop the server and run \
                                  `comlog group repair DATA_DIR`";
                Err(error)
            }
        };
        let unavailable = replayed.as_ref().err().cloned();
        if let Some(error) = &unavailable {
            tracing::error!(%error, "committed offsets cannot be read; groups are unavailable");
        }
        if let Some(lost) = replayed
            .as_ref()
            .ok()
            .filter(|state| !state.lost.is_empty())
        {
            tracing::error!(ranges = lost.lost.len(), "{}", lost_help(&lost.lost));
        }
        let state = Arc::new(RwLock::new(replayed.unwrap_or_default()));
        let (requests, receiver) = mpsc::channel(config.queue_max as usize);
        let keeper = Keeper {
            partition,
            state: state.clone(),
            config: config.clone(),
            clock: clock.clone(),
            requests: receiver,
            rewrite_at: 0,
        };
        tasks.spawn(keeper.run());
        Ok(Groups {
            requests,
            state,
            config: config.clone(),
            clock,
            unavailable,
        })
    }

    /// Groups whose log may be that of a topic which is there and cannot be served: a new one would
    /// hide all of its commits.
    fn unavailable(config: &GroupsConfig, clock: Arc<dyn Clock>) -> Groups {
        let message = format!(
            "the topic of committed offsets, {TOPIC}, is not there, and there is a topic without \
             usable metadata (the log of this start names it): put its metadata back, or move its \
             directory away to begin without any commit, and start again"
        );
        tracing::error!("{message}; groups are unavailable");
        Groups {
            requests: mpsc::channel(1).0,
            state: Arc::default(),
            config: config.clone(),
            clock,
            unavailable: Some(ServiceError::new(v1::Reason::Corrupt, message)),
        }
    }

    /// Commits offsets, all or none; durable on return.
    pub(crate) async fn commit(
        &self,
        topics: &Topics,
        group: String,
        offsets: Vec<v1::CommittedOffset>,
    ) -> Result<(), ServiceError> {
        check_group(&group)?;
        self.check_available()?;
        let now = self.clock.now().0;
        let check = |offset| self.check_offset(topics, &group, offset, now);
        let offsets = offsets
            .into_iter()
            .map(check)
            .collect::<Result<Vec<_>, _>>()?;
        if offsets.is_empty() {
            return Ok(());
        }
        self.ask(|reply| Request::Commit {
            group,
            offsets,
            reply,
        })
        .await
    }

    fn check_offset(
        &self,
        topics: &Topics,
        group: &str,
        committed: v1::CommittedOffset,
        now: i64,
    ) -> Result<(OffsetKey, OffsetValue), ServiceError> {
        let offset = fetch::check_offset(committed.offset)?;
        let metadata_max = self.config.metadata_bytes_max as usize;
        if committed.metadata.len() > metadata_max {
            let message = format!("metadata: at most {metadata_max} bytes are allowed");
            return Err(ServiceError::invalid(message));
        }
        let topic = topics.get(&committed.topic)?;
        topic.partition(committed.partition)?;
        let key = OffsetKey {
            format: FORMAT,
            group: group.to_owned(),
            topic: committed.topic,
            topic_id: topic.id().to_owned(),
            partition: committed.partition,
        };
        let value = OffsetValue {
            offset: offset.0,
            metadata: committed.metadata,
            committed_ms: now,
        };
        Ok((key, value))
    }

    /// What a group has committed for topics that exist; `wanted` empty means all.
    pub(crate) fn fetch(
        &self,
        topics: &Topics,
        group: &str,
        wanted: &[v1::TopicPartition],
    ) -> Result<Vec<v1::CommittedOffset>, ServiceError> {
        check_group(group)?;
        self.check_available()?;
        let state = self.state.read();
        let nothing = GroupState::new();
        let committed = state.groups.get(group).unwrap_or(&nothing);
        let wanted: HashSet<(&str, u32)> = wanted
            .iter()
            .map(|wanted| (wanted.topic.as_str(), wanted.partition))
            .collect();
        let asked = |key: &OffsetKey| {
            wanted.is_empty() || wanted.contains(&(key.topic.as_str(), key.partition))
        };
        let found = committed
            .iter()
            .filter(|(key, _)| asked(key) && key.is_alive(topics));
        let found: Vec<_> = found.map(to_message).collect();
        // Something that was committed where the log is damaged would seem never to have been, and
        // a consumer would begin at its start, or at the end.
        let is_missing = found.len() < wanted.len() || found.is_empty();
        if is_missing && !state.lost.is_empty() {
            let message = format!("group {group:?}: {}", lost_help(&state.lost));
            return Err(ServiceError::new(v1::Reason::Corrupt, message));
        }
        Ok(found)
    }

    /// Every group, by name.
    pub(crate) fn list(&self) -> Result<Vec<String>, ServiceError> {
        self.check_available()?;
        Ok(self.state.read().groups.keys().cloned().collect())
    }

    /// Forgets a group; durable on return.
    pub(crate) async fn delete(&self, group: String) -> Result<(), ServiceError> {
        check_group(&group)?;
        self.check_available()?;
        self.ask(|reply| Request::DeleteGroup { group, reply })
            .await
    }

    /// Forgets every commit for a topic that was deleted.
    pub(crate) async fn forget_topic(&self, topic_id: String) -> Result<(), ServiceError> {
        self.check_available()?;
        self.ask(|reply| Request::ForgetTopic { topic_id, reply })
            .await
    }

    /// Answers what is queued, then takes nothing more.
    pub(crate) async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.requests.send(Request::Close(reply)).await.is_ok() {
            // An error means that the task has ended, which is what is waited for.
            drop(closed.await);
        }
    }

    fn check_available(&self) -> Result<(), ServiceError> {
        self.unavailable.clone().map_or(Ok(()), Err)
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), ServiceError>>) -> Request,
    ) -> Result<(), ServiceError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.send(request(reply)).await;
        sent.map_err(|_| ServiceError::shutting_down())?;
        answer.await.map_err(|_| ServiceError::shutting_down())?
    }
}

/// What a damaged log of commits means, and the way out.
fn lost_help(lost: &[OffsetRange]) -> String {
    let shown: Vec<String> = lost.iter().take(8).map(ToString::to_string).collect();
    format!(
        "offsets {} of {TOPIC} are damaged: what was committed there is not known. Groups go on with \
         what can be read, and one of which nothing can be read is refused; to give the damaged ones \
         up, stop the server and run `comlog group repair DATA_DIR`",
        shown.join(", ")
    )
}

fn to_message((key, value): (&OffsetKey, &OffsetValue)) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic: key.topic.clone(),
        partition: key.partition,
        offset: value.offset,
        metadata: value.metadata.clone(),
        committed_ms: value.committed_ms,
    }
}

fn check_group(group: &str) -> Result<(), ServiceError> {
    const GROUP_LEN_MAX: usize = 249;
    let len = group.chars().count();
    if (1..=GROUP_LEN_MAX).contains(&len) && !group.contains(char::is_control) {
        return Ok(());
    }
    Err(ServiceError::invalid(format!(
        "group: 1 to {GROUP_LEN_MAX} characters are allowed, none of them a control character"
    )))
}

/// Everything is set, so that no default of the server, such as a retention, reaches this topic.
fn topic_overrides(request_bytes_max: u32) -> TopicOverrides {
    let defaults = TopicDefaults::default();
    TopicOverrides::from(&TopicDefaults {
        segment_bytes: SEGMENT_BYTES,
        max_batch_bytes: defaults.max_batch_bytes.min(request_bytes_max),
        durability: Durability::Durable,
        timestamp_type: TimestampType::CreateTime,
        ..defaults
    })
}
