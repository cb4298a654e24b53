//! The tails that run, by their ids.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use comlog_proto::v1::{self, Reason};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::counters::Counters;
use crate::status::ServiceError;
use crate::topics::random_id;

/// Updates that wait for one tail.
const UPDATES_MAX: usize = 16;

/// Changes to a running tail, all or none.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) changes: Vec<v1::TailChange>,
    pub(crate) reply: oneshot::Sender<Result<Vec<v1::TailPosition>, ServiceError>>,
}

/// The registry.
#[derive(Debug)]
pub(crate) struct Tails {
    running: Arc<Mutex<HashMap<String, mpsc::Sender<Update>>>>,
    tails_max: usize,
    counters: Arc<Counters>,
}

/// A place in the registry; dropping it ends the tail's id.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) id: String,
    running: Arc<Mutex<HashMap<String, mpsc::Sender<Update>>>>,
    counters: Arc<Counters>,
}

impl Tails {
    pub(crate) fn new(tails_max: usize, counters: Arc<Counters>) -> Tails {
        Tails {
            running: Arc::default(),
            tails_max,
            counters,
        }
    }

    /// # Errors
    /// There are as many as the configuration allows.
    pub(crate) fn register(&self) -> Result<(Registered, mpsc::Receiver<Update>), ServiceError> {
        let (sender, updates) = mpsc::channel(UPDATES_MAX);
        let id = random_id();
        let mut running = self.running.lock();
        if running.len() >= self.tails_max {
            return Err(ServiceError::overloaded(
                "there are as many tails as fetch.tails_max allows",
            ));
        }
        running.insert(id.clone(), sender);
        self.counters
            .tails
            .store(running.len() as u64, Ordering::Relaxed);
        drop(running);
        let registered = Registered {
            id,
            running: self.running.clone(),
            counters: self.counters.clone(),
        };
        Ok((registered, updates))
    }

    /// Hands changes to a tail and waits for what it then follows.
    pub(crate) async fn update(
        &self,
        id: &str,
        changes: Vec<v1::TailChange>,
    ) -> Result<Vec<v1::TailPosition>, ServiceError> {
        let not_found = || {
            ServiceError::new(
                Reason::TailNotFound,
                "there is no such tail, or it has ended",
            )
        };
        let sender = self.running.lock().get(id).cloned().ok_or_else(not_found)?;
        let (reply, answer) = oneshot::channel();
        let sent = sender.send(Update { changes, reply }).await;
        sent.map_err(|_| not_found())?;
        answer.await.map_err(|_| not_found())?
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        running.remove(&self.id);
        self.counters
            .tails
            .store(running.len() as u64, Ordering::Relaxed);
    }
}
