//! Which producer ids are given out, and which are taken.

use std::sync::Arc;

use bytes::Bytes;
use comlog_proto::v1;
use comlog_record::Offset;
use comlog_server::BrokerConfig;
use comlog_storage::Storage;
use tonic::Code;

use crate::common::*;

const BLOBS: [&str; 2] = ["producer-ids", "producer-ids.copy"];

async fn append(server: &TestServer, id: i64, sequence: i32) -> v1::AppendResult {
    let request = v1::AppendBatchesRequest {
        topic: "t".to_owned(),
        batches: batch_of(&["v"], id, 0, sequence),
        ..Default::default()
    };
    let answer = server.log().append_batches(request).await.expect("answers");
    answer.into_inner().results.remove(0)
}

async fn raise(server: &TestServer, id: i64, epoch: i32) -> Result<(i64, i32), tonic::Status> {
    let request = v1::InitProducerIdRequest {
        producer_id: Some(id),
        producer_epoch: Some(epoch),
    };
    let raised = server.log().init_producer_id(request).await?.into_inner();
    Ok((raised.producer_id, raised.producer_epoch))
}

async fn blob(dirs: &MemoryDirs, name: &str) -> Bytes {
    let content = dirs.raw("meta").read_blob(name).await.expect("reads");
    content.expect("is there")
}

async fn put(dirs: &MemoryDirs, name: &str, content: Bytes) {
    let written = dirs.raw("meta").write_blob(name, content).await;
    written.expect("writes");
}

async fn start(dirs: Arc<MemoryDirs>) -> TestServer {
    TestServer::start_on(BrokerConfig::default(), dirs).await
}

#[tokio::test]
async fn an_id_that_nobody_was_given_is_refused_whatever_the_call() {
    let server = TestServer::start().await;
    for id in [1_000, i64::MAX - 1, i64::MAX] {
        let refused = append(&server, id, 0).await;
        assert_eq!(error(&refused).reason(), v1::Reason::InvalidRequest);
        assert_eq!(error(&refused).code, Code::InvalidArgument as i32);
        let request = v1::AppendRequest {
            producer: Some(v1::Producer {
                id,
                epoch: 0,
                sequence: 0,
            }),
            ..append_request("t", 0, &["v"])
        };
        let refused = server.log().append(request).await;
        let status = assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
        assert!(status.message().contains("InitProducerId"), "{status:?}");
    }
    let server = server.restart(BrokerConfig::default()).await;
    let id = server.init_producer_id().await;
    assert_eq!(appended(&append(&server, id, 0).await).base_offset, 0);
}

#[tokio::test]
async fn ids_stored_as_they_came_reserve_what_is_below_them_up_to_a_bound() {
    let stored = [
        (5_000_000, 5_000_000..5_010_000),
        (1 << 62, (1 << 62)..(1 << 62) + 10_000),
        (i64::MAX, 0..10_000),
    ];
    for (id, expected) in stored {
        let server = TestServer::start().await;
        let first = server.init_producer_id().await;
        assert_eq!(appended(&append(&server, first, 0).await).base_offset, 0);
        let name = "t".to_owned();
        let request = v1::DescribeTopicRequest { name };
        let described = server.topics().describe_topic(request).await;
        let topic = described.expect("describes").into_inner().topic;
        let dir = format!("topics/{}/0", topic.expect("set").id);
        let dirs = server.stop().await;
        // What a restore does: the bytes of the segment, and no state beside them.
        let mut batch = batch_of(&["v"], id, 0, 0).to_vec();
        batch[..8].copy_from_slice(&1_i64.to_be_bytes());
        let change = |content: &mut Vec<u8>| content.extend_from_slice(&batch);
        dirs.change_segment(&dir, Offset(0), change).await;
        let raw = dirs.raw(&dir);
        for blob in raw.list_blobs().await.expect("lists") {
            raw.remove_blob(&blob).await.expect("removes");
        }
        let server = start(dirs).await;
        assert_eq!(server.values("t", 0, 0).await.len(), 2);
        let next = server.init_producer_id().await;
        assert!(next > first && expected.contains(&next), "{id}: {next}");
        let server = server.restart(BrokerConfig::default()).await;
        assert!(server.init_producer_id().await > next);
    }
}

#[tokio::test]
async fn one_copy_is_enough_and_an_older_one_does_not_win() {
    let mut server = TestServer::start().await;
    let older = blob(&server.dirs, BLOBS[0]).await;
    let mut last = server.init_producer_id().await;
    for name in BLOBS {
        for damage in 0..3 {
            // The first id after a start sets a block aside.
            last = server.init_producer_id().await.max(last);
            let dirs = server.stop().await;
            let raw = dirs.raw("meta");
            match damage {
                0 => raw.remove_blob(name).await.expect("removes"),
                1 => put(&dirs, name, older.clone()).await,
                _ => {
                    let mut wrong = blob(&dirs, name).await.to_vec();
                    wrong[55] ^= 4;
                    put(&dirs, name, wrong.into()).await;
                }
            }
            server = start(dirs).await;
            let next = server.init_producer_id().await;
            assert!((last + 1..last + 2_000).contains(&next), "{last}: {next}");
            let [first, second] = BLOBS;
            let first = blob(&server.dirs, first).await;
            assert_eq!(first, blob(&server.dirs, second).await, "whole again");
            last = next;
        }
    }
}

#[tokio::test]
async fn without_any_copy_ids_go_on_far_above() {
    for damaged in [false, true] {
        let server = TestServer::start().await;
        let last = server.init_producer_id().await;
        // In no log is any of them.
        server.append("t", 0, "plain").await;
        let dirs = server.stop().await;
        for name in BLOBS {
            if damaged {
                put(&dirs, name, Bytes::from_static(b"comlogPI nonsense")).await;
            } else {
                dirs.raw("meta").remove_blob(name).await.expect("removes");
            }
        }
        let server = start(dirs).await;
        let next = server.init_producer_id().await;
        assert!(next > last && next >= 1 << 32, "{next}");
        let server = server.restart(BrokerConfig::default()).await;
        let again = server.init_producer_id().await;
        assert!(next < again && again < next + 10_000, "not once more");
        assert_eq!(appended(&append(&server, again, 0).await).base_offset, 1);
    }
}

#[tokio::test]
async fn an_epoch_raised_before_a_restart_is_not_given_again() {
    let server = TestServer::start().await;
    let id = server.init_producer_id().await;
    assert_eq!(raise(&server, id, 0).await.expect("raises"), (id, 1));
    let fenced = raise(&server, id, 0).await;
    assert_refused(fenced, Code::FailedPrecondition, "PRODUCER_FENCED");
    let server = server.restart(BrokerConfig::default()).await;
    // Nobody remembers it, so the other instance gets another id.
    let (other, epoch) = raise(&server, id, 0).await.expect("a new id");
    assert!(other != id && epoch == 0, "{other} {epoch}");
}
