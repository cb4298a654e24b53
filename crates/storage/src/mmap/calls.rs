//! Writes and syncs of one disk: at most so many under way at once.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::{Result, StorageError};

type Call = Box<dyn FnOnce() + Send>;

/// Runs calls on threads that may block, in the order in which they came.
///
/// A thread that has ended a call begins the next one that waits without going to sleep between:
/// with many logs on a disk, waking threads would cost more than the syncs.
pub(super) struct Calls {
    threads_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// At most one a writer, since a writer whose call was dropped takes no other.
    waiting: VecDeque<Call>,
    threads: usize,
}

impl Calls {
    pub(super) fn new(threads_max: usize) -> Calls {
        Calls {
            threads_max: threads_max.max(1),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` at its turn. It goes on, or still gets its turn, when the future is dropped.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Calls>,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, result) = oneshot::channel();
        self.add(Box::new(move || {
            let _ = done.send(work()); // nobody waits for it any more
        }));
        result.await.unwrap_or_else(|_| {
            Err(StorageError::Io {
                what: "run a blocking call".to_owned(),
                source: io::Error::other("it panicked, or the runtime was shut down"),
            })
        })
    }

    fn add(self: &Arc<Calls>, call: Call) {
        let mut state = self.lock();
        state.waiting.push_back(call);
        if state.threads < self.threads_max {
            state.threads += 1;
            drop(state);
            let thread = Thread {
                calls: self.clone(),
                ended: false,
            };
            tokio::task::spawn_blocking(move || thread.run());
        }
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("threads_max", &self.threads_max)
            .finish_non_exhaustive()
    }
}

/// One of the threads that are counted: about to begin, or running.
struct Thread {
    calls: Arc<Calls>,
    ended: bool,
}

impl Thread {
    fn run(mut self) {
        while let Some(call) = self.next() {
            // A panic is told to who waits by the channel that closes.
            let _ = catch_unwind(AssertUnwindSafe(call));
        }
    }

    /// The call that waits longest. Without one the thread counts no more, from the same moment on:
    /// a call that comes now starts another.
    fn next(&mut self) -> Option<Call> {
        let mut state = self.calls.lock();
        let call = state.waiting.pop_front();
        if call.is_none() {
            state.threads -= 1;
            self.ended = true;
        }
        call
    }
}

impl Drop for Thread {
    /// A runtime that was shut down drops a thread that has not begun.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.calls.lock();
        state.threads -= 1;
        let orphaned = match state.threads {
            0 => std::mem::take(&mut state.waiting),
            _ => VecDeque::new(), // the other threads come to them
        };
        drop(state);
        drop(orphaned);
    }
}
