//! The producer against a peer that fails by script: exactly once, in order, whatever happens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use comlog_client::v1::Reason;
use comlog_client::{Error, ErrorKind, Producer, ProducerConfig, ProducerRecord};
use fake::{Fake, Fault};

/// A delivery timeout for what is not answered; what is answered must keep it on a busy machine.
const TIMES_OUT: Duration = Duration::from_secs(1);

fn small_batches() -> ProducerConfig {
    ProducerConfig::new().batch_records_max(10)
}

fn numbers(from: u32, to: u32) -> Vec<Vec<u8>> {
    (from..to).map(|n| n.to_string().into_bytes()).collect()
}

async fn send_numbers(producer: &Producer, topic: &str, from: u32, to: u32) {
    for number in from..to {
        let value = number.to_string();
        let record = ProducerRecord::new(topic, &value);
        drop(producer.send(record).await.unwrap());
    }
}

/// Sends a thousand numbers while every batch meets what `script` says of its turn.
async fn arrives_once_in_order(script: impl Fn(u32) -> Fault + Send + 'static) {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let mut turn = 0;
    fake.script(move |_| {
        turn += 1;
        script(turn)
    });
    let client = fake.client_with(|config| config.request_timeout(Duration::from_millis(300)));
    let producer = Producer::new(&client, small_batches()).unwrap();
    send_numbers(&producer, "t", 0, 1_000).await;
    producer.close().await.unwrap();
    assert_eq!(fake.values("t", 0), numbers(0, 1_000));
    assert!(fake.world().arrived >= 100);
}

#[tokio::test]
async fn without_faults() {
    arrives_once_in_order(|_| Fault::None).await;
}

/// The sender looks for work while callers add partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_added_at_any_time() {
    let fake = Fake::start().await;
    let partitions = 20_000;
    fake.create("t", partitions);
    let config = small_batches().idempotence(false);
    let producer = Producer::new(&fake.client(), config).unwrap();
    for partition in 0..partitions {
        let record = ProducerRecord::new("t", "v").partition(partition);
        drop(producer.send(record).await.unwrap());
    }
    producer.close().await.unwrap();
    for partition in 0..partitions {
        assert_eq!(fake.values("t", partition), [b"v"], "{partition}");
    }
}

#[tokio::test]
async fn a_callback_that_panics_harms_no_record() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let producer = Producer::new(&fake.client(), small_batches()).unwrap();
    let record = ProducerRecord::new("t", "0");
    let panics = |_| panic!("on purpose");
    producer.send_with(record, panics).await.unwrap();
    send_numbers(&producer, "t", 1, 100).await;
    producer.close().await.unwrap();
    assert_eq!(fake.values("t", 0), numbers(0, 100));
}

#[tokio::test]
async fn connection_lost_between_append_and_acknowledgement() {
    arrives_once_in_order(|turn| match turn % 7 {
        3 => Fault::LoseAfter,
        _ => Fault::None,
    })
    .await;
}

#[tokio::test]
async fn connection_lost_before_append() {
    arrives_once_in_order(|turn| match turn % 7 {
        3 => Fault::LoseBefore,
        _ => Fault::None,
    })
    .await;
}

#[tokio::test]
async fn acknowledgement_never_comes() {
    arrives_once_in_order(|turn| match turn {
        12 | 40 => Fault::Swallow,
        _ => Fault::None,
    })
    .await;
}

#[tokio::test]
async fn refused_for_now() {
    // 11, so that the sixteen turns that a refusal takes, those behind it being suspended, do not
    // bring the same batch before the same fault for ever.
    arrives_once_in_order(|turn| match turn % 11 {
        2 => Fault::Refuse(Reason::Overloaded),
        5 => Fault::Refuse(Reason::StorageFull),
        _ => Fault::None,
    })
    .await;
}

#[tokio::test]
async fn everything_at_once() {
    arrives_once_in_order(|turn| match turn % 13 {
        2 => Fault::LoseAfter,
        5 => Fault::Refuse(Reason::Overloaded),
        7 => Fault::LoseBefore,
        9 => Fault::Delay(Duration::from_millis(5)),
        11 => Fault::LoseAfter,
        _ => Fault::None,
    })
    .await;
}

#[tokio::test]
async fn a_batch_refused_for_good_fails_alone_and_the_others_keep_their_order() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let mut turn = 0;
    fake.script(move |_| {
        turn += 1;
        match turn {
            5 => Fault::Refuse(Reason::InvalidRecordBatch),
            _ => Fault::None,
        }
    });
    let producer = Producer::new(&fake.client(), small_batches()).unwrap();
    let mut deliveries = Vec::new();
    for number in 0..200u32 {
        let value = number.to_string();
        deliveries.push(
            producer
                .send(ProducerRecord::new("t", &value))
                .await
                .unwrap(),
        );
    }
    let flushed = producer.flush().await.unwrap_err();
    assert_eq!(flushed.reason(), Reason::InvalidRecordBatch);
    let mut arrived = Vec::new();
    for (number, delivery) in (0u32..).zip(deliveries) {
        match delivery.await {
            Ok(delivered) => {
                assert_eq!(delivered.offset.unwrap().0, arrived.len() as i64);
                arrived.push(number.to_string().into_bytes());
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid),
        }
    }
    assert!(arrived.len() < 200 && arrived.len() >= 190);
    assert_eq!(fake.values("t", 0), arrived);
    producer.close().await.unwrap();
}

#[tokio::test]
async fn what_times_out_fails_and_what_follows_is_neither_lost_nor_doubled() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    // The first batch is appended, but nobody says so until it has timed out.
    let lost = Arc::new(AtomicU32::new(1));
    let losing = lost.clone();
    fake.script(move |_| match losing.load(Ordering::SeqCst) {
        1 => Fault::LoseAfter,
        2 => Fault::LoseBefore,
        _ => Fault::None,
    });
    for (phase, first_in_log) in [(1, true), (2, false)] {
        let from = phase * 1_000;
        lost.store(phase, Ordering::SeqCst);
        let config = ProducerConfig::new().delivery_timeout(TIMES_OUT);
        let producer = Producer::new(&fake.client(), config).unwrap();
        let first = from.to_string();
        let first = producer
            .send(ProducerRecord::new("t", &first))
            .await
            .unwrap();
        let error = first.await.unwrap_err();
        assert!(matches!(error, Error::DeliveryTimeout(_)), "{error}");
        lost.store(0, Ordering::SeqCst);
        send_numbers(&producer, "t", from + 1, from + 100).await;
        drop(producer.close().await);
        let expected = numbers(if first_in_log { from } else { from + 1 }, from + 100);
        assert_eq!(
            fake.values("t", 0)
                .split_off(if phase == 1 { 0 } else { 100 }),
            expected
        );
    }
}

#[tokio::test]
async fn a_restart_of_the_server_loses_and_doubles_nothing() {
    let mut fake = Fake::start().await;
    fake.create("t", 1);
    let producer = Producer::new(&fake.client(), small_batches()).unwrap();
    let task = tokio::spawn({
        let producer = producer.clone();
        async move {
            for start in 0..20 {
                send_numbers(&producer, "t", start * 100, (start + 1) * 100).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        fake.restart().await;
    }
    task.await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(fake.values("t", 0), numbers(0, 2_000));
}

#[tokio::test]
async fn partitions_do_not_wait_for_each_other() {
    let fake = Fake::start().await;
    fake.create("t", 2);
    fake.script(|request| match request.partition {
        0 => Fault::Refuse(Reason::StorageFull),
        _ => Fault::None,
    });
    let producer = Producer::new(&fake.client(), small_batches()).unwrap();
    let record = ProducerRecord::new("t", "stuck").partition(0);
    let stuck = producer.send(record).await.unwrap();
    for _ in 0..50 {
        let record = ProducerRecord::new("t", "free").partition(1);
        producer.append(record).await.unwrap();
    }
    assert!(stuck.try_result().is_none());
    fake.script(|_| Fault::None);
    stuck.await.unwrap();
    producer.close().await.unwrap();
}

#[tokio::test]
async fn callbacks_come_exactly_once_each() {
    let fake = Fake::start().await;
    fake.create("t", 3);
    let mut turn = 0;
    fake.script(move |_| {
        turn += 1;
        match turn % 5 {
            0 => Fault::LoseAfter,
            3 => Fault::Refuse(Reason::InvalidRecordBatch),
            _ => Fault::None,
        }
    });
    let producer = Producer::new(&fake.client(), small_batches()).unwrap();
    let calls: Arc<Vec<AtomicU32>> = Arc::new((0..500).map(|_| AtomicU32::new(0)).collect());
    for number in 0..500usize {
        let (calls, key) = (calls.clone(), number.to_string());
        let record = ProducerRecord::keyed("t", &key, "v");
        let count = move |_| {
            calls[number].fetch_add(1, Ordering::SeqCst);
        };
        producer.send_with(record, count).await.unwrap();
    }
    drop(producer.close().await);
    assert!(calls.iter().all(|calls| calls.load(Ordering::SeqCst) == 1));
}

#[tokio::test]
async fn a_full_buffer_is_an_error_or_a_wait_by_choice() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.script(|_| Fault::Refuse(Reason::Overloaded));
    let config = ProducerConfig::new()
        .batch_bytes(2_048)
        .record_bytes_max(2_048)
        .buffer_bytes_max(8_192);
    let producer = Producer::new(&fake.client(), config).unwrap();
    producer.prepare("t").await.unwrap();
    let value = [0u8; 100];
    let mut taken = 0;
    let error = loop {
        match producer.try_send(ProducerRecord::new("t", &value)) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::BufferFull { .. }), "{error}");
    assert!(producer.buffered_bytes() <= 8_192);
    let waiting = producer.send(ProducerRecord::new("t", &value));
    let waited = tokio::time::timeout(Duration::from_millis(50), waiting).await;
    assert!(waited.is_err(), "there was room");
    fake.script(|_| Fault::None);
    drop(
        producer
            .send(ProducerRecord::new("t", &value))
            .await
            .unwrap(),
    );
    producer.close().await.unwrap();
    assert_eq!(fake.values("t", 0).len(), taken + 1);
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test]
async fn what_is_dropped_is_abandoned_and_what_is_closed_takes_nothing() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.script(|_| Fault::Refuse(Reason::Overloaded));
    let producer = Producer::new(&fake.client(), ProducerConfig::new()).unwrap();
    let record = ProducerRecord::new("t", "lost");
    let lost = producer.send(record).await.unwrap();
    drop(producer);
    assert!(matches!(lost.await, Err(Error::Abandoned)));
    let producer = Producer::new(&fake.client(), ProducerConfig::new()).unwrap();
    producer.close().await.unwrap();
    assert!(matches!(producer.send(record).await, Err(Error::Closed)));
}

#[tokio::test]
async fn records_too_large_are_refused_and_change_nothing() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let config = ProducerConfig::new().record_bytes_max(1_000);
    let producer = Producer::new(&fake.client(), config).unwrap();
    let large = producer.send(ProducerRecord::new("t", &[0; 1_001])).await;
    assert_eq!(large.unwrap_err().kind(), ErrorKind::Invalid);
    let fits = producer.append(ProducerRecord::new("t", &[0; 1_000])).await;
    assert_eq!(fits.unwrap().offset.unwrap().0, 0);
}

#[tokio::test]
async fn keys_keep_to_their_partition_and_others_spread() {
    let fake = Fake::start().await;
    fake.create("t", 8);
    let producer = Producer::new(&fake.client(), small_batches()).unwrap();
    for number in 0..400u32 {
        let key = format!("key-{}", number % 20);
        let delivery = producer
            .send(ProducerRecord::keyed("t", &key, "v"))
            .await
            .unwrap();
        let partition = comlog_client::partition_for_key(key.as_bytes(), 8);
        assert_eq!(delivery.await.unwrap().partition, partition);
    }
    let before: Vec<usize> = (0..8).map(|p| fake.values("t", p).len()).collect();
    send_numbers(&producer, "t", 0, 2_000).await;
    producer.close().await.unwrap();
    for partition in 0..8u32 {
        assert!(fake.values("t", partition).len() > before[partition as usize]);
    }
}

#[tokio::test]
async fn conditional_appends_land_where_expected_or_not_at_all() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let producer = Producer::new(&fake.client(), small_batches()).unwrap();
    producer.expect_offset("t", 0, Some(0)).unwrap();
    send_numbers(&producer, "t", 0, 100).await;
    producer.flush().await.unwrap();
    fake.append("t", 0, &["another writer"]);
    let record = ProducerRecord::new("t", "refused").partition(0);
    let error = producer.append(record).await.unwrap_err();
    assert_eq!(error.reason(), Reason::UnexpectedOffset);
    assert_eq!(error.server_error().unwrap().offset.unwrap().0, 101);
    producer.expect_offset("t", 0, Some(101)).unwrap();
    let record = ProducerRecord::new("t", "welcome").partition(0);
    let delivered = producer.append(record).await.unwrap();
    assert_eq!(delivered.offset.unwrap().0, 101);
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_made_by_the_first_record() {
    let fake = Fake::start().await;
    let producer = Producer::new(&fake.client(), ProducerConfig::new()).unwrap();
    let record = ProducerRecord::keyed("new", "k", "v");
    assert!(matches!(
        producer.try_send(record),
        Err(Error::TopicNotPrepared(_))
    ));
    assert_eq!(producer.append(record).await.unwrap().offset.unwrap().0, 0);
    assert_eq!(fake.values("new", 0), vec![b"v".to_vec()]);
}

#[tokio::test]
async fn a_stream_that_never_answers_is_given_up_with_what_times_out() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.script(|_| Fault::Swallow);
    let config = ProducerConfig::new().delivery_timeout(TIMES_OUT);
    let producer = Producer::new(&fake.client(), config).unwrap();
    let record = ProducerRecord::new("t", "unanswered");
    for _ in 0..3 {
        let error = producer.append(record).await.unwrap_err();
        assert!(matches!(error, Error::DeliveryTimeout(_)), "{error}");
    }
    fake.script(|_| Fault::None);
    let record = ProducerRecord::new("t", "answered");
    let delivered = producer.append(record).await.unwrap();
    assert_eq!(delivered.offset.unwrap().0, 3);
}

/// The number at the front of each value.
fn front(values: &[Vec<u8>]) -> Vec<usize> {
    let number = |value: &Vec<u8>| {
        let text = std::str::from_utf8(value).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    values.iter().map(number).collect()
}

/// Sends 500 records of about 100 bytes, one of them far too large for the topic, which takes
/// batches of 2 KiB; `partition` unless the topic is to be asked first.
async fn splits(partition: Option<u32>, script: impl Fn(u32) -> Fault + Send + 'static) {
    let fake = Fake::start().await;
    fake.create("t", 1);
    fake.world().batch_bytes_max = Some(2_048);
    let mut turn = 0;
    fake.script(move |_| {
        turn += 1;
        script(turn)
    });
    let client = fake.client_with(|config| config.request_timeout(Duration::from_millis(300)));
    let producer = Producer::new(&client, ProducerConfig::new()).unwrap();
    let mut deliveries = Vec::new();
    for number in 0..500 {
        let value = format!(
            "{number} {}",
            "x".repeat(if number == 250 { 5_000 } else { 100 })
        );
        let record = ProducerRecord {
            partition,
            ..ProducerRecord::new("t", &value)
        };
        deliveries.push(producer.send(record).await.unwrap());
    }
    assert_eq!(
        producer.close().await.unwrap_err().reason(),
        Reason::BatchTooLarge
    );
    let mut arrived = Vec::new();
    for (number, delivery) in deliveries.into_iter().enumerate() {
        match delivery.await {
            Ok(delivered) => {
                assert_eq!(delivered.offset.unwrap().0, arrived.len() as i64);
                arrived.push(number);
            }
            Err(error) => assert_eq!((number, error.reason()), (250, Reason::BatchTooLarge)),
        }
    }
    assert_eq!(arrived.len(), 499);
    assert_eq!(front(&fake.values("t", 0)), arrived);
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test]
async fn batches_keep_to_the_limit_of_the_topic() {
    splits(None, |_| Fault::None).await;
}

#[tokio::test]
async fn batches_that_turn_out_too_large_are_split() {
    splits(Some(0), |_| Fault::None).await;
}

#[tokio::test]
async fn batches_are_split_once_each_over_lost_connections() {
    splits(Some(0), |turn| match turn % 7 {
        1 => Fault::LoseBefore,
        3 => Fault::LoseAfter,
        5 => Fault::Refuse(Reason::Overloaded),
        _ => Fault::None,
    })
    .await;
}

/// The limit falls between an append and the retry of it.
#[tokio::test]
async fn what_may_be_in_the_log_is_never_split_into_a_second_copy() {
    let fake = Fake::start().await;
    fake.create("t", 1);
    let shared = fake.shared.clone();
    let mut turn = 0;
    fake.script(move |_| {
        turn += 1;
        match turn {
            1 => Fault::LoseAfter,
            _ => Fault::None,
        }
    });
    let client = fake.client_with(|config| {
        let retry = comlog_client::RetryPolicy {
            backoff_min: Duration::from_millis(200),
            ..comlog_client::RetryPolicy::default()
        };
        config.retry(retry)
    });
    let config = ProducerConfig::new().linger(Duration::from_millis(1));
    let producer = Producer::new(&client, config).unwrap();
    let mut deliveries = Vec::new();
    for number in 0..20 {
        let value = format!("{number} {}", "x".repeat(200));
        let record = ProducerRecord::new("t", &value).partition(0);
        deliveries.push(producer.try_send(record).unwrap());
    }
    while fake.values("t", 0).is_empty() {
        tokio::task::yield_now().await;
    }
    shared.0.lock().unwrap().batch_bytes_max = Some(1_024);
    for delivery in deliveries {
        // It is in the log, and where is not known any more.
        assert_eq!(delivery.await.unwrap().offset, None);
    }
    let after = producer.append(ProducerRecord::new("t", "20").partition(0));
    after.await.unwrap();
    assert_eq!(front(&fake.values("t", 0)), (0..21).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_partition_is_waited_for_by_choice() {
    for waits in [false, true] {
        let fake = Fake::start().await;
        fake.create("t", 1);
        let mut turn = 0;
        fake.script(move |_| {
            turn += 1;
            match turn {
                1..5 => Fault::Refuse(Reason::PartitionFailed),
                _ => Fault::None,
            }
        });
        let config = ProducerConfig::new().retry_failed_partitions(waits);
        let producer = Producer::new(&fake.client(), config).unwrap();
        let appended = producer.append(ProducerRecord::new("t", "v")).await;
        match (waits, appended) {
            (true, Ok(delivered)) => assert_eq!(delivered.offset.unwrap().0, 0),
            (false, Err(error)) => assert_eq!(error.reason(), Reason::PartitionFailed),
            (_, appended) => panic!("{appended:?}"),
        }
    }
}
