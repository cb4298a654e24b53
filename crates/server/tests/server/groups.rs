//! Committed offsets.

use comlog_proto::v1;
use comlog_server::BrokerConfig;
use tonic::Code;

use crate::common::*;

fn committed(partition: u32, offset: i64) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic: "t".to_owned(),
        partition,
        offset,
        metadata: "m".to_owned(),
        committed_ms: 0,
    }
}

async fn commit(
    server: &TestServer,
    group: &str,
    offsets: Vec<v1::CommittedOffset>,
) -> Result<(), tonic::Status> {
    let request = v1::CommitOffsetsRequest {
        group: group.to_owned(),
        offsets,
    };
    server.groups().commit_offsets(request).await.map(|_| ())
}

async fn fetch(server: &TestServer, group: &str) -> Vec<(u32, i64)> {
    let request = v1::FetchOffsetsRequest {
        group: group.to_owned(),
        partitions: Vec::new(),
    };
    let answer = server
        .groups()
        .fetch_offsets(request)
        .await
        .expect("fetches");
    let pair = |offset: &v1::CommittedOffset| (offset.partition, offset.offset);
    answer.into_inner().offsets.iter().map(pair).collect()
}

async fn list(server: &TestServer) -> Vec<String> {
    let answer = server.groups().list_groups(v1::ListGroupsRequest {}).await;
    answer.expect("lists").into_inner().groups
}

#[tokio::test]
async fn commits_are_fetched_listed_and_deleted() {
    let server = TestServer::start().await;
    server.create_topic("t", 2).await;
    assert_eq!(fetch(&server, "g").await, []);
    commit(&server, "g", vec![committed(0, 5), committed(1, 6)])
        .await
        .expect("commits");
    commit(&server, "g", vec![committed(0, 3)])
        .await
        .expect("commits back");
    commit(&server, "a", vec![committed(0, 1)])
        .await
        .expect("commits");
    assert_eq!(fetch(&server, "g").await, [(0, 3), (1, 6)]);
    assert_eq!(list(&server).await, ["a", "g"]);
    let only = v1::FetchOffsetsRequest {
        group: "g".to_owned(),
        partitions: vec![
            v1::TopicPartition {
                topic: "t".to_owned(),
                partition: 1,
            },
            v1::TopicPartition {
                topic: "t".to_owned(),
                partition: 9,
            },
        ],
    };
    let answer = server
        .groups()
        .fetch_offsets(only)
        .await
        .expect("fetches")
        .into_inner();
    let expected = v1::CommittedOffset {
        committed_ms: NOW_MS,
        ..committed(1, 6)
    };
    assert_eq!(answer.offsets, [expected]);
    let delete = || v1::DeleteGroupRequest {
        group: "g".to_owned(),
    };
    server
        .groups()
        .delete_group(delete())
        .await
        .expect("deletes");
    assert_eq!(fetch(&server, "g").await, []);
    let again = server.groups().delete_group(delete()).await;
    assert_refused(again, Code::NotFound, "GROUP_NOT_FOUND");
}

#[tokio::test]
async fn a_commit_is_all_or_none() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let refused = commit(&server, "g", vec![committed(0, 1), committed(9, 1)]).await;
    assert_refused(refused, Code::NotFound, "PARTITION_NOT_FOUND");
    let elsewhere = v1::CommittedOffset {
        topic: "none".to_owned(),
        ..committed(0, 1)
    };
    let refused = commit(&server, "g", vec![committed(0, 1), elsewhere]).await;
    assert_refused(refused, Code::NotFound, "TOPIC_NOT_FOUND");
    let refused = commit(&server, "g", vec![committed(0, -1)]).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
    let large = v1::CommittedOffset {
        metadata: "x".repeat((4 << 10) + 1),
        ..committed(0, 1)
    };
    let refused = commit(&server, "g", vec![large]).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
    for name in ["", &"g".repeat(250)] {
        let refused = commit(&server, name, vec![committed(0, 1)]).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
    }
    assert_eq!(list(&server).await, Vec::<String>::new());
}

#[tokio::test]
async fn commits_outlive_a_restart_and_their_log_stays_small() {
    let mut config = BrokerConfig::default();
    config.groups.rewrite_records = 10;
    let server = TestServer::start_with(config.clone()).await;
    server.create_topic("t", 3).await;
    for offset in 0..100 {
        commit(&server, "g", vec![committed((offset % 3) as u32, offset)])
            .await
            .expect("commits");
    }
    let describe = v1::DescribeTopicRequest {
        name: "__consumer_offsets".to_owned(),
    };
    let described = server
        .topics()
        .describe_topic(describe)
        .await
        .expect("describes");
    let log = described.into_inner().partitions.remove(0);
    let records = log.high_watermark - log.log_start_offset;
    assert!(records <= 2 * 3 + 10 + 1, "{records} records for 3 commits");
    assert!(log.log_start_offset > 50);
    let server = server.restart(config).await;
    assert_eq!(fetch(&server, "g").await, [(0, 99), (1, 97), (2, 98)]);
}

#[tokio::test]
async fn a_topic_made_anew_does_not_meet_old_commits() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    commit(&server, "g", vec![committed(0, 5)])
        .await
        .expect("commits");
    let delete = v1::DeleteTopicRequest {
        name: "t".to_owned(),
    };
    server.topics().delete_topic(delete).await.expect("deletes");
    server.create_topic("t", 1).await;
    assert_eq!(fetch(&server, "g").await, []);
    assert_eq!(list(&server).await, Vec::<String>::new());
    let server = server.restart(BrokerConfig::default()).await;
    assert_eq!(fetch(&server, "g").await, []);
}

#[tokio::test]
async fn groups_and_offsets_are_bounded() {
    let mut config = BrokerConfig::default();
    config.groups.groups_max = 1;
    config.groups.offsets_max = 2;
    let server = TestServer::start_with(config).await;
    server.create_topic("t", 3).await;
    commit(&server, "g", vec![committed(0, 1)])
        .await
        .expect("commits");
    let refused = commit(&server, "h", vec![committed(0, 1)]).await;
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
    commit(&server, "g", vec![committed(1, 1)])
        .await
        .expect("commits");
    let refused = commit(&server, "g", vec![committed(2, 1)]).await;
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
    commit(&server, "g", vec![committed(1, 2)])
        .await
        .expect("not a new one");
}

#[tokio::test]
async fn many_groups_commit_at_once() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let commits: Vec<_> = (0..50)
        .map(|index| {
            let mut groups = server.groups();
            let request = v1::CommitOffsetsRequest {
                group: format!("g{index}"),
                offsets: vec![committed(0, index)],
            };
            tokio::spawn(async move { groups.commit_offsets(request).await })
        })
        .collect();
    for commit in commits {
        commit.await.expect("runs").expect("commits");
    }
    for index in 0..50 {
        assert_eq!(fetch(&server, &format!("g{index}")).await, [(0, index)]);
    }
}

#[tokio::test]
async fn a_group_larger_than_a_batch_is_rewritten_and_forgotten() {
    let mut config = BrokerConfig::default();
    config.append.request_bytes_max = 64 << 10;
    config.topic_defaults.max_batch_bytes = 64 << 10;
    config.groups.rewrite_records = 10;
    let server = TestServer::start_with(config.clone()).await;
    server.create_topic("t", 100).await;
    let large = |partition| v1::CommittedOffset {
        metadata: "x".repeat(4 << 10),
        ..committed(partition, 7)
    };
    for round in 0..40 {
        let offsets = (0..10).map(|index| large((round * 10 + index) % 100));
        commit(&server, "g", offsets.collect())
            .await
            .expect("commits");
    }
    let too_large = (0..20).map(large).collect();
    let refused = commit(&server, "g", too_large).await;
    assert_refused(refused, Code::InvalidArgument, "BATCH_TOO_LARGE");
    let server = server.restart(config).await;
    assert_eq!(fetch(&server, "g").await.len(), 100);
    let group = "g".to_owned();
    let delete = v1::DeleteGroupRequest { group };
    server.groups().delete_group(delete).await.expect("deletes");
    assert_eq!(fetch(&server, "g").await, []);
}

#[tokio::test]
async fn names_with_control_characters_are_refused() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    for name in ["a\x1b[2Jb", "line\nbreak", "\u{9b}", "\0"] {
        let refused = commit(&server, name, vec![committed(0, 1)]).await;
        let status = assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
        assert!(!status.message().contains(name), "{status}");
    }
    commit(&server, "größer 1", vec![committed(0, 1)])
        .await
        .expect("commits");
}
