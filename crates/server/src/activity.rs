//! What a connection is doing, so that one that does nothing can be closed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::metrics::Raised;

/// Requests of one connection; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    opened: Instant,
    /// Requests whose answer is not finished.
    under_way: AtomicUsize,
    /// Milliseconds after `opened` when the last request ended, plus one; 0 before the first request.
    idle_since: AtomicU64,
}

impl Activity {
    /// Of a connection opened now.
    pub(crate) fn new() -> Activity {
        Activity(Arc::new(Shared {
            opened: Instant::now(),
            under_way: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
        }))
    }

    /// A request begins; it ends when the guard is dropped. Also gives how many are under way now.
    pub(crate) fn begin(&self) -> (RequestGuard, u64) {
        let now = self.0.under_way.fetch_add(1, Ordering::AcqRel) + 1;
        (RequestGuard(self.0.clone()), now as u64)
    }

    /// Returns once the connection has been without a request for too long: `first` before its
    /// first one, `idle` after the last.
    pub(crate) async fn expired(&self, first: Duration, idle: Duration) {
        loop {
            let deadline = self.deadline(first, idle);
            let now = Instant::now();
            if deadline <= now {
                return;
            }
            // `idle` may be the shorter one, and hold from the end of a request that began meanwhile.
            tokio::time::sleep_until(deadline.min(now + idle)).await;
        }
    }

    fn deadline(&self, first: Duration, idle: Duration) -> Instant {
        if self.0.under_way.load(Ordering::Acquire) > 0 {
            return Instant::now() + idle;
        }
        match self.0.idle_since.load(Ordering::Acquire) {
            0 => self.0.opened + first,
            since => self.0.opened + Duration::from_millis(since - 1) + idle,
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct RequestGuard(Arc<Shared>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let elapsed = self.0.opened.elapsed().as_millis() as u64 + 1;
        self.0.idle_since.store(elapsed, Ordering::Release);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A response body that keeps its request under way until it is dropped.
#[derive(Debug)]
pub(crate) struct GuardedBody {
    body: Body,
    _guards: (RequestGuard, Raised),
}

impl GuardedBody {
    /// `body` under `guards`.
    pub(crate) fn new(body: Body, guards: (RequestGuard, Raised)) -> GuardedBody {
        GuardedBody {
            body,
            _guards: guards,
        }
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_expires_and_requests_do_not() {
        let (first, idle) = (Duration::from_secs(1), Duration::from_secs(10));
        let started = Instant::now();
        Activity::new().expired(first, idle).await;
        assert_eq!(started.elapsed().as_secs(), 1);

        let activity = Activity::new();
        let (guard, _) = activity.begin();
        let started = Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(guard);
        });
        activity.expired(first, idle).await;
        assert!(
            (70..=81).contains(&started.elapsed().as_secs()),
            "{:?}",
            started.elapsed()
        );
    }
}
