//! Create, list, describe, alter, delete.

use comlog_proto::v1;
use comlog_server::BrokerConfig;
use tonic::Code;

use crate::common::*;

fn create(name: &str) -> v1::CreateTopicRequest {
    v1::CreateTopicRequest {
        name: name.to_owned(),
        ..Default::default()
    }
}

async fn describe(server: &TestServer, name: &str) -> v1::DescribeTopicResponse {
    let name = name.to_owned();
    let answer = server
        .topics()
        .describe_topic(v1::DescribeTopicRequest { name })
        .await;
    answer.expect("describes").into_inner()
}

async fn delete(server: &TestServer, name: &str) -> Result<(), tonic::Status> {
    let name = name.to_owned();
    let answer = server
        .topics()
        .delete_topic(v1::DeleteTopicRequest { name })
        .await;
    answer.map(|_| ())
}

async fn list(server: &TestServer, include_internal: bool) -> Vec<String> {
    let request = v1::ListTopicsRequest { include_internal };
    let answer = server.topics().list_topics(request).await.expect("lists");
    let topics = answer.into_inner().topics;
    topics.into_iter().map(|topic| topic.name).collect()
}

#[tokio::test]
async fn topics_are_created_and_listed() {
    let server = TestServer::start().await;
    let request = v1::CreateTopicRequest {
        partitions: 3,
        config: Some(v1::TopicConfig {
            retention_ms: Some(1_000),
            ..Default::default()
        }),
        ..create("t")
    };
    let made = server
        .topics()
        .create_topic(request.clone())
        .await
        .expect("creates");
    let made = made.into_inner().topic.expect("set");
    assert_eq!(
        (made.name.as_str(), made.partitions, made.created_ms),
        ("t", 3, NOW_MS)
    );
    assert_eq!(made.id.len(), 32);
    let config = made.config.expect("set");
    assert_eq!(
        (config.retention_ms, config.segment_bytes),
        (Some(1_000), None)
    );
    let again = server.topics().create_topic(request.clone()).await;
    assert_refused(again, Code::AlreadyExists, "TOPIC_EXISTS");
    let if_not_exists = v1::CreateTopicRequest {
        partitions: 9,
        if_not_exists: true,
        ..create("t")
    };
    let same = server
        .topics()
        .create_topic(if_not_exists)
        .await
        .expect("is there");
    let same = same.into_inner().topic.expect("set");
    assert_eq!((same.id, same.partitions), (made.id, 3));
    assert_eq!(list(&server, false).await, ["comlog", "t"]);
    assert_eq!(
        list(&server, true).await,
        ["__consumer_offsets", "comlog", "t"]
    );
}

#[tokio::test]
async fn a_description_shows_what_is_in_force() {
    let server = TestServer::start().await;
    server.create_topic("t", 2).await;
    server.append("t", 1, "a").await;
    let described = describe(&server, "t").await;
    let effective = described.effective.expect("set");
    assert_eq!(effective.segment_bytes, Some(128 << 20));
    assert_eq!(
        (effective.retention_ms, effective.retention_bytes),
        (Some(-1), Some(-1))
    );
    assert_eq!(effective.durability(), v1::Durability::Durable);
    assert_eq!(effective.validation(), v1::Validation::Header);
    let partition = &described.partitions[1];
    assert_eq!((partition.partition, partition.log_start_offset), (1, 0));
    assert_eq!(
        (
            partition.high_watermark,
            partition.durable_offset,
            partition.log_end_offset
        ),
        (1, 1, 1)
    );
    assert!(partition.size_bytes > 0);
    assert_eq!(described.partitions[0].log_end_offset, 0);
    let name = "none".to_owned();
    let missing = server
        .topics()
        .describe_topic(v1::DescribeTopicRequest { name })
        .await;
    assert_refused(missing, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn names_and_values_out_of_range_are_refused() {
    let server = TestServer::start().await;
    for name in ["", ".", "..", "../x", "a/b", "__mine"] {
        let refused = server.topics().create_topic(create(name)).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_TOPIC_NAME");
    }
    let with = |config| v1::CreateTopicRequest {
        config: Some(config),
        ..create("t")
    };
    let segment_bytes = v1::TopicConfig {
        segment_bytes: Some(1),
        ..Default::default()
    };
    let retention_ms = v1::TopicConfig {
        retention_ms: Some(-2),
        ..Default::default()
    };
    let max_batch_bytes = v1::TopicConfig {
        max_batch_bytes: Some(u32::MAX),
        ..Default::default()
    };
    let durability = v1::TopicConfig {
        durability: 7,
        ..Default::default()
    };
    for (config, field) in [
        (segment_bytes, "segment_bytes"),
        (retention_ms, "retention_ms"),
        (max_batch_bytes, "max_batch_bytes"),
        (durability, "durability"),
    ] {
        let refused = server.topics().create_topic(with(config)).await;
        let status = assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
        assert!(status.message().contains(field), "{}", status.message());
    }
    assert_eq!(list(&server, false).await, ["comlog"]);
}

#[tokio::test]
async fn topics_and_partitions_are_bounded() {
    let mut config = BrokerConfig::default();
    config.topics.topics_max = 3; // with the two that are made at start
    config.topics.partitions_max = 6;
    let server = TestServer::start_with(config).await;
    let many = v1::CreateTopicRequest {
        partitions: 5,
        ..create("t")
    };
    let refused = server.topics().create_topic(many).await;
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
    server.create_topic("t", 4).await;
    let refused = server.topics().create_topic(create("u")).await;
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
    let more = v1::AlterTopicRequest {
        name: "t".to_owned(),
        partitions: Some(5),
        ..Default::default()
    };
    let refused = server.topics().alter_topic(more).await;
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
}

#[tokio::test]
async fn altering_changes_resets_and_adds_partitions_with_a_warning() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let alter = v1::AlterTopicRequest {
        name: "t".to_owned(),
        config: Some(v1::TopicConfig {
            max_batch_bytes: Some(2_000),
            retention_ms: Some(5_000),
            ..Default::default()
        }),
        ..Default::default()
    };
    let altered = server
        .topics()
        .alter_topic(alter)
        .await
        .expect("alters")
        .into_inner();
    assert_eq!(altered.warnings, Vec::<String>::new());
    let large = append_request("t", 0, &[&"x".repeat(3_000)]);
    let refused = server.log().append(large.clone()).await;
    assert_refused(refused, Code::InvalidArgument, "BATCH_TOO_LARGE");
    let reset = v1::AlterTopicRequest {
        name: "t".to_owned(),
        reset: vec!["max_batch_bytes".to_owned()],
        partitions: Some(3),
        ..Default::default()
    };
    let altered = server
        .topics()
        .alter_topic(reset)
        .await
        .expect("alters")
        .into_inner();
    assert_eq!(altered.warnings.len(), 1);
    assert!(
        altered.warnings[0].contains("keys"),
        "{}",
        altered.warnings[0]
    );
    let topic = altered.topic.expect("set");
    let config = topic.config.expect("set");
    assert_eq!(
        (
            topic.partitions,
            config.max_batch_bytes,
            config.retention_ms
        ),
        (3, None, Some(5_000))
    );
    server.log().append(large).await.expect("allowed again");
    server.append("t", 2, "a new partition").await;

    let refuse = async |request: v1::AlterTopicRequest, code, reason| {
        assert_refused(server.topics().alter_topic(request).await, code, reason);
    };
    let alter = |name: &str| v1::AlterTopicRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    let fewer = v1::AlterTopicRequest {
        partitions: Some(2),
        ..alter("t")
    };
    refuse(fewer, Code::InvalidArgument, "INVALID_REQUEST").await;
    let unknown = v1::AlterTopicRequest {
        reset: vec!["no_such".to_owned()],
        ..alter("t")
    };
    refuse(unknown, Code::InvalidArgument, "INVALID_REQUEST").await;
    refuse(alter("none"), Code::NotFound, "TOPIC_NOT_FOUND").await;
    refuse(
        alter("__consumer_offsets"),
        Code::InvalidArgument,
        "INVALID_TOPIC_NAME",
    )
    .await;
}

#[tokio::test]
async fn a_deleted_topic_is_gone_and_a_new_one_of_its_name_is_another() {
    let server = TestServer::start().await;
    server.create_topic("t", 2).await;
    server.append("t", 0, "old").await;
    let old = describe(&server, "t").await.topic.expect("set").id;
    let files = |id: &str| {
        server
            .dirs
            .paths()
            .iter()
            .filter(|path| path.contains(id))
            .count()
    };
    assert_eq!(
        files(&old),
        3,
        "each partition, and the copy of the metadata"
    );
    delete(&server, "t").await.expect("deletes");
    assert_eq!(files(&old), 0);
    assert_refused(
        delete(&server, "t").await,
        Code::NotFound,
        "TOPIC_NOT_FOUND",
    );
    let refused = delete(&server, "__consumer_offsets").await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_TOPIC_NAME");
    let read = server.log().read(read_request("t", 0, 0)).await;
    assert_refused(read, Code::NotFound, "TOPIC_NOT_FOUND");
    server.create_topic("t", 1).await;
    assert_ne!(describe(&server, "t").await.topic.expect("set").id, old);
    assert_eq!(server.append("t", 0, "new").await, 0);
}

#[tokio::test]
async fn racing_first_appends_make_one_topic() {
    let server = TestServer::start().await;
    let appends: Vec<_> = (0..20)
        .map(|_| {
            let mut log = server.log();
            tokio::spawn(async move { log.append(append_request("t", 0, &["v"])).await })
        })
        .collect();
    for append in appends {
        append.await.expect("runs").expect("appends");
    }
    assert_eq!(server.values("t", 0, 0).await.len(), 20);
}

#[tokio::test]
async fn a_delete_whose_caller_goes_away_is_finished() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let id = describe(&server, "t").await.topic.expect("set").id;
    server.dirs.hold_syncs();
    let mut topics = server.topics();
    let name = "t".to_owned();
    let caller =
        tokio::spawn(async move { topics.delete_topic(v1::DeleteTopicRequest { name }).await });
    while list(&server, false).await.contains(&"t".to_owned()) {}
    caller.abort();
    drop(caller.await);
    server.dirs.release_syncs();
    while server.dirs.paths().iter().any(|path| path.contains(&id)) {
        list(&server, false).await;
    }
}

#[tokio::test]
async fn retention_deletes_whole_segments_in_time() {
    let mut config = BrokerConfig::default();
    config.append.maintain_interval_ms = 5;
    let server = TestServer::start_with(config).await;
    let request = v1::CreateTopicRequest {
        config: Some(v1::TopicConfig {
            segment_bytes: Some(1 << 20),
            retention_bytes: Some(1 << 20),
            ..Default::default()
        }),
        ..create("t")
    };
    server
        .topics()
        .create_topic(request)
        .await
        .expect("creates");
    let large = "x".repeat(400 << 10);
    for _ in 0..8 {
        server.append("t", 0, &large).await;
    }
    // Two records a segment: the oldest go until what is left is small enough.
    let mut start = 0;
    while start < 4 {
        start = describe(&server, "t").await.partitions[0].log_start_offset;
    }
    assert_eq!(start % 2, 0, "whole segments");
    assert_eq!(server.values("t", 0, start).await[0].len(), 400 << 10);
}
