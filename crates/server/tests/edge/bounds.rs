//! Every bound of connections, streams, requests and time.

use std::time::Duration;

use comlog_proto::v1::TailRequest;
use comlog_proto::v1::log_service_client::LogServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::support::{PATIENCE, Running, append};

/// A tail that has begun.
async fn tail(
    client: &mut LogServiceClient<tonic::transport::Channel>,
) -> Streaming<comlog_proto::v1::TailResponse> {
    let tail = client.tail(TailRequest::default()).await;
    let mut tail = tail.unwrap().into_inner();
    tail.message().await.unwrap().unwrap();
    tail
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_half_open_connections_are_closed() {
    let server = Running::start(|config| config.http.handshake_timeout_ms = 300).await;
    for beginning in [
        b"".as_slice(),
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HT",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        let mut answer = Vec::new();
        let closed = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(
            closed.is_ok(),
            "{:?} is still open",
            String::from_utf8_lossy(beginning)
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_streams_and_headers_are_bounded() {
    let server = Running::start(|config| {
        config.http.connections_max = 2;
        config.http.streams_per_connection_max = 3;
        config.http.header_bytes_max = 8 << 10;
    })
    .await;
    let header = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(64 << 10)
    );
    let answer = String::from_utf8_lossy(&server.raw(header.as_bytes()).await).into_owned();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );

    let channel = server.channel().await;
    let mut tails = Vec::new();
    for _ in 0..3 {
        let mut client = LogServiceClient::new(channel.clone());
        let mut tail = client
            .tail(TailRequest::default())
            .await
            .unwrap()
            .into_inner();
        tail.message().await.unwrap().unwrap();
        tails.push(tail);
    }
    let mut client = LogServiceClient::new(channel.clone());
    let fourth = timeout(
        Duration::from_millis(500),
        client.tail(TailRequest::default()),
    )
    .await;
    assert!(
        fourth.is_err(),
        "a fourth stream waits until one of the three ends"
    );
    tails.pop();
    let again = timeout(Duration::from_secs(10), client.tail(TailRequest::default())).await;
    again.unwrap().unwrap();

    let _second = TcpStream::connect(server.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut third = TcpStream::connect(server.address).await.unwrap();
    let mut answer = Vec::new();
    let closed = timeout(Duration::from_secs(10), third.read_to_end(&mut answer)).await;
    assert!(
        closed.is_ok() && answer.is_empty(),
        "the third connection is closed at once"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_all_connections_are_bounded() {
    let server = Running::start(|config| config.http.requests_max = 2).await;
    let mut first = LogServiceClient::new(server.channel().await);
    let mut second = LogServiceClient::new(server.channel().await);
    let _tails = (tail(&mut first).await, tail(&mut second).await);

    let status = second.append(append(b"x")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("http.requests_max"), "{status}");
    let (head, _) = server
        .grpc_web("LogService/Append", &append(b"x"), "")
        .await;
    assert!(head.contains("grpc-status: 8"), "{head}");
    assert!(head.contains("application/grpc-web"), "{head}");
    assert!(
        server.get("/healthz").await.ends_with("ok\n"),
        "a busy server is not a sick one"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_and_a_following_one_is_not() {
    let server = Running::start(|config| {
        config.http.idle_timeout_ms = 100;
        // Not this one is meant.
        config.http.handshake_timeout_ms = 600_000;
        config.fetch.tail_idle_ms = 50;
    })
    .await;
    let mut client = LogServiceClient::new(server.channel().await);
    let mut tail = tail(&mut client).await;

    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let closed = timeout(PATIENCE, idle.read_to_end(&mut answer)).await;
    closed.expect("closed once idle").unwrap();
    assert!(answer.ends_with(b"ok\n"), "but not before the answer");

    // By now the tail is older than the timeout; it goes on for several more.
    for _ in 0..10 {
        tail.message().await.unwrap().unwrap();
    }
    drop(tail);
    server.stop().await;
}

/// A call that declares a message of a million bytes and sends `sent` of them.
fn unfinished(sent: usize) -> Vec<u8> {
    let head = "POST /comlog.v1.LogService/Append HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\ncontent-length: 1000005\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0x0f, 0x42, 0x40]);
    bytes.resize(bytes.len() + sent, b'x');
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_body_does_not_come_is_ended() {
    let server = Running::start(|config| config.append.request_timeout_ms = 200).await;
    for sent in [0, 100] {
        let answer = String::from_utf8(server.raw(&unfinished(sent)).await).unwrap();
        assert!(answer.contains("append.request_timeout_ms"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_unfinished_requests_are_counted() {
    let server = Running::start(|config| config.append.inflight_bytes_max = 100_000).await;
    let mut holding = TcpStream::connect(server.address).await.unwrap();
    holding.write_all(&unfinished(60_000)).await.unwrap();
    let mut client = LogServiceClient::new(server.channel().await);
    let value: &'static [u8] = &[b'v'; 60_000];
    // Until the unfinished one has arrived.
    let refused = async {
        loop {
            if let Err(status) = client.append(append(value)).await {
                return status;
            }
        }
    };
    let status = timeout(PATIENCE, refused).await.expect("is refused");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("inflight_bytes_max"), "{status}");
    client
        .append(append(b"small"))
        .await
        .expect("there is room for it");
    drop(holding);
    let appended = async { while client.append(append(value)).await.is_err() {} };
    timeout(PATIENCE, appended).await.expect("given back");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_takes_no_more_requests_than_are_left() {
    let server = Running::start(|config| config.http.requests_max = 4).await;
    let mut greedy = LogServiceClient::new(server.channel().await);
    let _tails = (tail(&mut greedy).await, tail(&mut greedy).await);
    let status = greedy.append(append(b"x")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let mut other = LogServiceClient::new(server.channel().await);
    let _tail = tail(&mut other).await;
    server.stop().await;
}
