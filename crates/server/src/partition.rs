//! A partition as the rest of the server sees it: a reader, and a queue to the owner of its tail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use comlog_log::{AppendError, AppendRequest, Appended, Log, LogConfig, LogError, LogReader};
use comlog_proto::v1::Reason;
use comlog_record::{Limits, Offset};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::budget::Permit;
use crate::counters::Counters;
use crate::group_commit::{Owner, OwnerEnv};
use crate::status::{PartitionKey, ServiceError};

/// What becomes of one batch.
pub(crate) type AppendOutcome = Result<Appended, ServiceError>;

/// One batch on its way to the owner.
#[derive(Debug)]
pub(crate) struct Append {
    /// The batch; or why it is refused, when that was seen before and must be answered in turn.
    pub(crate) request: Result<AppendRequest, ServiceError>,
    /// The order it belongs to, if it belongs to one.
    pub(crate) lane: Option<Arc<Lane>>,
    /// Ends the suspension of its lane.
    pub(crate) resume: bool,
    pub(crate) reply: Reply,
    /// Given back with the answer.
    pub(crate) budget: Option<Permit>,
}

/// Batches of one client for one partition that keep their order: behind one that was refused,
/// none is appended until the client resumes. Only the owner of the partition looks inside.
#[derive(Debug)]
pub(crate) struct Lane {
    suspended: AtomicBool,
    /// What ties its batches of one group together.
    chain: AtomicU64,
}

impl Default for Lane {
    fn default() -> Lane {
        Lane {
            suspended: AtomicBool::new(false),
            chain: AtomicU64::new(next_chain()),
        }
    }
}

fn next_chain() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Lane {
    /// What the log knows this lane by, since it was resumed last.
    pub(crate) fn chain(&self) -> u64 {
        self.chain.load(Ordering::Relaxed)
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }

    pub(crate) fn suspend(&self) {
        self.suspended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn resume(&self) {
        self.chain.store(next_chain(), Ordering::Relaxed);
        self.suspended.store(false, Ordering::Relaxed);
    }
}

/// Where the answer goes. Nobody may be waiting for it any more.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To one caller.
    Once(oneshot::Sender<AppendOutcome>),
    /// Into the slot of a stream's answers that was taken for it, with the id the client chose.
    Stream {
        id: u64,
        slot: mpsc::OwnedPermit<(u64, AppendOutcome)>,
    },
}

impl Reply {
    pub(crate) fn send(self, outcome: AppendOutcome) {
        match self {
            Reply::Once(caller) => drop(caller.send(outcome)),
            Reply::Stream { id, slot } => drop(slot.send((id, outcome))),
        }
    }
}

/// What the owner is asked to do.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are appends, and a box would be an allocation for each"
)]
pub(crate) enum Command {
    Append(Append),
    Sync(oneshot::Sender<Result<Offset, LogError>>),
    Trim(Offset, oneshot::Sender<Result<Offset, LogError>>),
    Roll(oneshot::Sender<Result<(), LogError>>),
    /// Answers with the log end offset.
    Fence(u64, oneshot::Sender<Result<Offset, LogError>>),
    Configure(Box<LogConfig>, oneshot::Sender<Result<(), LogError>>),
    Describe(oneshot::Sender<OwnerState>),
    Close(oneshot::Sender<Result<(), LogError>>),
}

/// What only the owner knows.
#[derive(Debug, Clone)]
pub(crate) struct OwnerState {
    pub(crate) failure: Option<AppendError>,
    pub(crate) fencing_token: u64,
}

/// One partition of a topic, open or failed to open.
#[derive(Debug)]
pub(crate) struct Partition {
    key: PartitionKey,
    state: State,
    limits: RwLock<Limits>,
    /// Set before the log is closed, so that who meets the closed log knows why.
    deleted: Arc<AtomicBool>,
    counters: Arc<Counters>,
    /// Producer ids from here on were not given out.
    producer_ids_end: Arc<AtomicI64>,
}

#[derive(Debug)]
enum State {
    Open {
        commands: mpsc::Sender<Command>,
        reader: LogReader,
        /// Cancelled when the owner has ended, and so has answered everything.
        ended: CancellationToken,
    },
    Failed(LogError),
}

impl Partition {
    /// Starts the owner of an opened log, or keeps why it could not be opened.
    pub(crate) fn new(
        key: PartitionKey,
        opened: Result<Log, LogError>,
        limits: Limits,
        deleted: Arc<AtomicBool>,
        env: &OwnerEnv,
    ) -> Partition {
        let state = match opened {
            Ok(log) => {
                let reader = log.reader();
                let ended = CancellationToken::new();
                let commands = Owner::start(key.clone(), log, env, ended.clone());
                State::Open {
                    commands,
                    reader,
                    ended,
                }
            }
            Err(error) => State::Failed(error),
        };
        Partition {
            key,
            state,
            limits: RwLock::new(limits),
            deleted,
            counters: env.counters.clone(),
            producer_ids_end: env.producer_ids_end.clone(),
        }
    }

    pub(crate) fn key(&self) -> &PartitionKey {
        &self.key
    }

    /// The bounds of a batch.
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.read()
    }

    /// Why the partition could not be opened.
    pub(crate) fn open_failure(&self) -> Option<&LogError> {
        match &self.state {
            State::Open { .. } => None,
            State::Failed(error) => Some(error),
        }
    }

    /// The reader of what is visible.
    ///
    /// # Errors
    /// The partition could not be opened.
    pub(crate) fn reader(&self) -> Result<&LogReader, ServiceError> {
        match &self.state {
            State::Open { reader, .. } => Ok(reader),
            State::Failed(error) => Err(self.failed(error)),
        }
    }

    fn commands(&self) -> Result<&mpsc::Sender<Command>, ServiceError> {
        match &self.state {
            State::Open { commands, .. } => Ok(commands),
            State::Failed(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: &LogError) -> ServiceError {
        let mut error = ServiceError::from(error.clone()).at(&self.key);
        if error.reason != Reason::Corrupt {
            error.reason = Reason::PartitionFailed;
        }
        error.message = format!("the partition could not be opened: {}", error.message);
        error
    }

    /// Names this partition in an error of its log, and says why the log is closed if it is.
    pub(crate) fn explain(&self, error: impl Into<ServiceError>) -> ServiceError {
        let error = error.into();
        if error.reason == Reason::ShuttingDown && self.deleted.load(Ordering::Acquire) {
            return ServiceError::topic_not_found(&self.key.topic);
        }
        error.at(&self.key)
    }

    fn closed(&self) -> ServiceError {
        self.explain(ServiceError::shutting_down())
    }

    /// Queues a batch, waiting for room. The answer, or why it could not be queued, arrives
    /// through its `reply`. Dropping the future drops the batch, unless it is queued.
    pub(crate) async fn send(&self, append: Append) {
        let room = match self.commands() {
            Ok(commands) => commands.reserve().await.map_err(|_| self.closed()),
            Err(error) => Err(error),
        };
        match room {
            Ok(room) => {
                Counters::add(&self.counters.appending_batches, 1);
                room.send(Command::Append(self.checked(append)));
            }
            Err(error) => {
                if let Some(lane) = &append.lane {
                    lane.suspend();
                }
                // What was queued before is answered before.
                if let State::Open { ended, .. } = &self.state {
                    ended.cancelled().await;
                }
                append.reply.send(Err(error));
            }
        }
    }

    /// Refuses, in its turn, a batch of a producer whose id nobody was given: the one who is given
    /// it later would meet the sequences of a stranger, and the largest of all would leave none.
    fn checked(&self, mut append: Append) -> Append {
        let id = match &append.request {
            Ok(request) => request.batch.header().producer_id,
            Err(_) => return append,
        };
        let end = self.producer_ids_end.load(Ordering::Relaxed);
        if id >= end {
            let message = format!(
                "producer id {id} was not given out by this server, the ids up to {} were: \
                 InitProducerId gives one",
                end - 1
            );
            append.request = Err(ServiceError::invalid(message).at(&self.key));
        }
        append
    }

    /// Queues a batch, or refuses it as overloaded.
    pub(crate) fn try_send(&self, append: Append) -> Result<(), ServiceError> {
        let commands = self.commands()?;
        let appending = &self.counters.appending_batches;
        Counters::add(appending, 1);
        let sent = commands.try_send(Command::Append(self.checked(append)));
        sent.map_err(|error| {
            Counters::subtract(appending, 1);
            match error {
                mpsc::error::TrySendError::Closed(_) => self.closed(),
                mpsc::error::TrySendError::Full(_) => ServiceError::overloaded(
                    "too many appends wait for this partition (append.partition_queue_max)",
                )
                .at(&self.key),
            }
        })
    }

    /// Appends one batch and waits for its answer. Dropping the future does not take it back.
    pub(crate) async fn append(
        &self,
        request: AppendRequest,
        budget: Option<Permit>,
    ) -> AppendOutcome {
        let (reply, answer) = oneshot::channel();
        self.try_send(Append {
            request: Ok(request),
            lane: None,
            resume: false,
            reply: Reply::Once(reply),
            budget,
        })?;
        answer
            .await
            .unwrap_or_else(|_| Err(self.closed()))
            .map_err(|error| self.explain(error))
    }

    pub(crate) async fn sync(&self) -> Result<Offset, ServiceError> {
        self.call(Command::Sync).await
    }

    pub(crate) async fn trim(&self, start: Offset) -> Result<Offset, ServiceError> {
        self.call(|reply| Command::Trim(start, reply)).await
    }

    pub(crate) async fn roll(&self) -> Result<(), ServiceError> {
        self.call(Command::Roll).await
    }

    pub(crate) async fn fence(&self, token: u64) -> Result<Offset, ServiceError> {
        self.call(|reply| Command::Fence(token, reply)).await
    }

    /// Takes effect with the next append.
    pub(crate) async fn configure(&self, config: LogConfig) -> Result<(), ServiceError> {
        *self.limits.write() = config.limits;
        self.call(|reply| Command::Configure(Box::new(config), reply))
            .await
    }

    pub(crate) async fn describe(&self) -> Result<OwnerState, ServiceError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands()?.send(Command::Describe(reply)).await;
        sent.map_err(|_| self.closed())?;
        answer.await.map_err(|_| self.closed())
    }

    /// Answers what is queued, then closes the log. No error when it is closed already.
    pub(crate) async fn close(&self) -> Result<(), ServiceError> {
        let State::Open { commands, .. } = &self.state else {
            return Ok(());
        };
        let (reply, answer) = oneshot::channel();
        if commands.send(Command::Close(reply)).await.is_err() {
            return Ok(());
        }
        match answer.await {
            Ok(Err(error)) if !matches!(error, LogError::Closed) => Err(self.explain(error)),
            _ => Ok(()),
        }
    }

    async fn call<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> Command,
    ) -> Result<T, ServiceError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands()?.send(command(reply)).await;
        sent.map_err(|_| self.closed())?;
        let answer = answer.await.map_err(|_| self.closed())?;
        answer.map_err(|error| self.explain(error))
    }
}
