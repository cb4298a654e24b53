//! AppendStream: order, independence of partitions, suspension, ends.

use comlog_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::common::*;

/// A stream with its two ends.
struct Stream {
    send: mpsc::Sender<v1::AppendStreamRequest>,
    answers: Streaming<v1::AppendStreamResponse>,
}

impl Stream {
    async fn open(server: &TestServer) -> Stream {
        let (send, requests) = mpsc::channel(1_024);
        let answers = server
            .log()
            .append_stream(ReceiverStream::new(requests))
            .await;
        Stream {
            send,
            answers: answers.expect("opens").into_inner(),
        }
    }

    async fn send(&self, request: v1::AppendStreamRequest) {
        self.send.send(request).await.expect("open");
    }

    async fn answer(&mut self) -> (u64, v1::AppendResult) {
        let answer = self
            .answers
            .message()
            .await
            .expect("no error")
            .expect("not the end");
        (answer.id, answer.result.expect("set"))
    }
}

fn request(id: u64, partition: u32, batch: bytes::Bytes) -> v1::AppendStreamRequest {
    v1::AppendStreamRequest {
        id,
        topic: "t".to_owned(),
        partition,
        batch,
        ..Default::default()
    }
}

#[tokio::test]
async fn pipelined_batches_are_answered_in_order_and_all_before_the_end() {
    let server = TestServer::start().await;
    server.create_topic("t", 4).await;
    let mut stream = Stream::open(&server).await;
    for id in 0..400 {
        let value = format!("{id}");
        stream
            .send(request(id, (id % 4) as u32, batch(&[&value])))
            .await;
    }
    drop(std::mem::replace(&mut stream.send, mpsc::channel(1).0));
    let mut next = [0, 1, 2, 3];
    while let Some(answer) = stream.answers.message().await.expect("no error") {
        let partition = (answer.id % 4) as usize;
        assert_eq!(answer.id, next[partition]);
        let offset = appended(answer.result.as_ref().expect("set")).base_offset;
        assert_eq!(offset as u64, answer.id / 4);
        next[partition] += 4;
    }
    assert_eq!(next, [400, 401, 402, 403]);
    let third: Vec<String> = (0..100).map(|n| format!("{}", n * 4 + 3)).collect();
    assert_eq!(server.values("t", 3, 0).await, third);
}

#[tokio::test]
async fn a_partition_does_not_wait_for_another() {
    let server = TestServer::start().await;
    server.create_topic("t", 2).await;
    let config = v1::AlterTopicRequest {
        name: "t".to_owned(),
        config: Some(v1::TopicConfig {
            durability: v1::Durability::Memory as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    server.topics().alter_topic(config).await.expect("alters");
    let mut stream = Stream::open(&server).await;
    server.dirs.hold_syncs();
    let slow = v1::AppendStreamRequest {
        durability: v1::Durability::Durable as i32,
        ..request(1, 0, batch(&["slow"]))
    };
    stream.send(slow).await;
    stream.send(request(2, 1, batch(&["quick"]))).await;
    assert_eq!(stream.answer().await.0, 2);
    server.dirs.release_syncs();
    assert_eq!(stream.answer().await.0, 1);
}

#[tokio::test]
async fn after_an_error_a_partition_is_suspended_until_the_client_resumes() {
    let server = TestServer::start().await;
    server.create_topic("t", 2).await;
    let mut stream = Stream::open(&server).await;
    // All at once, so that batches behind the refused one are under way when it is refused.
    server.dirs.hold_syncs();
    stream.send(request(1, 0, batch(&["a"]))).await;
    stream.send(request(2, 0, broken(&batch(&["b"])))).await;
    stream.send(request(3, 0, batch(&["c"]))).await;
    stream.send(request(4, 1, batch(&["other"]))).await;
    server.dirs.release_syncs();
    let mut answers = [
        stream.answer().await,
        stream.answer().await,
        stream.answer().await,
        stream.answer().await,
    ];
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!(appended(&answers[0].1).base_offset, 0);
    assert_eq!(
        error(&answers[1].1).reason(),
        v1::Reason::InvalidRecordBatch
    );
    assert_eq!(error(&answers[1].1).partition, Some(0));
    assert_eq!(error(&answers[2].1).reason(), v1::Reason::Suspended);
    assert_eq!(error(&answers[2].1).code, Code::Aborted as i32);
    assert_eq!(appended(&answers[3].1).base_offset, 0);

    stream.send(request(5, 0, batch(&["d"]))).await;
    assert_eq!(
        error(&stream.answer().await.1).reason(),
        v1::Reason::Suspended
    );
    let resumed = v1::AppendStreamRequest {
        resume: true,
        ..request(6, 0, batch(&["b"]))
    };
    stream.send(resumed).await;
    stream.send(request(7, 0, batch(&["c"]))).await;
    assert_eq!(appended(&stream.answer().await.1).base_offset, 1);
    assert_eq!(appended(&stream.answer().await.1).base_offset, 2);
    assert_eq!(server.values("t", 0, 0).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_refusal_by_the_log_suspends_what_is_in_the_same_group() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let mut stream = Stream::open(&server).await;
    server.dirs.hold_syncs();
    // The first occupies the disk, so the others gather in one group.
    stream.send(request(1, 0, batch(&["a"]))).await;
    let unexpected = v1::AppendStreamRequest {
        expected_offset: Some(50),
        ..request(2, 0, batch(&["b"]))
    };
    stream.send(unexpected).await;
    stream.send(request(3, 0, batch(&["c"]))).await;
    let appending = |counters: &comlog_server::Counters| {
        counters
            .appending_batches
            .load(std::sync::atomic::Ordering::Relaxed)
            == 3
    };
    server.until(appending).await;
    server.dirs.release_syncs();
    assert_eq!(appended(&stream.answer().await.1).base_offset, 0);
    let refused = stream.answer().await.1;
    assert_eq!(error(&refused).reason(), v1::Reason::UnexpectedOffset);
    assert_eq!(error(&refused).offset, Some(1));
    assert_eq!(
        error(&stream.answer().await.1).reason(),
        v1::Reason::Suspended
    );
    assert_eq!(server.values("t", 0, 0).await, ["a"]);
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_suspended_too() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let mut stream = Stream::open(&server).await;
    stream.send(request(1, 1, batch(&["a"]))).await;
    assert_eq!(
        error(&stream.answer().await.1).reason(),
        v1::Reason::PartitionNotFound
    );
    let more = v1::AlterTopicRequest {
        name: "t".to_owned(),
        partitions: Some(2),
        ..Default::default()
    };
    server.topics().alter_topic(more).await.expect("alters");
    stream.send(request(2, 1, batch(&["b"]))).await;
    assert_eq!(
        error(&stream.answer().await.1).reason(),
        v1::Reason::Suspended
    );
    let resumed = v1::AppendStreamRequest {
        resume: true,
        ..request(3, 1, batch(&["a"]))
    };
    stream.send(resumed).await;
    assert_eq!(appended(&stream.answer().await.1).base_offset, 0);
}

#[tokio::test]
async fn two_batches_in_one_message_are_refused() {
    let server = TestServer::start().await;
    let mut stream = Stream::open(&server).await;
    let two = concat(&[batch(&["a"]), batch(&["b"])]);
    stream.send(request(1, 0, two)).await;
    assert_eq!(
        error(&stream.answer().await.1).reason(),
        v1::Reason::InvalidRequest
    );
    stream.send(request(2, 0, bytes::Bytes::new())).await;
    assert_eq!(
        error(&stream.answer().await.1).reason(),
        v1::Reason::Suspended
    );
}

#[tokio::test]
async fn a_deleted_topic_is_not_found() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let mut stream = Stream::open(&server).await;
    stream.send(request(1, 0, batch(&["a"]))).await;
    appended(&stream.answer().await.1);
    let delete = v1::DeleteTopicRequest {
        name: "t".to_owned(),
    };
    server.topics().delete_topic(delete).await.expect("deletes");
    stream.send(request(2, 0, batch(&["b"]))).await;
    assert_eq!(
        error(&stream.answer().await.1).reason(),
        v1::Reason::TopicNotFound
    );
}

#[tokio::test]
async fn bounds_hold_a_stream_back_and_refuse_nothing() {
    let mut config = comlog_server::BrokerConfig::default();
    config.append.inflight_bytes_max = 100;
    config.append.stream_inflight_max = 2;
    config.append.partition_queue_max = 1;
    let server = TestServer::start_with(config).await;
    server.create_topic("t", 1).await;
    let mut stream = Stream::open(&server).await;
    for id in 0..50 {
        stream.send(request(id, 0, batch(&["v"]))).await;
    }
    for id in 0..50 {
        let (found, result) = stream.answer().await;
        assert_eq!((found, appended(&result).base_offset), (id, id as i64));
    }
}

#[tokio::test]
async fn answers_keep_their_order_when_the_topic_is_deleted() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    let mut stream = Stream::open(&server).await;
    let sender = stream.send.clone();
    let sending = tokio::spawn(async move {
        let mut id = 0;
        while sender.send(request(id, 0, batch(&["v"]))).await.is_ok() {
            id += 1;
        }
    });
    assert_eq!(stream.answer().await.0, 0);
    let delete = v1::DeleteTopicRequest {
        name: "t".to_owned(),
    };
    let mut topics = server.topics();
    let deleting = tokio::spawn(async move { topics.delete_topic(delete).await });
    let mut next = 1;
    let mut refused = 0;
    while refused < 3 {
        let (id, result) = stream.answer().await;
        assert_eq!(id, next);
        next += 1;
        match result.result.expect("set") {
            v1::append_result::Result::Appended(_) => assert_eq!(refused, 0),
            v1::append_result::Result::Error(_) => refused += 1,
        }
    }
    deleting.await.expect("runs").expect("deletes");
    sending.abort();
}
