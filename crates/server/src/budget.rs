//! Bounds on the bytes under way: of requests and appends, and of answers.
//!
//! Both kinds are counted twice, by connection and in all, and on top of its own bound a connection
//! holds no more than is left free for the others: so whoever comes next always finds room, however
//! many hold all they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::status::ServiceError;

/// Waiting looks again this often: what other connections give back is not told to everybody who
/// waits, which could be thousands.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Bytes that may be under way at once; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    used: AtomicUsize,
    capacity: usize,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Budget {
    pub(crate) fn new(capacity: u32) -> Budget {
        Budget(Arc::new(Counter {
            used: AtomicUsize::new(0),
            capacity: capacity as usize,
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        }))
    }

    fn used(&self) -> usize {
        self.0.used.load(Ordering::Acquire)
    }

    fn free(&self) -> usize {
        self.0.capacity.saturating_sub(self.used())
    }

    /// Takes `bytes` beside the `mine` of the same message: where nothing but `mine` is taken, a
    /// message above the whole budget passes alone.
    fn try_add(&self, bytes: usize, mine: usize) -> bool {
        let capacity = self.0.capacity;
        let add = |used: usize| {
            let sum = used.checked_add(bytes)?;
            (used <= mine || sum <= capacity).then_some(sum)
        };
        let added = self
            .0
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        added.is_ok()
    }

    fn subtract(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::AcqRel);
        if self.0.waiting.load(Ordering::Acquire) > 0 {
            self.0.freed.notify_waiters();
        }
    }

    async fn freed(&self) {
        let _waiting = Waiting::new(&self.0.waiting);
        drop(tokio::time::timeout(LOOK_AGAIN, self.0.freed.notified()).await);
    }
}

/// One who waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(waiting: &AtomicUsize) -> Waiting<'_> {
        waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The bytes of requests and of answers that one connection may have under way.
///
/// The listener makes one for each connection and puts a clone into the extensions of each of its
/// requests. Without it only the bounds of the whole server hold.
#[derive(Debug, Clone)]
pub struct ConnectionBudget {
    pub(crate) requests: Budget,
    /// What decoding adds to requests under way.
    pub(crate) decoding: Budget,
    pub(crate) answers: Budget,
}

/// Which part of the bytes of requests a connection may have in what decoding adds.
const DECODING_PART: u32 = 4;
/// And at least this many.
const DECODING_MIN: u32 = 64 << 10;

impl ConnectionBudget {
    /// At most so many bytes of requests and appends, and of answers.
    #[must_use]
    pub fn new(request_bytes: u32, answer_bytes: u32) -> ConnectionBudget {
        ConnectionBudget {
            requests: Budget::new(request_bytes),
            decoding: Budget::new((request_bytes / DECODING_PART).max(DECODING_MIN)),
            answers: Budget::new(answer_bytes),
        }
    }
}

/// The keys of two bounds, for those who meet them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    what: &'static str,
    connection: &'static str,
    total: &'static str,
}

/// Requests and appends.
pub(crate) const REQUESTS: Keys = Keys {
    what: "requests",
    connection: "append.inflight_bytes_per_connection_max",
    total: "append.inflight_bytes_max",
};

/// What decoding adds to requests.
pub(crate) const DECODING: Keys = Keys {
    what: "decoded requests",
    connection: "append.decoded_bytes_max",
    total: "append.decoded_bytes_max",
};

/// Answers to reads and tails.
pub(crate) const ANSWERS: Keys = Keys {
    what: "answers",
    connection: "fetch.inflight_bytes_per_connection_max",
    total: "fetch.inflight_bytes_max",
};

/// The two bounds that something is under: its connection's and the server's.
#[derive(Debug, Clone)]
pub(crate) struct Budgets {
    connection: Option<Budget>,
    total: Budget,
    keys: &'static Keys,
}

impl Budgets {
    pub(crate) fn new(connection: Option<Budget>, total: Budget, keys: &'static Keys) -> Budgets {
        Budgets {
            connection,
            total,
            keys,
        }
    }

    /// Takes `bytes` beside the `mine` that are taken for the same message already.
    ///
    /// # Errors
    /// Overloaded, naming the bound.
    fn try_add(&self, bytes: usize, mine: usize) -> Result<(), ServiceError> {
        if !self.total.try_add(bytes, mine) {
            return Err(self.over(self.keys.total));
        }
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        if !connection.try_add(bytes, mine) {
            self.total.subtract(bytes);
            return Err(self.over(self.keys.connection));
        }
        let alone = self.total.used() <= mine + bytes;
        if !alone && connection.used() > self.total.free() {
            self.subtract(bytes);
            return Err(self.over(self.keys.total));
        }
        Ok(())
    }

    /// Takes `bytes` now.
    ///
    /// # Errors
    /// Overloaded, naming the bound.
    pub(crate) fn try_take(&self, bytes: usize) -> Result<Permit, ServiceError> {
        self.try_add(bytes, 0)?;
        Ok(self.permit(bytes))
    }

    /// Waits for `bytes`, at most as long as given. Cancel safe.
    ///
    /// # Errors
    /// Overloaded, naming the bound.
    pub(crate) async fn take(&self, bytes: usize, wait: Duration) -> Result<Permit, ServiceError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            match self.try_take(bytes) {
                Err(_) if tokio::time::Instant::now() < deadline => self.freed().await,
                taken => return taken,
            }
        }
    }

    /// Waits until something may have been given back. Cancel safe.
    pub(crate) async fn freed(&self) {
        match &self.connection {
            Some(connection) => connection.freed().await,
            None => self.total.freed().await,
        }
    }

    /// Waits until `bytes` could be taken. Cancel safe.
    pub(crate) async fn room_for(&self, bytes: usize) {
        while self.try_take(bytes).is_err() {
            self.freed().await;
        }
    }

    /// How many bytes could be taken now.
    pub(crate) fn room(&self) -> usize {
        let free = self.total.free();
        match &self.connection {
            None => free,
            Some(connection) => {
                let share = free.saturating_sub(connection.used()) / 2;
                share.min(connection.free())
            }
        }
    }

    fn permit(&self, bytes: usize) -> Permit {
        Permit {
            budgets: self.clone(),
            bytes,
        }
    }

    fn subtract(&self, bytes: usize) {
        // The connection's last: its subtraction wakes those who wait for either.
        self.total.subtract(bytes);
        if let Some(connection) = &self.connection {
            connection.subtract(bytes);
        }
    }

    fn over(&self, key: &str) -> ServiceError {
        let what = self.keys.what;
        ServiceError::overloaded(format!(
            "too many bytes of {what} are under way ({key}); back off and retry"
        ))
    }
}

/// Bytes taken from both budgets; dropping gives them back.
#[derive(Debug)]
pub(crate) struct Permit {
    budgets: Budgets,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budgets.subtract(self.bytes);
    }
}

/// Bytes on their way from one layer of a call to another: one puts them in, the other takes all
/// that there are. Dropping gives back what nobody took.
#[derive(Debug)]
pub(crate) struct Charge {
    budgets: Budgets,
    bytes: AtomicUsize,
}

impl Charge {
    pub(crate) fn new(budgets: Budgets) -> Arc<Charge> {
        Arc::new(Charge {
            budgets,
            bytes: AtomicUsize::new(0),
        })
    }

    pub(crate) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Puts in what was taken with `permit`, which must be of the same budgets.
    pub(crate) fn put(&self, mut permit: Permit) {
        let bytes = std::mem::take(&mut permit.bytes);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Takes out everything.
    pub(crate) fn claim(&self) -> Permit {
        let bytes = self.bytes.swap(0, Ordering::AcqRel);
        self.budgets.permit(bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        drop(self.claim());
    }
}

impl Permit {
    /// Of nothing yet.
    pub(crate) fn none(budgets: Budgets) -> Permit {
        Permit { budgets, bytes: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// Overloaded, naming the bound.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> Result<(), ServiceError> {
        self.budgets.try_add(bytes, self.bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Parts with `bytes` of it, or with all.
    pub(crate) fn split(&mut self, bytes: usize) -> Permit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budgets.permit(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_and_the_server_bound_what_is_under_way() {
        let total = Budget::new(100);
        let here = Budgets::new(Some(Budget::new(60)), total.clone(), &REQUESTS);
        let there = Budgets::new(None, total, &REQUESTS);
        let first = here.try_take(50).expect("free");
        assert!(here.try_take(20).is_err(), "the connection has 10 left");
        let second = there.try_take(50).expect("the server has 50 left");
        assert!(there.try_take(1).is_err());
        drop((first, second));
        assert!(here.try_take(1000).is_ok(), "a large request passes alone");
    }

    #[test]
    fn whoever_comes_next_finds_room_however_many_hold_all_they_can() {
        let total = Budget::new(1_000_000);
        let mut held = Vec::new();
        for _ in 0..50 {
            let greedy = Budgets::new(Some(Budget::new(1_000_000)), total.clone(), &REQUESTS);
            held.extend(std::iter::from_fn(|| greedy.try_take(1_000).ok()));
        }
        let next = Budgets::new(Some(Budget::new(1_000_000)), total, &REQUESTS);
        assert!(next.room() > 0);
        next.try_take(next.room()).expect("there is room");
    }

    #[test]
    fn a_charge_gives_back_what_nobody_took() {
        let total = Budget::new(100);
        let charge = Charge::new(Budgets::new(None, total.clone(), &ANSWERS));
        charge.put(charge.budgets().try_take(60).expect("free"));
        let claimed = charge.claim();
        assert_eq!((claimed.bytes(), charge.claim().bytes()), (60, 0));
        charge.put(claimed);
        drop(charge);
        assert_eq!(total.used(), 0);
    }
}
