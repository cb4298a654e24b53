//! What fails, and how often.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What fails, and how often: probabilities for each call, from 0 (never, the default) to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FaultPlan {
    /// `append` fails for good; a part of its bytes may be there.
    pub append_error: f64,
    /// `sync` fails for good; some pages are written, the others never will be, though a second
    /// sync would succeed.
    pub sync_error: f64,
    /// `append`, `create` and `write_blob` find no space, and keep nothing.
    pub no_space: f64,
    /// `create`, `reopen`, `remove`, `truncate` and changes of blobs fail, before or after the
    /// change is seen, and before it is durable.
    pub name_error: f64,
    /// `try_read` says that it would have to wait.
    pub try_read_misses: f64,
    /// At an `append`, pages not yet synced reach the disk early.
    pub writeback: f64,
    /// Most polls that a future pends for, at each point where it can be dropped.
    pub pause_polls_max: u32,
    /// `sync` and `seal` succeed and do nothing: a broken disk, to see whether a test can see it.
    pub sync_lies: bool,
}

/// Pends for so many polls, waking itself each time.
#[derive(Debug)]
pub(super) struct Pause(pub(super) u32);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
