//! A scripted peer: keeps logs in memory by the protocol's rules, and fails when told to.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use comlog_client::record::{LeaderEpoch, Limits, Offset, RecordBatch};
use comlog_client::v1::{self, Reason};
use comlog_client::{Client, ClientConfig, RetryPolicy};
use futures_core::Stream;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::InterceptorLayer;
use tonic::transport::ServerTlsConfig;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

mod groups;
mod logs;
mod topics;

/// What becomes of a batch that arrives on an append stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is appended and acknowledged.
    None,
    /// The connection is lost before it is appended.
    LoseBefore,
    /// It is appended, and the connection is lost before that is said.
    LoseAfter,
    /// It is appended, and that is never said.
    Swallow,
    /// It is refused.
    Refuse(Reason),
    /// It is appended; the acknowledgement takes its time, and those behind it wait.
    Delay(Duration),
}

/// Changes an answer into nonsense.
type Twist<T> = Option<Box<dyn FnMut(&mut T) + Send>>;
type Script = Box<dyn FnMut(&v1::AppendStreamRequest) -> Fault + Send>;

/// One partition.
#[derive(Default)]
pub struct Log {
    pub batches: Vec<RecordBatch>,
    pub start: i64,
    pub end: i64,
    producers: HashMap<i64, Known>,
    /// Reading from this offset fails with these bytes damaged.
    pub corrupt: Option<i64>,
}

struct Known {
    epoch: i16,
    next_sequence: i32,
    /// Base sequence, count and base offset of the last sixteen batches.
    last: VecDeque<(i32, i32, i64)>,
}

/// Everything the server knows; outlives restarts.
#[derive(Default)]
pub struct World {
    pub logs: BTreeMap<(String, u32), Log>,
    pub topics: HashMap<String, u32>,
    pub committed: HashMap<(String, String, u32), i64>,
    pub commits: u32,
    next_producer_id: i64,
    script: Option<Script>,
    /// Tails opened so far, and those that run.
    pub tails_opened: u64,
    tails: HashMap<String, mpsc::Sender<logs::Update>>,
    /// Batches that arrived on append streams.
    pub arrived: u32,
    /// The largest batch that topics take.
    pub batch_bytes_max: Option<u32>,
    /// What is said instead of the truth.
    pub twist_append: Twist<v1::AppendStreamResponse>,
    pub twist_tail: Twist<v1::TailResponse>,
    pub twist_update: Twist<v1::UpdateTailResponse>,
    pub twist_topic: Twist<v1::DescribeTopicResponse>,
    pub twist_identity: Twist<v1::InitProducerIdResponse>,
    pub twist_committed: Twist<v1::FetchOffsetsResponse>,
    /// What is said of offsets.
    pub offsets_found: Vec<v1::OffsetFound>,
}

/// Changes `answer`, if that is wanted.
fn apply<T>(twist: &mut Twist<T>, answer: &mut T) {
    if let Some(twist) = twist {
        twist(answer);
    }
}

pub type Shared = Arc<(Mutex<World>, Notify)>;

/// The server.
pub struct Fake {
    pub shared: Shared,
    pub address: SocketAddr,
    running: Option<(JoinHandle<()>, watch::Sender<bool>)>,
    tls: Option<ServerTlsConfig>,
    /// Calls without this header are refused.
    authorization: Option<&'static str>,
}

impl Fake {
    pub async fn start() -> Fake {
        Fake::start_with(None, None).await
    }

    pub async fn start_with(
        tls: Option<ServerTlsConfig>,
        authorization: Option<&'static str>,
    ) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut fake = Fake {
            shared: Arc::default(),
            address: listener.local_addr().unwrap(),
            running: None,
            tls,
            authorization,
        };
        fake.serve(listener);
        fake
    }

    fn serve(&mut self, listener: TcpListener) {
        let (stop, stopped) = watch::channel(false);
        let service = Service {
            shared: self.shared.clone(),
            stopped: stopped.clone(),
        };
        let logs = v1::log_service_server::LogServiceServer::new(service.clone())
            .max_decoding_message_size(64 << 20);
        let topics = v1::topic_service_server::TopicServiceServer::new(service.clone());
        let groups = v1::group_service_server::GroupServiceServer::new(service);
        let mut server = tonic::transport::Server::builder();
        if let Some(tls) = self.tls.clone() {
            server = server.tls_config(tls).unwrap();
        }
        let wanted = self.authorization;
        let check = move |request: Request<()>| {
            let given = request.metadata().get("authorization");
            match wanted {
                Some(wanted) if given.is_none_or(|given| given != wanted) => {
                    Err(Status::unauthenticated("who are you?"))
                }
                _ => Ok(request),
            }
        };
        let server = server
            .layer(InterceptorLayer::new(check))
            .add_service(logs)
            .add_service(topics)
            .add_service(groups);
        let mut stopped = stopped;
        let task = tokio::spawn(async move {
            let stopped = async move { drop(stopped.wait_for(|stop| *stop).await) };
            let incoming = TcpListenerStream::new(listener);
            server
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .unwrap();
        });
        self.running = Some((task, stop));
    }

    /// Ends every connection and stops listening; what was appended stays.
    pub async fn stop(&mut self) {
        if let Some((task, stop)) = self.running.take() {
            stop.send(true).unwrap();
            tokio::time::timeout(Duration::from_millis(200), task)
                .await
                .ok();
        }
    }

    /// Listens again where it did before.
    pub async fn restart(&mut self) {
        self.stop().await;
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.0.lock().unwrap()
    }

    pub fn create(&self, topic: &str, partitions: u32) {
        let mut world = self.world();
        world.topics.insert(topic.to_owned(), partitions);
        for partition in 0..partitions {
            world.logs.entry((topic.to_owned(), partition)).or_default();
        }
    }

    /// What becomes of each batch that arrives from now on.
    pub fn script(&self, script: impl FnMut(&v1::AppendStreamRequest) -> Fault + Send + 'static) {
        self.world().script = Some(Box::new(script));
    }

    /// The values of a partition, in order.
    pub fn values(&self, topic: &str, partition: u32) -> Vec<Vec<u8>> {
        let world = self.world();
        let Some(log) = world.logs.get(&(topic.to_owned(), partition)) else {
            return Vec::new();
        };
        let mut values = Vec::new();
        for batch in &log.batches {
            for record in &batch.records(&Limits::DEFAULT).unwrap() {
                values.push(record.unwrap().value.unwrap_or_default().to_vec());
            }
        }
        values
    }

    /// Appends one batch of these values.
    pub fn append(&self, topic: &str, partition: u32, values: &[&str]) {
        let mut builder = comlog_client::record::BatchBuilder::new(Limits::DEFAULT);
        for value in values {
            let timestamp = comlog_client::record::Timestamp(1_000);
            builder
                .push(timestamp, None, Some(value.as_bytes()), [].into_iter())
                .unwrap();
        }
        let batch = builder
            .build(comlog_client::record::Compression::None, None)
            .unwrap();
        self.append_batch(topic, partition, batch);
    }

    /// Appends a batch as it is.
    pub fn append_batch(&self, topic: &str, partition: u32, batch: RecordBatch) {
        let mut world = self.world();
        let log = world.logs.entry((topic.to_owned(), partition)).or_default();
        log.append(batch);
        drop(world);
        self.shared.1.notify_waiters();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client that retries quickly.
    pub fn client(&self) -> Client {
        self.client_with(|config| config)
    }

    pub fn client_with(&self, change: impl FnOnce(ClientConfig) -> ClientConfig) -> Client {
        let retry = RetryPolicy {
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(50),
            attempts_max: 100,
        };
        Client::new(change(ClientConfig::new(self.url()).retry(retry))).unwrap()
    }
}

impl Log {
    fn append(&mut self, mut batch: RecordBatch) -> i64 {
        let base = self.end;
        batch.assign(Offset(base), LeaderEpoch(0));
        self.end = batch.header().offsets().end.0;
        self.batches.push(batch);
        base
    }

    /// By the rules for idempotent producers.
    fn check_and_append(&mut self, batch: RecordBatch) -> Result<(i64, bool), Reason> {
        let header = *batch.header();
        if header.producer_id < 0 {
            return Ok((self.append(batch), false));
        }
        let (sequence, count) = (header.base_sequence, header.record_count);
        let fresh = || Known {
            epoch: header.producer_epoch,
            next_sequence: 0,
            last: VecDeque::new(),
        };
        let known = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(fresh);
        if header.producer_epoch < known.epoch {
            return Err(Reason::ProducerFenced);
        }
        if header.producer_epoch > known.epoch {
            *known = fresh();
        }
        let again = known
            .last
            .iter()
            .find(|last| last.0 == sequence && last.1 == count);
        if let Some(&(_, _, base)) = again {
            return Ok((base, true));
        }
        if sequence + count <= known.next_sequence {
            return Err(Reason::DuplicateSequence);
        }
        if sequence != known.next_sequence {
            return Err(Reason::OutOfOrderSequence);
        }
        known.next_sequence += count;
        known.last.push_back((sequence, count, self.end));
        if known.last.len() > 16 {
            known.last.pop_front();
        }
        Ok((self.append(batch), false))
    }
}

#[derive(Clone)]
pub struct Service {
    shared: Shared,
    stopped: watch::Receiver<bool>,
}

impl Service {
    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.0.lock().unwrap()
    }
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn code(reason: Reason) -> Code {
    match reason {
        Reason::TopicNotFound | Reason::PartitionNotFound | Reason::TailNotFound => Code::NotFound,
        Reason::OffsetOutOfRange => Code::OutOfRange,
        Reason::Suspended => Code::Aborted,
        Reason::Overloaded | Reason::StorageFull => Code::ResourceExhausted,
        Reason::ShuttingDown => Code::Unavailable,
        Reason::Corrupt => Code::DataLoss,
        Reason::DuplicateSequence => Code::AlreadyExists,
        Reason::BatchTooLarge | Reason::InvalidRequest | Reason::InvalidRecordBatch => {
            Code::InvalidArgument
        }
        Reason::PartitionFailed => Code::Internal,
        _ => Code::FailedPrecondition,
    }
}

fn status(reason: Reason, topic: &str) -> Status {
    let name = reason.as_str_name().trim_start_matches("REASON_");
    let metadata = HashMap::from([("topic".to_owned(), topic.to_owned())]);
    let details = ErrorDetails::with_error_info(name, "comlog.v1", metadata);
    Status::with_error_details(code(reason), format!("{topic}: {name}"), details)
}

fn error(reason: Reason, offset: Option<i64>) -> v1::Error {
    v1::Error {
        code: code(reason) as i32,
        reason: reason as i32,
        message: reason.as_str_name().to_owned(),
        offset,
        ..v1::Error::default()
    }
}
