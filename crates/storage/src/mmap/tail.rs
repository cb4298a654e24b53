//! The recent tail of every active segment, served from the writers' own buffers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

/// What a chunk costs beside its bytes: its places in both queues, about.
const CHUNK_COST: usize = 64;

/// The last chunks appended to one segment: ascending by position, without gaps, up to its end.
#[derive(Debug, Default)]
pub(super) struct Tail {
    chunks: Mutex<VecDeque<(u64, Bytes)>>,
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Bytes)>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chunks of `range`, if all of it is still kept.
    pub(super) fn get(&self, range: &Range<u64>) -> Option<Vec<Bytes>> {
        let chunks = self.lock();
        let first = chunks
            .partition_point(|(position, _)| *position <= range.start)
            .checked_sub(1)?;
        let mut found = Vec::new();
        let mut position = range.start;
        for (start, chunk) in chunks.range(first..) {
            let from = (position - start) as usize;
            let to = (range.end - start).min(chunk.len() as u64) as usize;
            found.push(chunk.slice(from..to));
            position = start + to as u64;
            if position == range.end {
                return Some(found);
            }
        }
        None
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}

/// The tails of one disk, bounded together: the oldest chunk of all goes first.
#[derive(Debug)]
pub(super) struct Tails {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// In the order of their appends: whose they are, how many chunks, how many bytes.
    appends: VecDeque<(Weak<Tail>, usize, usize)>,
    bytes: usize,
}

impl Tails {
    /// Tails of at most `bytes_max` bytes together, the cost of keeping them counted.
    pub(super) fn new(bytes_max: usize) -> Tails {
        Tails {
            bytes_max,
            kept: Mutex::default(),
        }
    }

    /// Keeps `chunks`, which stand at `position` of the segment of `tail`.
    pub(super) fn push(&self, tail: &Arc<Tail>, mut position: u64, chunks: &[Bytes]) {
        let (mut count, mut bytes) = (0, 0);
        let mut kept_chunks = tail.lock();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            kept_chunks.push_back((position, chunk.clone()));
            position += chunk.len() as u64;
            bytes += CHUNK_COST + chunk.len();
            count += 1;
        }
        drop(kept_chunks);
        if count == 0 {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.appends.push_back((Arc::downgrade(tail), count, bytes));
        kept.bytes += bytes;
        while kept.bytes > self.bytes_max {
            let Some((tail, count, bytes)) = kept.appends.pop_front() else {
                break;
            };
            kept.bytes -= bytes;
            if let Some(tail) = tail.upgrade() {
                let mut chunks = tail.lock();
                let count = count.min(chunks.len());
                chunks.drain(..count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_ranges_cross_chunks() {
        let tails = Tails::new(2 * CHUNK_COST + 10);
        let tail = Arc::new(Tail::default());
        tails.push(
            &tail,
            0,
            &[Bytes::from_static(b"abc"), Bytes::from_static(b"def")],
        );
        let joined = |range| tail.get(&range).map(|chunks| chunks.concat());
        assert_eq!(joined(1..5).as_deref(), Some(b"bcde".as_slice()));
        assert_eq!(joined(1..7), None);
        tails.push(&tail, 6, &[Bytes::from_static(b"ghijkl")]);
        assert_eq!(joined(5..8), None, "the first append is forgotten");
        assert_eq!(joined(6..12).as_deref(), Some(b"ghijkl".as_slice()));
    }
}
