//! What outlives a restart, and a crash between the steps of a change.

use std::collections::HashSet;

use comlog_proto::v1;
use comlog_server::BrokerConfig;
use comlog_storage::Storage;

use crate::common::*;
use crate::lost_files::staged;

#[tokio::test]
async fn topics_configurations_and_records_outlive_a_restart() {
    let server = TestServer::start().await;
    let request = v1::CreateTopicRequest {
        name: "t".to_owned(),
        partitions: 12,
        config: Some(v1::TopicConfig {
            retention_ms: Some(9_000_000_000_000),
            ..Default::default()
        }),
        ..Default::default()
    };
    server
        .topics()
        .create_topic(request)
        .await
        .expect("creates");
    for partition in 0..12 {
        server
            .append("t", partition, &format!("in {partition}"))
            .await;
    }
    let name = "t".to_owned();
    let describe = || v1::DescribeTopicRequest { name: name.clone() };
    let before = server
        .topics()
        .describe_topic(describe())
        .await
        .expect("describes");
    let server = server.restart(BrokerConfig::default()).await;
    let after = server
        .topics()
        .describe_topic(describe())
        .await
        .expect("describes");
    let (before, after) = (before.into_inner(), after.into_inner());
    assert_eq!(before.topic, after.topic);
    assert_eq!(
        after.effective.expect("set").retention_ms,
        Some(9_000_000_000_000)
    );
    for partition in 0..12 {
        let expected = [format!("in {partition}")];
        assert_eq!(
            server.values("t", partition, 0).await,
            expected,
            "partitions keep their order"
        );
    }
}

#[tokio::test]
async fn producer_ids_are_never_given_out_twice() {
    let mut seen = HashSet::new();
    let mut server = TestServer::start().await;
    for _ in 0..3 {
        for _ in 0..5 {
            assert!(seen.insert(server.init_producer_id().await));
        }
        server = server.restart(BrokerConfig::default()).await;
    }
}

#[tokio::test]
async fn a_retry_after_a_restart_is_recognised() {
    let server = TestServer::start().await;
    let request = v1::AppendBatchesRequest {
        topic: "t".to_owned(),
        batches: batch_of(&["v"], 7, 0, 0),
        ..Default::default()
    };
    server
        .log()
        .append_batches(request.clone())
        .await
        .expect("appends");
    let server = server.restart(BrokerConfig::default()).await;
    let answer = server.log().append_batches(request).await.expect("answers");
    let results = answer.into_inner().results;
    let again = appended(&results[0]);
    assert_eq!((again.base_offset, again.duplicate), (0, true));
    assert_eq!(server.values("t", 0, 0).await, ["v"]);
}

#[tokio::test]
async fn a_fencing_token_outlives_a_restart() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let request = v1::FenceRequest {
        topic: "t".to_owned(),
        partition: 0,
        token: 4,
    };
    server.log().fence(request).await.expect("fences");
    let server = server.restart(BrokerConfig::default()).await;
    let answer = server.log().append(append_request("t", 0, &["v"])).await;
    assert_refused(answer, tonic::Code::FailedPrecondition, "FENCED");
}

#[tokio::test]
async fn topics_half_made_or_half_deleted_are_gone_after_a_start() {
    let server = TestServer::start().await;
    server.create_topic("creating", 1).await;
    server.create_topic("deleting", 1).await;
    server.create_topic("live", 1).await;
    let dirs = server.stop().await;
    let meta = dirs.raw("meta");
    for blob in meta.list_blobs().await.expect("lists") {
        let content = meta.read_blob(&blob).await.expect("reads").expect("there");
        let text = String::from_utf8_lossy(&content).into_owned();
        for stage in ["creating", "deleting"] {
            if text.contains(&format!(r#""name":"{stage}""#)) {
                let content = staged(&content, stage);
                meta.write_blob(&blob, content).await.expect("writes");
            }
        }
    }
    let server = TestServer::start_on(BrokerConfig::default(), dirs).await;
    let topics = server
        .topics()
        .list_topics(v1::ListTopicsRequest::default())
        .await;
    let names: Vec<String> = topics
        .expect("lists")
        .into_inner()
        .topics
        .into_iter()
        .map(|t| t.name)
        .collect();
    assert_eq!(names, ["comlog", "live"]);
    let partitions = server
        .dirs
        .paths()
        .iter()
        .filter(|path| path.starts_with("topics/") && path.ends_with("/0"))
        .count();
    assert_eq!(partitions, 3, "comlog, live and the committed offsets");
}
