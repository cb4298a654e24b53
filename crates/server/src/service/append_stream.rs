//! AppendStream: pipelined batches over many partitions, answered in order per partition.

use std::collections::HashMap;
use std::sync::Arc;

use comlog_proto::v1;
use comlog_record::RecordBatch;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::append::{Conditions, result_message};
use super::{BoxStream, Ending, refusals, with_ending};
use crate::broker::Shared;
use crate::budget::Charge;
use crate::partition::{Append, AppendOutcome, Lane, Partition, Reply};
use crate::status::{PartitionKey, ServiceError};

type Slot = mpsc::OwnedPermit<(u64, AppendOutcome)>;

/// Starts the task that takes batches in, and returns the answers.
pub(crate) fn append_stream(
    shared: Arc<Shared>,
    charge: Arc<Charge>,
    incoming: Streaming<v1::AppendStreamRequest>,
) -> Result<BoxStream<v1::AppendStreamResponse>, ServiceError> {
    shared.check_open()?;
    let capacity = shared.config.append.stream_inflight_max as usize;
    let (answers, outgoing) = mpsc::channel(capacity);
    let ending = Ending::default();
    let intake = Intake {
        shared: shared.clone(),
        charge,
        lanes: HashMap::new(),
        lanes_len: 0,
    };
    shared
        .tasks
        .spawn(intake.run(incoming, answers, ending.clone()));
    let outgoing = ReceiverStream::new(outgoing).map(|(id, outcome)| v1::AppendStreamResponse {
        id,
        result: Some(result_message(&outcome)),
    });
    Ok(with_ending(outgoing, ending))
}

/// One stream's way in.
struct Intake {
    shared: Arc<Shared>,
    /// What the message read last has taken from the budgets.
    charge: Arc<Charge>,
    /// By topic, then partition.
    lanes: HashMap<String, HashMap<u32, Target>>,
    lanes_len: usize,
}

/// A partition that this stream has appended to, or tried to.
#[derive(Clone)]
struct Target {
    lane: Arc<Lane>,
    /// `None` when it was not found: nothing goes there until the client resumes.
    partition: Option<Arc<Partition>>,
}

impl Intake {
    /// Takes batches until the client is done, gone, or the server closes. A slot among the
    /// answers is taken before a batch is read, so what is under way is bounded and an owner
    /// never waits for a slow client. Answers that are due still arrive behind the end.
    async fn run(
        mut self,
        mut incoming: Streaming<v1::AppendStreamRequest>,
        answers: mpsc::Sender<(u64, AppendOutcome)>,
        ending: Ending,
    ) {
        let closing = self.shared.closing.clone();
        let intake = async {
            loop {
                let Ok(slot) = answers.clone().reserve_owned().await else {
                    return Ok(());
                };
                let request = incoming.message().await.map_err(refusals::explain)?;
                let Some(request) = request else {
                    return Ok(());
                };
                self.accept(request, slot).await?;
            }
        };
        let ended: Result<(), Status> = tokio::select! {
            ended = intake => ended,
            () = closing.cancelled() => Err(ServiceError::shutting_down().into()),
            () = answers.closed() => Ok(()),
        };
        if let Err(status) = ended {
            // Nobody else sets it.
            drop(ending.set(status));
        }
    }

    /// # Errors
    /// The whole stream ends: it addresses too many partitions.
    async fn accept(
        &mut self,
        request: v1::AppendStreamRequest,
        slot: Slot,
    ) -> Result<(), ServiceError> {
        let reply = Reply::Stream {
            id: request.id,
            slot,
        };
        let budget = self.charge.claim();
        let target = match self.known_target(&request) {
            Some(target) => target,
            None => match self.resolve(&request).await {
                Ok(target) => target,
                Err(error) => {
                    self.remember(&request, None)?;
                    reply.send(Err(error));
                    return Ok(());
                }
            },
        };
        let Some(partition) = target.partition else {
            reply.send(Err(crate::group_commit::suspended().at(&key(&request))));
            return Ok(());
        };
        let append = Append {
            resume: request.resume,
            request: decode(request, &partition),
            lane: Some(target.lane),
            reply,
            budget: Some(budget),
        };
        partition.send(append).await;
        Ok(())
    }

    /// A client that resumes may mean a topic that was made anew, so the partition is looked up again.
    fn known_target(&self, request: &v1::AppendStreamRequest) -> Option<Target> {
        if request.resume {
            return None;
        }
        let partitions = self.lanes.get(request.topic.as_str())?;
        partitions.get(&request.partition).cloned()
    }

    async fn resolve(&mut self, request: &v1::AppendStreamRequest) -> Result<Target, ServiceError> {
        let partition = self
            .shared
            .topics
            .partition_for_append(&request.topic, request.partition)
            .await?;
        self.remember(request, Some(partition))
    }

    fn remember(
        &mut self,
        request: &v1::AppendStreamRequest,
        partition: Option<Arc<Partition>>,
    ) -> Result<Target, ServiceError> {
        let target = Target {
            lane: Arc::default(),
            partition,
        };
        let partitions = self.lanes.entry(request.topic.clone()).or_default();
        let before = partitions.insert(request.partition, target.clone());
        self.lanes_len += usize::from(before.is_none());
        if self.lanes_len > self.shared.config.topics.partitions_max as usize {
            return Err(ServiceError::overloaded(
                "one stream appends to more partitions than topics.partitions_max",
            ));
        }
        Ok(target)
    }
}

fn key(request: &v1::AppendStreamRequest) -> PartitionKey {
    PartitionKey {
        topic: request.topic.as_str().into(),
        partition: request.partition,
    }
}

/// The batch, or why it is refused; errors name the partition.
fn decode(
    request: v1::AppendStreamRequest,
    partition: &Partition,
) -> Result<comlog_log::AppendRequest, ServiceError> {
    let decoded = Conditions::decode(
        request.durability,
        request.expected_offset,
        request.fencing_token,
    )
    .and_then(|conditions| {
        let mut bytes = request.batch;
        let batch = RecordBatch::decode(&mut bytes, &partition.limits())?;
        if bytes.is_empty() {
            Ok(conditions.request(batch))
        } else {
            Err(ServiceError::invalid("batch: more than one batch"))
        }
    });
    decoded.map_err(|error| partition.explain(error))
}
