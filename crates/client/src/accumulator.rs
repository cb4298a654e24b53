//! Gathers records into batches, per partition, by bytes, count and linger.
//!
//! Pure: no clock, no task, no socket. Time is passed in, and what is ready is asked for.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use comlog_record::{BATCH_HEADER_LEN, BatchBuilder, HeaderRef, Limits, Timestamp};

use crate::delivery::{Completer, Completion};
use crate::{Error, Result};

/// More than a record takes beyond its key, value and headers: six numbers and a length.
const RECORD_OVERHEAD_MAX: usize = 40;
/// The same for a header: two lengths.
const HEADER_OVERHEAD_MAX: usize = 10;

/// Bounds and patience of an [`Accumulator`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// A batch is full when one more record would make it larger; a larger record goes alone.
    pub(crate) batch_bytes: usize,
    /// A batch is full with so many records.
    pub(crate) batch_records_max: u32,
    /// How long a batch that is not full waits for more records.
    pub(crate) linger: Duration,
    /// Most bytes of all batches that are not finished.
    pub(crate) buffer_bytes_max: usize,
    /// Most bytes of one record.
    pub(crate) record_bytes_max: usize,
}

/// What a record consists of, borrowed from the caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordParts<'a> {
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [HeaderRef<'a>],
}

/// A record was taken.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) completion: Arc<Completion>,
    /// The record's place in its batch.
    pub(crate) index: u32,
    /// Whether there is something new for the sender to look at.
    pub(crate) wake: bool,
}

/// A batch that is being gathered or waits to be sent.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Batches are numbered in the order they were begun.
    pub(crate) number: u64,
    pub(crate) builder: BatchBuilder,
    pub(crate) completer: Completer,
    pub(crate) created: Instant,
    /// Where its first record must land.
    pub(crate) expected_offset: Option<i64>,
    urgent: bool,
}

impl Gathered {
    /// What it counts towards `buffer_bytes_max`.
    pub(crate) fn bytes(&self) -> usize {
        self.builder.encoded_len()
    }
}

#[derive(Debug, Default)]
struct Queue {
    full: VecDeque<Gathered>,
    open: Option<Gathered>,
    /// A batch is full when one more record would make it larger.
    batch_bytes: usize,
    /// Bytes of the batch that filled up last: the next one will be about as large.
    filled_bytes: usize,
}

impl Queue {
    /// Nothing more goes into the batch that is being gathered.
    fn fill(&mut self) {
        if let Some(open) = self.open.take() {
            self.filled_bytes = open.bytes();
            self.full.push_back(open);
        }
    }
}

/// How far a gathered batch must be to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Full, or sealed.
    Full,
    /// That, urgent, or lingered for longer than 0 and long enough.
    Due,
    /// That, or with a linger of 0, which waits only while others are under way, anything at all.
    Any,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Accumulator {
    bounds: Bounds,
    limits: Limits,
    queues: Vec<Queue>,
    /// Queues that hold anything.
    occupied: BTreeSet<usize>,
    buffered: usize,
    next_number: u64,
    /// Numbers of the batches begun and not finished.
    unfinished: BTreeSet<u64>,
}

impl Accumulator {
    pub(crate) fn new(bounds: Bounds) -> Accumulator {
        let limits = Limits {
            batch_bytes_max: (bounds.record_bytes_max + BATCH_HEADER_LEN + RECORD_OVERHEAD_MAX)
                .max(bounds.batch_bytes),
            batch_records_max: bounds.batch_records_max,
            ..Limits::DEFAULT
        };
        Accumulator {
            bounds,
            limits,
            queues: Vec::new(),
            occupied: BTreeSet::new(),
            buffered: 0,
            next_number: 0,
            unfinished: BTreeSet::new(),
        }
    }

    /// Another queue; they count from 0.
    pub(crate) fn add_queue(&mut self) -> usize {
        self.queues.push(Queue {
            batch_bytes: self.bounds.batch_bytes,
            ..Queue::default()
        });
        self.queues.len() - 1
    }

    /// Batches of `queue` are full at `bytes`, if not before: the topic takes no larger ones.
    pub(crate) fn limit_batches(&mut self, queue: usize, bytes: usize) {
        self.queues[queue].batch_bytes = self.bounds.batch_bytes.min(bytes);
    }

    /// Whether the next record of `queue` begins a batch.
    pub(crate) fn begins_batch(&self, queue: usize) -> bool {
        self.queues[queue].open.is_none()
    }

    /// Takes a record. The time and where it must land (`expected_offset`) are noted for a batch
    /// that it begins: only then is the time asked for, since a clock costs as much as the rest.
    ///
    /// # Errors
    /// [`Error::BufferFull`] and [`Error::Encode`]; nothing changed then.
    pub(crate) fn push(
        &mut self,
        queue: usize,
        now: impl FnOnce() -> Instant,
        expected_offset: Option<i64>,
        record: &RecordParts<'_>,
    ) -> Result<Pushed> {
        let size = size_max(record);
        self.check_room(size)?;
        self.seal_if_full(queue, size);
        let wake = self.begins_batch(queue);
        if wake {
            self.begin(queue, now(), expected_offset);
        }
        let result = self.push_open(queue, record);
        match result {
            Ok((completion, index, full)) => Ok(Pushed {
                completion,
                index,
                wake: wake || full,
            }),
            Err(error) => {
                self.forget_empty(queue);
                Err(error)
            }
        }
    }

    fn check_room(&self, size: usize) -> Result<()> {
        if size > self.bounds.record_bytes_max + RECORD_OVERHEAD_MAX {
            return Err(Error::Encode(comlog_record::EncodeError::TooLarge {
                what: "record bytes",
                actual: (size - RECORD_OVERHEAD_MAX) as u64,
                max: self.bounds.record_bytes_max as u64,
            }));
        }
        let buffer_bytes_max = self.bounds.buffer_bytes_max;
        if self.buffered + size + BATCH_HEADER_LEN > buffer_bytes_max {
            return Err(Error::BufferFull { buffer_bytes_max });
        }
        Ok(())
    }

    fn seal_if_full(&mut self, queue: usize, size: usize) {
        let queue = &mut self.queues[queue];
        let full = |open: &Gathered| {
            open.bytes() + size > queue.batch_bytes
                || open.builder.len() >= self.bounds.batch_records_max as usize
        };
        if queue.open.as_ref().is_some_and(full) {
            queue.fill();
        }
    }

    fn begin(&mut self, queue: usize, now: Instant, expected_offset: Option<i64>) {
        let number = self.next_number;
        self.next_number += 1;
        self.unfinished.insert(number);
        self.occupied.insert(queue);
        let filled = self.queues[queue].filled_bytes;
        let room = filled + filled / 8;
        let gathered = Gathered {
            number,
            builder: BatchBuilder::with_capacity(self.limits, room),
            completer: Completer::new(),
            created: now,
            expected_offset,
            urgent: false,
        };
        self.buffered += gathered.bytes();
        self.queues[queue].open = Some(gathered);
    }

    fn push_open(
        &mut self,
        queue: usize,
        record: &RecordParts<'_>,
    ) -> Result<(Arc<Completion>, u32, bool)> {
        let queue = &mut self.queues[queue];
        let Some(open) = &mut queue.open else {
            return Err(Error::Closed);
        };
        let before = open.bytes();
        let index = open.builder.len() as u32;
        open.builder.push(
            record.timestamp,
            record.key,
            record.value,
            record.headers.iter().copied(),
        )?;
        self.buffered += open.bytes() - before;
        let completion = open.completer.completion().clone();
        let full = open.bytes() >= queue.batch_bytes
            || open.builder.len() >= self.bounds.batch_records_max as usize;
        if full {
            queue.fill();
        }
        Ok((completion, index, full))
    }

    /// After a record was refused: a batch begun for it holds nothing.
    fn forget_empty(&mut self, queue: usize) {
        let empty = |open: &mut Gathered| open.builder.is_empty();
        if let Some(open) = self.queues[queue].open.take_if(empty) {
            self.finish(open.number, open.bytes());
            self.note_if_empty(queue);
        }
    }

    /// Makes what is gathered in `queue` ready without more linger.
    pub(crate) fn hurry(&mut self, queue: usize) {
        if let Some(open) = &mut self.queues[queue].open {
            open.urgent = true;
        }
    }

    /// Ends the batch that is being gathered: the next record begins another.
    pub(crate) fn seal(&mut self, queue: usize) {
        let queue = &mut self.queues[queue];
        queue.full.extend(queue.open.take());
    }

    /// Makes everything gathered ready. What was taken so far is finished when
    /// [`Accumulator::is_finished`] says so of the number returned.
    pub(crate) fn flush(&mut self) -> u64 {
        for &queue in &self.occupied {
            if let Some(open) = &mut self.queues[queue].open {
                open.urgent = true;
            }
        }
        self.next_number
    }

    /// Whether every batch with a smaller number is finished.
    pub(crate) fn is_finished(&self, number: u64) -> bool {
        self.unfinished.first().is_none_or(|&first| first >= number)
    }

    /// Queues that hold anything.
    pub(crate) fn occupied(&self) -> impl Iterator<Item = usize> {
        self.occupied.iter().copied()
    }

    /// The oldest batch of `queue`, if it is as `ready` as is asked.
    pub(crate) fn take(&mut self, queue: usize, now: Instant, ready: Ready) -> Option<Gathered> {
        let linger = self.bounds.linger;
        let slot = &mut self.queues[queue];
        let is_due = |open: &mut Gathered| match ready {
            Ready::Full => false,
            Ready::Due | Ready::Any if open.urgent => true,
            Ready::Due | Ready::Any if !linger.is_zero() => now >= open.created + linger,
            Ready::Due => false,
            Ready::Any => true,
        };
        let taken = slot
            .full
            .pop_front()
            .or_else(|| slot.open.take_if(is_due))?;
        self.note_if_empty(queue);
        Some(taken)
    }

    /// When what is gathered in `queue` has lingered long enough; `None` when it does not wait for that.
    pub(crate) fn ready_at(&self, queue: usize) -> Option<Instant> {
        if self.bounds.linger.is_zero() {
            return None;
        }
        let open = self.queues[queue].open.as_ref()?;
        Some(open.created + self.bounds.linger)
    }

    /// Takes batches begun at or before `created`, which have waited too long to be sent.
    pub(crate) fn take_expired(&mut self, created: Instant) -> Vec<(usize, Gathered)> {
        let mut expired = Vec::new();
        if self.oldest().is_none_or(|oldest| oldest > created) {
            return expired;
        }
        for queue in self.occupied.clone() {
            let slot = &mut self.queues[queue];
            let old = |gathered: &mut Gathered| gathered.created <= created;
            while let Some(gathered) = slot.full.pop_front_if(old) {
                expired.push((queue, gathered));
            }
            if slot.full.is_empty()
                && let Some(gathered) = slot.open.take_if(old)
            {
                expired.push((queue, gathered));
            }
            self.note_if_empty(queue);
        }
        expired
    }

    /// When the oldest batch was begun that waits to be sent.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let first = |&queue: &usize| {
            let slot = &self.queues[queue];
            slot.full.front().or(slot.open.as_ref())
        };
        self.occupied
            .iter()
            .filter_map(first)
            .map(|gathered| gathered.created)
            .min()
    }

    /// A batch is acknowledged or has failed: its bytes are free again.
    pub(crate) fn finish(&mut self, number: u64, bytes: usize) {
        if self.unfinished.remove(&number) {
            self.buffered = self.buffered.saturating_sub(bytes);
        }
    }

    /// Takes everything gathered and counts every batch as finished.
    pub(crate) fn abandon(&mut self) -> Vec<Gathered> {
        self.occupied.clear();
        self.unfinished.clear();
        self.buffered = 0;
        let queues = self.queues.iter_mut().map(std::mem::take);
        queues
            .flat_map(|queue| queue.full.into_iter().chain(queue.open))
            .collect()
    }

    /// Bytes of all batches that are not finished.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    fn note_if_empty(&mut self, queue: usize) {
        let slot = &self.queues[queue];
        if slot.full.is_empty() && slot.open.is_none() {
            self.occupied.remove(&queue);
        }
    }
}

/// At least as many bytes as the record will take in a batch.
pub(crate) fn size_max(record: &RecordParts<'_>) -> usize {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = record.headers.iter();
    let headers: usize = headers
        .map(|(name, value)| HEADER_OVERHEAD_MAX + name.len() + len(*value))
        .sum();
    RECORD_OVERHEAD_MAX + len(record.key) + len(record.value) + headers
}

#[cfg(test)]
mod tests;
