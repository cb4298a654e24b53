//! Batches that lie about their records, bombs, and bytes that changed on the disk.

use std::sync::Arc;

use bytes::Bytes;
use comlog_proto::v1::{self, tail_response::Kind};
use comlog_record::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, Compression, Limits, Offset, Timestamp,
};
use comlog_server::BrokerConfig;
use tonic::Code;

use crate::common::*;

/// A compressed batch; its records are right.
fn compressed(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Limits {
        batch_bytes_max: 1 << 30,
        ..Limits::DEFAULT
    });
    builder
        .push(Timestamp(NOW_MS), None, Some(value), std::iter::empty())
        .expect("fits");
    builder
        .build(Compression::Gzip, None)
        .expect("builds")
        .to_bytes()
}

/// The batch with another number of records in its header, which a checksum confirms.
fn claiming(batch: &Bytes, count: i32) -> Bytes {
    let mut header = BatchHeader::decode(batch).expect("a header");
    let body = batch.slice(BATCH_HEADER_LEN..);
    header.record_count = count;
    header.last_offset_delta = count - 1;
    header.crc = header.compute_crc(std::slice::from_ref(&body));
    concat(&[Bytes::copy_from_slice(&header.encode()), body])
}

async fn append(server: &TestServer, topic: &str, batch: Bytes) -> v1::AppendResult {
    let request = v1::AppendBatchesRequest {
        topic: topic.to_owned(),
        batches: batch,
        ..Default::default()
    };
    let answer = server.log().append_batches(request).await.expect("answers");
    answer.into_inner().results.remove(0)
}

fn records(topic: &str, offset: i64) -> v1::ReadRequest {
    v1::ReadRequest {
        form: v1::Form::Records as i32,
        ..read_request(topic, 0, offset)
    }
}

/// A batch that passed the header's checks fails who decodes it, and only there.
async fn assert_stepped_over(server: &TestServer, lie: Bytes, next: i64) {
    server.append("t", 0, "before").await;
    assert_eq!(appended(&append(server, "t", lie).await).next_offset, next);
    server.append("t", 0, "behind").await;
    let good = server
        .log()
        .read(records("t", 0))
        .await
        .expect("what is good comes first");
    let good = good.into_inner().fetched.expect("set");
    assert_eq!(
        (values(&good), good.next_offset),
        (vec!["before".to_owned()], 1)
    );
    let status = server
        .log()
        .read(records("t", 1))
        .await
        .expect_err("damaged");
    assert_eq!(
        refusal(&status),
        (Code::DataLoss, "CORRUPT".to_owned(), Some(next))
    );
    assert!(
        status.message().contains(&format!("[1, {next})")),
        "{}",
        status.message()
    );
    assert_eq!(server.values("t", 0, next).await, ["behind"]);
}

#[tokio::test]
async fn a_false_count_is_stepped_over() {
    let server = TestServer::start().await;
    let lie = claiming(&compressed(b"one"), 5);
    assert_stepped_over(&server, lie, 6).await;
}

#[tokio::test]
async fn a_bomb_is_stepped_over() {
    let server = TestServer::start().await;
    let bomb = compressed(&vec![0; 100 << 20]);
    assert!(bomb.len() < 1 << 20);
    assert_stepped_over(&server, bomb, 2).await;
}

#[tokio::test]
async fn full_validation_refuses_both() {
    let server = TestServer::start().await;
    let request = v1::CreateTopicRequest {
        name: "t".to_owned(),
        config: Some(v1::TopicConfig {
            validation: v1::Validation::Full as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    server
        .topics()
        .create_topic(request)
        .await
        .expect("creates");
    let lie = append(&server, "t", claiming(&compressed(b"one"), 5)).await;
    assert_eq!(error(&lie).reason(), v1::Reason::InvalidRecordBatch);
    let bomb = append(&server, "t", compressed(&vec![0; 100 << 20])).await;
    assert_eq!(error(&bomb).code, Code::InvalidArgument as i32);
    let good = append(&server, "t", compressed(b"one")).await;
    assert_eq!(appended(&good).base_offset, 0);
}

/// A server whose topic has two segments, the first of four batches, the second of them damaged.
async fn with_damaged_segment(change: impl FnOnce(&mut Vec<u8>, usize)) -> TestServer {
    let config = BrokerConfig::default();
    let server = TestServer::start().await;
    let request = v1::CreateTopicRequest {
        name: "t".to_owned(),
        config: Some(v1::TopicConfig {
            segment_bytes: Some(1 << 20),
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = server
        .topics()
        .create_topic(request)
        .await
        .expect("creates");
    let dir = format!("topics/{}/0", made.into_inner().topic.expect("set").id);
    let large = "x".repeat(300 << 10);
    for _ in 0..4 {
        server.append("t", 0, &large).await;
    }
    let dirs: Arc<MemoryDirs> = server.stop().await;
    let batch_len = batch(&[&large]).len();
    dirs.change_segment(&dir, Offset(0), |content| change(content, batch_len))
        .await;
    TestServer::start_on(config, dirs).await
}

#[tokio::test]
async fn a_changed_byte_is_reported_with_where_to_go_on() {
    let server = with_damaged_segment(|content, batch_len| content[batch_len + 1_000] ^= 1).await;
    let status = server
        .log()
        .read(records("t", 1))
        .await
        .expect_err("damaged");
    assert_eq!(
        refusal(&status),
        (Code::DataLoss, "CORRUPT".to_owned(), Some(2))
    );
    assert_eq!(
        server.values("t", 0, 2).await.len(),
        1,
        "to the end of the segment"
    );
    assert_eq!(server.append("t", 0, "goes on").await, 4);
}

#[tokio::test]
async fn a_tail_over_damage_fails_there_and_goes_on_where_it_is_sent() {
    // The length of the batch, so that even its end must be searched for.
    let server = with_damaged_segment(|content, batch_len| content[batch_len + 8] ^= 0x40).await;
    let request = v1::TailRequest {
        partitions: vec![v1::TailStart {
            topic: "t".to_owned(),
            partition: 0,
            at: earliest(),
        }],
        max_bytes: 1, // one batch a message
        ..Default::default()
    };
    let mut tail = server
        .log()
        .tail(request)
        .await
        .expect("opens")
        .into_inner();
    let mut next = async || {
        tail.message()
            .await
            .expect("no error")
            .expect("goes on")
            .kind
            .expect("set")
    };
    let Kind::Opened(opened) = next().await else {
        panic!("not opened");
    };
    let Kind::Fetched(fetched) = next().await else {
        panic!("the first batch is good");
    };
    assert_eq!(fetched.fetched.expect("set").next_offset, 1);
    let Kind::Failed(failed) = next().await else {
        panic!("the second batch is damaged");
    };
    let error = failed.error.expect("set");
    assert_eq!(
        (error.reason(), error.offset),
        (v1::Reason::Corrupt, Some(2))
    );
    let seek = v1::UpdateTailRequest {
        tail_id: opened.tail_id,
        changes: vec![v1::TailChange {
            topic: "t".to_owned(),
            partition: 0,
            change: Some(v1::tail_change::Change::Seek(at_offset(2).expect("set"))),
        }],
    };
    server.log().update_tail(seek).await.expect("seeks");
    let Kind::Fetched(fetched) = next().await else {
        panic!("behind the damage");
    };
    assert_eq!(fetched.fetched.expect("set").next_offset, 3);
    let described = server
        .topics()
        .describe_topic(v1::DescribeTopicRequest {
            name: "t".to_owned(),
        })
        .await
        .expect("describes");
    let damaged = described.into_inner().partitions.remove(0).damaged;
    assert_eq!(damaged, [v1::OffsetRange { start: 1, end: 2 }]);
}
