//! What the log asks of its surroundings: the time, and that nothing has to wait.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use comlog_log::Clock;
use comlog_record::Timestamp;

use crate::failure::{Failure, Result};

/// The clock of JavaScript.
#[derive(Debug)]
pub(crate) struct DateClock;

impl Clock for DateClock {
    fn now(&self) -> Timestamp {
        Timestamp(js_sys::Date::now() as i64)
    }
}

/// The answer of a future that has nothing to wait for, as those of a log in memory.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Ok(answer),
        Poll::Pending => Err(Failure::new("INTERNAL", "a log in memory had to wait")),
    }
}
