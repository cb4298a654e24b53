//! A segment whose bytes somebody else fetches, range by range.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use comlog_storage::{SegmentReader, StorageError};

/// Ranges asked for begin and end at a multiple of this (or at the segment's end).
pub(crate) const BLOCK_BYTES: u64 = 256 << 10;
/// Bytes of blocks kept, beside those that the read under way needs.
const CACHE_BYTES_MAX: usize = 8 << 20;

/// Reads a segment from blocks that are handed in. A read that lacks some says which it wants, and
/// waits to be polled again.
#[derive(Debug)]
pub(crate) struct RangedReader {
    len: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first: so few that looking through them costs less than a map.
    blocks: VecDeque<(u64, Bytes)>,
    bytes: usize,
    wanted: Option<Range<u64>>,
    /// The read under way; its blocks stay.
    reading: Range<u64>,
}

impl RangedReader {
    /// A segment of `len` bytes of which none is at hand.
    pub(crate) fn new(len: u64) -> RangedReader {
        RangedReader {
            len,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes that a read waits for.
    pub(crate) fn wanted(&self) -> Option<Range<u64>> {
        self.lock().wanted.clone()
    }

    /// Hands in the bytes wanted; `false` when they are not as many.
    pub(crate) fn hand_in(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        let Some(wanted) = state.wanted.clone() else {
            return false;
        };
        if bytes.len() as u64 != wanted.end - wanted.start {
            return false;
        }
        state.wanted = None;
        let first = wanted.start / BLOCK_BYTES;
        for (at, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
            state.keep(first + at as u64, Bytes::copy_from_slice(block));
        }
        state.make_room();
        true
    }

    fn check(&self, range: &Range<u64>) -> Result<(), StorageError> {
        if range.start <= range.end && range.end <= self.len {
            return Ok(());
        }
        let what = format!(
            "bytes {}..{} of a segment of {}",
            range.start, range.end, self.len
        );
        Err(StorageError::InvalidInput { what })
    }

    /// The first run of blocks that `range` lacks, as bytes.
    fn missing(&self, state: &State, range: &Range<u64>) -> Option<Range<u64>> {
        let mut blocks = blocks_of(range).skip_while(|block| state.block(*block).is_some());
        let first = blocks.next()?;
        let more = blocks.take_while(|block| state.block(*block).is_none());
        let last = first + more.count() as u64;
        Some(first * BLOCK_BYTES..((last + 1) * BLOCK_BYTES).min(self.len))
    }
}

impl State {
    fn block(&self, number: u64) -> Option<&Bytes> {
        let found = self.blocks.iter().find(|(block, _)| *block == number);
        found.map(|(_, bytes)| bytes)
    }

    /// Keeps a block that was missing.
    fn keep(&mut self, block: u64, bytes: Bytes) {
        self.bytes += bytes.len();
        self.blocks.push_back((block, bytes));
    }

    /// Lets the oldest blocks go that the read under way does not need.
    fn make_room(&mut self) {
        let needed = blocks_of(&self.reading);
        let mut surplus = self.bytes.saturating_sub(CACHE_BYTES_MAX);
        self.blocks.retain(|(block, bytes)| {
            let goes = surplus > 0 && !needed.contains(block);
            if goes {
                surplus = surplus.saturating_sub(bytes.len());
                self.bytes -= bytes.len();
            }
            !goes
        });
    }

    fn slice(&self, range: &Range<u64>) -> Vec<Bytes> {
        let part = |block: u64| {
            let start = block * BLOCK_BYTES;
            let bytes = self.block(block)?;
            let from = range.start.saturating_sub(start) as usize;
            let to = (range.end - start).min(bytes.len() as u64) as usize;
            Some(bytes.slice(from.min(to)..to))
        };
        blocks_of(range).filter_map(part).collect()
    }
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    match range.is_empty() {
        true => 0..0,
        false => range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES),
    }
}

#[async_trait]
impl SegmentReader for RangedReader {
    fn len(&self) -> u64 {
        self.len
    }

    fn try_read(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>, StorageError> {
        self.check(&range)?;
        let state = self.lock();
        match self.missing(&state, &range) {
            Some(_) => Ok(None),
            None => Ok(Some(state.slice(&range))),
        }
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>, StorageError> {
        self.check(&range)?;
        poll_fn(|_| {
            let mut state = self.lock();
            state.reading = range.clone();
            state.wanted = self.missing(&state, &range);
            match state.wanted {
                Some(_) => Poll::Pending,
                None => Poll::Ready(Ok(state.slice(&range))),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use proptest::prelude::*;

    use super::*;

    const LEN: u64 = 50 * BLOCK_BYTES + 777;

    fn byte(position: u64) -> u8 {
        (position ^ (position >> 9)) as u8
    }

    fn bytes(range: Range<u64>) -> Vec<u8> {
        range.map(byte).collect()
    }

    /// Reads `range`, handing in what is wanted; how often that was.
    fn read(reader: &RangedReader, range: Range<u64>) -> (Vec<u8>, usize) {
        let mut reading = pin!(reader.read(range));
        for fetches in 0..100 {
            if let Poll::Ready(read) = reading
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                return (read.unwrap().concat(), fetches);
            }
            let wanted = reader.wanted().unwrap();
            assert!(wanted.start < wanted.end && wanted.end <= LEN);
            assert!(!reader.hand_in(&bytes(wanted.start..wanted.end - 1)));
            assert!(reader.hand_in(&bytes(wanted)));
        }
        panic!("a read never ends");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_ranges_are_read_and_the_cache_keeps_its_bound(
            ranges in prop::collection::vec((0..=LEN, 0..3 * BLOCK_BYTES), 1..40)
        ) {
            let reader = RangedReader::new(LEN);
            for (start, len) in ranges {
                let range = start..(start + len).min(LEN);
                let (found, _) = read(&reader, range.clone());
                prop_assert!(found == bytes(range.clone()));
                prop_assert!(reader.lock().bytes <= CACHE_BYTES_MAX + 4 * BLOCK_BYTES as usize);
                prop_assert_eq!(read(&reader, range).1, 0, "what was just read is at hand");
            }
        }
    }

    #[test]
    fn a_range_larger_than_the_cache_is_read_whole() {
        let reader = RangedReader::new(LEN);
        assert!(read(&reader, 5..LEN).0 == bytes(5..LEN));
        read(&reader, 0..1);
        assert!(reader.lock().bytes <= LEN as usize);
    }

    #[test]
    fn outside_the_segment_nothing_is_read() {
        let reader = RangedReader::new(LEN);
        assert!(reader.try_read(0..LEN + 1).is_err());
        assert!(reader.try_read(LEN..LEN).unwrap().is_some());
        assert!(reader.try_read(0..1).unwrap().is_none());
        assert!(!reader.hand_in(&[1]), "nothing was asked for");
    }
}
