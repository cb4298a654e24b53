//! The task that orders commits: it checks, appends and applies them, and keeps their log small.

use std::collections::BTreeMap;
use std::sync::Arc;

use comlog_log::{AppendRequest, Clock};
use comlog_proto::v1::Reason;
use comlog_record::{Offset, RecordBatch};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::broker_config::GroupsConfig;
use crate::group_state::{self, Change, OffsetKey, OffsetValue, State};
use crate::partition::{Append, AppendOutcome, Partition, Reply};
use crate::status::ServiceError;

/// Requests that are appended before the next are looked at.
const ROUND_MAX: usize = 256;

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

/// A request that was appended and waits for its answers.
struct Appending {
    /// Each batch: what it changes, and the answer of the log.
    batches: Vec<(Vec<Change>, oneshot::Receiver<AppendOutcome>)>,
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

    /// Checks a request and queues its batches; answers it at once when that fails.
    async fn start(&self, request: Request) -> Option<Appending> {
        let (batches, reply) = match request {
            Request::Commit {
                group,
                offsets,
                reply,
            } => {
                let changes = self.check_room(&group, offsets);
                // One batch, so all or none.
                let batch = changes.and_then(|changes| Ok((self.encode(&changes)?, changes)));
                (batch.map(|batch| vec![batch]), reply)
            }
            Request::DeleteGroup { group, reply } => {
                let changes = self.forget_group(&group);
                (changes.and_then(|changes| self.split(changes)), reply)
            }
            Request::ForgetTopic { topic_id, reply } => {
                (self.split(self.forget_topic(&topic_id)), reply)
            }
            Request::Close(_) => return None,
        };
        let encoded = match batches {
            Ok(encoded) => encoded,
            Err(error) => {
                drop(reply.send(Err(error))); // whoever asked may be gone
                return None;
            }
        };
        let mut batches = Vec::with_capacity(encoded.len());
        for (batch, changes) in encoded {
            batches.push((changes, self.append(batch).await));
        }
        Some(Appending { batches, reply })
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
            let mut outcome = Ok(());
            for (changes, answer) in appending.batches {
                let answer = answer.await;
                match answer.unwrap_or_else(|_| Err(ServiceError::shutting_down())) {
                    Ok(_) => {
                        let mut state = self.state.write();
                        changes.into_iter().for_each(|change| state.apply(change));
                    }
                    Err(error) => outcome = Err(self.partition.explain(error)),
                }
            }
            drop(appending.reply.send(outcome)); // whoever asked may be gone
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
        let limits = self.partition.limits();
        Ok(group_state::encode(changes, limits, self.clock.now())?)
    }

    /// As many batches as it takes.
    fn split(&self, changes: Vec<Change>) -> Result<Vec<(RecordBatch, Vec<Change>)>, ServiceError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        match self.encode(&changes) {
            Err(error) if error.reason == Reason::BatchTooLarge && changes.len() > 1 => {
                let mut first = changes;
                let second = first.split_off(first.len() / 2);
                let mut batches = self.split(first)?;
                batches.extend(self.split(second)?);
                Ok(batches)
            }
            encoded => Ok(vec![(encoded?, changes)]),
        }
    }

    async fn rewrite_when_due(&mut self) {
        let Ok(reader) = self.partition.reader() else {
            return;
        };
        let positions = reader.positions();
        let records = positions.high_watermark.since(positions.start);
        let live = {
            let state = self.state.read();
            if !state.lost.is_empty() {
                return; // it would drop what is damaged without being asked to
            }
            state.offsets as u64
        };
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
        for (batch, _) in self.split(live)? {
            let outcome = self.append(batch).await.await;
            outcome.unwrap_or_else(|_| Err(ServiceError::shutting_down()))?;
        }
        self.partition.trim(head).await?;
        Ok(())
    }
}
