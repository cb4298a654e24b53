//! The consumer against a peer that fails by script: every record once and in order.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::time::Duration;

use comlog_client::record::{BatchBuilder, Compression, Limits, Offset, OffsetRange, Timestamp};
use comlog_client::{
    Consumer, ConsumerConfig, Error, ErrorKind, FetchedBatch, OffsetReset, Producer,
    ProducerConfig, ProducerRecord, StartAt,
};
use fake::Fake;
use tokio_stream::StreamExt;

const SOON: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(50);

fn values(batches: &[FetchedBatch]) -> Vec<String> {
    let records = batches.iter().flat_map(FetchedBatch::iter);
    let value = |record: comlog_client::record::Record<'_>| {
        String::from_utf8(record.value.unwrap().to_vec()).unwrap()
    };
    records.map(|record| value(record.unwrap())).collect()
}

/// Polls until `count` values are there.
async fn take(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let batches = consumer.poll(SOON).await.unwrap();
        assert!(!batches.is_empty(), "only {taken:?}");
        taken.extend(values(&batches));
    }
    taken
}

async fn nothing_more(consumer: &mut Consumer) {
    assert!(values(&consumer.poll(SHORT).await.unwrap()).is_empty());
}

/// Polls until the consumer stands at `offset` of partition 0.
async fn stands_at(consumer: &mut Consumer, offset: i64) {
    while consumer.position("t", 0) != Some(Offset(offset)) {
        let polled = consumer.poll(Duration::from_millis(5)).await.unwrap();
        assert!(polled.is_empty());
    }
}

fn earliest(fake: &Fake) -> Consumer {
    let config = ConsumerConfig::new().offset_reset(OffsetReset::Earliest);
    Consumer::new(&fake.client(), config).unwrap()
}

#[tokio::test]
async fn starts_where_it_is_told() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.append("t", 0, &["a", "b", "c"]);
    fake.append("t", 0, &["d", "e"]);
    let mut consumer = earliest(&fake);
    consumer.assign("t", 0, StartAt::Earliest);
    assert_eq!(take(&mut consumer, 5).await, ["a", "b", "c", "d", "e"]);
    assert_eq!(consumer.position("t", 0), Some(Offset(5)));
    assert_eq!(consumer.high_watermark("t", 0), Some(Offset(5)));
    // Inside a batch: what comes before in the batch is not handed out.
    consumer.seek("t", 0, StartAt::Offset(Offset(1))).unwrap();
    assert_eq!(consumer.position("t", 0), Some(Offset(1)));
    assert_eq!(take(&mut consumer, 4).await, ["b", "c", "d", "e"]);
    consumer.seek("t", 0, StartAt::Latest).unwrap();
    stands_at(&mut consumer, 5).await;
    fake.append("t", 0, &["f"]);
    assert_eq!(take(&mut consumer, 1).await, ["f"]);
    assert!(consumer.seek("t", 7, StartAt::Earliest).is_err());
}

#[tokio::test]
async fn owned_records_hold_what_was_sent() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let producer = Producer::new(&fake.client(), ProducerConfig::new()).unwrap();
    let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"1")), (b"h", None)];
    let record = ProducerRecord::keyed("t", "k", "v")
        .headers(&headers)
        .timestamp(Timestamp(77));
    producer.append(record).await.unwrap();
    let mut consumer = earliest(&fake);
    consumer.assign("t", 0, StartAt::Earliest);
    let batches = consumer.poll(SOON).await.unwrap();
    let owned = batches[0].owned().next().unwrap().unwrap();
    assert_eq!((&*owned.topic, owned.partition), ("t", 0));
    assert_eq!((owned.offset, owned.timestamp), (Offset(0), Timestamp(77)));
    assert_eq!(owned.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(owned.value.as_deref(), Some(&b"v"[..]));
    let headers = [("h".into(), Some("1".into())), ("h".into(), None)];
    assert_eq!(owned.headers, headers);
}

#[tokio::test]
async fn goes_on_from_its_position_after_restarts() {
    let mut fake = Fake::start().await;
    fake.create("t", 2);
    let mut consumer = earliest(&fake);
    consumer.subscribe(["t"]);
    let mut taken = Vec::new();
    for round in 0..5 {
        for number in 0..20 {
            let value = format!("{round}-{number:02}");
            fake.append("t", number % 2, &[&value]);
        }
        taken.extend(take(&mut consumer, 20).await);
        fake.restart().await;
    }
    nothing_more(&mut consumer).await;
    assert!(fake.world().tails_opened >= 5);
    let mut expected: Vec<String> = (0..5)
        .flat_map(|round| (0..20).map(move |number| format!("{round}-{number:02}")))
        .collect();
    for parity in 0..2 {
        let of_one = |values: &[String]| -> Vec<String> {
            let mine = |value: &&String| value[2..].parse::<u32>().unwrap() % 2 == parity;
            values.iter().filter(mine).cloned().collect()
        };
        assert_eq!(
            of_one(&taken),
            of_one(&expected),
            "order of partition {parity}"
        );
    }
    taken.sort();
    expected.sort();
    assert_eq!(taken, expected);
}

#[tokio::test]
async fn damage_is_named_and_stops_only_its_partition() {
    let fake = Fake::start().await;
    fake.create("t", 2);
    fake.append("t", 0, &["a"]);
    fake.append("t", 0, &["bad", "bad", "bad"]);
    fake.append("t", 0, &["c"]);
    fake.world()
        .logs
        .get_mut(&("t".to_owned(), 0))
        .unwrap()
        .corrupt = Some(1);
    let mut consumer = earliest(&fake);
    consumer.assign("t", 0, StartAt::Earliest);
    consumer.assign("t", 1, StartAt::Earliest);
    assert_eq!(take(&mut consumer, 1).await, ["a"]);
    let error = consumer.poll(SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let Error::Corrupt { offsets, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(offsets, OffsetRange::new(Offset(1), Offset(4)));
    assert_eq!(consumer.position("t", 0), Some(Offset(1)));
    fake.append("t", 1, &["other"]);
    assert_eq!(take(&mut consumer, 1).await, ["other"]);
    nothing_more(&mut consumer).await;
    consumer.seek("t", 0, StartAt::Offset(offsets.end)).unwrap();
    assert_eq!(take(&mut consumer, 1).await, ["c"]);
}

#[tokio::test]
async fn out_of_range_is_reset_or_an_error_by_choice() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.append("t", 0, &["a", "b"]);
    let beyond = StartAt::Offset(Offset(99));
    let mut consumer = earliest(&fake);
    consumer.assign("t", 0, beyond);
    assert_eq!(take(&mut consumer, 2).await, ["a", "b"]);

    let config = ConsumerConfig::new().offset_reset(OffsetReset::Latest);
    let mut consumer = Consumer::new(&fake.client(), config).unwrap();
    consumer.assign("t", 0, beyond);
    stands_at(&mut consumer, 2).await;
    fake.append("t", 0, &["c"]);
    assert_eq!(take(&mut consumer, 1).await, ["c"]);

    let config = ConsumerConfig::new().offset_reset(OffsetReset::Error);
    let mut consumer = Consumer::new(&fake.client(), config).unwrap();
    consumer.assign("t", 0, beyond);
    let error = consumer.poll(SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    nothing_more(&mut consumer).await;
    consumer.seek("t", 0, StartAt::Earliest).unwrap();
    assert_eq!(take(&mut consumer, 3).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn paused_partitions_rest_and_lose_nothing() {
    let fake = Fake::start().await;
    fake.create("t", 2);
    let mut consumer = earliest(&fake);
    consumer.subscribe(["t"]);
    fake.append("t", 0, &["0a"]);
    fake.append("t", 1, &["1a"]);
    take(&mut consumer, 2).await;
    consumer.pause("t", 0).unwrap();
    fake.append("t", 0, &["0b"]);
    fake.append("t", 1, &["1b"]);
    assert_eq!(take(&mut consumer, 1).await, ["1b"]);
    nothing_more(&mut consumer).await;
    assert_eq!(consumer.position("t", 0), Some(Offset(1)));
    consumer.resume("t", 0).unwrap();
    assert_eq!(take(&mut consumer, 1).await, ["0b"]);
    consumer.unassign("t", 0);
    fake.append("t", 0, &["0c"]);
    nothing_more(&mut consumer).await;
    assert_eq!(consumer.assignment().len(), 1);
}

#[tokio::test]
async fn a_group_goes_on_where_it_committed() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.append("t", 0, &["a"]);
    fake.append("t", 0, &["b"]);
    let config = ConsumerConfig::new()
        .group("g")
        .offset_reset(OffsetReset::Earliest)
        .poll_bytes_max(0);
    let consumer = || {
        let mut consumer = Consumer::new(&fake.client(), config.clone()).unwrap();
        consumer.subscribe(["t"]);
        consumer
    };
    let mut first = consumer();
    assert_eq!(values(&first.poll(SOON).await.unwrap()), ["a"]);
    first.commit().await.unwrap();
    assert_eq!(values(&first.poll(SOON).await.unwrap()), ["b"]);
    drop(first);
    let mut second = consumer();
    assert_eq!(values(&second.poll(SOON).await.unwrap()), ["b"]);
    let (done, committed) = tokio::sync::oneshot::channel();
    second
        .commit_async(move |result| done.send(result).unwrap())
        .unwrap();
    committed.await.unwrap().unwrap();
    let key = ("g".to_owned(), "t".to_owned(), 0);
    assert_eq!(fake.world().committed[&key], 2);
    let mut none = earliest(&fake);
    assert_eq!(none.commit().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn commits_by_itself_what_an_earlier_poll_returned() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.append("t", 0, &["a", "b"]);
    let config = ConsumerConfig::new()
        .group("g")
        .offset_reset(OffsetReset::Earliest)
        .auto_commit(Duration::from_millis(1));
    let mut consumer = Consumer::new(&fake.client(), config).unwrap();
    consumer.subscribe(["t"]);
    take(&mut consumer, 2).await;
    let key = ("g".to_owned(), "t".to_owned(), 0);
    assert!(!fake.world().committed.contains_key(&key));
    while !fake.world().committed.contains_key(&key) {
        consumer.poll(Duration::from_millis(5)).await.unwrap();
    }
    assert_eq!(fake.world().committed[&key], 2);
    fake.append("t", 0, &["c"]);
    take(&mut consumer, 1).await;
    consumer.close().await.unwrap();
    assert_eq!(fake.world().committed[&key], 3);
}

#[tokio::test]
async fn added_partitions_are_found_and_read_from_their_beginning() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let config = ConsumerConfig::new().metadata_age_max(Duration::from_millis(20));
    let mut consumer = Consumer::new(&fake.client(), config).unwrap();
    consumer.subscribe(["t"]);
    stands_at(&mut consumer, 0).await;
    fake.create("t", 2);
    fake.append("t", 1, &["early"]);
    assert_eq!(take(&mut consumer, 1).await, ["early"]);
}

#[tokio::test]
async fn a_missing_topic_is_told_and_the_others_go_on() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.append("t", 0, &["a"]);
    let mut consumer = earliest(&fake);
    consumer.assign("t", 0, StartAt::Earliest);
    consumer.assign("missing", 0, StartAt::Earliest);
    let error = consumer.poll(SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(take(&mut consumer, 1).await, ["a"]);
}

#[tokio::test]
async fn the_stream_yields_every_batch() {
    let mut fake = Fake::start().await;
    fake.create("t", 1);
    for number in 0..50 {
        fake.append("t", 0, &[&number.to_string()]);
    }
    let mut consumer = earliest(&fake);
    consumer.assign("t", 0, StartAt::Earliest);
    let mut stream = std::pin::pin!(consumer.stream());
    for number in 0..100 {
        if number == 50 {
            fake.restart().await;
            for number in 50..100 {
                fake.append("t", 0, &[&number.to_string()]);
            }
        }
        let batch = stream.next().await.unwrap().unwrap();
        assert_eq!(values(&[batch]), [number.to_string()]);
    }
}

#[tokio::test]
async fn short_polls_still_get_there() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.append("t", 0, &["a"]);
    let mut consumer = earliest(&fake);
    consumer.subscribe(["t"]);
    let mut polls = 0;
    let taken = loop {
        let batches = consumer.poll(Duration::ZERO).await.unwrap();
        if !batches.is_empty() {
            break values(&batches);
        }
        polls += 1;
        assert!(polls < 100_000, "never gets there");
        tokio::task::yield_now().await;
    };
    assert_eq!(taken, ["a"]);
}

#[tokio::test]
async fn an_unreachable_server_is_told_in_time_and_tried_on() {
    let mut fake = Fake::start().await;
    fake.create("t", 1);
    fake.stop().await;
    let config = ConsumerConfig::new()
        .offset_reset(OffsetReset::Earliest)
        .unavailable_timeout(Duration::from_millis(50));
    let mut consumer = Consumer::new(&fake.client(), config).unwrap();
    consumer.assign("t", 0, StartAt::Earliest);
    let error = consumer.poll(SOON).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    fake.append("t", 0, &["a"]);
    fake.restart().await;
    let taken = loop {
        match consumer.poll(SOON).await {
            Ok(batches) => break values(&batches),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retry),
        }
    };
    assert_eq!(taken, ["a"]);
}

#[tokio::test]
async fn a_consumer_that_does_not_poll_can_still_change_its_mind() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let value = "x".repeat(10_000);
    for _ in 0..100 {
        fake.append("t", 0, &[&value]);
    }
    // The calls would time out late, so a wait for one shows.
    let client = fake.client_with(|config| config.request_timeout(SOON * 2));
    let config = ConsumerConfig::new()
        .prefetch_bytes(64 << 10)
        .poll_bytes_max(0);
    let mut consumer = Consumer::new(&client, config).unwrap();
    consumer.assign("t", 0, StartAt::Earliest);
    take(&mut consumer, 1).await;
    // Long enough for the connection to fill up.
    tokio::time::sleep(SHORT).await;
    fake.append("t", 0, &["last"]);
    consumer.seek("t", 0, StartAt::Offset(Offset(100))).unwrap();
    assert_eq!(take(&mut consumer, 1).await, ["last"]);
    assert_eq!(fake.world().tails_opened, 1);
}

#[tokio::test]
async fn partitions_added_beside_assigned_ones_are_read_from_their_beginning() {
    let fake = Fake::start().await;
    fake.create("t", 2);
    fake.append("t", 0, &["old"]);
    let config = ConsumerConfig::new()
        .offset_reset(OffsetReset::Error)
        .metadata_age_max(Duration::from_millis(20));
    let mut consumer = Consumer::new(&fake.client(), config).unwrap();
    consumer.assign("t", 0, StartAt::Latest);
    consumer.follow_added("t", 2);
    stands_at(&mut consumer, 1).await;
    fake.append("t", 1, &["not wanted"]);
    fake.create("t", 4);
    fake.append("t", 2, &["two"]);
    fake.append("t", 3, &["three"]);
    let mut taken = take(&mut consumer, 2).await;
    taken.sort();
    assert_eq!(taken, ["three", "two"]);
    // What is no longer wanted does not come back with the next look.
    consumer.unassign("t", 2);
    fake.create("t", 5);
    fake.append("t", 4, &["four"]);
    assert_eq!(take(&mut consumer, 1).await, ["four"]);
    assert_eq!(consumer.assignment().len(), 3);
}

#[tokio::test]
async fn another_subscription_or_a_topic_that_is_gone_hides_no_added_partition() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.create("gone", 1);
    let config = ConsumerConfig::new().metadata_age_max(Duration::from_millis(20));
    let mut consumer = Consumer::new(&fake.client(), config).unwrap();
    consumer.subscribe(["gone", "t"]);
    stands_at(&mut consumer, 0).await;
    fake.world().topics.remove("gone");
    fake.create("t", 2);
    fake.append("t", 1, &["early"]);
    // A first look at one topic is none at the others.
    fake.create("u", 1);
    consumer.subscribe(["u"]);
    assert_eq!(take(&mut consumer, 1).await, ["early"]);
}

#[tokio::test]
async fn more_partitions_than_a_tail_follows_are_read_by_several() {
    let mut fake = Fake::start().await;
    let partitions = 2_500;
    fake.create("t", partitions);
    let mut consumer = earliest(&fake);
    consumer.subscribe(["t"]);
    for round in 0..2 {
        let mut expected: Vec<String> = (0..partitions).map(|p| format!("{round} {p}")).collect();
        for (partition, value) in (0..).zip(&expected) {
            fake.append("t", partition, &[value]);
        }
        let mut taken = take(&mut consumer, expected.len()).await;
        taken.sort();
        expected.sort();
        assert_eq!(taken, expected);
        assert_eq!(fake.world().tails_opened, 3 * (round + 1));
        fake.restart().await;
    }
    for partition in 0..partitions {
        consumer.seek("t", partition, StartAt::Earliest).unwrap();
    }
    assert_eq!(take(&mut consumer, 5_000).await.len(), 5_000);
}

/// One gzip batch of records of so many bytes, all zeros.
fn packed(sizes: &[usize]) -> comlog_client::record::RecordBatch {
    let mut builder = BatchBuilder::new(Limits {
        batch_bytes_max: 1 << 30,
        ..Limits::DEFAULT
    });
    for (number, size) in (0..).zip(sizes) {
        let (timestamp, value) = (Timestamp(number), vec![0; *size]);
        builder
            .push(timestamp, Some(b"k"), Some(&value), std::iter::empty())
            .unwrap();
    }
    builder.build(Compression::Gzip, None).unwrap()
}

/// What was acknowledged can be read, whatever it unpacks to, and a poll returns no more than it is
/// asked for.
#[tokio::test]
async fn a_batch_that_unpacks_to_a_lot_comes_in_pieces() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.append("t", 0, &["before"]);
    let sizes = [vec![1_000; 10_000], vec![3 << 20, 10]].concat();
    fake.append_batch("t", 0, packed(&sizes));
    fake.append("t", 0, &["behind"]);
    let limits = Limits {
        decompressed_bytes_max: 1 << 20,
        ..Limits::DEFAULT
    };
    let config = ConsumerConfig::new().poll_bytes_max(2 << 20).limits(limits);
    let mut consumer = Consumer::new(&fake.client(), config).unwrap();
    for from in [0, 1, 5_000, 10_001] {
        consumer.assign("t", 0, StartAt::Offset(Offset(from)));
        let mut next = from;
        while next < sizes.len() as i64 + 2 {
            let batches = consumer.poll(SOON).await.unwrap();
            let (mut bytes, start) = (0, next);
            for record in batches.iter().flat_map(FetchedBatch::iter) {
                let record = record.unwrap();
                assert_eq!(record.offset, Offset(next));
                let len = record.value.unwrap().len();
                let size = usize::try_from(next - 1).ok().and_then(|at| sizes.get(at));
                if let Some(&size) = size {
                    assert_eq!((len, record.key), (size, Some(&b"k"[..])));
                    assert_eq!(record.timestamp, Timestamp(next - 1));
                }
                bytes += len;
                next += 1;
            }
            assert!(next > start && bytes < 6 << 20, "{bytes} bytes in one poll");
            assert_eq!(consumer.position("t", 0), Some(Offset(next)));
            // What was paused for a while begins where it stood.
            if start == 1 {
                consumer.pause("t", 0).unwrap();
                nothing_more(&mut consumer).await;
                consumer.resume("t", 0).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_record_beyond_the_bound_is_named_and_stepped_over() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let sizes = [vec![100; 50], vec![9 << 20], vec![100; 50]].concat();
    fake.append_batch("t", 0, packed(&sizes));
    let limits = Limits {
        record_bytes_max: 1 << 20,
        ..Limits::DEFAULT
    };
    let config = ConsumerConfig::new().limits(limits);
    let mut consumer = Consumer::new(&fake.client(), config).unwrap();
    consumer.assign("t", 0, StartAt::Earliest);
    assert_eq!(take(&mut consumer, 50).await.len(), 50);
    let error = consumer.poll(SOON).await.unwrap_err();
    let Error::RecordTooLarge { offset, bytes, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(offset, Offset(50));
    assert!(bytes > 9 << 20);
    consumer
        .seek("t", 0, StartAt::Offset(offset.next()))
        .unwrap();
    assert_eq!(take(&mut consumer, 50).await.len(), 50);
    assert_eq!(consumer.position("t", 0), Some(Offset(101)));
}
