//! What the tests share: a server on port 0 over memory, clients, batches, and errors taken apart.

mod dirs;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use comlog_log::{Clock, ManualClock};
use comlog_proto::api::com_log_rpc_client::ComLogRpcClient;
use comlog_proto::v1;
use comlog_proto::v1::group_service_client::GroupServiceClient;
use comlog_proto::v1::log_service_client::LogServiceClient;
use comlog_proto::v1::topic_service_client::TopicServiceClient;
use comlog_record::{
    BatchBuilder, BatchStream, Compression, Limits, ProducerIds, RecordBatch, Timestamp,
};
use comlog_server::{Broker, BrokerConfig};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Server, server::TcpIncoming};
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(crate) use dirs::MemoryDirs;

/// The time that the server's clock shows.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

/// A server in this process.
pub(crate) struct TestServer {
    pub(crate) broker: Broker,
    pub(crate) dirs: Arc<MemoryDirs>,
    pub(crate) channel: Channel,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl TestServer {
    pub(crate) async fn start() -> TestServer {
        TestServer::start_with(BrokerConfig::default()).await
    }

    pub(crate) async fn start_with(config: BrokerConfig) -> TestServer {
        TestServer::start_on(config, Arc::new(MemoryDirs::default())).await
    }

    pub(crate) async fn start_on(config: BrokerConfig, dirs: Arc<MemoryDirs>) -> TestServer {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp(NOW_MS)));
        let broker = Broker::open(config, dirs.clone(), clock)
            .await
            .expect("opens");
        let address: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let incoming = TcpIncoming::bind(address).expect("a free port");
        let address = incoming.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let server = Server::builder().add_routes(broker.routes());
        let serving = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .expect("serves");
        });
        let channel = Channel::from_shared(format!("http://{address}")).expect("a URL");
        let channel = channel.connect().await.expect("connects");
        TestServer {
            broker,
            dirs,
            channel,
            stop,
            serving,
        }
    }

    pub(crate) fn log(&self) -> LogServiceClient<Channel> {
        LogServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub(crate) fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone())
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone())
    }

    pub(crate) fn legacy(&self) -> ComLogRpcClient<Channel> {
        ComLogRpcClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    /// Closes the broker and stops serving.
    pub(crate) async fn stop(self) -> Arc<MemoryDirs> {
        self.broker.close().await;
        let _ = self.stop.send(());
        drop(self.channel);
        self.serving.await.expect("ends");
        self.dirs
    }

    pub(crate) async fn restart(self, config: BrokerConfig) -> TestServer {
        TestServer::start_on(config, self.stop().await).await
    }

    pub(crate) async fn create_topic(&self, name: &str, partitions: u32) {
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            partitions,
            ..Default::default()
        };
        self.topics().create_topic(request).await.expect("creates");
    }

    /// Appends one record and returns its offset.
    pub(crate) async fn append(&self, topic: &str, partition: u32, value: &str) -> i64 {
        let request = append_request(topic, partition, &[value]);
        let answer = self.log().append(request).await.expect("appends");
        answer.into_inner().appended.expect("set").base_offset
    }

    /// A new producer's id.
    pub(crate) async fn init_producer_id(&self) -> i64 {
        let request = v1::InitProducerIdRequest::default();
        let answer = self.log().init_producer_id(request).await.expect("an id");
        answer.into_inner().producer_id
    }

    /// The values of a partition from `offset` on.
    pub(crate) async fn values(&self, topic: &str, partition: u32, offset: i64) -> Vec<String> {
        let request = v1::ReadRequest {
            form: v1::Form::Records as i32,
            ..read_request(topic, partition, offset)
        };
        let answer = self.log().read(request).await.expect("reads");
        values(&answer.into_inner().fetched.expect("set"))
    }

    /// Waits until `condition` holds; the test's own time limit ends a wait in vain.
    pub(crate) async fn until(&self, condition: impl Fn(&comlog_server::Counters) -> bool) {
        let counters = self.broker.counters();
        while !condition(&counters) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub(crate) fn append_request(topic: &str, partition: u32, values: &[&str]) -> v1::AppendRequest {
    v1::AppendRequest {
        topic: topic.to_owned(),
        partition,
        records: values.iter().map(|value| record(value)).collect(),
        ..Default::default()
    }
}

pub(crate) fn record(value: &str) -> v1::Record {
    v1::Record {
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..Default::default()
    }
}

pub(crate) fn read_request(topic: &str, partition: u32, offset: i64) -> v1::ReadRequest {
    v1::ReadRequest {
        topic: topic.to_owned(),
        partition,
        offset,
        ..Default::default()
    }
}

/// An encoded batch of these values.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    build(values, None).to_bytes()
}

pub(crate) fn batch_of(values: &[&str], producer_id: i64, epoch: i16, sequence: i32) -> Bytes {
    let producer = ProducerIds {
        producer_id,
        producer_epoch: epoch,
        base_sequence: sequence,
    };
    build(values, Some(producer)).to_bytes()
}

fn build(values: &[&str], producer: Option<ProducerIds>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Limits::DEFAULT);
    for value in values {
        let value = Some(value.as_bytes());
        builder
            .push(Timestamp(NOW_MS), None, value, std::iter::empty())
            .expect("fits");
    }
    builder.build(Compression::None, producer).expect("builds")
}

pub(crate) fn concat(batches: &[Bytes]) -> Bytes {
    let mut all = BytesMut::new();
    for batch in batches {
        all.extend_from_slice(batch);
    }
    all.freeze()
}

/// The batch with its last byte changed: its checksum does not hold.
pub(crate) fn broken(batch: &Bytes) -> Bytes {
    let mut bytes = batch.to_vec();
    *bytes.last_mut().expect("not empty") ^= 1;
    bytes.into()
}

/// The values in either form.
pub(crate) fn values(fetched: &v1::Fetched) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let mut values: Vec<String> = fetched
        .records
        .iter()
        .map(|record| text(record.value.as_deref().unwrap_or_default()))
        .collect();
    let mut batches = BatchStream::new(fetched.chunks.iter().cloned());
    while let Some(batch) = batches.next_batch(&Limits::DEFAULT).expect("a batch") {
        let records = batch.records(&Limits::DEFAULT).expect("records");
        for record in &records {
            let record = record.expect("a record");
            values.push(text(record.value.unwrap_or_default()));
        }
    }
    values
}

/// Code, reason and offset of a status.
pub(crate) fn refusal(status: &Status) -> (Code, String, Option<i64>) {
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.domain, "comlog.v1");
    let offset = info.metadata.get("offset");
    let offset = offset.map(|offset| offset.parse().expect("a number"));
    (status.code(), info.reason, offset)
}

/// Code and reason of a status.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
) -> Status {
    let status = result.expect_err("refused");
    let (found_code, found_reason, _) = refusal(&status);
    assert_eq!(
        (found_code, found_reason.as_str()),
        (code, reason),
        "{status:?}"
    );
    status
}

pub(crate) fn appended(result: &v1::AppendResult) -> &v1::Appended {
    match result.result.as_ref().expect("set") {
        v1::append_result::Result::Appended(appended) => appended,
        v1::append_result::Result::Error(error) => panic!("refused: {error:?}"),
    }
}

pub(crate) fn error(result: &v1::AppendResult) -> &v1::Error {
    match result.result.as_ref().expect("set") {
        v1::append_result::Result::Error(error) => error,
        v1::append_result::Result::Appended(appended) => panic!("appended: {appended:?}"),
    }
}

pub(crate) fn at_offset(offset: i64) -> Option<v1::StartAt> {
    Some(v1::StartAt {
        at: Some(v1::start_at::At::Offset(offset)),
    })
}

pub(crate) fn at_timestamp(timestamp: i64) -> Option<v1::StartAt> {
    Some(v1::StartAt {
        at: Some(v1::start_at::At::TimestampMs(timestamp)),
    })
}

pub(crate) fn earliest() -> Option<v1::StartAt> {
    Some(v1::StartAt {
        at: Some(v1::start_at::At::Earliest(v1::start_at::Earliest {})),
    })
}
