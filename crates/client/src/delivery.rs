//! How callers learn what became of their records: one completion per batch, not per record.
//!
//! A batch that the server finds too large is split, and each piece has a result of its own.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use comlog_record::{Offset, Timestamp};

use crate::{Error, Result};

/// Where a record stands, once acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The partition it went to.
    pub partition: u32,
    /// Its offset. `None` when a retry was recognised as being in the log already, but so long
    /// ago that the server no longer knew where.
    pub offset: Option<Offset>,
    /// The time the server gave it, on topics with log-append time.
    pub append_time: Option<Timestamp>,
    /// Whether a sync had covered it when it was acknowledged.
    pub durable: bool,
}

/// Called with what became of a record, on the producer's task: it must not block.
pub type DeliveryCallback = Box<dyn FnOnce(Result<Delivered>) + Send>;

/// What became of a batch: base offset and the rest, or why not.
pub(crate) type BatchResult = Result<Delivered>;

/// Shared by all deliveries of one batch.
#[derive(Default)]
pub(crate) struct Completion {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the whole batch, or of what was decided first.
    first: Option<Part>,
    /// Of the other pieces, by their first record.
    others: Vec<Part>,
    /// With the record that each waits for.
    waiting: Vec<(u32, Waker)>,
    callbacks: Vec<(u32, DeliveryCallback)>,
}

/// All records of a batch, however many it has.
const WHOLE: Range<u32> = 0..u32::MAX;

/// Wakers and callbacks, with the record that each is for.
type Concerned = (Vec<(u32, Waker)>, Vec<(u32, DeliveryCallback)>);

/// Records of a batch, by their places in it, that met the same fate.
#[derive(Clone)]
struct Part {
    records: Range<u32>,
    result: BatchResult,
}

impl Part {
    /// What became of record `index` of the batch.
    fn of_record(&self, index: u32) -> Result<Delivered> {
        let mut delivered = self.result.clone()?;
        let place = u64::from(index - self.records.start);
        delivered.offset = delivered.offset.and_then(|base| base.checked_add(place));
        Ok(delivered)
    }
}

impl State {
    /// What holds the result of record `index`, once there is one.
    fn part(&self, index: u32) -> Option<&Part> {
        let first = self.first.as_ref()?;
        if first.records.contains(&index) {
            return Some(first);
        }
        let behind = self
            .others
            .partition_point(|part| part.records.start <= index);
        let part = self.others.get(behind.checked_sub(1)?)?;
        part.records.contains(&index).then_some(part)
    }

    fn put(&mut self, part: Part) {
        if self.first.is_none() {
            self.first = Some(part);
            return;
        }
        let start = part.records.start;
        let at = self
            .others
            .partition_point(|other| other.records.start < start);
        self.others.insert(at, part);
    }

    /// Who is to learn what became of `records`: all, when that is the whole batch. Those that wait
    /// for another piece keep their places.
    fn concerned(&mut self, records: &Range<u32>) -> Concerned {
        if *records == WHOLE {
            return (
                std::mem::take(&mut self.waiting),
                std::mem::take(&mut self.callbacks),
            );
        }
        let waiting = self.waiting.iter();
        let waiting = waiting.filter(|(index, _)| records.contains(index));
        let waiting = waiting.cloned().collect();
        let called = |(index, _): &mut (u32, DeliveryCallback)| records.contains(index);
        (waiting, self.callbacks.extract_if(.., called).collect())
    }
}

impl Completion {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `callback` for record `index` of the batch, once.
    pub(crate) fn on_complete(&self, index: u32, callback: DeliveryCallback) {
        let mut state = self.lock();
        match state.part(index).map(|part| part.of_record(index)) {
            None => state.callbacks.push((index, callback)),
            Some(result) => {
                drop(state);
                callback(result);
            }
        }
    }

    fn complete(&self, records: Range<u32>, result: BatchResult) {
        let part = Part { records, result };
        let mut state = self.lock();
        let (waiting, callbacks) = state.concerned(&part.records);
        state.put(part.clone());
        drop(state);
        for (_, waker) in waiting {
            waker.wake();
        }
        for (index, callback) in callbacks {
            let call = AssertUnwindSafe(|| callback(part.of_record(index)));
            // On the producer's task, which serves others too.
            if catch_unwind(call).is_err() {
                tracing::error!("a delivery callback panicked");
            }
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").finish_non_exhaustive()
    }
}

/// Completes a batch or a piece of it, at the latest when it is dropped: then with
/// [`Error::Abandoned`].
#[derive(Debug)]
pub(crate) struct Completer {
    completion: Arc<Completion>,
    /// Empty once they are completed.
    records: Range<u32>,
}

impl Completer {
    /// Completes a whole batch, however many records it will have.
    pub(crate) fn new() -> Completer {
        Completer {
            completion: Arc::default(),
            records: WHOLE,
        }
    }

    pub(crate) fn completion(&self) -> &Arc<Completion> {
        &self.completion
    }

    /// Keeps the first `count` records; the other completer is for the rest.
    pub(crate) fn split_off(&mut self, count: u32) -> Completer {
        let at = self
            .records
            .start
            .saturating_add(count)
            .min(self.records.end);
        let rest = at..self.records.end;
        self.records.end = at;
        Completer {
            completion: self.completion.clone(),
            records: rest,
        }
    }

    pub(crate) fn complete(mut self, result: BatchResult) {
        self.finish(result);
    }

    fn finish(&mut self, result: BatchResult) {
        let records = std::mem::replace(&mut self.records, 0..0);
        if !records.is_empty() {
            self.completion.complete(records, result);
        }
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        self.finish(Err(Error::Abandoned));
    }
}

/// Resolves when a record is acknowledged, or will never be.
///
/// Dropping it changes nothing for the record. Waiting for one record in a batch costs nothing
/// for the others.
#[derive(Debug)]
#[must_use = "the record is sent anyway, but its failure goes unnoticed (see Producer::errors)"]
pub struct Delivery {
    completion: Arc<Completion>,
    index: u32,
    /// Where our waker stands among those of the batch.
    slot: Option<usize>,
}

impl Delivery {
    pub(crate) fn new(completion: Arc<Completion>, index: u32) -> Delivery {
        Delivery {
            completion,
            index,
            slot: None,
        }
    }

    /// What became of the record; `None` while that is open.
    #[must_use]
    pub fn try_result(&self) -> Option<Result<Delivered>> {
        let state = self.completion.lock();
        let part = state.part(self.index)?;
        Some(part.of_record(self.index))
    }
}

impl Future for Delivery {
    type Output = Result<Delivered>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.completion.lock();
        if let Some(part) = state.part(this.index) {
            return Poll::Ready(part.of_record(this.index));
        }
        match this.slot.and_then(|slot| state.waiting.get_mut(slot)) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => {
                this.slot = Some(state.waiting.len());
                state.waiting.push((this.index, cx.waker().clone()));
            }
        }
        Poll::Pending
    }
}
