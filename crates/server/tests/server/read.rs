//! Read, ListOffsets, Trim.

use std::time::Duration;

use comlog_proto::v1;
use comlog_record::{BatchStream, Limits};
use comlog_server::BrokerConfig;
use tonic::Code;

use crate::common::*;

async fn fetch(server: &TestServer, request: v1::ReadRequest) -> v1::Fetched {
    let answer = server.log().read(request).await.expect("reads");
    answer.into_inner().fetched.expect("set")
}

#[tokio::test]
async fn batches_hold_the_offset_and_records_begin_with_it() {
    let server = TestServer::start().await;
    server
        .log()
        .append(append_request("t", 0, &["a", "b", "c"]))
        .await
        .expect("appends");
    server.append("t", 0, "d").await;
    let fetched = fetch(&server, read_request("t", 0, 1)).await;
    let mut batches = BatchStream::new(fetched.chunks.clone());
    let first = batches
        .next_batch(&Limits::DEFAULT)
        .expect("whole")
        .expect("one");
    assert_eq!(
        first.header().base_offset.0,
        0,
        "the batch that holds offset 1"
    );
    assert_eq!(values(&fetched), ["a", "b", "c", "d"]);
    assert_eq!(
        (
            fetched.next_offset,
            fetched.log_start_offset,
            fetched.high_watermark
        ),
        (4, 0, 4)
    );
    let records = v1::ReadRequest {
        form: v1::Form::Records as i32,
        ..read_request("t", 0, 1)
    };
    let fetched = fetch(&server, records).await;
    assert_eq!(values(&fetched), ["b", "c", "d"]);
    assert!(fetched.chunks.is_empty());
    assert_eq!(fetched.next_offset, 4);
    assert_eq!(fetched.records[0].offset, 1);
}

#[tokio::test]
async fn max_bytes_bounds_the_answer_but_never_below_one_batch() {
    let server = TestServer::start().await;
    for value in ["a", "b", "c"] {
        server.append("t", 0, value).await;
    }
    let small = v1::ReadRequest {
        max_bytes: 1,
        ..read_request("t", 0, 0)
    };
    let fetched = fetch(&server, small).await;
    assert_eq!(
        (values(&fetched), fetched.next_offset),
        (vec!["a".to_owned()], 1)
    );
    let huge = v1::ReadRequest {
        max_bytes: u32::MAX,
        min_bytes: u32::MAX,
        ..read_request("t", 0, 0)
    };
    assert_eq!(values(&fetch(&server, huge).await).len(), 3);
}

#[tokio::test]
async fn the_end_is_empty_and_beyond_it_is_out_of_range() {
    let server = TestServer::start().await;
    server.append("t", 0, "a").await;
    let fetched = fetch(&server, read_request("t", 0, 1)).await;
    assert!(fetched.chunks.is_empty());
    assert_eq!(fetched.next_offset, 1);
    let status = server
        .log()
        .read(read_request("t", 0, 2))
        .await
        .expect_err("beyond");
    let expected = (Code::OutOfRange, "OFFSET_OUT_OF_RANGE".to_owned(), Some(1));
    assert_eq!(refusal(&status), expected);
    let negative = server.log().read(read_request("t", 0, -1)).await;
    assert_refused(negative, Code::InvalidArgument, "INVALID_REQUEST");
    let form = v1::ReadRequest {
        form: 5,
        ..read_request("t", 0, 0)
    };
    assert_refused(
        server.log().read(form).await,
        Code::InvalidArgument,
        "INVALID_REQUEST",
    );
    let topic = server.log().read(read_request("no-such", 0, 0)).await;
    assert_refused(topic, Code::NotFound, "TOPIC_NOT_FOUND");
    let partition = server.log().read(read_request("t", 9, 0)).await;
    assert_refused(partition, Code::NotFound, "PARTITION_NOT_FOUND");
}

#[tokio::test]
async fn a_long_poll_waits_for_an_append() {
    let server = TestServer::start().await;
    server.append("t", 0, "a").await;
    let mut log = server.log();
    let waiting = tokio::spawn(async move {
        let request = v1::ReadRequest {
            max_wait_ms: 60_000,
            ..read_request("t", 0, 1)
        };
        log.read(request).await
    });
    server.append("t", 0, "b").await;
    let answer = waiting.await.expect("runs").expect("reads").into_inner();
    assert_eq!(values(&answer.fetched.expect("set")), ["b"]);
}

#[tokio::test]
async fn a_long_poll_gathers_min_bytes_and_answers_with_less_when_time_is_over() {
    let server = TestServer::start().await;
    server.append("t", 0, "a").await;
    let request = v1::ReadRequest {
        min_bytes: 150,
        max_wait_ms: 60_000,
        ..read_request("t", 0, 0)
    };
    let mut log = server.log();
    let waiting = tokio::spawn(async move { log.read(request).await });
    server.append("t", 0, "b").await;
    server.append("t", 0, "c").await;
    let answer = waiting.await.expect("runs").expect("reads").into_inner();
    let fetched = answer.fetched.expect("set");
    let bytes: usize = fetched.chunks.iter().map(|chunk| chunk.len()).sum();
    assert!(bytes >= 150, "{bytes}");
    let over = v1::ReadRequest {
        min_bytes: 1 << 20,
        max_wait_ms: 1,
        ..read_request("t", 0, 0)
    };
    assert_eq!(values(&fetch(&server, over).await).len(), 3);
}

#[tokio::test]
async fn offsets_are_found_by_place_and_by_time() {
    let server = TestServer::start().await;
    for timestamp in [10, 20, 30] {
        let mut request = append_request("t", 0, &["v"]);
        request.records[0].timestamp_ms = Some(timestamp);
        server.log().append(request).await.expect("appends");
    }
    let query = |at| v1::OffsetQuery {
        topic: "t".to_owned(),
        partition: 0,
        at,
    };
    let queries = vec![
        query(None),
        query(earliest()),
        query(at_timestamp(11)),
        query(at_timestamp(31)),
    ];
    let answer = server
        .log()
        .list_offsets(v1::ListOffsetsRequest { queries })
        .await;
    let offsets = answer.expect("finds").into_inner().offsets;
    let found: Vec<_> = offsets
        .iter()
        .map(|found| (found.offset, found.timestamp_ms))
        .collect();
    assert_eq!(found, [(3, None), (0, None), (1, Some(20)), (3, None)]);
    assert!(
        offsets
            .iter()
            .all(|found| found.high_watermark == 3 && found.log_start_offset == 0)
    );
    let queries = vec![v1::OffsetQuery {
        topic: "none".to_owned(),
        ..query(None)
    }];
    let answer = server
        .log()
        .list_offsets(v1::ListOffsetsRequest { queries })
        .await;
    assert_refused(answer, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn limits_lowered_later_do_not_hold_for_what_is_stored() {
    let server = TestServer::start().await;
    let large = "x".repeat(5_000);
    for timestamp in [10, 20, 30] {
        let mut request = append_request("t", 0, &[&large]);
        request.records[0].timestamp_ms = Some(timestamp);
        server.log().append(request).await.expect("appends");
    }
    let lower = v1::AlterTopicRequest {
        name: "t".to_owned(),
        config: Some(v1::TopicConfig {
            max_batch_bytes: Some(2_000),
            ..Default::default()
        }),
        ..Default::default()
    };
    server.topics().alter_topic(lower).await.expect("alters");
    assert_found_by_time(&server).await;

    let server = server.restart(BrokerConfig::default()).await;
    assert_found_by_time(&server).await;
    assert_eq!(server.values("t", 0, 1).await, [large.as_str(); 2]);
}

/// The three records of "t" are found by their times, 10, 20 and 30.
async fn assert_found_by_time(server: &TestServer) {
    let query = |timestamp| v1::OffsetQuery {
        topic: "t".to_owned(),
        partition: 0,
        at: at_timestamp(timestamp),
    };
    let request = v1::ListOffsetsRequest {
        queries: [5, 11, 30, 31].map(query).to_vec(),
    };
    let answer = server.log().list_offsets(request).await.expect("finds");
    let found = answer.into_inner().offsets;
    let found: Vec<_> = found
        .iter()
        .map(|found| (found.offset, found.timestamp_ms))
        .collect();
    assert_eq!(
        found,
        [(0, Some(10)), (1, Some(20)), (2, Some(30)), (3, None)]
    );
}

#[tokio::test]
async fn trimming_raises_the_start() {
    let server = TestServer::start().await;
    for value in ["a", "b", "c"] {
        server.append("t", 0, value).await;
    }
    let trim = |offset| v1::TrimRequest {
        topic: "t".to_owned(),
        partition: 0,
        offset,
    };
    let trimmed = server
        .log()
        .trim(trim(2))
        .await
        .expect("trims")
        .into_inner();
    assert_eq!(trimmed.log_start_offset, 2);
    let status = server
        .log()
        .read(read_request("t", 0, 1))
        .await
        .expect_err("gone");
    let expected = (Code::OutOfRange, "OFFSET_OUT_OF_RANGE".to_owned(), Some(2));
    assert_eq!(refusal(&status), expected);
    assert_eq!(server.values("t", 0, 2).await, ["c"]);
    let beyond = server.log().trim(trim(4)).await;
    assert_refused(beyond, Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
    let reserved = v1::TrimRequest {
        topic: "__consumer_offsets".to_owned(),
        ..trim(0)
    };
    let reserved = server.log().trim(reserved).await;
    assert_refused(reserved, Code::InvalidArgument, "INVALID_TOPIC_NAME");
}

#[tokio::test]
async fn a_waiting_read_learns_that_its_topic_is_deleted() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let mut log = server.log();
    let waiting = tokio::spawn(async move {
        let request = v1::ReadRequest {
            max_wait_ms: 60_000,
            ..read_request("t", 0, 0)
        };
        log.read(request).await
    });
    tokio::time::sleep(Duration::from_millis(20)).await; // either order must answer the same
    let delete = v1::DeleteTopicRequest {
        name: "t".to_owned(),
    };
    server.topics().delete_topic(delete).await.expect("deletes");
    let answer = waiting.await.expect("runs");
    assert_refused(answer, Code::NotFound, "TOPIC_NOT_FOUND");
}
