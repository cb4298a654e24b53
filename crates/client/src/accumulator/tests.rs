use std::collections::HashMap;

use comlog_record::{Compression, Limits};
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    batch_bytes: 1_000,
    batch_records_max: 7,
    linger: Duration::from_millis(10),
    buffer_bytes_max: 5_000,
    record_bytes_max: 2_000,
};

fn record(value: &[u8]) -> RecordParts<'_> {
    RecordParts {
        timestamp: Timestamp(0),
        key: None,
        value: Some(value),
        headers: &[],
    }
}

fn values(gathered: Gathered) -> Vec<Vec<u8>> {
    let batch = gathered.builder.build(Compression::None, None).unwrap();
    let records = batch.records(&Limits::DEFAULT).unwrap();
    let values = records
        .iter()
        .map(|record| record.unwrap().value.unwrap().to_vec());
    values.collect()
}

#[test]
fn a_batch_lingers_unless_it_is_full_or_urgent() {
    let now = Instant::now();
    let mut accumulator = Accumulator::new(BOUNDS);
    let queue = accumulator.add_queue();
    accumulator
        .push(queue, || now, None, &record(b"a"))
        .unwrap();
    assert!(accumulator.take(queue, now, Ready::Any).is_none());
    assert_eq!(accumulator.ready_at(queue), Some(now + BOUNDS.linger));
    let later = now + BOUNDS.linger;
    assert!(accumulator.take(queue, later, Ready::Due).is_some());
    assert_eq!(accumulator.ready_at(queue), None);

    accumulator
        .push(queue, || now, None, &record(b"b"))
        .unwrap();
    accumulator.hurry(queue);
    assert!(accumulator.take(queue, now, Ready::Due).is_some());

    let full = [0; 990];
    let pushed = accumulator
        .push(queue, || now, None, &record(&full))
        .unwrap();
    assert!(pushed.wake);
    assert!(accumulator.take(queue, now, Ready::Due).is_some());
}

#[test]
fn without_linger_records_gather_while_a_batch_is_under_way() {
    let now = Instant::now();
    let linger = Duration::ZERO;
    let mut accumulator = Accumulator::new(Bounds { linger, ..BOUNDS });
    let queue = accumulator.add_queue();
    for value in ["a", "b", "c"] {
        let record = record(value.as_bytes());
        accumulator.push(queue, || now, None, &record).unwrap();
    }
    assert!(accumulator.take(queue, now, Ready::Due).is_none());
    let taken = accumulator.take(queue, now, Ready::Any).unwrap();
    assert_eq!(taken.builder.len(), 3);
    assert_eq!(accumulator.ready_at(queue), None);
}

#[test]
fn what_waits_too_long_is_taken_oldest_first() {
    let now = Instant::now();
    let mut accumulator = Accumulator::new(BOUNDS);
    let queue = accumulator.add_queue();
    for tick in 0..3 {
        let at = now + Duration::from_secs(tick);
        accumulator
            .push(queue, || at, None, &record(&[0; 960]))
            .unwrap();
    }
    assert_eq!(accumulator.oldest(), Some(now));
    let expired = accumulator.take_expired(now + Duration::from_secs(1));
    let numbers: Vec<u64> = expired
        .iter()
        .map(|(_, gathered)| gathered.number)
        .collect();
    assert_eq!(numbers, [0, 1]);
    assert!(accumulator.take(queue, now, Ready::Due).is_some());
}

#[test]
fn a_flush_covers_what_was_taken_and_no_more() {
    let now = Instant::now();
    let mut accumulator = Accumulator::new(BOUNDS);
    let queue = accumulator.add_queue();
    accumulator
        .push(queue, || now, None, &record(b"a"))
        .unwrap();
    let through = accumulator.flush();
    let taken = accumulator.take(queue, now, Ready::Due).unwrap();
    accumulator
        .push(queue, || now, None, &record(b"b"))
        .unwrap();
    assert!(!accumulator.is_finished(through));
    accumulator.finish(taken.number, taken.bytes());
    assert!(accumulator.is_finished(through));
    assert!(!accumulator.is_finished(through + 1));
}

/// What may happen to an accumulator.
#[derive(Debug, Clone)]
enum Step {
    Push { queue: usize, len: usize },
    Take { queue: usize, ready: Ready },
    Finish,
    Wait { ms: u64 },
    Flush,
}

fn ready() -> impl Strategy<Value = Ready> {
    prop_oneof![Just(Ready::Full), Just(Ready::Due), Just(Ready::Any)]
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![9 => 4..300usize, 1 => 300..2_200usize];
    prop_oneof![
        8 => (0..3usize, len).prop_map(|(queue, len)| Step::Push { queue, len }),
        3 => (0..3usize, ready()).prop_map(|(queue, ready)| Step::Take { queue, ready }),
        2 => Just(Step::Finish),
        1 => (0..15u64).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Flush),
    ]
}

proptest! {
    /// Every record that was taken comes out once, in order per queue; the bounds hold.
    #[test]
    fn nothing_is_lost_reordered_or_beyond_its_bounds(
        steps in prop::collection::vec(step(), 1..200),
        linger in prop_oneof![Just(0u64), Just(10)],
    ) {
        let linger = Duration::from_millis(linger);
        let mut accumulator = Accumulator::new(Bounds { linger, ..BOUNDS });
        let mut now = Instant::now();
        let mut sent: HashMap<usize, Vec<Vec<u8>>> = HashMap::new();
        let mut arrived: HashMap<usize, Vec<Vec<u8>>> = HashMap::new();
        let mut under_way = Vec::new();
        for _ in 0..3 {
            accumulator.add_queue();
        }
        let mut counter = 0u32;
        for step in steps {
            match step {
                Step::Push { queue, len } => {
                    counter += 1;
                    let mut value = vec![0; len];
                    value[..4].copy_from_slice(&counter.to_be_bytes());
                    let before = accumulator.buffered();
                    match accumulator.push(queue, || now, None, &record(&value)) {
                        Ok(_) => sent.entry(queue).or_default().push(value),
                        Err(error) => {
                            let too_large = matches!(error, Error::Encode(_));
                            prop_assert_eq!(too_large, len > BOUNDS.record_bytes_max);
                            prop_assert_eq!(accumulator.buffered(), before);
                        }
                    }
                    prop_assert!(accumulator.buffered() <= BOUNDS.buffer_bytes_max);
                }
                Step::Take { queue, ready } => {
                    if let Some(taken) = accumulator.take(queue, now, ready) {
                        let records = taken.builder.len();
                        prop_assert!((1..=7).contains(&records));
                        prop_assert!(taken.bytes() <= BOUNDS.batch_bytes || records == 1);
                        under_way.push((taken.number, taken.bytes()));
                        arrived.entry(queue).or_default().extend(values(taken));
                    }
                }
                Step::Finish => {
                    if let Some((number, bytes)) = under_way.pop() {
                        accumulator.finish(number, bytes);
                    }
                }
                Step::Wait { ms } => now += Duration::from_millis(ms),
                Step::Flush => drop(accumulator.flush()),
            }
        }
        let through = accumulator.flush();
        for queue in 0..3 {
            while let Some(taken) = accumulator.take(queue, now, Ready::Due) {
                under_way.push((taken.number, taken.bytes()));
                arrived.entry(queue).or_default().extend(values(taken));
            }
        }
        prop_assert_eq!(accumulator.occupied().count(), 0);
        prop_assert_eq!(accumulator.is_finished(through), under_way.is_empty());
        for (number, bytes) in under_way {
            accumulator.finish(number, bytes);
        }
        prop_assert!(accumulator.is_finished(through));
        prop_assert_eq!(accumulator.buffered(), 0);
        prop_assert_eq!(sent, arrived);
    }
}
