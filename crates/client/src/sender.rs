//! The producer's task: owns the append stream and every partition's pipeline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comlog_proto::v1;
use comlog_proto::v1::append_result;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use crate::accumulator::{Accumulator, Gathered, Ready};
use crate::pipeline::{Finished, Identity, Pipeline, Rules};
use crate::producer::Shared;
use crate::producer_config::ProducerConfig;
use crate::routes;
use crate::{Client, DeliveryError, Error, Result};

/// Most requests on a stream without an answer, over all partitions.
const REQUESTS_IN_FLIGHT_MAX: usize = 1_024;
/// Answers and other news between their tasks and the sender.
const EVENTS_MAX: usize = 64;
/// How long the sender sleeps when nothing is due; any change wakes it.
const IDLE: Duration = Duration::from_secs(3_600);

/// News for the sender.
enum Event {
    Answer(u64, v1::AppendStreamResponse),
    StreamEnded(u64, Error),
    Identified(usize, Result<(i64, i16)>),
}

/// Without a sender nothing is ever acknowledged: whoever waits shall learn it.
impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// A task that ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The append stream.
struct Stream {
    /// Tells the news of this stream from those of its forerunners.
    generation: u64,
    requests: mpsc::Sender<v1::AppendStreamRequest>,
    _task: Task,
}

/// See the module's description.
pub(crate) struct Sender {
    client: Client,
    channel: Channel,
    config: ProducerConfig,
    shared: Arc<Shared>,
    events: mpsc::Receiver<Event>,
    events_in: mpsc::Sender<Event>,
    pipelines: Vec<Pipeline>,
    /// Which pipeline each request on the stream belongs to.
    requests: HashMap<u64, usize>,
    next_id: u64,
    stream: Option<Stream>,
    generation: u64,
    /// Streams that failed in a row, and when the next may be opened.
    failures: u32,
    reopen_at: Option<Instant>,
    identity_tasks: HashMap<usize, Task>,
    /// Topics that are being asked what they take.
    learning: HashMap<Arc<str>, Task>,
}

impl Sender {
    pub(crate) fn new(
        client: Client,
        config: ProducerConfig,
        shared: Arc<Shared>,
    ) -> Result<Sender> {
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        Ok(Sender {
            channel: client.config().channel()?,
            client,
            config,
            shared,
            events,
            events_in,
            pipelines: Vec::new(),
            requests: HashMap::new(),
            next_id: 0,
            stream: None,
            generation: 0,
            failures: 0,
            reopen_at: None,
            identity_tasks: HashMap::new(),
            learning: HashMap::new(),
        })
    }

    /// Runs until its task is aborted.
    pub(crate) async fn run(mut self) {
        loop {
            let due = self.pump();
            let shared = self.shared.clone();
            tokio::select! {
                event = self.events.recv() => {
                    if let Some(event) = event {
                        self.take_in(event);
                    }
                    // Whatever else has arrived goes before the next look at the clock.
                    while let Ok(event) = self.events.try_recv() {
                        self.take_in(event);
                    }
                }
                () = shared.wake.notified() => {}
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    /// Does everything that can be done now; returns when something will be due again.
    fn pump(&mut self) -> Instant {
        let now = tokio::time::Instant::now().into_std();
        self.expire(now);
        self.check_silence(now);
        self.fill(now);
        self.send(now);
        self.next_due(now)
    }

    /// Looks at what is gathered. Callers add partitions at any time, so those are adopted under
    /// the same lock: every queue that `look` can find has its pipeline.
    fn look_at_gathered<T>(&mut self, look: impl FnOnce(&mut Accumulator) -> T) -> T {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        for known in &state.routes.partitions[self.pipelines.len()..] {
            let rules = Rules {
                idempotent: self.config.idempotence,
                in_flight_max: self.config.in_flight_max,
                retry_failed: self.config.retry_failed_partitions,
            };
            let pipeline = Pipeline::new(known.topic.clone(), known.partition, rules);
            self.pipelines.push(pipeline);
        }
        for (pipeline, known) in self.pipelines.iter_mut().zip(&state.routes.partitions) {
            pipeline.fencing_token = known.fencing_token;
            pipeline.batch_bytes_max = known.batch_bytes_max;
        }
        look(&mut state.accumulator)
    }

    fn expire(&mut self, now: Instant) {
        let Some(begun) = now.checked_sub(self.config.delivery_timeout) else {
            return;
        };
        let mut finished = Vec::new();
        for pipeline in &mut self.pipelines {
            finished.extend(pipeline.take_expired(begun));
        }
        // A stream that has not answered for so long will not, and its requests shall not count.
        if finished.iter().any(|(outgoing, _)| outgoing.is_sent()) {
            let message = "a batch was not acknowledged within the delivery timeout";
            self.end_stream(&Error::Timeout(Arc::from(message)));
        }
        self.finish(finished);
        let expired = self.look_at_gathered(|gathered| gathered.take_expired(begun));
        for (queue, gathered) in expired {
            let last = self.pipelines[queue].last_error().cloned();
            let error = Error::DeliveryTimeout(last.map(Box::new));
            self.fail_gathered(queue, gathered, error);
        }
    }

    /// A stream that owes an answer for too long is given up.
    fn check_silence(&mut self, now: Instant) {
        let timeout = self.client.config().request_timeout;
        let waiting = self.pipelines.iter().filter_map(Pipeline::waiting_since);
        if self.stream.is_some() && waiting.min().is_some_and(|since| now >= since + timeout) {
            let message = format!("no acknowledgement for {timeout:?}");
            self.end_stream(&Error::Timeout(Arc::from(message)));
        }
    }

    /// Moves what is gathered and ready into the pipelines, as far as they have room.
    fn fill(&mut self, now: Instant) {
        let occupied = self.look_at_gathered(|gathered| gathered.occupied().collect::<Vec<_>>());
        for queue in occupied {
            while let Some(ready) = self.pipelines[queue].room() {
                if !self.pipelines[queue].can_encode() {
                    self.ask_identity(queue, now);
                    break;
                }
                let taken = self.shared.lock().accumulator.take(queue, now, ready);
                let Some(gathered) = taken else { break };
                let encoded = self.pipelines[queue].encode(gathered, self.config.compression);
                if let Err(finished) = encoded {
                    self.finish(vec![*finished]);
                }
            }
        }
    }

    fn ask_identity(&mut self, queue: usize, now: Instant) {
        let Identity::Wanted(raise) = self.pipelines[queue].identity else {
            return;
        };
        if self.reopen_at.is_some_and(|at| at > now) {
            return;
        }
        self.pipelines[queue].identity = Identity::Requested(raise);
        let (client, events) = (self.client.clone(), self.events_in.clone());
        let task = tokio::spawn(async move {
            let identity = init_producer_id(&client, raise).await;
            // The sender is gone: so is the need.
            drop(events.send(Event::Identified(queue, identity)).await);
        });
        self.identity_tasks.insert(queue, Task(task));
    }

    fn send(&mut self, now: Instant) {
        for queue in 0..self.pipelines.len() {
            while self.requests.len() < REQUESTS_IN_FLIGHT_MAX {
                if !self.pipelines[queue].can_encode() && !self.pipelines[queue].is_empty() {
                    self.ask_identity(queue, now);
                    break;
                }
                let id = self.next_id;
                let durability = self.config.durability;
                if self.reopen_at.is_some_and(|at| at > now) {
                    return;
                }
                let request = self.pipelines[queue].next_request(id, now, durability);
                let Some(request) = request else { break };
                self.next_id += 1;
                self.requests.insert(id, queue);
                self.put(request);
            }
        }
    }

    /// Puts a request on the stream, which is opened if need be.
    fn put(&mut self, request: v1::AppendStreamRequest) {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open_stream(),
        };
        // There is room for every request that may be in flight; a stream that has ended says so
        // by an event, and the batch then goes to the next one.
        drop(stream.requests.try_send(request));
        self.stream = Some(stream);
    }

    fn open_stream(&mut self) -> Stream {
        self.generation += 1;
        let generation = self.generation;
        let (requests, outgoing) = mpsc::channel(REQUESTS_IN_FLIGHT_MAX);
        let (client, events) = (self.client.clone(), self.events_in.clone());
        let mut logs = client.logs_over(self.channel.clone());
        let task = tokio::spawn(async move {
            let request = client.request(ReceiverStream::new(outgoing));
            let mut answers = match logs.append_stream(request).await {
                Ok(answers) => answers.into_inner(),
                Err(status) => {
                    let error = client.error(&status);
                    drop(events.send(Event::StreamEnded(generation, error)).await);
                    return;
                }
            };
            loop {
                let event = match answers.message().await {
                    Ok(Some(answer)) => Event::Answer(generation, answer),
                    Ok(None) => Event::StreamEnded(generation, ended(&client)),
                    Err(status) => Event::StreamEnded(generation, client.error(&status)),
                };
                let last = matches!(event, Event::StreamEnded(..));
                if events.send(event).await.is_err() || last {
                    return;
                }
            }
        });
        Stream {
            generation,
            requests,
            _task: Task(task),
        }
    }

    fn take_in(&mut self, event: Event) {
        let current = self.stream.as_ref().map(|stream| stream.generation);
        match event {
            Event::Answer(generation, answer) if current == Some(generation) => self.answer(answer),
            Event::StreamEnded(generation, error) if current == Some(generation) => {
                self.end_stream(&error);
            }
            // Of a stream that was given up: what it acknowledged is asked again.
            Event::Answer(..) | Event::StreamEnded(..) => {}
            Event::Identified(queue, identity) => self.identified(queue, identity),
        }
    }

    fn answer(&mut self, answer: v1::AppendStreamResponse) {
        let Some(queue) = self.requests.remove(&answer.id) else {
            return;
        };
        self.failures = 0;
        let result = match answer.result.and_then(|result| result.result) {
            Some(append_result::Result::Appended(appended)) => Ok(appended),
            Some(append_result::Result::Error(error)) => Err(Error::from_message(error)),
            None => Err(Error::from_message(v1::Error {
                code: Code::Internal as i32,
                message: "an answer without a result".to_owned(),
                ..v1::Error::default()
            })),
        };
        let pipeline = &mut self.pipelines[queue];
        let backoff = self.client.config().retry;
        let wait = backoff.backoff(pipeline.failures() + 1, rand::random());
        let now = tokio::time::Instant::now().into_std();
        let too_large = |error: &Error| error.reason() == v1::Reason::BatchTooLarge;
        let learns = result.as_ref().is_err_and(too_large);
        let finished = pipeline.answer(answer.id, result, now + wait);
        if learns {
            let topic = pipeline.topic().clone();
            self.learn(topic);
        }
        self.finish(finished.into_iter().collect());
    }

    /// Asks what the topic takes, so that the next batches are no larger.
    fn learn(&mut self, topic: Arc<str>) {
        let asked = self.learning.get(&topic);
        if asked.is_some_and(|task| !task.0.is_finished()) {
            return;
        }
        let (client, shared) = (self.client.clone(), self.shared.clone());
        let name = topic.clone();
        let task = tokio::spawn(async move {
            match routes::describe(&client, &name).await {
                Ok(described) => shared.learn(&name, described),
                Err(error) => tracing::debug!(%error, topic = %name, "cannot learn its limit"),
            }
        });
        self.learning.insert(topic, Task(task));
    }

    /// Gives the stream up; everything not acknowledged goes to the next one, after a pause.
    fn end_stream(&mut self, error: &Error) {
        tracing::debug!(%error, failures = self.failures, "append stream ended");
        self.stream = None;
        self.requests.clear();
        self.back_off();
        let hopeless = is_hopeless(error);
        let mut finished = Vec::new();
        for pipeline in &mut self.pipelines {
            pipeline.disconnected(error);
            if hopeless {
                finished.extend(pipeline.take_all(error));
            }
        }
        self.finish(finished);
    }

    fn back_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let policy = self.client.config().retry;
        let wait = policy.backoff(self.failures, rand::random());
        self.reopen_at = Some(tokio::time::Instant::now().into_std() + wait);
    }

    fn identified(&mut self, queue: usize, identity: Result<(i64, i16)>) {
        self.identity_tasks.remove(&queue);
        let pipeline = &mut self.pipelines[queue];
        let error = match identity {
            Ok((id, epoch)) => return pipeline.identify(id, epoch),
            Err(error) => error,
        };
        let Identity::Requested(raise) = pipeline.identity else {
            return;
        };
        // An id whose epoch cannot be raised is left for a fresh one.
        let refused = matches!(error, Error::Server(_)) && raise.is_some();
        pipeline.identity = Identity::Wanted(raise.filter(|_| !refused));
        if is_hopeless(&error) {
            let finished = pipeline.take_all(&error);
            self.finish(finished);
            self.fail_queue(queue, &error);
        } else {
            self.back_off();
        }
    }

    fn fail_queue(&mut self, queue: usize, error: &Error) {
        let now = tokio::time::Instant::now().into_std();
        loop {
            let taken = {
                let mut state = self.shared.lock();
                state.accumulator.hurry(queue);
                state.accumulator.take(queue, now, Ready::Any)
            };
            let Some(gathered) = taken else { return };
            self.fail_gathered(queue, gathered, error.clone());
        }
    }

    fn fail_gathered(&self, queue: usize, gathered: Gathered, error: Error) {
        let outgoing = self.pipelines[queue].unencoded(gathered);
        self.finish(vec![(outgoing, Err(error))]);
    }

    fn finish(&self, finished: Vec<Finished>) {
        for (outgoing, result) in finished {
            if let Err(error) = &result {
                self.shared.report(DeliveryError {
                    topic: outgoing.topic.clone(),
                    partition: outgoing.partition,
                    records: outgoing.records,
                    error: error.clone(),
                });
            }
            outgoing.completer.complete(result);
            if let Some((number, bytes)) = outgoing.finishes {
                self.shared.finish(number, bytes);
            }
        }
    }

    /// When something is due that no event announces. What was due before and is not done yet
    /// waits for an event.
    fn next_due(&self, now: Instant) -> Instant {
        let request_timeout = self.client.config().request_timeout;
        let delivery_timeout = self.config.delivery_timeout;
        let mut due: Vec<Instant> = self.reopen_at.into_iter().collect();
        for pipeline in &self.pipelines {
            due.extend(pipeline.retry_at());
            due.extend(pipeline.waiting_since().map(|at| at + request_timeout));
            due.extend(pipeline.oldest().map(|at| at + delivery_timeout));
        }
        let state = self.shared.lock();
        let accumulator = &state.accumulator;
        due.extend(accumulator.oldest().map(|at| at + delivery_timeout));
        for queue in accumulator.occupied() {
            due.extend(accumulator.ready_at(queue));
        }
        let later = due.into_iter().filter(|&at| at > now);
        later.min().unwrap_or(now + IDLE)
    }
}

/// Asks for a producer id, or for the next epoch of one.
async fn init_producer_id(client: &Client, raise: Option<(i64, i16)>) -> Result<(i64, i16)> {
    let request = v1::InitProducerIdRequest {
        producer_id: raise.map(|(id, _)| id),
        producer_epoch: raise.map(|(_, epoch)| i32::from(epoch)),
    };
    let given = client.init_producer_id(request).await?;
    let epoch = i16::try_from(given.producer_epoch).unwrap_or(-1);
    if given.producer_id < 0 || epoch < 0 {
        return Err(Error::from_message(v1::Error {
            code: Code::Internal as i32,
            message: "the server gave out an invalid producer id".to_owned(),
            ..v1::Error::default()
        }));
    }
    Ok((given.producer_id, epoch))
}

fn ended(client: &Client) -> Error {
    Error::Unavailable {
        connected: true,
        server: client.config().server.clone(),
        message: Arc::from("the server ended the append stream"),
    }
}

/// Whether no batch can succeed, now or later.
fn is_hopeless(error: &Error) -> bool {
    error.server_error().is_some_and(|error| {
        matches!(
            error.code,
            Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
        )
    })
}
