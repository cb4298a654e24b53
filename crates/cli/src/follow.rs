//! Reads partitions of a topic from somewhere to somewhere, through a tail that is opened anew when
//! the connection breaks.

use std::time::Duration;

use comlog_proto::v1;
use comlog_proto::v1::start_at::At;
use comlog_proto::v1::tail_response::Kind;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use crate::connect::{Connection, from_code};
use crate::error::{CliError, Result};

/// Between two attempts to reach the server again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Most bytes of one message.
const MESSAGE_BYTES: u32 = 1 << 20;

/// Where reading of one partition stands, and where it ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// The partition.
    pub(crate) partition: u32,
    /// The next offset wanted.
    pub(crate) next: i64,
    /// The offset to stop before; `None` goes on for ever.
    pub(crate) end: Option<i64>,
}

impl Reach {
    /// Whether nothing is wanted any more.
    pub(crate) fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

/// Follows the partitions of one topic.
#[derive(Debug)]
pub(crate) struct Follower {
    connection: Connection,
    topic: String,
    reaches: Vec<Reach>,
    stream: Option<Streaming<v1::TailResponse>>,
    /// How long to try to reach the server again; `None` for ever.
    patience: Option<Duration>,
    reached: Instant,
}

impl Follower {
    /// Follows `reaches` of `topic`.
    pub(crate) fn new(
        connection: Connection,
        topic: String,
        reaches: Vec<Reach>,
        patience: Option<Duration>,
    ) -> Follower {
        Follower {
            connection,
            topic,
            reaches,
            stream: None,
            patience,
            reached: Instant::now(),
        }
    }

    /// What comes next, and for which partition; `None` when every partition is done.
    ///
    /// The caller reads the records between [`Reach::next`] and [`Reach::end`] from it and then
    /// calls [`Follower::advance`].
    pub(crate) async fn next(&mut self) -> Result<Option<(Reach, v1::Fetched)>> {
        while self.reaches.iter().any(|reach| !reach.is_done()) {
            match self.receive().await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(status) => self.retry(&status).await?,
            }
        }
        Ok(None)
    }

    /// Notes that everything below `next` of a partition was read, or all that was wanted of it.
    pub(crate) fn advance(&mut self, partition: u32, next: i64, done: bool) {
        let reach = self
            .reaches
            .iter_mut()
            .find(|reach| reach.partition == partition);
        if let Some(reach) = reach {
            reach.next = next;
            if done {
                reach.end = Some(next);
            }
        }
    }

    /// Waits for one message; `None` when it holds nothing to read.
    async fn receive(&mut self) -> Result<Option<(Reach, v1::Fetched)>, Status> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let message = stream.message().await?;
        self.reached = Instant::now();
        match message.and_then(|message| message.kind) {
            Some(Kind::Fetched(found)) => {
                let reach = self
                    .reaches
                    .iter()
                    .find(|reach| reach.partition == found.partition);
                let wanted = reach.filter(|reach| !reach.is_done()).copied();
                Ok(wanted.zip(found.fetched))
            }
            Some(Kind::Failed(failed)) => {
                let error = failed.error.unwrap_or_default();
                Err(Status::new(
                    Code::from_i32(error.code),
                    advice(failed.partition, &error),
                ))
            }
            Some(Kind::Opened(_) | Kind::Idle(_)) => Ok(None),
            None => Err(Status::unavailable("the server ended the stream")),
        }
    }

    async fn open(&self) -> Result<Streaming<v1::TailResponse>, Status> {
        let wanted = self.reaches.iter().filter(|reach| !reach.is_done());
        let start = |reach: &Reach| v1::TailStart {
            topic: self.topic.clone(),
            partition: reach.partition,
            at: Some(v1::StartAt {
                at: Some(At::Offset(reach.next)),
            }),
        };
        let request = v1::TailRequest {
            partitions: wanted.map(start).collect(),
            form: v1::Form::Batches as i32,
            max_bytes: MESSAGE_BYTES,
        };
        Ok(self.connection.log().tail(request).await?.into_inner())
    }

    /// Waits before the next attempt, unless `status` says that there is no point in one.
    async fn retry(&mut self, status: &Status) -> Result<()> {
        self.stream = None;
        let broken = matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled
        );
        let patient = self
            .patience
            .is_none_or(|patience| self.reached.elapsed() < patience);
        if !broken || !patient {
            return Err(self.connection.explain(status));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        Ok(())
    }
}

/// The server's words, and how to go on behind damage.
fn advice(partition: u32, error: &v1::Error) -> String {
    let behind = match (error.reason(), error.offset) {
        (v1::Reason::Corrupt, Some(offset)) => {
            format!("; go on behind it with --partition {partition} --from {offset}")
        }
        _ => String::new(),
    };
    format!("partition {partition}: {}{behind}", error.message)
}

/// An offset outside of a partition.
pub(crate) fn check_start(found: &v1::OffsetFound, start: i64) -> Result<()> {
    let (first, end) = (found.log_start_offset, found.high_watermark);
    if (first..=end).contains(&start) {
        return Ok(());
    }
    let message = format!(
        "partition {} holds [{first}, {end}), not offset {start}",
        found.partition
    );
    Err(from_code(Code::OutOfRange, message, ""))
}

/// Damage found on our side.
pub(crate) fn damaged(
    partition: u32,
    offset: i64,
    next: i64,
    reason: impl std::fmt::Display,
) -> CliError {
    CliError::Corrupt(format!(
        "partition {partition}, offsets [{offset}, {next}): {reason}; \
         go on behind it with --partition {partition} --from {next}"
    ))
}
