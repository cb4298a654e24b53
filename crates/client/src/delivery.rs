//! How callers learn what became of their records: one completion per batch, not per record.

use std::fmt;
use std::future::Future;
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
    result: Option<BatchResult>,
    waiting: Vec<Waker>,
    callbacks: Vec<(u32, DeliveryCallback)>,
}

impl Completion {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `callback` for record `index` of the batch, once.
    pub(crate) fn on_complete(&self, index: u32, callback: DeliveryCallback) {
        let mut state = self.lock();
        match &state.result {
            None => state.callbacks.push((index, callback)),
            Some(result) => {
                let result = of_record(result, index);
                drop(state);
                callback(result);
            }
        }
    }

    fn complete(&self, result: BatchResult) {
        let mut state = self.lock();
        if state.result.is_some() {
            return;
        }
        let waiting = std::mem::take(&mut state.waiting);
        let callbacks = std::mem::take(&mut state.callbacks);
        state.result = Some(result.clone());
        drop(state);
        for waker in waiting {
            waker.wake();
        }
        for (index, callback) in callbacks {
            let call = AssertUnwindSafe(|| callback(of_record(&result, index)));
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

fn of_record(result: &BatchResult, index: u32) -> Result<Delivered> {
    let mut delivered = result.clone()?;
    delivered.offset = delivered
        .offset
        .and_then(|base| base.checked_add(u64::from(index)));
    Ok(delivered)
}

/// Completes a batch, at the latest when it is dropped: then with [`Error::Abandoned`].
#[derive(Debug)]
pub(crate) struct Completer(Arc<Completion>);

impl Completer {
    pub(crate) fn new() -> Completer {
        Completer(Arc::default())
    }

    pub(crate) fn completion(&self) -> &Arc<Completion> {
        &self.0
    }

    pub(crate) fn complete(self, result: BatchResult) {
        self.0.complete(result);
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        self.0.complete(Err(Error::Abandoned));
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
        let result = state.result.as_ref()?;
        Some(of_record(result, self.index))
    }
}

impl Future for Delivery {
    type Output = Result<Delivered>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.completion.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(of_record(result, this.index));
        }
        match this.slot.and_then(|slot| state.waiting.get_mut(slot)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                this.slot = Some(state.waiting.len());
                state.waiting.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}
