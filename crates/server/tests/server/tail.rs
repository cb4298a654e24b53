//! Tail, UpdateTail.

use std::sync::atomic::Ordering;

use comlog_proto::v1::{self, tail_change::Change, tail_response::Kind};
use comlog_server::BrokerConfig;
use tonic::{Code, Streaming};

use crate::common::*;

struct Tail {
    id: String,
    messages: Streaming<v1::TailResponse>,
    opened: Vec<v1::TailPosition>,
}

impl Tail {
    async fn open(server: &TestServer, partitions: Vec<v1::TailStart>) -> Tail {
        let request = v1::TailRequest {
            partitions,
            form: v1::Form::Records as i32,
            ..Default::default()
        };
        Tail::open_with(server, request).await
    }

    async fn open_with(server: &TestServer, request: v1::TailRequest) -> Tail {
        let messages = server.log().tail(request).await.expect("opens");
        let mut messages = messages.into_inner();
        let first = messages
            .message()
            .await
            .expect("no error")
            .expect("a message");
        let Some(Kind::Opened(opened)) = first.kind else {
            panic!("not the first message: {first:?}");
        };
        Tail {
            id: opened.tail_id,
            messages,
            opened: opened.positions,
        }
    }

    async fn next(&mut self) -> Kind {
        loop {
            let message = self.messages.message().await.expect("no error");
            let kind = message.expect("not the end").kind.expect("set");
            if !matches!(kind, Kind::Idle(_)) {
                return kind;
            }
        }
    }

    async fn fetched(&mut self) -> v1::TailFetched {
        match self.next().await {
            Kind::Fetched(fetched) => fetched,
            other => panic!("not fetched: {other:?}"),
        }
    }

    /// Partition and values of the next message.
    async fn values(&mut self) -> (u32, Vec<String>) {
        let fetched = self.fetched().await;
        (fetched.partition, values(&fetched.fetched.expect("set")))
    }

    async fn update(
        &self,
        server: &TestServer,
        changes: Vec<(u32, Change)>,
    ) -> Result<Vec<v1::TailPosition>, tonic::Status> {
        let change = |(partition, change)| v1::TailChange {
            topic: "t".to_owned(),
            partition,
            change: Some(change),
        };
        let request = v1::UpdateTailRequest {
            tail_id: self.id.clone(),
            changes: changes.into_iter().map(change).collect(),
        };
        let answer = server.log().update_tail(request).await?;
        Ok(answer.into_inner().positions)
    }
}

fn start(partition: u32, at: Option<v1::StartAt>) -> v1::TailStart {
    v1::TailStart {
        topic: "t".to_owned(),
        partition,
        at,
    }
}

#[tokio::test]
async fn one_stream_follows_many_partitions() {
    let server = TestServer::start().await;
    server.create_topic("t", 50).await;
    server.append("t", 7, "old").await;
    let starts = (0..50).map(|partition| start(partition, None)).collect();
    let mut tail = Tail::open(&server, starts).await;
    assert_eq!(tail.id.len(), 32);
    assert_eq!(tail.opened.len(), 50);
    assert_eq!((tail.opened[7].offset, tail.opened[7].generation), (1, 1));
    let mut expected = Vec::new();
    for round in 0..3 {
        for partition in 0..50 {
            let value = format!("{partition} {round}");
            server.append("t", partition, &value).await;
            expected.push((partition, value));
        }
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let (partition, values) = tail.values().await;
        seen.extend(values.into_iter().map(|value| (partition, value)));
    }
    // Each partition in order, and every record once.
    seen.sort_by_key(|(partition, _)| *partition);
    expected.sort_by_key(|(partition, _)| *partition);
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_tail_starts_where_it_is_told() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    for timestamp in [10, 20, 30] {
        let mut request = append_request("t", 0, &[&format!("at {timestamp}")]);
        request.records[0].timestamp_ms = Some(timestamp);
        server.log().append(request).await.expect("appends");
    }
    for (at, first) in [
        (earliest(), "at 10"),
        (at_offset(1), "at 20"),
        (at_timestamp(21), "at 30"),
    ] {
        let mut tail = Tail::open(&server, vec![start(0, at)]).await;
        assert_eq!(tail.values().await.1[0], first);
    }
}

#[tokio::test]
async fn a_running_tail_seeks_pauses_adds_and_removes() {
    let server = TestServer::start().await;
    server.create_topic("t", 3).await;
    server.append("t", 0, "a").await;
    server.append("t", 0, "b").await;
    let mut tail = Tail::open(&server, vec![start(0, earliest())]).await;
    assert_eq!(
        tail.values().await,
        (0, vec!["a".to_owned(), "b".to_owned()])
    );

    let seek = Change::Seek(at_offset(1).expect("set"));
    let positions = tail.update(&server, vec![(0, seek)]).await.expect("seeks");
    assert_eq!((positions[0].offset, positions[0].generation), (1, 2));
    let fetched = tail.fetched().await;
    assert_eq!(
        (fetched.generation, values(&fetched.fetched.expect("set"))),
        (2, vec!["b".to_owned()])
    );

    let positions = tail
        .update(&server, vec![(0, Change::Pause(true))])
        .await
        .expect("pauses");
    assert!(positions[0].paused);
    server.append("t", 0, "while paused").await;
    let add = Change::Add(earliest().expect("set"));
    tail.update(&server, vec![(1, add)]).await.expect("adds");
    server.append("t", 1, "added").await;
    assert_eq!(tail.values().await, (1, vec!["added".to_owned()]));
    tail.update(&server, vec![(0, Change::Pause(false))])
        .await
        .expect("resumes");
    assert_eq!(tail.values().await, (0, vec!["while paused".to_owned()]));

    let remove = Change::Remove(v1::tail_change::Remove {});
    let positions = tail
        .update(&server, vec![(0, remove)])
        .await
        .expect("removes");
    assert_eq!(positions.len(), 1);
    server.append("t", 0, "unseen").await;
    server.append("t", 1, "seen").await;
    assert_eq!(tail.values().await, (1, vec!["seen".to_owned()]));
}

#[tokio::test]
async fn changes_are_made_all_or_none() {
    let server = TestServer::start().await;
    server.create_topic("t", 2).await;
    let mut tail = Tail::open(&server, vec![start(0, None)]).await;
    let changes = vec![(0, Change::Pause(true)), (1, Change::Pause(true))];
    let refused = tail.update(&server, changes).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
    let add = Change::Add(earliest().expect("set"));
    let refused = tail
        .update(&server, vec![(0, Change::Pause(true)), (9, add)])
        .await;
    assert_refused(refused, Code::NotFound, "PARTITION_NOT_FOUND");
    server.append("t", 0, "not paused").await;
    assert_eq!(tail.values().await.1, ["not paused"]);
    let twice = v1::TailRequest {
        partitions: vec![start(0, None), start(0, None)],
        ..Default::default()
    };
    let refused = server.log().tail(twice).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_partition_that_fails_leaves_the_others_running() {
    let server = TestServer::start().await;
    server.create_topic("t", 2).await;
    let mut tail = Tail::open(&server, vec![start(0, at_offset(5)), start(1, None)]).await;
    let Kind::Failed(failed) = tail.next().await else {
        panic!("offset 5 is not there");
    };
    let error = failed.error.expect("set");
    assert_eq!(
        (failed.partition, error.reason()),
        (0, v1::Reason::OffsetOutOfRange)
    );
    assert_eq!(error.offset, Some(0));
    server.append("t", 0, "a").await;
    server.append("t", 1, "b").await;
    assert_eq!(tail.values().await, (1, vec!["b".to_owned()]));
    let seek = Change::Seek(earliest().expect("set"));
    tail.update(&server, vec![(0, seek)])
        .await
        .expect("ends the failure");
    assert_eq!(tail.values().await, (0, vec!["a".to_owned()]));
}

#[tokio::test]
async fn a_deleted_topic_fails_its_partitions() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    server.create_topic("other", 1).await;
    let other = v1::TailStart {
        topic: "other".to_owned(),
        ..start(0, None)
    };
    let mut tail = Tail::open(&server, vec![start(0, None), other]).await;
    let delete = v1::DeleteTopicRequest {
        name: "t".to_owned(),
    };
    server.topics().delete_topic(delete).await.expect("deletes");
    let Kind::Failed(failed) = tail.next().await else {
        panic!("the topic is gone");
    };
    assert_eq!(
        failed.error.expect("set").reason(),
        v1::Reason::TopicNotFound
    );
    server.append("other", 0, "goes on").await;
    assert_eq!(tail.values().await.1, ["goes on"]);
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_a_bounded_number_of_messages() {
    let mut config = BrokerConfig::default();
    config.fetch.tail_bytes_max = 64 << 10;
    let server = TestServer::start_with(config).await;
    server.create_topic("t", 1).await;
    let value = "x".repeat(60 << 10);
    let total = 200;
    for _ in 0..total {
        server.append("t", 0, &value).await;
    }
    let mut tail = Tail::open(&server, vec![start(0, earliest())]).await;
    server.append("t", 0, "the last").await;
    let fetched = || {
        server
            .broker
            .counters()
            .fetched_bytes
            .load(Ordering::Relaxed)
    };
    // What is taken settles: two messages wait, and what the transport's windows hold.
    let mut before = 0;
    while fetched() == 0 || fetched() != before {
        before = fetched();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let all = total * value.len() as u64;
    assert!(before < all / 2, "{before} of {all} bytes were read ahead");
    // Even so it can be changed, and it still delivers everything.
    let positions = tail.update(&server, vec![]).await.expect("answers");
    assert_eq!(positions.len(), 1);
    let mut seen = 0;
    loop {
        let (_, values) = tail.values().await;
        seen += values.len();
        if values.last().is_some_and(|value| value == "the last") {
            break;
        }
    }
    assert_eq!(seen as u64, total + 1);
}

#[tokio::test]
async fn an_idle_tail_says_so() {
    let mut config = BrokerConfig::default();
    config.fetch.tail_idle_ms = 5;
    let server = TestServer::start_with(config).await;
    let request = v1::TailRequest::default();
    let mut tail = Tail::open_with(&server, request).await;
    for _ in 0..3 {
        let message = tail
            .messages
            .message()
            .await
            .expect("no error")
            .expect("a message");
        assert!(matches!(message.kind, Some(Kind::Idle(_))));
    }
}

#[tokio::test]
async fn tails_and_their_partitions_are_bounded() {
    let mut config = BrokerConfig::default();
    config.fetch.tails_max = 1;
    config.fetch.tail_partitions_max = 1;
    let server = TestServer::start_with(config).await;
    server.create_topic("t", 2).await;
    let two = v1::TailRequest {
        partitions: vec![start(0, None), start(1, None)],
        ..Default::default()
    };
    let refused = server.log().tail(two).await;
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
    let tail = Tail::open(&server, vec![start(0, None)]).await;
    let refused = server.log().tail(v1::TailRequest::default()).await;
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
    let id = tail.id.clone();
    drop(tail);
    server
        .until(|counters| counters.tails.load(Ordering::Relaxed) == 0)
        .await;
    let request = v1::UpdateTailRequest {
        tail_id: id,
        changes: vec![],
    };
    let ended = server.log().update_tail(request).await;
    assert_refused(ended, Code::NotFound, "TAIL_NOT_FOUND");
    Tail::open(&server, vec![start(0, None)]).await;
}
