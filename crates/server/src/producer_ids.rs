//! Gives out producer ids, never one twice: whole blocks of them are set aside durably.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use comlog_log::PRODUCER_ID_RESERVED_MAX;
use comlog_log::frame::{Kind, Owner};
use comlog_proto::v1::Reason;
use comlog_storage::{Storage, StorageError};
use tokio::sync::Mutex;

use crate::meta_file::{Content, Found, MetaFile, Place};
use crate::status::ServiceError;

/// What the file is.
pub(crate) const KIND: Kind = Kind {
    magic: *b"comlogPI",
    format: 1,
};
/// Where it is kept, twice.
pub(crate) const BLOBS: [&str; 2] = ["producer-ids", "producer-ids.copy"];
/// Ids set aside by one write.
const BLOCK: i64 = 1_000;
/// Left out above the largest id in any log when nobody knows what was given out. A log only shows
/// the ids that appended, and for as long as their records are kept: a server that gives out a
/// thousand ids a second reaches so many in 50 days, and there are 2^30 such steps.
const UNKNOWN: i64 = 1 << 32;
/// Raised ids remembered, so that two instances never get the same epoch.
const RAISED_MAX: usize = 100_000;

/// The allocator; one for the server.
#[derive(Debug)]
pub(crate) struct ProducerIdAllocator {
    file: MetaFile,
    /// The end of the highest block; for appends, which refuse ids from here on.
    end: Arc<AtomicI64>,
    // Held while a block is written: once in a thousand ids, and nothing else waits for it.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    generation: u64,
    next: i64,
    block_end: i64,
    raised: BTreeMap<i64, i16>,
    /// Of the ids up to here those that are not in `raised` may have been raised all the same:
    /// before the start, or so long ago that it was forgotten.
    forgotten_through: i64,
}

impl ProducerIdAllocator {
    /// Goes on above every id given out before and above `seen`, the largest in any log. When it is
    /// not known which were given out, though `is_used`, it goes on far above. `end` is kept at the
    /// end of the highest block.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) async fn open(
        storage: Arc<dyn Storage>,
        seen: i64,
        is_used: bool,
        end: Arc<AtomicI64>,
    ) -> Result<ProducerIdAllocator, StorageError> {
        let file = file(storage);
        let above_seen = seen.clamp(-1, PRODUCER_ID_RESERVED_MAX) + 1;
        let (generation, stored) = match read(&file).await {
            Ok(Some(known)) => known,
            Ok(None) if !is_used => (0, -1),
            unknown => {
                let next = above_seen.saturating_add(UNKNOWN);
                let reason = unknown.err().unwrap_or_else(|| "it is gone".to_owned());
                tracing::error!(
                    next,
                    "which producer ids were given out is not known: meta/{}: \
                    {reason}; ids go on far above the largest in any log",
                    BLOBS[0]
                );
                write(&file, 1, next).await?;
                (1, next)
            }
        };
        let next = stored.max(above_seen);
        let mut state = State {
            generation,
            next,
            block_end: stored,
            raised: BTreeMap::new(),
            forgotten_through: next - 1,
        };
        if next > stored {
            state.set_aside(&file).await?;
        }
        end.store(state.block_end, Ordering::Relaxed);
        Ok(ProducerIdAllocator {
            file,
            end,
            state: Mutex::new(state),
        })
    }

    /// An id that was never given out, with epoch 0.
    pub(crate) async fn allocate(&self) -> Result<(i64, i16), ServiceError> {
        let mut state = self.state.lock().await;
        self.allocate_in(&mut state).await
    }

    async fn allocate_in(&self, state: &mut State) -> Result<(i64, i16), ServiceError> {
        if state.next >= state.block_end {
            let written = state.set_aside(&self.file).await;
            written.map_err(|error| ServiceError::from(&error))?;
            self.end.store(state.block_end, Ordering::Relaxed);
        }
        let id = state.next;
        state.next += 1;
        Ok((id, 0))
    }

    /// The next epoch of `id`; a new id when its epochs are used up, or when nobody remembers
    /// whether the next was given out already.
    ///
    /// Epochs raised since the start are remembered (within a bound; those of the smallest ids are
    /// forgotten first), so of two instances that raise the same epoch the second is told that it
    /// is fenced, and never are two given one epoch.
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
        match state.raised.get(&id) {
            Some(&current) if epoch < current => {
                let message = format!("producer {id} epoch {epoch} is fenced by epoch {current}");
                return Err(ServiceError::new(Reason::ProducerFenced, message));
            }
            None if id <= state.forgotten_through => return self.allocate_in(&mut state).await,
            _ => {}
        }
        let Some(raised) = epoch.checked_add(1) else {
            return self.allocate_in(&mut state).await;
        };
        state.remember(id, raised, RAISED_MAX);
        Ok((id, raised))
    }
}

impl State {
    /// Sets the next block aside; durable on return.
    async fn set_aside(&mut self, file: &MetaFile) -> Result<(), StorageError> {
        let exhausted = || StorageError::InvalidInput {
            what: "a block of producer ids: none is left".to_owned(),
        };
        let end = self.next.checked_add(BLOCK).ok_or_else(exhausted)?;
        write(file, self.generation + 1, end).await?;
        self.generation += 1;
        self.block_end = end;
        Ok(())
    }

    fn remember(&mut self, id: i64, epoch: i16, max: usize) {
        if !self.raised.contains_key(&id)
            && self.raised.len() >= max
            && let Some((smallest, _)) = self.raised.pop_first()
        {
            self.forgotten_through = self.forgotten_through.max(smallest);
        }
        self.raised.insert(id, epoch);
    }
}

fn invalid(message: &str) -> ServiceError {
    ServiceError::invalid(message)
}

fn file(storage: Arc<dyn Storage>) -> MetaFile {
    let place = |blob: &str| Place {
        storage: storage.clone(),
        blob: blob.to_owned(),
        path: format!("meta/{blob}"),
    };
    MetaFile {
        kind: KIND,
        owner: Owner::SERVER,
        places: BLOBS.map(place).to_vec(),
    }
}

/// The generation and the end of the highest block; `None` when there is no file, else why it
/// cannot be used.
async fn read(file: &MetaFile) -> Result<Option<(u64, i64)>, String> {
    match file.read().await {
        Found::Nothing => Ok(None),
        Found::Damaged { reason, .. } => Err(reason),
        Found::Content(mut content) => {
            file.mend(&mut content).await;
            let end = end_of(&content).ok_or("it makes no sense")?;
            Ok(Some((content.generation, end)))
        }
    }
}

fn end_of(content: &Content) -> Option<i64> {
    let end = i64::from_be_bytes((&*content.payload).try_into().ok()?);
    (end >= 0).then_some(end)
}

async fn write(file: &MetaFile, generation: u64, end: i64) -> Result<(), StorageError> {
    file.write(generation, &end.to_be_bytes()).await
}

/// Makes the file of a data directory that has none: every id below `end` counts as given out.
pub(crate) async fn restore(storage: Arc<dyn Storage>, seen: i64) -> Result<(), StorageError> {
    let above_seen = seen.clamp(-1, PRODUCER_ID_RESERVED_MAX) + 1;
    // The server that is gone may have given out more than the archive shows.
    write(&file(storage), 1, above_seen.saturating_add(UNKNOWN)).await
}

#[cfg(test)]
mod tests {
    use comlog_storage::MemoryStorage;

    use super::*;

    #[test]
    fn what_is_forgotten_goes_one_by_one_from_the_smallest_id() {
        let mut state = State {
            generation: 0,
            next: 100,
            block_end: 100,
            raised: BTreeMap::new(),
            forgotten_through: -1,
        };
        for id in [5, 3, 9, 3] {
            state.remember(id, 1, 3);
        }
        assert_eq!((state.raised.len(), state.forgotten_through), (3, -1));
        state.remember(7, 1, 3);
        assert_eq!(state.raised.keys().copied().collect::<Vec<_>>(), [5, 7, 9]);
        assert_eq!(state.forgotten_through, 3);
    }

    #[tokio::test]
    async fn at_the_bound_no_epoch_is_given_twice() {
        let storage = Arc::new(MemoryStorage::new());
        let end = Arc::default();
        let ids = ProducerIdAllocator::open(storage, -1, false, end).await;
        let ids = ids.expect("opens");
        let mut given = std::collections::BTreeSet::new();
        for _ in 0..RAISED_MAX + 10 {
            let (id, epoch) = ids.allocate().await.expect("an id");
            let raised = ids.raise(id, i32::from(epoch)).await.expect("raises");
            assert!(given.insert(raised));
        }
        for id in (0..1_000).chain(RAISED_MAX as i64..RAISED_MAX as i64 + 10) {
            if let Ok(raised) = ids.raise(id, 0).await {
                assert!(given.insert(raised), "{raised:?} was given to two");
            }
        }
    }
}
