//! What a request may hold is counted before it is decoded, whatever the method.

use std::marker::PhantomData;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use comlog_proto::{FILE_DESCRIPTOR_SET, api, v1};
use comlog_server::{AppendConfig, BrokerConfig};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::common::*;

/// Sends bytes as they are, and decodes answers as `T`.
#[derive(Debug)]
struct Raw<T>(PhantomData<T>);

impl<T: Message + Default + Send + 'static> Codec for Raw<T> {
    type Encode = Bytes;
    type Decode = T;
    type Encoder = Raw<T>;
    type Decoder = Raw<T>;

    fn encoder(&mut self) -> Raw<T> {
        Raw(PhantomData)
    }

    fn decoder(&mut self) -> Raw<T> {
        Raw(PhantomData)
    }
}

impl<T> Encoder for Raw<T> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl<T: Message + Default> Decoder for Raw<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let message = T::decode(source.copy_to_bytes(source.remaining()));
        message
            .map(Some)
            .map_err(|error| Status::unknown(error.to_string()))
    }
}

/// Calls a method with messages that may be none, and waits for its first answer.
async fn call<T: Message + Default + Send + 'static>(
    server: &TestServer,
    path: &str,
    messages: impl futures_util::Stream<Item = Bytes> + Send + 'static,
) -> Result<T, Status> {
    let mut client = tonic::client::Grpc::new(server.channel.clone());
    client.ready().await.expect("a connection");
    let path = path.parse().expect("a path");
    let answers: Response<Streaming<T>> = client
        .streaming(Request::new(messages), path, Raw(PhantomData))
        .await?;
    let first = answers.into_inner().message().await?;
    first.ok_or_else(|| Status::unknown("no answer"))
}

async fn call_once<T: Message + Default + Send + 'static>(
    server: &TestServer,
    path: &str,
    message: impl Into<Bytes>,
) -> Result<T, Status> {
    call(server, path, futures_util::stream::iter([message.into()])).await
}

/// So many elements of the field `number`, each of which takes two bytes.
fn empty_elements(number: u8, count: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(2 * count);
    for _ in 0..count {
        message.put_slice(&[number << 3 | 2, 0]);
    }
    message.freeze()
}

#[tokio::test]
async fn malformed_messages_are_the_callers_fault_whatever_the_method() {
    let server = TestServer::start().await;
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut methods = 0;
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let refused = call_once::<()>(&server, &path, vec![0xff; 12]).await;
                let status = assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
                assert!(status.message().contains("malformed"), "{path}: {status}");
                methods += 1;
            }
        }
    }
    assert!(methods >= 29, "{methods}");
}

#[tokio::test]
async fn repeated_fields_are_counted_before_they_are_decoded() {
    let server = TestServer::start().await;
    for (path, number, field) in [
        ("/comlog.v1.LogService/Append", 3, "records"),
        ("/comlog.v1.LogService/Tail", 1, "partitions"),
        ("/comlog.v1.LogService/UpdateTail", 2, "changes"),
        ("/comlog.v1.LogService/ListOffsets", 1, "queries"),
        ("/comlog.v1.GroupService/CommitOffsets", 2, "offsets"),
        ("/comlog.v1.GroupService/FetchOffsets", 2, "partitions"),
        ("/comlog.v1.TopicService/AlterTopic", 3, "reset"),
        ("/comlog.v1.ArchiveService/Flush", 1, "topics"),
        ("/comlog.v1.ArchiveService/Status", 1, "topics"),
        ("/api.ComLogRpc/BatchAppend", 1, "batch"),
        ("/api.ComLogRpc/StreamBatchAppend", 1, "batch"),
    ] {
        let appends = path.contains("Append");
        let count = if appends { 8_000_000 } else { 2_000_000 };
        let refused = call_once::<()>(&server, path, empty_elements(number, count)).await;
        let status = assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
        let expected = format!("{field}: more than ");
        assert!(status.message().contains(&expected), "{path}: {status}");
    }
    let headers = empty_elements(3, 4_000_000);
    let mut message = BytesMut::from(&[0x1a][..]);
    prost::encoding::encode_varint(headers.len() as u64, &mut message);
    message.put(headers);
    let path = "/comlog.v1.LogService/Append";
    let refused = call_once::<()>(&server, path, message).await;
    let status = assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
    assert!(status.message().contains("headers: more than"), "{status}");
}

#[tokio::test]
async fn only_appends_may_be_larger_than_four_mebibytes() {
    let server = TestServer::start().await;
    for path in [
        "/comlog.v1.LogService/ListOffsets",
        "/comlog.v1.LogService/Tail",
        "/comlog.v1.GroupService/CommitOffsets",
        "/api.ComLogRpc/Read",
    ] {
        let refused = call_once::<()>(&server, path, vec![0; (4 << 20) + 1]).await;
        let status = assert_refused(refused, Code::InvalidArgument, "BATCH_TOO_LARGE");
        assert!(status.message().contains("4194304"), "{path}: {status}");
    }
    let record = api::Record {
        data: vec![0; 5 << 20].into(),
    };
    let refused = call_once::<()>(&server, "/api.ComLogRpc/Append", record.encode_to_vec()).await;
    let status = assert_refused(refused, Code::InvalidArgument, "BATCH_TOO_LARGE");
    assert!(status.message().contains("record_bytes_max"), "{status}");
    let mut legacy = server.legacy();
    let refused = legacy.append(api::Record {
        data: vec![0; 17 << 20].into(),
    });
    let status = assert_refused(refused.await, Code::InvalidArgument, "BATCH_TOO_LARGE");
    assert!(
        status.message().contains("append.request_bytes_max"),
        "{status}"
    );
}

#[tokio::test]
async fn what_decoding_adds_is_charged_until_the_call_is_answered() {
    let config = BrokerConfig {
        append: AppendConfig {
            decoded_bytes_max: 1_000,
            ..Default::default()
        },
        ..Default::default()
    };
    let server = TestServer::start_with(config).await;
    server.create_topic("t", 1).await;
    server.dirs.hold_syncs();
    let mut log = server.log();
    let first = tokio::spawn(async move { log.append(append_request("t", 0, &["v"; 100])).await });
    server
        .until(|c| c.appending_batches.load(Relaxed) == 1)
        .await;
    let refused = server.log().append(append_request("t", 0, &["v"])).await;
    let status = assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
    assert!(
        status.message().contains("append.decoded_bytes_max"),
        "{status}"
    );
    server.dirs.release_syncs();
    first.await.expect("runs").expect("appends");
    server.append("t", 0, "there is room again").await;
}

#[tokio::test]
async fn batches_of_one_request_are_bounded() {
    let mut config = BrokerConfig::default();
    config.append.partition_queue_max = 3;
    let server = TestServer::start_with(config).await;
    let request = |count: usize| v1::AppendBatchesRequest {
        topic: "t".to_owned(),
        batches: concat(&vec![batch(&["v"]); count]),
        ..Default::default()
    };
    let refused = server.log().append_batches(request(4)).await;
    let status = assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
    assert!(
        status.message().contains("append.partition_queue_max"),
        "{status}"
    );
    let good = server
        .log()
        .append_batches(request(3))
        .await
        .expect("appends");
    assert_eq!(good.into_inner().results.len(), 3);
}
