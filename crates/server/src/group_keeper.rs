//! The task that orders commits: it checks, appends and applies them, and keeps their log small.

use std::collections::BTreeMap;
use std::sync::Arc;

use comlog_log::{AppendRequest, Clock};
use comlog_proto::v1::Reason;
use comlog_record::{BatchBuilder, Compression, Offset, RecordBatch};
use parking_lot::RwLock;
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use crate::broker_config::GroupsConfig;
use crate::group_state::{Change, OffsetKey, OffsetValue, State};
use crate::partition::{Append, AppendOutcome, Partition, Reply};
use crate::status::ServiceError;

/// Requests that are appended before the next are looked at.
const ROUND_MAX: usize = 256;
/// Commits in one batch when the live state is written anew.
const REWRITE_BATCH: usize = 1_000;

/// What the task is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    Commit {
        group: String,
        offsets: Vec<(OffsetKey, OffsetValue)>,
        reply: oneshot::Sender<Result<(), ServiceError>>,
    },
    DeleteGroup {
        group: String,
        reply: oneshot::Sender<Result<(), ServiceError>>,
    },
    ForgetTopic {
        topic_id: String,
        reply: oneshot::Sender<Result<(), ServiceError>>,
    },
    Close(oneshot::Sender<()>),
}

/// The task that orders commits.
pub(crate) struct Keeper {
    pub(crate) partition: Arc<Partition>,
    pub(crate) state: Arc<RwLock<State>>,
    pub(crate) config: GroupsConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Not before the log holds this many records: a rewrite that failed is not tried at once.
    pub(crate) rewrite_at: u64,
}

/// A request that was appended and waits for its answer.
struct Appending {
    changes: Vec<Change>,
    answer: oneshot::Receiver<AppendOutcome>,
    reply: oneshot::Sender<Result<(), ServiceError>>,
}

impl Keeper {
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            let mut round = Vec::new();
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Close(reply) => {
                        self.finish(round).await;
                        let _ = reply.send(()); // whoever asked may be gone
                        return;
                    }
                    // What it forgets depends on the commits before it, so they come first.
                    Request::DeleteGroup { .. } | Request::ForgetTopic { .. } => {
                        self.finish(std::mem::take(&mut round)).await;
                        round.extend(self.start(request).await);
                    }
                    Request::Commit { .. } => round.extend(self.start(request).await),
                }
                next = (round.len() < ROUND_MAX)
                    .then(|| self.requests.try_recv().ok())
                    .flatten();
            }
            self.finish(round).await;
            self.rewrite_when_due().await;
        }
    }

    /// Checks a request and queues its batch; answers it at once when there is nothing to append.
    async fn start(&self, request: Request) -> Option<Appending> {
        let (changes, reply) = match request {
            Request::Commit {
                group,
                offsets,
                reply,
            } => (self.check_room(&group, offsets), reply),
            Request::DeleteGroup { group, reply } => (self.forget_group(&group), reply),
            Request::ForgetTopic { topic_id, reply } => (Ok(self.forget_topic(&topic_id)), reply),
            Request::Close(_) => return None,
        };
        let batch = changes.and_then(|changes| {
            let batch = (!changes.is_empty()).then(|| self.encode(&changes));
            Ok((changes, batch.transpose()?))
        });
        match batch {
            Ok((changes, Some(batch))) => {
                let answer = self.append(batch).await;
                Some(Appending {
                    changes,
                    answer,
                    reply,
                })
            }
            // Whoever asked may be gone.
            Ok((_, None)) => {
                drop(reply.send(Ok(())));
                None
            }
            Err(error) => {
                drop(reply.send(Err(error)));
                None
            }
        }
    }

    async fn append(&self, batch: RecordBatch) -> oneshot::Receiver<AppendOutcome> {
        let (reply, answer) = oneshot::channel();
        let append = Append {
            request: Ok(AppendRequest::new(batch)),
            lane: None,
            resume: false,
            reply: Reply::Once(reply),
            budget: None,
        };
        self.partition.send(append).await;
        answer
    }

    /// Waits for the appends of a round, applies what is in the log, in its order, and answers.
    async fn finish(&self, round: Vec<Appending>) {
        for appending in round {
            let outcome = appending
                .answer
                .await
                .unwrap_or_else(|_| Err(ServiceError::shutting_down()));
            if outcome.is_ok() {
                let mut state = self.state.write();
                for change in appending.changes {
                    state.apply(change);
                }
            }
            let outcome = outcome.map_err(|error| self.partition.explain(error));
            drop(appending.reply.send(outcome.map(|_| ())));
        }
    }

    /// Bounds hold up to one round: what waits for the log is not counted yet.
    fn check_room(
        &self,
        group: &str,
        offsets: Vec<(OffsetKey, OffsetValue)>,
    ) -> Result<Vec<Change>, ServiceError> {
        let state = self.state.read();
        let known = state.groups.get(group);
        if known.is_none() && state.groups.len() >= self.config.groups_max as usize {
            return Err(ServiceError::overloaded(
                "there are as many groups as groups.groups_max allows",
            ));
        }
        let is_new = |key| known.is_none_or(|group| !group.contains_key(key));
        let new = offsets.iter().filter(|(key, _)| is_new(key)).count();
        if state.offsets + new > self.config.offsets_max as usize {
            return Err(ServiceError::overloaded(
                "there are as many committed offsets as groups.offsets_max allows",
            ));
        }
        let change = |(key, value)| (key, Some(value));
        Ok(offsets.into_iter().map(change).collect())
    }

    fn forget_group(&self, group: &str) -> Result<Vec<Change>, ServiceError> {
        let state = self.state.read();
        let Some(committed) = state.groups.get(group) else {
            let message = format!("group {group:?} has committed nothing");
            return Err(ServiceError::new(Reason::GroupNotFound, message));
        };
        Ok(committed.keys().map(|key| (key.clone(), None)).collect())
    }

    fn forget_topic(&self, topic_id: &str) -> Vec<Change> {
        let state = self.state.read();
        let keys = state.groups.values().flat_map(BTreeMap::keys);
        keys.filter(|key| key.topic_id == topic_id)
            .map(|key| (key.clone(), None))
            .collect()
    }

    fn encode(&self, changes: &[Change]) -> Result<RecordBatch, ServiceError> {
        let now = self.clock.now();
        let mut builder = BatchBuilder::new(self.partition.limits());
        for (key, value) in changes {
            let value = value.as_ref().map(Message::encode_to_vec);
            let key = key.encode_to_vec();
            builder.push(now, Some(&key), value.as_deref(), std::iter::empty())?;
        }
        Ok(builder.build(Compression::None, None)?)
    }

    async fn rewrite_when_due(&mut self) {
        let Ok(reader) = self.partition.reader() else {
            return;
        };
        let positions = reader.positions();
        let records = positions.high_watermark.since(positions.start);
        let live = self.state.read().offsets as u64;
        let due = 2 * live + u64::from(self.config.rewrite_records);
        if records <= due.max(self.rewrite_at) {
            return;
        }
        match self.rewrite(positions.high_watermark).await {
            Ok(()) => self.rewrite_at = 0,
            Err(error) => {
                self.rewrite_at = records + u64::from(self.config.rewrite_records);
                tracing::warn!(%error, "cannot rewrite the log of committed offsets; it grows on");
            }
        }
    }

    /// Writes the live state behind `head` and trims up to there. A crash in between leaves both,
    /// and replaying both gives the same state.
    async fn rewrite(&self, head: Offset) -> Result<(), ServiceError> {
        self.partition.roll().await?;
        let live: Vec<Change> = {
            let state = self.state.read();
            let all = state.groups.values().flatten();
            all.map(|(key, value)| (key.clone(), Some(value.clone())))
                .collect()
        };
        for changes in live.chunks(REWRITE_BATCH) {
            let batch = self.encode(changes)?;
            let outcome = self.append(batch).await.await;
            outcome.unwrap_or_else(|_| Err(ServiceError::shutting_down()))?;
        }
        self.partition.trim(head).await?;
        Ok(())
    }
}
