//! The listener as the network sees it: bytes on a socket.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use comlog_log::ManualClock;
use comlog_proto::v1::log_service_client::LogServiceClient;
use comlog_proto::v1::topic_service_client::TopicServiceClient;
use comlog_proto::v1::{
    AppendRequest, AppendResponse, ListTopicsRequest, Record, StartAt, TailRequest, TailResponse,
    TailStart, start_at, tail_response,
};
use comlog_record::Timestamp;
use comlog_server::{Drain, Server, ServerConfig};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Drain>,
}

impl Running {
    async fn start(change: impl FnOnce(&mut ServerConfig)) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ServerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: dir.path().join("data"),
            ..ServerConfig::default()
        };
        change(&mut config);
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
        let server = Server::start(config, clock).await.unwrap();
        let (address, (stop, stopped)) = (server.address(), oneshot::channel::<()>());
        let task = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            server.run(shutdown).await
        });
        Running {
            address,
            dir,
            stop: Some(stop),
            task,
        }
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        let drained = timeout(PATIENCE, self.task).await.unwrap().unwrap();
        assert_eq!(drained, Drain::Complete);
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    /// Sends bytes, and reads until the server closes or says no more for a while.
    async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        answer
    }

    async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        String::from_utf8(self.raw(request.as_bytes()).await).unwrap()
    }

    /// A gRPC-web call as a browser makes it over HTTP/1.1; headers of the answer, and its bytes.
    async fn grpc_web(
        &self,
        method: &str,
        message: &impl Message,
        headers: &str,
    ) -> (String, Vec<u8>) {
        let mut body = vec![0];
        body.put_u32(message.encoded_len() as u32);
        message.encode(&mut body).unwrap();
        let mut request = format!(
            "POST /comlog.v1.{method} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        split(&self.raw(&request).await)
    }
}

fn split(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("an HTTP answer");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let body = answer[end + 4..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        return (head, dechunk(&body));
    }
    (head, body)
}

fn dechunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if len == 0 || body.len() < end + 2 + len {
            break;
        }
        out.extend_from_slice(&body[end + 2..end + 2 + len]);
        body = &body[(end + 2 + len + 2).min(body.len())..];
    }
    out
}

/// The frames of a gRPC-web body: flag and content.
fn frames(mut body: &[u8]) -> Vec<(u8, Bytes)> {
    let mut found = Vec::new();
    while body.len() >= 5 {
        let len = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        if body.len() < 5 + len {
            break;
        }
        found.push((body[0], Bytes::copy_from_slice(&body[5..5 + len])));
        body = &body[5 + len..];
    }
    found
}

fn append(value: &'static [u8]) -> AppendRequest {
    let record = Record {
        value: Some(Bytes::from_static(value)),
        ..Record::default()
    };
    AppendRequest {
        topic: "web".to_owned(),
        records: vec![record],
        ..AppendRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_calls_and_follows_over_http_1() {
    let server = Running::start(|config| config.fetch.tail_idle_ms = 200).await;
    let (head, body) = server
        .grpc_web("LogService/Append", &append(b"one"), "")
        .await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        !head.contains("access-control"),
        "no other origin is allowed by default: {head}"
    );
    let found = frames(&body);
    let answer = AppendResponse::decode(found[0].1.clone()).unwrap();
    assert_eq!(answer.appended.unwrap().next_offset, 1);
    let trailers = found.last().unwrap();
    assert_eq!(trailers.0, 0x80, "trailers come last, in the body");
    assert!(String::from_utf8_lossy(&trailers.1).contains("grpc-status:0"));

    let (_, body) = server
        .grpc_web("LogService/Append", &AppendRequest::default(), "")
        .await;
    let text = format!("{}", String::from_utf8_lossy(&body));
    assert!(text.contains("grpc-status:3") || text.is_empty(), "{text}");

    let tail = TailRequest {
        partitions: vec![TailStart {
            topic: "web".to_owned(),
            partition: 0,
            at: Some(StartAt {
                at: Some(start_at::At::Offset(0)),
            }),
        }],
        ..TailRequest::default()
    };
    let request = server.grpc_web("LogService/Tail", &tail, "");
    let body = timeout(Duration::from_secs(15), request).await.unwrap().1;
    let kinds: Vec<_> = frames(&body)
        .into_iter()
        .filter_map(|(flag, content)| {
            (flag == 0).then(|| TailResponse::decode(content).unwrap().kind.unwrap())
        })
        .collect();
    assert!(matches!(kinds[0], tail_response::Kind::Opened(_)));
    assert!(
        matches!(&kinds[1], tail_response::Kind::Fetched(fetched) if fetched.fetched.as_ref().unwrap().next_offset == 1)
    );
    assert!(
        kinds[2..]
            .iter()
            .all(|kind| matches!(kind, tail_response::Kind::Idle(_)))
    );
    assert!(
        kinds.len() > 3,
        "the stream went on while there was nothing new"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_native_calls_share_the_port() {
    let server = Running::start(|_| ()).await;
    let mut topics = TopicServiceClient::new(server.channel().await);
    topics
        .list_topics(ListTopicsRequest::default())
        .await
        .unwrap();
    let page = server.get("/").await;
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("comlog"),
        "{page}"
    );
    assert!(page.contains("content-security-policy: default-src 'none'"));
    assert!(server.get("/healthz").await.ends_with("ok\n"));
    let metrics = server.get("/metrics").await;
    assert!(
        metrics.contains("comlog_connections_accepted_total"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"));
    assert!(server.get("/nothing").await.starts_with("HTTP/1.1 404"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_origins_are_allowed_by_name_only() {
    let server =
        Running::start(|config| config.http.cors_origins = vec!["https://a.example".to_owned()])
            .await;
    let preflight = |origin: &str| {
        format!(
            "OPTIONS /comlog.v1.LogService/Append HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\n\
             access-control-request-method: POST\r\naccess-control-request-headers: content-type,x-grpc-web\r\n\r\n"
        )
    };
    let (allowed, _) = split(&server.raw(preflight("https://a.example").as_bytes()).await);
    assert!(
        allowed.contains("access-control-allow-origin: https://a.example"),
        "{allowed}"
    );
    let (denied, _) = split(&server.raw(preflight("https://b.example").as_bytes()).await);
    assert!(!denied.contains("access-control-allow-origin"), "{denied}");
    let (head, _) = server
        .grpc_web(
            "LogService/Append",
            &append(b"x"),
            "origin: https://a.example\r\n",
        )
        .await;
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        let exposed = head
            .lines()
            .find(|line| line.starts_with("access-control-expose-headers"))
            .unwrap();
        assert!(exposed.contains(name), "{exposed}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_get_compressed_answers_and_native_clients_do_not() {
    let server = Running::start(|_| ()).await;
    let (head, _) = split(
        &server
            .raw(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept-encoding: gzip\r\n\r\n")
            .await,
    );
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let (head, _) = server
        .grpc_web(
            "LogService/Append",
            &append(b"x"),
            "accept-encoding: gzip\r\n",
        )
        .await;
    assert!(head.starts_with("HTTP/1.1 200"));
    let mut client = LogServiceClient::new(server.channel().await);
    let mut request = tonic::Request::new(append(b"x"));
    request
        .metadata_mut()
        .insert("accept-encoding", "gzip".parse().unwrap());
    let answer = client.append(request).await.unwrap();
    assert!(!answer.metadata().contains_key("content-encoding"));
    server.stop().await;
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
async fn tls_speaks_both_versions_of_http() {
    let server = Running::start(|config| config.tls.self_signed = true).await;
    let pem = std::fs::read(server.dir.path().join("data/tls-self-signed/cert.pem")).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem))
        .domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://{}", server.address)).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    let mut topics = TopicServiceClient::new(channel);
    topics
        .list_topics(ListTopicsRequest::default())
        .await
        .unwrap();
    let plain = server.get("/healthz").await;
    assert!(
        !plain.contains("200 OK"),
        "no plain HTTP on a TLS port: {plain}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_tails_with_a_status() {
    let server = Running::start(|_| ()).await;
    let mut client = LogServiceClient::new(server.channel().await);
    let mut tail = client
        .tail(TailRequest::default())
        .await
        .unwrap()
        .into_inner();
    tail.message().await.unwrap().unwrap();
    let stopping = tokio::spawn(server.stop());
    let status = loop {
        match timeout(Duration::from_secs(10), tail.message())
            .await
            .unwrap()
        {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the tail ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
    stopping.await.unwrap();
}
