//! Gives out producer ids, never one twice: whole blocks of them are set aside durably.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use comlog_proto::v1::Reason;
use comlog_storage::{Storage, StorageError};
use tokio::sync::Mutex;

use crate::status::ServiceError;

/// The blob that it is kept in.
pub(crate) const BLOB: &str = "producer-ids";
const MAGIC: &str = "comlog producer-ids 1";
/// Ids set aside by one write.
const BLOCK: i64 = 1_000;
/// Raised ids remembered, so that two instances never get the same epoch.
const RAISED_MAX: usize = 100_000;

/// The allocator; one for the server.
#[derive(Debug)]
pub(crate) struct ProducerIdAllocator {
    storage: Arc<dyn Storage>,
    // Held while a block is written: once in a thousand ids, and nothing else waits for it.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: i64,
    block_end: i64,
    raised: HashMap<i64, i16>,
}

/// Why the allocator could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("metadata blob {BLOB:?} is damaged or of an unknown format")]
    Damaged,
}

impl ProducerIdAllocator {
    /// Goes on above every id given out before and above `seen`, the largest in any log.
    pub(crate) async fn open(
        storage: Arc<dyn Storage>,
        seen: i64,
    ) -> Result<ProducerIdAllocator, OpenError> {
        let stored = match storage.read_blob(BLOB).await? {
            None => 0,
            Some(content) => parse(&content).ok_or(OpenError::Damaged)?,
        };
        let next = stored.max(seen.saturating_add(1));
        let state = State {
            next,
            block_end: next,
            raised: HashMap::new(),
        };
        Ok(ProducerIdAllocator {
            storage,
            state: Mutex::new(state),
        })
    }

    /// An id that was never given out, with epoch 0.
    pub(crate) async fn allocate(&self) -> Result<(i64, i16), ServiceError> {
        let mut state = self.state.lock().await;
        self.allocate_in(&mut state).await
    }

    async fn allocate_in(&self, state: &mut State) -> Result<(i64, i16), ServiceError> {
        if state.next == state.block_end {
            let exhausted = || ServiceError::internal("no producer id is left");
            let end = state.next.checked_add(BLOCK).ok_or_else(exhausted)?;
            let written = self.storage.write_blob(BLOB, encode(end)).await;
            written.map_err(|error| ServiceError::from(&error))?;
            state.block_end = end;
        }
        let id = state.next;
        state.next += 1;
        Ok((id, 0))
    }

    /// The next epoch of `id`; a new id when its epochs are used up.
    ///
    /// Epochs raised since the start are remembered (the newest of them, within a bound), so of two
    /// instances that raise the same epoch the second is told that it is fenced.
    ///
    /// # Errors
    /// The id was never given out, or its epoch was raised already.
    pub(crate) async fn raise(&self, id: i64, epoch: i32) -> Result<(i64, i16), ServiceError> {
        let epoch = i16::try_from(epoch).ok().filter(|&epoch| epoch >= 0);
        let epoch = epoch.ok_or_else(|| invalid("producer_epoch must be 0 to 32767"))?;
        let mut state = self.state.lock().await;
        if id < 0 || id >= state.next {
            return Err(invalid("producer_id was not given out by this server"));
        }
        if let Some(&current) = state.raised.get(&id)
            && epoch < current
        {
            let message = format!("producer {id} epoch {epoch} is fenced by epoch {current}");
            return Err(ServiceError::new(Reason::ProducerFenced, message));
        }
        let Some(raised) = epoch.checked_add(1) else {
            return self.allocate_in(&mut state).await;
        };
        if state.raised.len() >= RAISED_MAX {
            state.raised.clear();
        }
        state.raised.insert(id, raised);
        Ok((id, raised))
    }
}

fn invalid(message: &str) -> ServiceError {
    ServiceError::invalid(message)
}

/// The content of the blob: every id below `end` may have been given out.
pub(crate) fn encode(end: i64) -> Bytes {
    Bytes::from(format!("{MAGIC}\n{end}\n"))
}

fn parse(content: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(content).ok()?;
    let rest = text.strip_prefix(MAGIC)?.strip_prefix('\n')?;
    rest.strip_suffix('\n')?
        .parse()
        .ok()
        .filter(|&next| next >= 0)
}
