//! Bounds on the bytes of appends under way.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::status::ServiceError;

/// Bytes that may be under way at once; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    capacity: u32,
}

impl Budget {
    pub(crate) fn new(capacity: u32) -> Budget {
        Budget {
            free: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
        }
    }

    /// What one request takes: a request above the whole budget passes alone.
    fn charge(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.capacity)
    }

    fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let charge = self.charge(bytes);
        self.free.clone().try_acquire_many_owned(charge).ok()
    }

    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let charge = self.charge(bytes);
        // Fails only when the semaphore is closed, which nobody does.
        self.free.clone().acquire_many_owned(charge).await.ok()
    }
}

/// The bytes of appends that one connection may have under way.
///
/// The listener makes one for each connection and puts a clone into the extensions of each of its
/// requests. Without it only the bound of the whole server holds.
#[derive(Debug, Clone)]
pub struct ConnectionBudget {
    appends: Budget,
    /// What decoding adds to requests under way.
    decoding: Budget,
}

/// Which part of the bytes of appends a connection may have in what decoding adds.
const DECODING_PART: u32 = 4;
/// And at least this many.
const DECODING_MIN: u32 = 64 << 10;

impl ConnectionBudget {
    /// At most `bytes` under way.
    #[must_use]
    pub fn new(bytes: u32) -> ConnectionBudget {
        ConnectionBudget {
            appends: Budget::new(bytes),
            decoding: Budget::new((bytes / DECODING_PART).max(DECODING_MIN)),
        }
    }
}

/// Takes what decoding adds to a request, from its connection's share and the server's.
///
/// # Errors
/// Overloaded, naming the bound.
pub(crate) fn take_decoding(
    connection: Option<&ConnectionBudget>,
    total: &Budget,
    bytes: usize,
) -> Result<BudgetPermit, ServiceError> {
    let overloaded = || {
        ServiceError::overloaded(
            "too many bytes of decoded requests are under way (append.decoded_bytes_max); back off and retry",
        )
    };
    let connection = match connection {
        None => None,
        Some(connection) => {
            let taken = connection.decoding.try_take(bytes);
            Some(taken.ok_or_else(overloaded)?)
        }
    };
    let total = total.try_take(bytes).ok_or_else(overloaded)?;
    Ok(BudgetPermit {
        _connection: connection,
        _total: Some(total),
    })
}

/// The two bounds that an append is under: its connection's and the server's.
#[derive(Debug, Clone)]
pub(crate) struct AppendBudget {
    connection: Option<ConnectionBudget>,
    total: Budget,
}

/// Bytes taken from a budget; dropping gives them back.
#[derive(Debug)]
pub(crate) struct BudgetPermit {
    _connection: Option<OwnedSemaphorePermit>,
    _total: Option<OwnedSemaphorePermit>,
}

impl AppendBudget {
    pub(crate) fn new(connection: Option<ConnectionBudget>, total: Budget) -> AppendBudget {
        AppendBudget { connection, total }
    }

    /// Takes `bytes` now.
    ///
    /// # Errors
    /// Overloaded, naming the bound.
    pub(crate) fn try_take(&self, bytes: usize) -> Result<BudgetPermit, ServiceError> {
        let overloaded = |what: &str| {
            ServiceError::overloaded(format!(
                "too many bytes of appends are under way ({what}); back off and retry"
            ))
        };
        let connection = match &self.connection {
            None => None,
            Some(connection) => Some(
                connection
                    .appends
                    .try_take(bytes)
                    .ok_or_else(|| overloaded("append.inflight_bytes_per_connection_max"))?,
            ),
        };
        let total = self
            .total
            .try_take(bytes)
            .ok_or_else(|| overloaded("append.inflight_bytes_max"))?;
        Ok(BudgetPermit {
            _connection: connection,
            _total: Some(total),
        })
    }

    /// Waits for `bytes`: back pressure for streams. Cancel safe.
    pub(crate) async fn take(&self, bytes: usize) -> BudgetPermit {
        let connection = match &self.connection {
            None => None,
            Some(connection) => connection.appends.take(bytes).await,
        };
        BudgetPermit {
            _connection: connection,
            _total: self.total.take(bytes).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_and_the_server_bound_what_is_under_way() {
        let total = Budget::new(100);
        let connection = ConnectionBudget::new(60);
        let here = AppendBudget::new(Some(connection), total.clone());
        let there = AppendBudget::new(None, total);
        let first = here.try_take(50).expect("free");
        assert!(here.try_take(20).is_err(), "the connection has 10 left");
        let second = there.try_take(50).expect("the server has 50 left");
        assert!(there.try_take(1).is_err());
        drop((first, second));
        assert!(here.try_take(1000).is_ok(), "a large request passes alone");
    }
}
