//! What the log promised.

use std::collections::{BTreeMap, BTreeSet};

use comlog_log::{AppendError, AppendRequest};
use comlog_record::{
    BatchHeader, LeaderEpoch, Limits, Offset, OffsetRange, RecordBatch, Timestamp,
};

use crate::drive::Broken;

/// Retries of so many last batches of a producer are answered with their offsets.
const BATCHES_KEPT: usize = 5;

/// One batch that the log took.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// As it must be read: offsets and leader epoch assigned, stamped if the log stamps.
    pub(crate) batch: RecordBatch,
    /// As its producer sent it.
    pub(crate) sent: RecordBatch,
    /// Whether no crash may take it back.
    pub(crate) durable: bool,
    /// Whether bits of it were flipped on the disk.
    pub(crate) damaged: bool,
}

impl Entry {
    pub(crate) fn offsets(&self) -> OffsetRange {
        self.batch.header().offsets()
    }
}

/// What is known of one producer: every batch of its current epoch that is in the log.
#[derive(Debug, Clone, Default)]
struct Producer {
    epoch: i16,
    sent: Vec<(i32, OffsetRange)>,
}

impl Producer {
    fn next_sequence(&self) -> i32 {
        self.sent
            .last()
            .map_or(0, |(sequence, offsets)| sequence + offsets.len() as i32)
    }
}

/// What an append must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It is appended.
    Append,
    /// It is in the log already; `must` when it is recent enough to be known.
    Duplicate { offsets: OffsetRange, must: bool },
    /// It is refused.
    Refuse,
}

#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Contiguous from offset 0, trimmed ones included.
    pub(crate) entries: Vec<Entry>,
    pub(crate) start: Offset,
    pub(crate) token: u64,
    pub(crate) epoch: LeaderEpoch,
    producers: BTreeMap<i64, Producer>,
    /// The largest producer id that the log must know of.
    pub(crate) producer_id_max: i64,
    /// Producers whose state a truncation or lost checkpoint made uncertain.
    pub(crate) retired: BTreeSet<i64>,
}

impl Model {
    pub(crate) fn new() -> Model {
        Model {
            entries: Vec::new(),
            start: Offset::ZERO,
            token: 0,
            epoch: LeaderEpoch(0),
            producers: BTreeMap::new(),
            producer_id_max: -1,
            retired: BTreeSet::new(),
        }
    }

    pub(crate) fn end(&self) -> Offset {
        self.entries
            .last()
            .map_or(Offset::ZERO, |entry| entry.offsets().end)
    }

    /// Behind the last batch that no crash may take back.
    pub(crate) fn durable_end(&self) -> Offset {
        let durable = self.entries.iter().rfind(|entry| entry.durable);
        durable.map_or(Offset::ZERO, |entry| entry.offsets().end)
    }

    /// The number of the batch that holds `offset`, or of the one to come.
    pub(crate) fn index_of(&self, offset: Offset) -> usize {
        self.entries
            .partition_point(|entry| entry.offsets().end <= offset)
    }

    /// Everything that ends at or before `end` is durable from now on.
    pub(crate) fn promise(&mut self, end: Offset) {
        for entry in self.entries.iter_mut().rev() {
            if entry.offsets().end <= end {
                if entry.durable {
                    return;
                }
                entry.durable = true;
            }
        }
    }

    /// What the log must answer to `request`, its conditions and the batches before it in view.
    pub(crate) fn expect(&self, request: &AppendRequest, limits: &Limits) -> Expected {
        let header = request.batch.header();
        let fenced = self.token != 0 && request.fencing_token != Some(self.token);
        if fenced || header.check_from_client(limits).is_err() {
            return Expected::Refuse;
        }
        let sequenced = self.expect_sequence(header);
        let unexpected = request
            .expected_offset
            .is_some_and(|expected| expected != self.end());
        match sequenced {
            Expected::Append if unexpected => Expected::Refuse,
            Expected::Duplicate { offsets, .. } if unexpected => Expected::Duplicate {
                offsets,
                must: false,
            },
            other => other,
        }
    }

    fn expect_sequence(&self, header: &BatchHeader) -> Expected {
        let Some(producer) = self.producers.get(&header.producer_id) else {
            return Expected::Append;
        };
        if header.producer_epoch < producer.epoch {
            return Expected::Refuse;
        }
        if header.producer_epoch > producer.epoch {
            return append_if(header.base_sequence == 0);
        }
        let count = header.record_count as u64;
        let known = producer.sent.iter().rev().position(|(sequence, offsets)| {
            *sequence == header.base_sequence && offsets.len() == count
        });
        if let Some(back) = known {
            let (_, offsets) = producer.sent[producer.sent.len() - 1 - back];
            let must = back < BATCHES_KEPT;
            return Expected::Duplicate { offsets, must };
        }
        append_if(header.base_sequence == producer.next_sequence())
    }

    /// Whether `error` is one that a refusal may carry.
    pub(crate) fn explains(&self, error: &AppendError, request: &AppendRequest) -> bool {
        let header = request.batch.header();
        match error {
            AppendError::UnexpectedOffset { expected, actual } => {
                request.expected_offset == Some(*expected) && *actual == self.end()
            }
            AppendError::Fenced { given, current } => {
                *given == request.fencing_token && *current == self.token
            }
            AppendError::OutOfOrderSequence { producer_id, .. }
            | AppendError::ProducerFenced { producer_id, .. }
            | AppendError::DuplicateSequence { producer_id } => *producer_id == header.producer_id,
            AppendError::Invalid(_) => header.is_control(),
            _ => false,
        }
    }

    /// Takes `batch` as the next one; its offsets must follow. `sent` is what it was made of.
    pub(crate) fn push(&mut self, batch: RecordBatch, sent: &RecordBatch) -> Result<(), Broken> {
        let offsets = batch.header().offsets();
        if offsets.start != self.end() {
            return Err(format!(
                "a batch at {offsets} follows the end {}",
                self.end()
            ));
        }
        self.note_producer(batch.header());
        self.entries.push(Entry {
            batch,
            sent: sent.clone(),
            durable: false,
            damaged: false,
        });
        Ok(())
    }

    fn note_producer(&mut self, header: &BatchHeader) {
        if header.producer_id < 0 {
            return;
        }
        self.producer_id_max = self.producer_id_max.max(header.producer_id);
        let producer = self.producers.entry(header.producer_id).or_default();
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.sent.clear();
        }
        let sent = (header.base_sequence, header.offsets());
        producer.sent.push(sent);
    }

    /// Cuts every batch that ends behind `end`. `known` producers go on from what is left.
    pub(crate) fn truncate(&mut self, end: Offset) {
        self.entries.retain(|entry| entry.offsets().end <= end);
        self.producers.clear();
        let id_max = std::mem::replace(&mut self.producer_id_max, -1);
        let headers: Vec<BatchHeader> = self.entries.iter().map(|e| *e.batch.header()).collect();
        headers.iter().for_each(|header| self.note_producer(header));
        self.producer_id_max = self.producer_id_max.min(id_max);
    }

    /// No producer of before is heard of again.
    pub(crate) fn retire_producers(&mut self) {
        self.retired.extend(self.producers.keys());
    }

    /// Producers whose state is certain: id, epoch, next sequence.
    pub(crate) fn producers(&self) -> Vec<(i64, i16, i32)> {
        self.producers
            .iter()
            .filter(|(id, _)| !self.retired.contains(id))
            .map(|(id, producer)| (*id, producer.epoch, producer.next_sequence()))
            .collect()
    }

    /// An id that nobody had.
    pub(crate) fn next_producer_id(&self) -> i64 {
        let known = self.producers.keys().next_back().copied();
        let retired = self.retired.last().copied();
        known.max(retired).unwrap_or(-1).max(self.producer_id_max) + 1
    }

    /// The first record from the log start to `visible_end` with at least this timestamp.
    pub(crate) fn find_timestamp(
        &self,
        timestamp: Timestamp,
        visible_end: Offset,
    ) -> Option<(Offset, Timestamp)> {
        let visible = self.entries[self.index_of(self.start)..]
            .iter()
            .take_while(|entry| entry.offsets().end <= visible_end);
        for entry in visible {
            let Ok(records) = entry.batch.records(&Limits::DEFAULT) else {
                continue;
            };
            for record in records.iter().flatten() {
                if record.offset >= self.start && record.timestamp >= timestamp {
                    return Some((record.offset, record.timestamp));
                }
            }
        }
        None
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.entries.iter().any(|entry| entry.damaged)
    }
}

fn append_if(follows: bool) -> Expected {
    if follows {
        Expected::Append
    } else {
        Expected::Refuse
    }
}

/// Whether `read` is the batch `sent`, whatever the log assigned to it.
pub(crate) fn same_batch(read: &RecordBatch, sent: &RecordBatch) -> bool {
    let essence = |batch: &RecordBatch| {
        let header = batch.header();
        (
            header.record_count,
            header.base_timestamp,
            header.compression(),
            (
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
            ),
        )
    };
    essence(read) == essence(sent) && read.body() == sent.body()
}
