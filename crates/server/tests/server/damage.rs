//! Batches that lie about their records, bombs, and bytes that changed on the disk.

use std::sync::Arc;

use bytes::Bytes;
use comlog_proto::api;
use comlog_proto::v1::{self, tail_response::Kind};
use comlog_record::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, Compression, Limits, Offset, Timestamp,
};
use comlog_server::{AppendConfig, BrokerConfig};
use tonic::Code;
use tonic_types::StatusExt;

use crate::common::*;

/// A compressed batch; its records are right.
fn compressed(value: &[u8]) -> Bytes {
    compressed_all(&[value])
}

fn compressed_all(values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(Limits {
        batch_bytes_max: 1 << 30,
        ..Limits::DEFAULT
    });
    for value in values {
        builder
            .push(Timestamp(NOW_MS), None, Some(value), std::iter::empty())
            .expect("fits");
    }
    builder
        .build(Compression::Gzip, None)
        .expect("builds")
        .to_bytes()
}

/// The batch with another number of records in its header, which a checksum confirms.
fn claiming(batch: &Bytes, count: i32) -> Bytes {
    let mut header = BatchHeader::decode(batch).expect("a header");
    header.record_count = count;
    header.last_offset_delta = count - 1;
    with_header(header, batch)
}

fn with_header(mut header: BatchHeader, batch: &Bytes) -> Bytes {
    let body = batch.slice(BATCH_HEADER_LEN..);
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

/// What a read in the form of records is refused with: reason, its offset, and where to go on.
async fn refused_at(server: &TestServer, offset: i64) -> (Code, String, Option<i64>, Option<i64>) {
    let read = server.log().read(records("t", offset)).await;
    let status = read.expect_err("cannot be given");
    let (code, reason, at) = refusal(&status);
    let info = status.get_details_error_info().expect("details");
    let next = info.metadata.get("next_offset");
    (
        code,
        reason,
        at,
        next.map(|next| next.parse().expect("a number")),
    )
}

/// Appends a batch that passed the header's checks between two good ones.
async fn append_between(server: &TestServer, lie: Bytes, next: i64) {
    server.append("t", 0, "before").await;
    assert_eq!(appended(&append(server, "t", lie).await).next_offset, next);
    server.append("t", 0, "behind").await;
    let good = server.log().read(records("t", 0)).await;
    let good = good.expect("what is good comes first").into_inner();
    let good = good.fetched.expect("set");
    assert_eq!(
        (values(&good), good.next_offset),
        (vec!["before".to_owned()], 1)
    );
}

#[tokio::test]
async fn a_false_count_is_stepped_over() {
    let server = TestServer::start().await;
    append_between(&server, claiming(&compressed(b"one"), 5), 6).await;
    let refused = refused_at(&server, 1).await;
    let expected = (Code::DataLoss, "CORRUPT".to_owned(), Some(6), Some(6));
    assert_eq!(refused, expected);
    assert_eq!(server.values("t", 0, 6).await, ["behind"]);
}

#[tokio::test]
async fn a_bomb_is_named_and_stepped_over() {
    let server = TestServer::start().await;
    let bomb = compressed_all(&[b"one", &vec![0; 100 << 20], b"two"]);
    assert!(bomb.len() < 1 << 20);
    server.append("t", 0, "before").await;
    assert_eq!(appended(&append(&server, "t", bomb).await).next_offset, 4);
    server.append("t", 0, "behind").await;
    assert_eq!(server.values("t", 0, 0).await, ["before", "one"]);
    let refused = refused_at(&server, 2).await;
    let too_large = |at| {
        (
            Code::InvalidArgument,
            "BATCH_TOO_LARGE".to_owned(),
            Some(at),
            Some(at + 1),
        )
    };
    assert_eq!(refused, too_large(2));
    assert_eq!(server.values("t", 0, 3).await, ["two", "behind"]);

    // The same in a tail, and in the original's API.
    let request = v1::TailRequest {
        partitions: vec![v1::TailStart {
            topic: "t".to_owned(),
            partition: 0,
            at: at_offset(2),
        }],
        form: v1::Form::Records as i32,
        ..Default::default()
    };
    let tail = server.log().tail(request).await.expect("opens");
    let mut tail = tail.into_inner();
    tail.message().await.expect("no error").expect("opened");
    let message = tail.message().await.expect("no error").expect("goes on");
    let Some(Kind::Failed(failed)) = message.kind else {
        panic!("{message:?}");
    };
    let error = failed.error.expect("set");
    assert_eq!(
        (error.reason(), error.offset, error.next_offset),
        (v1::Reason::BatchTooLarge, Some(2), Some(3))
    );
}

#[tokio::test]
async fn the_originals_api_reads_around_a_bomb() {
    let server = TestServer::start().await;
    let topic = BrokerConfig::default().topics.legacy_topic;
    let bomb = compressed_all(&[b"one", &vec![0; 100 << 20], b"two"]);
    append(&server, &topic, bomb).await;
    let mut legacy = server.legacy();
    let mut read = async |value| legacy.read(api::Offset { value }).await;
    assert_eq!(read(0).await.expect("reads").into_inner().record, "one");
    assert_refused(read(1).await, Code::InvalidArgument, "BATCH_TOO_LARGE");
    assert_eq!(read(2).await.expect("reads").into_inner().record, "two");
    assert_eq!(read(-1).await.expect("reads").into_inner().record, "two");
}

#[tokio::test]
async fn an_answer_of_records_is_held_to_its_bound_whatever_was_compressed() {
    let server = TestServer::start().await;
    let value = vec![7; 900 << 10];
    let batch = compressed_all(&[&value[..]; 40]);
    assert!(batch.len() < 1 << 20);
    append(&server, "t", batch).await;
    for max_bytes in [0, 2 << 20, 1] {
        let (mut offset, mut count) = (0, 0);
        while offset < 40 {
            let request = v1::ReadRequest {
                max_bytes,
                ..records("t", offset)
            };
            let answer = server.log().read(request).await.expect("reads");
            let answer = answer.into_inner();
            let bound = match max_bytes {
                0 => 8 << 20,
                1 => 1 << 20, // one record all the same
                asked => asked as usize,
            };
            assert!(prost::Message::encoded_len(&answer) <= bound + 100);
            let fetched = answer.fetched.expect("set");
            assert!(fetched.next_offset > offset);
            assert_eq!(fetched.records[0].offset, offset);
            offset = fetched.next_offset;
            count += fetched.records.len();
        }
        assert_eq!((offset, count), (40, 40));
    }
    // As it is stored the batch always comes, and whole.
    let fetched = server.log().read(read_request("t", 0, 39)).await;
    let fetched = fetched.expect("reads").into_inner().fetched.expect("set");
    assert_eq!(fetched.next_offset, 40);
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
    for length in [100 << 20, (1 << 20) + 5_000] {
        let bomb = append(&server, "t", compressed(&vec![0; length])).await;
        assert_eq!(error(&bomb).code, Code::InvalidArgument as i32);
        assert_eq!(error(&bomb).reason(), v1::Reason::BatchTooLarge);
    }
    let mut header = BatchHeader::decode(&compressed(b"one")).expect("a header");
    header.max_timestamp = Timestamp(NOW_MS + 1);
    let late = append(&server, "t", with_header(header, &compressed(b"one"))).await;
    assert_eq!(error(&late).reason(), v1::Reason::InvalidRecordBatch);
    assert!(error(&late).message.contains("max timestamp"));
    let exact = append(&server, "t", compressed(&vec![0; 1 << 20])).await;
    assert_eq!(appended(&exact).base_offset, 0);
    let good = append(&server, "t", compressed(b"one")).await;
    assert_eq!(appended(&good).base_offset, 1);
}

#[tokio::test]
async fn a_record_that_is_seen_to_be_too_large_is_refused() {
    let config = BrokerConfig {
        append: AppendConfig {
            record_bytes_max: 10_000,
            ..Default::default()
        },
        ..Default::default()
    };
    let server = TestServer::start_with(config).await;
    let (fits, large) = ("x".repeat(10_000), "x".repeat(15_000));
    let refused = append(&server, "t", batch(&["small", &large])).await;
    assert_eq!(error(&refused).reason(), v1::Reason::BatchTooLarge);
    assert!(error(&refused).message.contains("append.record_bytes_max"));
    let good = append(&server, "t", batch(&["small", &fits, &fits])).await;
    assert_eq!(appended(&good).next_offset, 3);
    let structured = server.log().append(append_request("t", 0, &[&large])).await;
    assert_refused(structured, Code::InvalidArgument, "BATCH_TOO_LARGE");
    // What is compressed nobody looks into, and the largest that may be asked for can be read.
    let good = append(&server, "t", compressed(large.as_bytes())).await;
    assert_eq!(appended(&good).next_offset, 4);
    assert_eq!(server.values("t", 0, 3).await, [large]);
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
