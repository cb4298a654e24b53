//! The original's API.

use comlog_proto::api;
use comlog_proto::v1;
use tonic::Code;

use crate::common::*;

fn record(data: &str) -> api::Record {
    api::Record {
        data: data.to_owned().into(),
    }
}

fn batch(values: &[&str]) -> api::BatchRecords {
    api::BatchRecords {
        batch: values.iter().map(|value| record(value)).collect(),
    }
}

async fn read(server: &TestServer, value: i64) -> Result<(String, i64), tonic::Status> {
    let answer = server
        .legacy()
        .read(api::Offset { value })
        .await?
        .into_inner();
    let text = String::from_utf8(answer.record.to_vec()).expect("text");
    Ok((text, answer.nbr_of_read_bytes))
}

async fn meta(server: &TestServer) -> (u64, u64) {
    let meta = server
        .legacy()
        .get_meta_data(())
        .await
        .expect("answers")
        .into_inner();
    (meta.oldest_offset, meta.last_offset)
}

#[tokio::test]
async fn an_empty_log_answers_as_the_original_did() {
    let server = TestServer::start().await;
    assert_eq!(meta(&server).await, (0, 0));
    assert_refused(
        read(&server, -1).await,
        Code::OutOfRange,
        "OFFSET_OUT_OF_RANGE",
    );
    assert_refused(
        read(&server, 0).await,
        Code::OutOfRange,
        "OFFSET_OUT_OF_RANGE",
    );
    assert_refused(
        read(&server, -2).await,
        Code::InvalidArgument,
        "INVALID_REQUEST",
    );
    let empty = server
        .legacy()
        .batch_append(batch(&[]))
        .await
        .expect("answers");
    assert!(empty.into_inner().response.is_empty());
}

#[tokio::test]
async fn records_are_appended_and_read_with_their_byte_counts() {
    let server = TestServer::start().await;
    let answer = server
        .legacy()
        .append(record("hello"))
        .await
        .expect("appends")
        .into_inner();
    assert_eq!((answer.offset, answer.nbr_of_stored_bytes), (0, 13));
    let answer = server
        .legacy()
        .append(record(""))
        .await
        .expect("appends")
        .into_inner();
    assert_eq!((answer.offset, answer.nbr_of_stored_bytes), (1, 8));
    assert_eq!(
        read(&server, 0).await.expect("reads"),
        ("hello".to_owned(), 13)
    );
    assert_eq!(read(&server, 1).await.expect("reads"), (String::new(), 8));
    assert_eq!(read(&server, -1).await.expect("reads"), (String::new(), 8));
    assert_refused(
        read(&server, 2).await,
        Code::OutOfRange,
        "OFFSET_OUT_OF_RANGE",
    );
    assert_eq!(meta(&server).await, (0, 1));
    assert_eq!(server.values("comlog", 0, 0).await, ["hello", ""]);
}

#[tokio::test]
async fn a_batch_keeps_its_order_even_when_it_is_larger_than_one_batch() {
    let server = TestServer::start().await;
    let answer = server
        .legacy()
        .batch_append(batch(&["a", "bb", "ccc"]))
        .await;
    let response = answer.expect("appends").into_inner().response;
    let found: Vec<_> = response
        .iter()
        .map(|one| {
            let resp = one.resp.as_ref().expect("set");
            (one.index, resp.offset, resp.nbr_of_stored_bytes)
        })
        .collect();
    assert_eq!(found, [(0, 0, 9), (1, 1, 10), (2, 2, 11)]);
    let large = "x".repeat(1 << 20);
    let values = [large.as_str(); 10];
    let answer = server.legacy().batch_append(batch(&values)).await;
    let response = answer.expect("appends").into_inner().response;
    let offsets: Vec<u64> = response
        .iter()
        .map(|one| one.resp.as_ref().expect("set").offset)
        .collect();
    assert_eq!(offsets, (3..13).collect::<Vec<_>>());
    assert_eq!(read(&server, 12).await.expect("reads").1, (1 << 20) + 8);
}

#[tokio::test]
async fn a_streamed_batch_answers_one_by_one() {
    let server = TestServer::start().await;
    let answers = server
        .legacy()
        .stream_batch_append(batch(&["a", "b"]))
        .await;
    let mut answers = answers.expect("appends").into_inner();
    for index in 0..2 {
        let answer = answers
            .message()
            .await
            .expect("no error")
            .expect("a message");
        let resp = answer.resp.expect("set");
        assert_eq!(
            (answer.index, resp.offset, resp.nbr_of_stored_bytes),
            (index, index as u64, 9)
        );
        assert_eq!(answer.error_msg, "");
    }
    assert!(answers.message().await.expect("no error").is_none());
}

#[tokio::test]
async fn flush_makes_everything_durable() {
    let server = TestServer::start().await;
    let memory = v1::AlterTopicRequest {
        name: "comlog".to_owned(),
        config: Some(v1::TopicConfig {
            durability: v1::Durability::Memory as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    server.topics().alter_topic(memory).await.expect("alters");
    server.legacy().append(record("a")).await.expect("appends");
    let before = server.dirs.syncs();
    for value in [0, 1] {
        server
            .legacy()
            .flush(api::IndexFlushSyncType { value })
            .await
            .expect("flushes");
    }
    assert!(server.dirs.syncs() > before);
}

#[tokio::test]
async fn only_segments_wholly_older_are_collected() {
    let server = TestServer::start().await;
    let small = v1::AlterTopicRequest {
        name: "comlog".to_owned(),
        config: Some(v1::TopicConfig {
            segment_bytes: Some(1 << 20),
            ..Default::default()
        }),
        ..Default::default()
    };
    server.topics().alter_topic(small).await.expect("alters");
    let value = "x".repeat(400 << 10);
    for _ in 0..6 {
        server
            .legacy()
            .append(record(&value))
            .await
            .expect("appends");
    }
    // Two records a segment: [0, 2), [2, 4), [4, 6).
    let collect = async |value| {
        server
            .legacy()
            .collect_segments(api::CollectOffset { value })
            .await
            .expect("collects");
        meta(&server).await
    };
    assert_eq!(
        collect(1).await,
        (0, 5),
        "the first segment is not wholly older"
    );
    assert_eq!(collect(3).await, (2, 5));
    assert_eq!(collect(0).await, (2, 5));
    assert_eq!(collect(u64::MAX).await, (4, 5), "the active segment stays");
    assert_refused(
        read(&server, 3).await,
        Code::OutOfRange,
        "OFFSET_OUT_OF_RANGE",
    );
    assert_eq!(read(&server, 4).await.expect("reads").1, (400 << 10) + 8);
}
