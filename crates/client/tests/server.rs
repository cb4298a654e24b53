//! Both faces against the real server, on a real disk, over restarts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use comlog_client::record::{Compression, Offset, Timestamp};
use comlog_client::v1::{self, Reason};
use comlog_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, ErrorKind, OffsetReset, Producer,
    ProducerConfig, ProducerRecord, RetryPolicy, StartAt,
};
use comlog_log::{Clock, ManualClock};
use comlog_server::{Broker, BrokerConfig, DiskDirs};
use comlog_storage::{DataDir, DiskOptions};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::TcpListenerStream;

const SOON: Duration = Duration::from_secs(30);

/// A server in this process that can be stopped and started on the same data and address. It has
/// a runtime of its own, so that stopping ends everything; connections go through a relay, which
/// can cut them.
struct Server {
    data: TempDir,
    address: SocketAddr,
    running: Option<(Broker, Runtime)>,
    relay: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((_, runtime)) = self.running.take() {
            runtime.shutdown_background();
        }
        self.relay.abort();
    }
}

impl Server {
    async fn start() -> Server {
        let mut server = Server {
            data: TempDir::new().unwrap(),
            address: "127.0.0.1:0".parse().unwrap(),
            running: None,
            relay: tokio::spawn(async {}),
        };
        server.serve().await;
        server
    }

    async fn serve(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let path = self.data.path().to_owned();
        let started = runtime.spawn(async move {
            let data_dir = DataDir::open(&path, DiskOptions::default()).unwrap();
            let dirs = Arc::new(DiskDirs::new(data_dir));
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp(1)));
            let broker = Broker::open(BrokerConfig::default(), dirs, clock).await;
            let broker = broker.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tonic::transport::Server::builder().add_routes(broker.routes());
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            (broker, address)
        });
        let (broker, backend) = started.await.unwrap();
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        self.relay = tokio::spawn(relay(listener, backend));
        self.running = Some((broker, runtime));
    }

    /// Starts anew, after an orderly end, or after every connection broke in the middle.
    async fn restart(&mut self, orderly: bool) {
        let (broker, runtime) = self.running.take().unwrap();
        if !orderly {
            self.cut().await;
        }
        broker.close().await;
        self.cut().await;
        drop(broker);
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(SOON));
        ended.await.unwrap();
        self.serve().await;
    }

    async fn cut(&mut self) {
        self.relay.abort();
        while !self.relay.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn client(&self) -> Client {
        let retry = RetryPolicy {
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(100),
            attempts_max: 100,
        };
        Client::new(ClientConfig::new(self.url()).retry(retry)).unwrap()
    }
}

/// Passes connections on to the server; they end with it.
async fn relay(listener: TcpListener, backend: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            if let Ok(mut server) = TcpStream::connect(backend).await {
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            }
        });
    }
}

fn earliest(server: &Server) -> Consumer {
    let config = ConsumerConfig::new().offset_reset(OffsetReset::Earliest);
    Consumer::new(&server.client(), config).unwrap()
}

async fn take(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let batches = consumer.poll(SOON).await.unwrap();
        assert!(!batches.is_empty(), "only {} of {count}", taken.len());
        for batch in &batches {
            for record in batch.iter() {
                let value = record.unwrap().value.unwrap().to_vec();
                taken.push(String::from_utf8(value).unwrap());
            }
        }
    }
    taken
}

#[tokio::test]
async fn what_is_produced_is_consumed_with_every_codec() {
    let server = Server::start().await;
    for compression in Compression::ALL {
        let topic = format!("t-{compression}");
        let config = ProducerConfig::new()
            .compression(compression)
            .batch_records_max(100);
        let producer = Producer::new(&server.client(), config).unwrap();
        for number in 0..1_000 {
            let value = format!("number {number}");
            drop(
                producer
                    .send(ProducerRecord::new(&topic, &value))
                    .await
                    .unwrap(),
            );
        }
        producer.close().await.unwrap();
        let mut consumer = earliest(&server);
        consumer.subscribe([topic.as_str()]);
        let expected: Vec<String> = (0..1_000).map(|n| format!("number {n}")).collect();
        assert_eq!(take(&mut consumer, 1_000).await, expected);
        assert_eq!(consumer.position(&topic, 0), Some(Offset(1_000)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_load_lose_double_and_reorder_nothing() {
    let mut server = Server::start().await;
    let config = ProducerConfig::new().batch_records_max(50);
    let producer = Producer::new(&server.client(), config).unwrap();
    server
        .client()
        .create_topic("t", 2, v1::TopicConfig::default())
        .await
        .unwrap();
    let sending = tokio::spawn(async move {
        for number in 0..20_000u32 {
            let value = number.to_string();
            let record = ProducerRecord::new("t", &value).partition(number % 2);
            drop(producer.send(record).await.unwrap());
            if number % 500 == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        producer.close().await.unwrap();
    });
    let mut consumer = earliest(&server);
    consumer.subscribe(["t"]);
    let consuming = tokio::spawn(async move { take(&mut consumer, 20_000).await });
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        server.restart(round % 2 == 0).await;
    }
    sending.await.unwrap();
    let taken = consuming.await.unwrap();
    for parity in 0..2 {
        let numbers = taken.iter().map(|value| value.parse::<u32>().unwrap());
        let of_one: Vec<u32> = numbers.filter(|number| number % 2 == parity).collect();
        let expected: Vec<u32> = (0..20_000).filter(|number| number % 2 == parity).collect();
        assert!(of_one == expected, "partition {parity}");
    }
}

/// Small messages that nobody reads pile up in the connection, and must come out all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_pauses_loses_and_doubles_nothing() {
    let server = Server::start().await;
    let producer =
        Producer::new(&server.client(), ProducerConfig::new().batch_records_max(1)).unwrap();
    let config = ConsumerConfig::new()
        .offset_reset(OffsetReset::Earliest)
        .prefetch_bytes(64 << 10);
    let mut consumer = Consumer::new(&server.client(), config).unwrap();
    consumer.subscribe(["t"]);
    let mut expected = Vec::new();
    for number in 0..3_000 {
        let value = number.to_string();
        drop(
            producer
                .send(ProducerRecord::new("t", &value))
                .await
                .unwrap(),
        );
        expected.push(value);
        if number == 0 {
            producer.flush().await.unwrap();
            assert_eq!(take(&mut consumer, 1).await, ["0"]);
        }
    }
    producer.close().await.unwrap();
    assert!(take(&mut consumer, 2_999).await == expected[1..]);
}

#[tokio::test]
async fn administration_does_what_it_says() {
    let server = Server::start().await;
    let client = server.client();
    let config = v1::TopicConfig::default();
    let topic = client.create_topic("t", 3, config).await.unwrap();
    assert_eq!((topic.name.as_str(), topic.partitions), ("t", 3));
    let again = client.create_topic("t", 3, config).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    let listed = client.list_topics(false).await.unwrap();
    assert!(listed.iter().any(|topic| topic.name == "t"));
    let missing = client.describe_topic("missing").await.unwrap_err();
    assert_eq!(missing.reason(), Reason::TopicNotFound);

    let producer = Producer::new(&client, ProducerConfig::new()).unwrap();
    for number in 0..10 {
        let value = number.to_string();
        let record = ProducerRecord::new("t", &value)
            .partition(1)
            .timestamp(Timestamp(100 + number));
        let delivered = producer.append(record).await.unwrap();
        assert_eq!(delivered.offset, Some(Offset(number)));
        assert!(delivered.durable);
    }
    let queries = [
        ("t", 1, StartAt::Latest),
        ("t", 1, StartAt::Timestamp(Timestamp(104))),
        ("t", 0, StartAt::Earliest),
    ];
    let found = client.list_offsets(queries).await.unwrap();
    let offsets: Vec<i64> = found.iter().map(|found| found.offset).collect();
    assert_eq!(offsets, [10, 4, 0]);
    assert_eq!(client.sync("t", 1).await.unwrap(), Offset(10));
    assert_eq!(client.trim("t", 1, Offset(4)).await.unwrap(), Offset(4));
    let mut consumer = earliest(&server);
    consumer.assign("t", 1, StartAt::Offset(Offset(2)));
    assert_eq!(take(&mut consumer, 6).await, ["4", "5", "6", "7", "8", "9"]);

    assert_eq!(client.fence("t", 1, 7).await.unwrap(), Offset(10));
    let record = ProducerRecord::new("t", "stale").partition(1);
    let fenced = producer.append(record).await.unwrap_err();
    assert_eq!(fenced.reason(), Reason::Fenced);
    producer.set_fencing_token("t", 1, Some(7)).unwrap();
    let delivered = producer.append(record).await.unwrap();
    assert_eq!(delivered.offset, Some(Offset(10)));
    producer.expect_offset("t", 1, Some(11)).unwrap();
    producer.append(record).await.unwrap();
    client.delete_topic("t").await.unwrap();
    let deleted = producer.append(record).await.unwrap_err();
    assert_eq!(deleted.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_group_goes_on_where_it_committed() {
    let server = Server::start().await;
    let client = server.client();
    let producer = Producer::new(&client, ProducerConfig::new()).unwrap();
    let config = ConsumerConfig::new()
        .group("g")
        .offset_reset(OffsetReset::Earliest);
    for round in 0..3 {
        let value = format!("round {round}");
        producer
            .append(ProducerRecord::new("t", &value))
            .await
            .unwrap();
        let mut consumer = Consumer::new(&client, config.clone()).unwrap();
        consumer.subscribe(["t"]);
        assert_eq!(take(&mut consumer, 1).await, [value]);
        consumer.commit().await.unwrap();
    }
    assert_eq!(client.list_groups().await.unwrap(), ["g"]);
    let committed = client.committed_offsets("g", Vec::new()).await.unwrap();
    assert_eq!(committed[0].offset, 3);
    client.delete_group("g").await.unwrap();
    let mut consumer = Consumer::new(&client, config).unwrap();
    consumer.subscribe(["t"]);
    assert_eq!(take(&mut consumer, 3).await.len(), 3);
}

#[allow(dead_code, reason = "its main function takes arguments")]
#[path = "../examples/produce.rs"]
mod produce;

#[tokio::test]
async fn the_examples_run() {
    let server = Server::start().await;
    produce::run(&server.url(), "greetings").await.unwrap();
    let client = server.client();
    let found = client.list_offsets([("greetings", 0, StartAt::Latest)]);
    assert_eq!(found.await.unwrap()[0].offset, 1_001);
}
