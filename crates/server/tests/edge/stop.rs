//! How a server goes.

use std::time::Duration;

use comlog_proto::v1::TailRequest;
use comlog_proto::v1::log_service_client::LogServiceClient;
use comlog_server::Drain;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{PATIENCE, Running, append};

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
#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_are_told_before_it_goes() {
    let mut server = Running::start(|config| config.drain_delay_ms = 2_000).await;
    let mut health = HealthClient::new(server.channel().await);
    let ask = HealthCheckRequest::default();
    let healthy = health.check(ask.clone()).await.unwrap().into_inner();
    assert_eq!(healthy.status(), ServingStatus::Serving);
    assert!(server.get("/healthz").await.starts_with("HTTP/1.1 200"));

    server.begin_stop();
    let told = async {
        while server.get("/healthz").await.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, told).await.unwrap();
    assert!(server.get("/healthz").await.starts_with("HTTP/1.1 503"));
    let mut client = LogServiceClient::new(server.channel().await);
    client.append(append(b"still served")).await.unwrap();
    let leaving = health.check(ask).await.unwrap().into_inner();
    assert_eq!(leaving.status(), ServingStatus::NotServing);
    assert_eq!(server.ended().await, Drain::Complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_complete_even_if_a_client_does_not_end() {
    let mut server = Running::start(|config| config.drain_timeout_ms = 600_000).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /comlog.v1.LogService/Append HTTP/1.1\r\nhost: x\r\n\
                content-type: application/grpc-web+proto\r\ncontent-length: 100\r\n\
                expect: 100-continue\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body, so the request has begun.
    let mut asked = [0; 12];
    slow.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100");
    server.begin_stop();
    assert_eq!(server.ended().await, Drain::Complete);
    let mut rest = Vec::new();
    drop(
        timeout(PATIENCE, slow.read_to_end(&mut rest))
            .await
            .expect("closed"),
    );
}
