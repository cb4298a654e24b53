//! A server that answers nonsense, or nothing at all: a clear error within the timeouts, never a
//! panic, and no record skipped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::time::Duration;

use bytes::Bytes;
use comlog_client::record::Offset;
use comlog_client::v1::append_result::Result as Appended;
use comlog_client::v1::tail_response::Kind;
use comlog_client::v1::{self, Reason};
use comlog_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Error, ErrorKind, OffsetReset, Producer,
    ProducerConfig, ProducerRecord, RetryPolicy, StartAt,
};
use fake::Fake;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Far more than anything here may take.
const LONG: Duration = Duration::from_secs(60);
/// What is given to what is never answered.
const SHORT: Duration = Duration::from_millis(500);

fn is_protocol(error: &Error) -> bool {
    match error {
        Error::DeliveryTimeout(Some(error)) => is_protocol(error),
        error => matches!(error, Error::Protocol(_)),
    }
}

/// Follows a partition of three records while `twist` changes what the tail says; the first error.
async fn tail_error(twist: impl FnMut(&mut Kind) + Send + 'static) -> Error {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.append("t", 0, &["a", "b", "c"]);
    let mut twist = twist;
    fake.world().twist_tail = Some(Box::new(move |message: &mut v1::TailResponse| {
        twist(message.kind.as_mut().unwrap());
    }));
    let config = ConsumerConfig::new().offset_reset(OffsetReset::Earliest);
    let mut consumer = Consumer::new(&fake.client(), config).unwrap();
    consumer.assign("t", 0, StartAt::Offset(Offset(0)));
    consumer.poll(LONG).await.unwrap_err()
}

fn fetched(kind: &mut Kind) -> Option<&mut v1::Fetched> {
    match kind {
        Kind::Fetched(message) => message.fetched.as_mut(),
        _ => None,
    }
}

#[tokio::test]
async fn where_a_tail_begins_is_checked() {
    let error = tail_error(|kind| {
        if let Kind::Opened(opened) = kind {
            opened.positions.clear();
        }
    });
    assert!(is_protocol(&error.await));
    for offset in [2, -1, i64::MAX, i64::MIN] {
        let error = tail_error(move |kind| {
            if let Kind::Opened(opened) = kind {
                opened.positions[0].offset = offset;
            }
        });
        assert!(is_protocol(&error.await), "{offset}");
    }
    let error = tail_error(|kind| {
        if let Kind::Opened(opened) = kind {
            opened.positions[0].partition = 7;
        }
    });
    assert!(is_protocol(&error.await));
}

#[tokio::test]
async fn what_a_tail_sends_is_checked() {
    for next in [-1, i64::MIN, i64::MAX, 4] {
        let error = tail_error(move |kind| {
            if let Some(fetched) = fetched(kind) {
                fetched.next_offset = next;
                fetched.chunks.clear();
            }
        });
        let error = error.await;
        assert!(is_protocol(&error), "{next}: {error}");
    }
    // Batches that are none, at the end of all offsets.
    let error = tail_error(|kind| {
        if let Some(fetched) = fetched(kind) {
            fetched.next_offset = i64::MAX;
            fetched.high_watermark = i64::MAX;
            fetched.chunks = vec![Bytes::from_static(&[0xff; 200])];
        }
    });
    assert_eq!(error.await.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn what_a_tail_says_of_damage_goes_forward() {
    for end in [None, Some(-5), Some(0), Some(i64::MAX)] {
        let error = tail_error(move |kind| {
            if let Kind::Fetched(fetched) = kind {
                *kind = Kind::Failed(v1::TailFailed {
                    topic: fetched.topic.clone(),
                    partition: fetched.partition,
                    generation: fetched.generation,
                    error: Some(v1::Error {
                        code: 15,
                        reason: Reason::Corrupt as i32,
                        offset: end,
                        ..v1::Error::default()
                    }),
                });
            }
        });
        let Error::Corrupt { offsets, .. } = error.await else {
            panic!("not corrupt");
        };
        assert!(
            offsets.start == Offset(0) && !offsets.is_empty(),
            "{offsets}"
        );
    }
    let error = tail_error(|kind| {
        if let Kind::Fetched(fetched) = kind {
            *kind = Kind::Failed(v1::TailFailed {
                topic: fetched.topic.clone(),
                partition: fetched.partition,
                generation: fetched.generation,
                error: None,
            });
        }
    });
    assert!(!error.await.to_string().is_empty());
}

/// Sent to the beginning, it is out of range again, for ever.
#[tokio::test]
async fn a_partition_that_is_out_of_range_everywhere_is_an_error() {
    let error = tail_error(|kind| {
        if let Kind::Fetched(fetched) = kind {
            *kind = Kind::Failed(v1::TailFailed {
                topic: fetched.topic.clone(),
                partition: fetched.partition,
                generation: fetched.generation,
                error: Some(v1::Error {
                    code: 11,
                    reason: Reason::OffsetOutOfRange as i32,
                    ..v1::Error::default()
                }),
            });
        }
    });
    assert_eq!(error.await.kind(), ErrorKind::OutOfRange);
}

#[tokio::test]
async fn what_is_acknowledged_is_checked_and_what_follows_goes_on() {
    let ranges = [
        (5, 4),
        (-1, 0),
        (i64::MIN, i64::MAX),
        (i64::MAX, i64::MIN),
        (0, 7),
    ];
    for (base_offset, next_offset) in ranges {
        let fake = Fake::start().await;
        fake.create("t", 1);
        fake.world().twist_append = Some(Box::new(move |answer: &mut v1::AppendStreamResponse| {
            let result = answer
                .result
                .as_mut()
                .and_then(|result| result.result.as_mut());
            if let Some(Appended::Appended(appended)) = result {
                (appended.base_offset, appended.next_offset) = (base_offset, next_offset);
            }
        }));
        let producer = Producer::new(&fake.client(), ProducerConfig::new()).unwrap();
        let record = ProducerRecord::new("t", "v");
        let error = timeout(LONG, producer.append(record))
            .await
            .unwrap()
            .unwrap_err();
        assert!(is_protocol(&error), "{error}");
        fake.world().twist_append = None;
        let delivered = timeout(LONG, producer.append(record))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(delivered.offset, Some(Offset(1)));
    }
}

#[tokio::test]
async fn answers_to_nothing_and_answers_without_a_result_end_in_time() {
    type Twist = fn(&mut v1::AppendStreamResponse);
    let twists: [Twist; 3] = [
        |answer| answer.id = answer.id.wrapping_add(1_000),
        |answer| answer.result = None,
        |answer| answer.result = Some(v1::AppendResult { result: None }),
    ];
    for twist in twists {
        let fake = Fake::start().await;
        fake.create("t", 1);
        fake.world().twist_append = Some(Box::new(twist));
        let config = ProducerConfig::new().delivery_timeout(SHORT);
        let producer = Producer::new(&fake.client(), config).unwrap();
        for _ in 0..2 {
            let append = producer.append(ProducerRecord::new("t", "v"));
            timeout(LONG, append).await.unwrap().unwrap_err();
        }
        timeout(LONG, producer.close()).await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn what_a_topic_is_said_to_have_is_checked() {
    type Twist = fn(&mut v1::DescribeTopicResponse);
    let twists: [Twist; 4] = [
        |described| described.topic = None,
        |described| described.topic.as_mut().unwrap().partitions = 0,
        |described| described.topic.as_mut().unwrap().partitions = u32::MAX,
        |described| described.topic.as_mut().unwrap().name = "other".to_owned(),
    ];
    for twist in twists {
        let fake = Fake::start().await;
        fake.create("t", 1);
        fake.world().twist_topic = Some(Box::new(twist));
        let producer = Producer::new(&fake.client(), ProducerConfig::new()).unwrap();
        let error = producer
            .send(ProducerRecord::new("t", "v"))
            .await
            .unwrap_err();
        assert!(is_protocol(&error), "{error}");
        let mut consumer = Consumer::new(&fake.client(), ConsumerConfig::new()).unwrap();
        consumer.subscribe(["t"]);
        let error = consumer.poll(LONG).await.unwrap_err();
        assert!(is_protocol(&error), "{error}");
        assert!(consumer.assignment().is_empty());
    }
}

#[tokio::test]
async fn offsets_found_and_committed_are_checked() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let good = v1::OffsetFound {
        topic: "t".to_owned(),
        high_watermark: 3,
        ..v1::OffsetFound::default()
    };
    let client = fake.client();
    let list = async |offsets: Vec<v1::OffsetFound>| {
        fake.world().offsets_found = offsets;
        client.list_offsets([("t", 0, StartAt::Earliest)]).await
    };
    list(vec![good.clone()]).await.unwrap();
    let other = |change: fn(&mut v1::OffsetFound)| {
        let mut found = good.clone();
        change(&mut found);
        vec![found]
    };
    let nonsense = [
        Vec::new(),
        vec![good.clone(), good.clone()],
        other(|found| found.partition = 1),
        other(|found| found.topic.clear()),
        other(|found| found.offset = -1),
        other(|found| found.log_start_offset = 4),
        other(|found| found.high_watermark = i64::MIN),
    ];
    for offsets in nonsense {
        let error = list(offsets.clone()).await.unwrap_err();
        assert!(is_protocol(&error), "{offsets:?}");
    }
    for (partition, offset) in [(0, -1), (7, 0)] {
        fake.world().twist_committed =
            Some(Box::new(move |fetched: &mut v1::FetchOffsetsResponse| {
                fetched.offsets = vec![v1::CommittedOffset {
                    topic: "t".to_owned(),
                    partition,
                    offset,
                    ..v1::CommittedOffset::default()
                }];
            }));
        let mut consumer = Consumer::new(&client, ConsumerConfig::new().group("g")).unwrap();
        consumer.subscribe(["t"]);
        let error = consumer.poll(LONG).await.unwrap_err();
        assert!(is_protocol(&error), "{error}");
    }
}

/// Never more than one attempt, so that only the timeouts count.
fn client(url: &str) -> Client {
    let retry = RetryPolicy {
        attempts_max: 1_000,
        ..RetryPolicy::default()
    };
    let config = ClientConfig::new(url)
        .request_timeout(SHORT)
        .call_timeout(SHORT * 2)
        .retry(retry);
    Client::new(config).unwrap()
}

/// Nothing of what is tried at `url` ends well, but everything ends.
async fn everything_ends(url: &str) {
    let client = client(url);
    let called = timeout(LONG, client.list_topics(false)).await.unwrap();
    assert_eq!(called.unwrap_err().kind(), ErrorKind::Retry);
    let config = ProducerConfig::new().delivery_timeout(SHORT);
    let producer = Producer::new(&client, config).unwrap();
    for record in [
        ProducerRecord::new("t", "v"),
        ProducerRecord::new("t", "v").partition(0),
    ] {
        let appended = timeout(LONG, producer.append(record)).await.unwrap();
        let error = appended.unwrap_err();
        assert!(matches!(error, Error::DeliveryTimeout(_)), "{error}");
    }
    timeout(LONG, producer.close()).await.unwrap().unwrap_err();
    let config = ConsumerConfig::new().unavailable_timeout(SHORT);
    let mut consumer = Consumer::new(&client, config).unwrap();
    consumer.assign("t", 0, StartAt::Earliest);
    let polled = timeout(LONG, consumer.poll(LONG * 2)).await.unwrap();
    assert_eq!(polled.unwrap_err().kind(), ErrorKind::Retry);
}

#[tokio::test]
async fn a_server_that_takes_connections_and_is_silent_keeps_nobody_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    everything_ends(&url).await;
    everything_ends(&url.replace("http:", "https:")).await;
    silent.abort();
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_keeps_nobody_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Nobody accepts, and once this is dropped nobody listens.
    everything_ends(&url).await;
    drop(listener);
    everything_ends(&url).await;
}

#[tokio::test]
async fn spans_of_time_that_no_clock_can_add_are_refused_by_name() {
    let named = |error: Error, name: &str| {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(name), "{error}");
    };
    let client = || ClientConfig::new("http://localhost:1");
    named(
        client()
            .request_timeout(Duration::MAX)
            .validate()
            .unwrap_err(),
        "request_timeout",
    );
    named(
        client()
            .call_timeout(Duration::ZERO)
            .validate()
            .unwrap_err(),
        "call_timeout",
    );
    let producer = ProducerConfig::new;
    named(
        producer()
            .delivery_timeout(Duration::MAX)
            .validate()
            .unwrap_err(),
        "delivery_timeout",
    );
    named(
        producer()
            .metadata_age_max(Duration::MAX)
            .validate()
            .unwrap_err(),
        "metadata_age_max",
    );
    let consumer = ConsumerConfig::new;
    named(
        consumer()
            .metadata_age_max(Duration::MAX)
            .validate()
            .unwrap_err(),
        "metadata_age_max",
    );
    named(
        consumer().tail_partitions_max(0).validate().unwrap_err(),
        "tail_partitions_max",
    );
    named(
        consumer()
            .unavailable_timeout(Duration::MAX)
            .validate()
            .unwrap_err(),
        "unavailable_timeout",
    );
    let often = consumer().group("g").auto_commit(Duration::MAX);
    named(often.validate().unwrap_err(), "auto_commit");
}
