//! Idempotence: the last sequences of each producer, by the rules of KIP-98.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use comlog_record::{BatchHeader, Offset, OffsetRange, Timestamp};

use crate::AppendError;
use crate::frame::{Decoder, Encoder, Unusable};

/// A retry of any of the last so many batches is answered with its first offsets. Kafka keeps 5,
/// which bounds how many a producer may have under way; more let small batches share a sync.
const BATCHES_KEPT: usize = 16;
/// Sequences count from 0 to 2^31 - 1 and start again.
const SEQUENCES: i64 = 1 << 31;

/// One batch of a producer, as it was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    base_sequence: i32,
    offsets: OffsetRange,
    /// The batch's largest timestamp (the append time, on logs that stamp it).
    timestamp: Timestamp,
}

impl Sent {
    fn last_sequence(&self) -> i32 {
        advance(self.base_sequence, self.offsets.len() as i64 - 1)
    }
}

/// What is known of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    epoch: i16,
    /// Whether its sequences were seen from 0 on. If not (its state had expired, or the batches
    /// were trimmed), what lies before the oldest kept batch is not known to be in the log.
    whole: bool,
    /// When the log last heard of it, by the log's clock.
    last_seen: Timestamp,
    /// The newest last, never empty.
    sent: VecDeque<Sent>,
}

/// What the sequence of a batch says about it.
#[derive(Debug)]
pub(crate) enum Sequenced {
    /// It comes next: append it.
    Next,
    /// It is in the log already, at these offsets, with this largest timestamp.
    Duplicate(OffsetRange, Timestamp),
}

/// How to take one [`ProducerState::record`] back.
#[derive(Debug)]
pub(crate) struct Undo {
    producer_id: i64,
    before: Option<Producer>,
}

/// Producer ids above this one are stored as they come, and keep nobody from giving out ids: or a
/// single batch with the largest of all would leave none.
pub const PRODUCER_ID_RESERVED_MAX: i64 = 1 << 62;

/// The producers of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProducerState {
    producers: BTreeMap<i64, Producer>,
    /// The largest id ever seen up to [`PRODUCER_ID_RESERVED_MAX`], forgotten producers included;
    /// -1 when none.
    id_max: i64,
}

impl ProducerState {
    pub(crate) fn new() -> ProducerState {
        ProducerState {
            producers: BTreeMap::new(),
            id_max: -1,
        }
    }

    pub(crate) fn id_max(&self) -> i64 {
        self.id_max
    }

    /// Whether a batch comes next, is a retry, or must be refused.
    ///
    /// A producer not known (it is new, or expired) may start with any sequence: refusing would
    /// break a producer that was idle for longer than its state is kept. A new epoch starts at 0.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Sequenced, AppendError> {
        let Some(producer) = self.producers.get(&header.producer_id) else {
            return Ok(Sequenced::Next);
        };
        if header.producer_epoch < producer.epoch {
            return Err(AppendError::ProducerFenced {
                producer_id: header.producer_id,
                current: producer.epoch,
                found: header.producer_epoch,
            });
        }
        if header.producer_epoch > producer.epoch {
            return in_order(header, 0);
        }
        producer.check(header)
    }

    /// Notes an appended batch. `now` is when; on recovery, when the log was opened.
    pub(crate) fn record(&mut self, header: &BatchHeader, now: Timestamp) -> Undo {
        let producer_id = header.producer_id;
        if producer_id <= PRODUCER_ID_RESERVED_MAX {
            self.id_max = self.id_max.max(producer_id);
        }
        let before = self.producers.get(&producer_id).cloned();
        let fresh = before
            .as_ref()
            .is_none_or(|known| known.epoch != header.producer_epoch);
        let producer = self.producers.entry(producer_id).or_insert(Producer {
            epoch: header.producer_epoch,
            whole: false,
            last_seen: now,
            sent: VecDeque::with_capacity(BATCHES_KEPT),
        });
        if fresh {
            producer.epoch = header.producer_epoch;
            producer.whole = header.base_sequence == 0;
            producer.sent.clear();
        }
        producer.last_seen = now;
        if producer.sent.len() == BATCHES_KEPT {
            producer.sent.pop_front();
        }
        producer.sent.push_back(Sent {
            base_sequence: header.base_sequence,
            offsets: header.offsets(),
            timestamp: header.max_timestamp,
        });
        Undo {
            producer_id,
            before,
        }
    }

    /// Takes back a [`ProducerState::record`]; the latest first.
    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo.before {
            Some(before) => self.producers.insert(undo.producer_id, before),
            None => self.producers.remove(&undo.producer_id),
        };
    }

    /// Forgets producers not heard of since `oldest`, and the least recent ones beyond `most`.
    pub(crate) fn expire(&mut self, oldest: Timestamp) {
        self.producers
            .retain(|_, producer| producer.last_seen >= oldest);
    }

    /// Keeps at most `most` producers: the least recent (by offset) go, a tenth at a time, so that
    /// the search for them is rare.
    pub(crate) fn bound(&mut self, most: usize) {
        if self.producers.len() <= most {
            return;
        }
        let keep = most - most / 10;
        let mut recency: Vec<(Offset, i64)> = self
            .producers
            .iter()
            .map(|(id, producer)| (producer.last_offset(), *id))
            .collect();
        let surplus = recency.len() - keep;
        recency.sort_unstable();
        for (_, id) in &recency[..surplus] {
            self.producers.remove(id);
        }
    }

    /// Goes back to where the log ended at `end`. Of a producer all of whose kept batches lie
    /// behind that, the older ones are taken from `batches`, which come before `end`, ascending.
    pub(crate) fn rewind(&mut self, end: Offset, batches: &[BatchHeader], now: Timestamp) {
        self.producers.retain(|_, producer| {
            producer.sent.retain(|sent| sent.offsets.end <= end);
            !producer.sent.is_empty()
        });
        let kept: BTreeSet<i64> = self.producers.keys().copied().collect();
        for header in batches {
            if header.producer_id >= 0 && !kept.contains(&header.producer_id) {
                self.record(header, now);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.producers.len()
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.i64(self.id_max);
        out.varint(self.producers.len() as u64);
        for (id, producer) in &self.producers {
            out.i64(*id);
            out.varint(producer.epoch as u64);
            out.u8(u8::from(producer.whole));
            out.i64(producer.last_seen.0);
            out.varint(producer.sent.len() as u64);
            for sent in &producer.sent {
                out.varint(sent.base_sequence as u64);
                out.i64(sent.offsets.start.0);
                out.varint(sent.offsets.len());
                out.i64(sent.timestamp.0);
            }
        }
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<ProducerState, Unusable> {
        let mut state = ProducerState::new();
        state.id_max = from.i64()?;
        for _ in 0..from.count(20)? {
            let id = from.i64()?;
            let producer = Producer::decode(from)?;
            state.producers.insert(id, producer);
        }
        Ok(state)
    }
}

impl Producer {
    fn check(&self, header: &BatchHeader) -> Result<Sequenced, AppendError> {
        let retried = self.sent.iter().find(|sent| {
            sent.base_sequence == header.base_sequence && sent.offsets.len() == count(header)
        });
        if let Some(sent) = retried {
            return Ok(Sequenced::Duplicate(sent.offsets, sent.timestamp));
        }
        let expected = self.next_sequence();
        let behind = distance(header.base_sequence, expected);
        let all_behind = behind < SEQUENCES / 2 && behind >= count(header) as i64;
        if behind > 0 && all_behind && self.whole {
            return Err(AppendError::DuplicateSequence {
                producer_id: header.producer_id,
            });
        }
        in_order(header, expected)
    }

    fn next_sequence(&self) -> i32 {
        self.sent
            .back()
            .map_or(0, |sent| advance(sent.last_sequence(), 1))
    }

    fn last_offset(&self) -> Offset {
        self.sent
            .back()
            .map_or(Offset::ZERO, |sent| sent.offsets.end)
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Producer, Unusable> {
        let wrong = Unusable::Invalid("a producer's state is out of range");
        let epoch = i16::try_from(from.varint()?).map_err(|_| wrong)?;
        let whole = from.u8()? != 0;
        let last_seen = Timestamp(from.i64()?);
        let count = from.count(18)?;
        if count == 0 || count > BATCHES_KEPT {
            return Err(wrong);
        }
        let mut sent = VecDeque::with_capacity(BATCHES_KEPT);
        for _ in 0..count {
            let base_sequence = i32::try_from(from.varint()?).map_err(|_| wrong)?;
            let start = Offset(from.i64()?);
            let end = start.checked_add(from.varint()?).ok_or(wrong)?;
            sent.push_back(Sent {
                base_sequence,
                offsets: OffsetRange::new(start, end),
                timestamp: Timestamp(from.i64()?),
            });
        }
        Ok(Producer {
            epoch,
            whole,
            last_seen,
            sent,
        })
    }
}

fn in_order(header: &BatchHeader, expected: i32) -> Result<Sequenced, AppendError> {
    if header.base_sequence == expected {
        return Ok(Sequenced::Next);
    }
    Err(AppendError::OutOfOrderSequence {
        producer_id: header.producer_id,
        expected,
        found: header.base_sequence,
    })
}

fn count(header: &BatchHeader) -> u64 {
    header.offsets().len()
}

/// The sequence `by` behind `sequence`, around the wrap.
fn advance(sequence: i32, by: i64) -> i32 {
    ((i64::from(sequence) + by).rem_euclid(SEQUENCES)) as i32
}

/// How many steps lead from `from` to `to`, around the wrap.
fn distance(from: i32, to: i32) -> i64 {
    (i64::from(to) - i64::from(from)).rem_euclid(SEQUENCES)
}

#[cfg(test)]
mod tests {
    use comlog_record::{BATCH_HEADER_LEN, LENGTH_PREFIX_LEN, LeaderEpoch};

    use super::*;
    use crate::frame::{Kind, Owner};

    const KIND: Kind = Kind {
        magic: *b"comlogPS",
        format: 1,
    };
    const NOW: Timestamp = Timestamp(1_000);

    fn header(id: i64, epoch: i16, sequence: i32, count: i32, offset: i64) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(offset),
            batch_length: (BATCH_HEADER_LEN - LENGTH_PREFIX_LEN) as i32,
            leader_epoch: LeaderEpoch(0),
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: NOW,
            max_timestamp: NOW,
            producer_id: id,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: count,
        }
    }

    fn state(batches: &[BatchHeader]) -> ProducerState {
        let mut state = ProducerState::new();
        for batch in batches {
            assert!(
                matches!(state.check(batch), Ok(Sequenced::Next)),
                "{batch:?}"
            );
            state.record(batch, NOW);
        }
        state
    }

    fn duplicate_at(state: &ProducerState, header: &BatchHeader) -> Option<i64> {
        match state.check(header) {
            Ok(Sequenced::Duplicate(offsets, _)) => Some(offsets.start.0),
            _ => None,
        }
    }

    #[test]
    fn a_retry_of_the_last_sixteen_finds_its_offsets() {
        let sent: Vec<_> = (0..18)
            .map(|at| header(1, 0, at * 10, 10, 100 + i64::from(at) * 10))
            .collect();
        let state = state(&sent);
        for old in &sent[2..] {
            assert_eq!(duplicate_at(&state, old), Some(old.base_offset.0));
        }
        let older = state.check(&sent[1]);
        assert!(
            matches!(older, Err(AppendError::DuplicateSequence { .. })),
            "{older:?}"
        );
    }

    #[test]
    fn gaps_and_overlaps_are_refused() {
        let state = state(&[header(1, 0, 0, 10, 0)]);
        for (sequence, count) in [(11, 1), (5, 10), (500, 3)] {
            let refused = state.check(&header(1, 0, sequence, count, 10));
            assert!(
                matches!(
                    refused,
                    Err(AppendError::OutOfOrderSequence { expected: 10, .. })
                ),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let mut state = state(&[header(1, 3, 0, 10, 0)]);
        let late = state.check(&header(1, 4, 10, 1, 10));
        assert!(matches!(
            late,
            Err(AppendError::OutOfOrderSequence { expected: 0, .. })
        ));
        let first = header(1, 4, 0, 1, 10);
        assert!(matches!(state.check(&first), Ok(Sequenced::Next)));
        state.record(&first, NOW);
        let fenced = state.check(&header(1, 3, 10, 1, 11));
        assert!(matches!(
            fenced,
            Err(AppendError::ProducerFenced { current: 4, .. })
        ));
    }

    #[test]
    fn sequences_wrap() {
        let mut state = state(&[header(1, 0, i32::MAX - 1, 2, 0)]);
        let wrapped = header(1, 0, 0, 4, 2);
        assert!(matches!(state.check(&wrapped), Ok(Sequenced::Next)));
        state.record(&wrapped, NOW);
        let across = state.check(&header(1, 0, 4, 1, 6));
        assert!(matches!(across, Ok(Sequenced::Next)));
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere_but_promises_nothing_about_before() {
        let state = state(&[header(1, 0, 50, 10, 0)]);
        let before = state.check(&header(1, 0, 20, 10, 10));
        assert!(matches!(
            before,
            Err(AppendError::OutOfOrderSequence { .. })
        ));
    }

    #[test]
    fn undo_restores_what_was_known() {
        let mut state = state(&[header(1, 0, 0, 10, 0)]);
        let before = state.clone();
        let undo = [
            state.record(&header(1, 0, 10, 10, 10), NOW),
            state.record(&header(1, 1, 0, 1, 20), NOW),
        ];
        for undo in undo.into_iter().rev() {
            state.undo(undo);
        }
        assert_eq!(state, before);
    }

    #[test]
    fn the_least_recent_go_first() {
        let sent: Vec<_> = (0..10)
            .map(|id| header(id, 0, 0, 1, 20 - i64::from(id as i32)))
            .collect();
        let mut state = state(&sent);
        state.bound(10);
        assert_eq!(state.len(), 10);
        state.bound(4);
        assert_eq!(
            state.producers.keys().copied().collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        assert_eq!(state.id_max(), 9);
        state.expire(Timestamp(NOW.0 + 1));
        assert_eq!(state.len(), 0);
    }

    #[test]
    fn round_trip() {
        let state = state(&[
            header(4, 1, 7, 3, 0),
            header(9, 0, 0, 1, 3),
            header(4, 1, 10, 3, 4),
        ]);
        let mut encoder = Encoder::new(KIND, Owner::SERVER, 1);
        state.encode(&mut encoder);
        let content = encoder.finish();
        let mut decoder = Decoder::open(KIND, Owner::SERVER, &content).unwrap();
        assert_eq!(ProducerState::decode(&mut decoder), Ok(state));
        assert_eq!(decoder.finish(), Ok(()));
    }
}
