//! Many appends, one sync; failures of the disk.

use std::sync::atomic::Ordering;

use comlog_proto::v1;
use comlog_server::BrokerConfig;
use tonic::Code;

use crate::common::*;

#[tokio::test]
async fn appends_that_wait_at_once_share_a_sync() {
    let server = TestServer::start().await;
    server.append("t", 0, "makes the topic").await;
    let before = server.dirs.syncs();
    server.dirs.hold_syncs();
    let spawn = |index: usize| {
        let mut log = server.log();
        let value = format!("{index}");
        tokio::spawn(async move { log.append(append_request("t", 0, &[&value])).await })
    };
    let mut appends = vec![spawn(0)];
    // The first is at the disk, the others gather.
    server
        .until(|c| c.groups.load(Ordering::Relaxed) >= 2)
        .await;
    appends.extend((1..100).map(spawn));
    server
        .until(|c| c.appending_batches.load(Ordering::Relaxed) == 100)
        .await;
    server.dirs.release_syncs();
    let mut offsets = Vec::new();
    for append in appends {
        let answer = append.await.expect("runs").expect("appends").into_inner();
        let appended = answer.appended.expect("set");
        assert!(appended.durable);
        offsets.push(appended.base_offset);
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (1..101).collect::<Vec<_>>());
    assert_eq!(
        server.dirs.syncs() - before,
        2,
        "one for the first, one for the crowd"
    );
}

#[tokio::test]
async fn a_failed_sync_is_final_for_its_partition_until_a_restart() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    server.create_topic("other", 1).await;
    server.append("t", 0, "good").await;
    server.dirs.fail_syncs();
    let failed = server.log().append(append_request("t", 0, &["lost"])).await;
    assert_refused(failed, Code::Internal, "PARTITION_FAILED");
    server.dirs.heal();
    let failed = server.log().append(append_request("t", 0, &["late"])).await;
    assert_refused(failed, Code::Internal, "PARTITION_FAILED");
    assert_eq!(server.values("t", 0, 0).await, ["good"], "reads go on");
    server.append("other", 0, "works").await;
    let request = v1::DescribeTopicRequest {
        name: "t".to_owned(),
    };
    let described = server
        .topics()
        .describe_topic(request)
        .await
        .expect("describes");
    let partition = described.into_inner().partitions.remove(0);
    assert!(
        partition.failure.contains("failed"),
        "{}",
        partition.failure
    );
    let server = server.restart(BrokerConfig::default()).await;
    server.append("t", 0, "after").await;
    let values = server.values("t", 0, 0).await;
    assert_eq!(
        (
            values.first().map(String::as_str),
            values.last().map(String::as_str)
        ),
        (Some("good"), Some("after"))
    );
}

#[tokio::test]
async fn a_partition_that_cannot_be_opened_does_not_stop_the_others() {
    let server = TestServer::start().await;
    server.create_topic("t", 2).await;
    server.append("t", 0, "zero").await;
    server.append("t", 1, "one").await;
    let dirs = server.stop().await;
    dirs.fail_opens_in("/1");
    let server = TestServer::start_on(BrokerConfig::default(), dirs).await;
    assert_eq!(server.values("t", 0, 0).await, ["zero"]);
    let read = server.log().read(read_request("t", 1, 0)).await;
    assert_refused(read, Code::Internal, "PARTITION_FAILED");
    let append = server.log().append(append_request("t", 1, &["v"])).await;
    assert_refused(append, Code::Internal, "PARTITION_FAILED");
    let batches = v1::AppendBatchesRequest {
        topic: "t".to_owned(),
        partition: 1,
        batches: batch(&["v"]),
        ..Default::default()
    };
    let batches = server.log().append_batches(batches).await;
    assert_refused(batches, Code::Internal, "PARTITION_FAILED");
    let request = v1::DescribeTopicRequest {
        name: "t".to_owned(),
    };
    let described = server
        .topics()
        .describe_topic(request)
        .await
        .expect("describes");
    let partitions = described.into_inner().partitions;
    assert_eq!(partitions[0].failure, "");
    assert!(partitions[1].failure.contains("could not be opened"));
    server.dirs.heal();
    let server = server.restart(BrokerConfig::default()).await;
    assert_eq!(
        server.values("t", 1, 0).await,
        ["one"],
        "nothing was touched"
    );
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_nothing_else_until_there_is_room() {
    let server = TestServer::start().await;
    server.append("t", 0, "before").await;
    server.dirs.fill();
    let refused = server.log().append(append_request("t", 0, &["no"])).await;
    assert_refused(refused, Code::ResourceExhausted, "STORAGE_FULL");
    let created = v1::CreateTopicRequest {
        name: "new".to_owned(),
        ..Default::default()
    };
    let refused = server.topics().create_topic(created.clone()).await;
    assert_refused(refused, Code::ResourceExhausted, "STORAGE_FULL");
    assert_eq!(server.values("t", 0, 0).await, ["before"]);
    server.dirs.heal();
    assert_eq!(server.append("t", 0, "after").await, 1);
    server
        .topics()
        .create_topic(created)
        .await
        .expect("room again");
    let server = server.restart(BrokerConfig::default()).await;
    assert_eq!(server.values("t", 0, 0).await, ["before", "after"]);
}
