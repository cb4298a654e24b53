//! Closing: queued appends are answered, streams end with a clear status, new work is refused.

use std::sync::atomic::Ordering;

use comlog_proto::v1;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::common::*;

#[tokio::test]
async fn queued_appends_are_acknowledged_and_kept() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    server.dirs.hold_syncs();
    let appends: Vec<_> = (0..10)
        .map(|_| {
            let mut log = server.log();
            tokio::spawn(async move { log.append(append_request("t", 0, &["v"])).await })
        })
        .collect();
    server
        .until(|c| c.appending_batches.load(Ordering::Relaxed) == 10)
        .await;
    let broker = server.broker.clone();
    let closing = tokio::spawn(async move { broker.close().await });
    // Refused from the moment that closing has begun.
    let health = loop {
        let mut health = HealthClient::new(server.channel.clone());
        let answer = health
            .check(HealthCheckRequest::default())
            .await
            .expect("answers");
        if answer.get_ref().status() == ServingStatus::NotServing {
            break answer.into_inner();
        }
    };
    assert_eq!(health.status(), ServingStatus::NotServing);
    let late = server.log().append(append_request("t", 0, &["late"])).await;
    assert_refused(late, Code::Unavailable, "SHUTTING_DOWN");
    server.dirs.release_syncs();
    for append in appends {
        append.await.expect("runs").expect("acknowledged");
    }
    closing.await.expect("closes");
    let server = server.restart(Default::default()).await;
    assert_eq!(server.values("t", 0, 0).await.len(), 10);
}

#[tokio::test]
async fn tails_streams_and_waiting_reads_end_with_a_clear_status() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let tail = v1::TailRequest {
        partitions: vec![v1::TailStart {
            topic: "t".to_owned(),
            partition: 0,
            at: None,
        }],
        ..Default::default()
    };
    let mut tail = server.log().tail(tail).await.expect("opens").into_inner();
    tail.message().await.expect("no error").expect("opened");
    let (_sender, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut stream = server
        .log()
        .append_stream(requests)
        .await
        .expect("opens")
        .into_inner();
    let mut log = server.log();
    let read = tokio::spawn(async move {
        let request = v1::ReadRequest {
            max_wait_ms: 60_000,
            ..read_request("t", 0, 0)
        };
        log.read(request).await
    });
    server.broker.close().await;
    assert_refused(tail.message().await, Code::Unavailable, "SHUTTING_DOWN");
    assert_refused(stream.message().await, Code::Unavailable, "SHUTTING_DOWN");
    assert_refused(
        read.await.expect("runs"),
        Code::Unavailable,
        "SHUTTING_DOWN",
    );
}

#[tokio::test]
async fn every_service_is_healthy_and_described() {
    use tonic_reflection::pb::{v1 as reflection, v1alpha as reflection_alpha};
    let server = TestServer::start().await;
    let services = [
        "",
        "comlog.v1.LogService",
        "comlog.v1.TopicService",
        "comlog.v1.GroupService",
        "api.ComLogRpc",
    ];
    for service in services {
        let mut health = HealthClient::new(server.channel.clone());
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await.expect("answers").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let request = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            reflection::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut client =
        reflection::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let answers = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await;
    let answer = answers
        .expect("answers")
        .into_inner()
        .message()
        .await
        .expect("no error");
    let Some(reflection::server_reflection_response::MessageResponse::ListServicesResponse(listed)) =
        answer.expect("a message").message_response
    else {
        panic!("not a list");
    };
    for service in &services[1..] {
        assert!(
            listed.service.iter().any(|found| found.name == *service),
            "{service}"
        );
    }
    let request = reflection_alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            reflection_alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "comlog.v1.LogService".to_owned(),
            ),
        ),
    };
    let mut client = reflection_alpha::server_reflection_client::ServerReflectionClient::new(
        server.channel.clone(),
    );
    let answers = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await;
    let answer = answers
        .expect("answers")
        .into_inner()
        .message()
        .await
        .expect("no error");
    assert!(matches!(
        answer.expect("a message").message_response,
        Some(
            reflection_alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(
                _
            )
        )
    ));
}
