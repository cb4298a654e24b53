//! On the local disk: what was acknowledged is there after a crash.

use std::path::Path;
use std::sync::Arc;

use comlog_log::ManualClock;
use comlog_proto::v1;
use comlog_proto::v1::log_service_client::LogServiceClient;
use comlog_server::{Broker, BrokerConfig, DiskDirs};
use comlog_storage::{DataDir, DiskOptions};
use tokio::runtime::Runtime;
use tonic::service::Routes;

use crate::common::*;

/// Opens a broker on the directory; its services are called in the process, without a socket.
async fn open(path: &Path) -> (Broker, LogServiceClient<Routes>) {
    let data_dir = DataDir::open(path, DiskOptions::default()).expect("not locked");
    let dirs = Arc::new(DiskDirs::new(data_dir));
    let clock = Arc::new(ManualClock::default());
    let broker = Broker::open(BrokerConfig::default(), dirs, clock)
        .await
        .expect("opens");
    let client = LogServiceClient::new(broker.routes());
    (broker, client)
}

#[test]
fn acknowledged_records_outlive_a_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..5 {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let (_broker, mut log) = open(dir.path()).await;
            let expected: Vec<String> = (0..round).map(|n| format!("round {n}")).collect();
            let request = v1::ReadRequest {
                form: v1::Form::Records as i32,
                ..read_request("comlog", 0, 0)
            };
            let read = log.read(request).await.expect("reads").into_inner();
            assert_eq!(values(&read.fetched.expect("set")), expected);
            let request = append_request("comlog", 0, &[&format!("round {round}")]);
            log.append(request).await.expect("appends");
        });
        // Every task is dropped where it stands: nothing is closed.
        drop(runtime);
    }
}

#[tokio::test]
async fn many_partitions_are_made_at_once_and_open_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (broker, mut log) = open(dir.path()).await;
    let mut topics = v1::topic_service_client::TopicServiceClient::new(broker.routes());
    let request = v1::CreateTopicRequest {
        name: "wide".to_owned(),
        partitions: 40,
        ..Default::default()
    };
    topics.create_topic(request).await.expect("creates");
    log.append(append_request("wide", 39, &["v"]))
        .await
        .expect("appends");
    broker.close().await;
    drop((broker, log, topics));
    let (_broker, mut log) = open(dir.path()).await;
    let read = log.read(read_request("wide", 39, 0)).await.expect("reads");
    assert_eq!(values(&read.into_inner().fetched.expect("set")), ["v"]);
}
