//! Polls a future to its end, or to where it is dropped.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Every future on the faulty disk wakes itself; one that takes this long waits for nothing.
const POLLS_MAX: u32 = 1_000_000;

/// A broken promise, in words.
pub(crate) type Broken = String;

/// Polls `future`, calling `between` after each poll that pends. `None` when `budget` polls were
/// not enough: the future was dropped half way.
///
/// # Errors
/// What `between` finds broken; a future that never ends.
pub(crate) fn drive<T>(
    future: impl Future<Output = T>,
    budget: Option<u32>,
    mut between: impl FnMut() -> Result<(), Broken>,
) -> Result<Option<T>, Broken> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..budget.unwrap_or(POLLS_MAX) {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(Some(output));
        }
        between()?;
    }
    match budget {
        Some(_) => Ok(None),
        None => Err("a future waits for something that never comes".to_owned()),
    }
}

/// [`drive`] to the end.
///
/// # Errors
/// A future that never ends.
pub(crate) fn finish<T>(future: impl Future<Output = T>) -> Result<T, Broken> {
    drive(future, None, || Ok(()))?.ok_or_else(|| "polled to no end".to_owned())
}
