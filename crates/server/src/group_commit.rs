//! The owner of one partition's tail: many appends, one write, one sync.
//!
//! While a group is being written and synced the next one gathers in the queue, so a lone writer
//! waits for one sync and a crowd shares it; there is no delay to tune. How many groups are at
//! the disk at once, over all partitions, the disk itself bounds.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use comlog_log::{AppendRequest, Log, LogError};
use comlog_proto::v1::Reason;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::counters::Counters;
use crate::partition::{Append, AppendOutcome, Command, OwnerState};
use crate::status::{PartitionKey, ServiceError};

/// Most batches of one group.
const GROUP_BATCHES_MAX: usize = 4_096;

/// What every owner needs; one for the server.
#[derive(Debug, Clone)]
pub(crate) struct OwnerEnv {
    pub(crate) queue_max: usize,
    pub(crate) sync_interval: Duration,
    pub(crate) maintain_interval: Duration,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tasks: TaskTracker,
    /// Producer ids from here on were not given out.
    pub(crate) producer_ids_end: Arc<AtomicI64>,
}

/// Owns a log: every change of it goes through this task, in the order of its queue.
#[derive(Debug)]
pub(crate) struct Owner {
    key: PartitionKey,
    log: Log,
    commands: mpsc::Receiver<Command>,
    /// Taken off the queue while a group gathered, but not part of it.
    held: Option<Command>,
    /// When what is written but not durable must be synced.
    sync_due: Option<Instant>,
    env: OwnerEnv,
}

impl Owner {
    /// Starts the task. It ends with [`Command::Close`], or when every sender is gone.
    /// `ended` is cancelled then, and when the task is dropped.
    pub(crate) fn start(
        key: PartitionKey,
        log: Log,
        env: &OwnerEnv,
        ended: CancellationToken,
    ) -> mpsc::Sender<Command> {
        let (sender, commands) = mpsc::channel(env.queue_max);
        let owner = Owner {
            key,
            log,
            commands,
            held: None,
            sync_due: None,
            env: env.clone(),
        };
        let ended = ended.drop_guard();
        env.tasks.spawn(async move {
            owner.run().await;
            drop(ended);
        });
        sender
    }

    async fn run(mut self) {
        let mut maintain = tokio::time::interval_at(
            Instant::now() + self.env.maintain_interval,
            self.env.maintain_interval,
        );
        maintain.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let command = tokio::select! {
                biased; // what is due must not wait for a queue that never runs dry
                () = due(self.sync_due) => {
                    self.sync_what_is_due().await;
                    continue;
                }
                _ = maintain.tick() => {
                    self.maintain().await;
                    continue;
                }
                command = next(&mut self.held, &mut self.commands) => command,
            };
            match command {
                Some(Command::Append(first)) => self.commit(first).await,
                Some(Command::Close(reply)) => return self.close(Some(reply)).await,
                Some(other) => self.obey(other).await,
                None => return self.close(None).await,
            }
        }
    }

    /// Appends `first` and whatever else is queued, as one group.
    async fn commit(&mut self, first: Append) {
        let appends = self.gather(first);
        let (requests, outcomes) = admit(&appends);
        let outcomes = self.append(requests, outcomes).await;
        for (append, outcome) in appends.into_iter().zip(outcomes) {
            self.answer(append, outcome);
        }
        self.arm_sync();
    }

    fn gather(&mut self, first: Append) -> Vec<Append> {
        let bytes_max = self.log.config().group_bytes_max;
        let mut bytes = request_len(&first);
        let mut group = vec![first];
        while group.len() < GROUP_BATCHES_MAX {
            match self.commands.try_recv() {
                Ok(Command::Append(append)) => {
                    bytes += request_len(&append);
                    if bytes > bytes_max {
                        self.held = Some(Command::Append(append));
                        break;
                    }
                    group.push(append);
                }
                Ok(other) => {
                    self.held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        group
    }

    /// Appends `requests` and puts their answers in the places that `outcomes` left open.
    async fn append(
        &mut self,
        requests: Vec<AppendRequest>,
        mut outcomes: Vec<Option<AppendOutcome>>,
    ) -> Vec<AppendOutcome> {
        let mut answers = Vec::new().into_iter();
        if !requests.is_empty() {
            let counters = self.env.counters.clone();
            Counters::add(&counters.groups, 1);
            counters.group_batches.observe(requests.len() as f64);
            let started = Instant::now();
            answers = self.log.append(requests).await.into_iter();
            let took = started.elapsed();
            counters.commit_seconds.observe(took.as_secs_f64());
        }
        for open in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            let answer = answers.next().map(|a| a.map_err(ServiceError::from));
            *open = Some(answer.unwrap_or_else(|| Err(unanswered())));
        }
        outcomes.into_iter().flatten().collect()
    }

    fn answer(&self, append: Append, outcome: AppendOutcome) {
        let counters = &self.env.counters;
        Counters::subtract(&counters.appending_batches, 1);
        match &outcome {
            Ok(appended) if !appended.duplicate => {
                Counters::add(&counters.appended_batches, 1);
                Counters::add(&counters.appended_records, appended.offsets.len());
                Counters::add(&counters.appended_bytes, request_len(&append) as u64);
            }
            Ok(_) => {}
            Err(error) => {
                counters.refuse(error.reason);
                if let Some(lane) = &append.lane {
                    lane.suspend();
                }
            }
        }
        drop(append.budget);
        append.reply.send(outcome);
    }

    fn arm_sync(&mut self) {
        let positions = self.log.positions();
        // A failed log is not synced again: its failure is final.
        if positions.durable >= positions.end || self.log.failure().is_some() {
            self.sync_due = None;
        } else if self.sync_due.is_none() {
            self.sync_due = Some(Instant::now() + self.env.sync_interval);
        }
    }

    async fn sync_what_is_due(&mut self) {
        self.sync_due = None;
        // After a failure every append is answered with it, so logging it once is enough.
        if let Err(error) = self.log.sync().await {
            tracing::error!(partition = %self.key, %error, "partition failed: cannot sync");
        }
    }

    async fn maintain(&mut self) {
        if self.log.failure().is_some() {
            return;
        }
        match self.log.maintain().await {
            Ok(removed) => {
                for segment in removed {
                    tracing::info!(partition = %self.key, start = %segment.base_offset,
                        end = %segment.end_offset, bytes = segment.len, "segment past retention removed");
                }
            }
            Err(error) => {
                tracing::warn!(partition = %self.key, %error, "cannot roll or apply retention");
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        // Whoever asked may be gone by now; the work is done all the same.
        match command {
            Command::Append(append) => self.commit(append).await,
            Command::Sync(reply) => drop(reply.send(self.log.sync().await)),
            Command::Trim(start, reply) => drop(reply.send(self.log.trim(start).await)),
            Command::Roll(reply) => drop(reply.send(self.log.roll().await)),
            Command::Fence(token, reply) => {
                let fenced = self.log.fence(token).await;
                drop(reply.send(fenced.map(|()| self.log.positions().end)));
            }
            Command::Configure(config, reply) => {
                drop(reply.send(self.log.set_config(*config).await));
            }
            Command::Describe(reply) => drop(reply.send(OwnerState {
                failure: self.log.failure(),
                fencing_token: self.log.fencing_token(),
            })),
            Command::Close(reply) => drop(reply.send(Err(LogError::Closed))),
        }
        self.arm_sync();
    }

    /// Answers what is still queued, then closes the log.
    async fn close(mut self, reply: Option<oneshot::Sender<Result<(), LogError>>>) {
        self.commands.close();
        while let Some(command) = next(&mut self.held, &mut self.commands).await {
            self.obey(command).await;
        }
        let closed = self.log.close().await;
        if let Err(error) = &closed {
            tracing::error!(partition = %self.key, %error, "cannot close the log");
        }
        if let Some(reply) = reply {
            drop(reply.send(closed));
        }
    }
}

/// Splits a group into the requests for the log and the answers that are known before: what was
/// refused on the way, and what stands behind a refusal in its lane.
fn admit(appends: &[Append]) -> (Vec<AppendRequest>, Vec<Option<AppendOutcome>>) {
    let mut requests = Vec::with_capacity(appends.len());
    let outcomes = appends
        .iter()
        .map(|append| {
            if let Some(lane) = &append.lane {
                if append.resume {
                    lane.resume();
                } else if lane.is_suspended() {
                    return Some(Err(suspended()));
                }
            }
            match &append.request {
                Ok(request) => {
                    requests.push(AppendRequest {
                        chain: append.lane.as_ref().map(|lane| lane.chain()),
                        ..request.clone()
                    });
                    None
                }
                Err(refusal) => {
                    if let Some(lane) = &append.lane {
                        lane.suspend();
                    }
                    Some(Err(refusal.clone()))
                }
            }
        })
        .collect();
    (requests, outcomes)
}

fn request_len(append: &Append) -> usize {
    append
        .request
        .as_ref()
        .map_or(0, |request| request.batch.total_len())
}

pub(crate) fn suspended() -> ServiceError {
    ServiceError::new(
        Reason::Suspended,
        "an earlier batch for this partition was refused; resend from it, then resume",
    )
}

fn unanswered() -> ServiceError {
    ServiceError::internal("the log did not answer for this batch")
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn next(
    held: &mut Option<Command>,
    commands: &mut mpsc::Receiver<Command>,
) -> Option<Command> {
    match held.take() {
        Some(command) => Some(command),
        None => commands.recv().await,
    }
}
