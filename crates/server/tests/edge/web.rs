//! gRPC-web, as browsers speak it over HTTP/1.1.

use std::io::Read;

use comlog_proto::v1::log_service_client::LogServiceClient;
use comlog_proto::v1::{
    AppendRequest, AppendResponse, StartAt, TailRequest, TailResponse, TailStart, start_at,
    tail_response,
};
use prost::Message;

use crate::support::{Running, append, frames, split};

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_calls_over_http_1() {
    let server = Running::start(|_| ()).await;
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

    let (head, body) = server
        .grpc_web("LogService/Append", &AppendRequest::default(), "")
        .await;
    let status = head + &String::from_utf8_lossy(&body);
    assert!(
        status.contains("grpc-status: 3") || status.contains("grpc-status:3"),
        "{status}"
    );
    server.stop().await;
}

async fn append_one(server: &Running) {
    let request = append(b"one");
    let (head, _) = server.grpc_web("LogService/Append", &request, "").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

fn follow() -> TailRequest {
    TailRequest {
        partitions: vec![TailStart {
            topic: "web".to_owned(),
            partition: 0,
            at: Some(StartAt {
                at: Some(start_at::At::Offset(0)),
            }),
        }],
        ..TailRequest::default()
    }
}

/// Opened, the record, and then word that there is nothing new, while the stream goes on.
fn is_followed(body: &[u8]) -> bool {
    let frames = frames(body).into_iter().filter(|(flag, _)| *flag == 0);
    let kinds = frames.map(|(_, content)| TailResponse::decode(content).unwrap().kind.unwrap());
    let kinds: Vec<_> = kinds.collect();
    let [opened, fetched, idle @ ..] = &kinds[..] else {
        return false;
    };
    assert!(matches!(opened, tail_response::Kind::Opened(_)));
    let tail_response::Kind::Fetched(fetched) = fetched else {
        panic!("{fetched:?}");
    };
    assert_eq!(fetched.fetched.as_ref().unwrap().next_offset, 1);
    let is_idle = |kind| matches!(kind, &tail_response::Kind::Idle(_));
    assert!(idle.iter().all(is_idle));
    idle.len() >= 2
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_follows_over_http_1() {
    let server = Running::start(|config| config.fetch.tail_idle_ms = 50).await;
    append_one(&server).await;
    server
        .grpc_web_stream("LogService/Tail", &follow(), "", is_followed)
        .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_holds_no_message_back() {
    let server = Running::start(|config| config.fetch.tail_idle_ms = 50).await;
    append_one(&server).await;
    let is_followed = |body: &[u8]| {
        let mut plain = Vec::new();
        // The stream is not at its end, which the decoder complains about.
        drop(flate2::read::GzDecoder::new(body).read_to_end(&mut plain));
        is_followed(&plain)
    };
    let gzip = "accept-encoding: gzip\r\n";
    server
        .grpc_web_stream("LogService/Tail", &follow(), gzip, is_followed)
        .await;
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
async fn no_other_origin_is_allowed_by_default() {
    let server = Running::start(|_| ()).await;
    let preflight = "OPTIONS /comlog.v1.LogService/Append HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                     origin: https://a.example\r\naccess-control-request-method: POST\r\n\r\n";
    let (head, _) = split(&server.raw(preflight.as_bytes()).await);
    assert!(!head.starts_with("HTTP/1.1 2"), "{head}");
    assert!(!head.contains("access-control-allow"), "{head}");
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
