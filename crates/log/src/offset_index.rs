//! Sparse offset -> position: where to start looking for a batch.

use std::collections::VecDeque;

use comlog_record::Offset;

use crate::frame::{Decoder, Encoder, Unusable};

/// Where a batch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) offset: Offset,
    pub(crate) position: u64,
}

/// Some batches of one segment, ascending by offset and by position, at least
/// `index_interval_bytes` apart; the first batch always among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OffsetIndex {
    entries: Vec<IndexEntry>,
}

impl OffsetIndex {
    /// Notes the batch at `position`, unless an entry is nearer than `interval` bytes.
    /// Says whether it was noted.
    pub(crate) fn note(&mut self, offset: Offset, position: u64, interval: u32) -> bool {
        let due = match self.entries.last() {
            Some(last) => position >= last.position + u64::from(interval),
            None => true,
        };
        if due {
            self.entries.push(IndexEntry { offset, position });
        }
        due
    }

    /// The last entry at or below `offset`, and the first entry above it.
    pub(crate) fn around_offset(&self, offset: Offset) -> (Option<IndexEntry>, Option<IndexEntry>) {
        let above = self.entries.partition_point(|entry| entry.offset <= offset);
        let below = above.checked_sub(1).map(|at| self.entries[at]);
        (below, self.entries.get(above).copied())
    }

    /// The last entry at or below `position`.
    pub(crate) fn at_position(&self, position: u64) -> Option<IndexEntry> {
        let above = self
            .entries
            .partition_point(|entry| entry.position <= position);
        above.checked_sub(1).map(|at| self.entries[at])
    }

    /// The first entry at or behind `position`.
    pub(crate) fn at_or_behind(&self, position: u64) -> Option<IndexEntry> {
        let at = self
            .entries
            .partition_point(|entry| entry.position < position);
        self.entries.get(at).copied()
    }

    /// Forgets every batch at or behind `position`.
    pub(crate) fn truncate(&mut self, position: u64) {
        let keep = self
            .entries
            .partition_point(|entry| entry.position < position);
        self.entries.truncate(keep);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (Offset, u64)> {
        self.entries
            .iter()
            .map(|entry| (entry.offset, entry.position))
    }

    /// Each entry as differences to the one before.
    pub(crate) fn encode(&self, base: Offset, out: &mut Encoder) {
        out.varint(self.entries.len() as u64);
        let mut last = IndexEntry {
            offset: base,
            position: 0,
        };
        for entry in &self.entries {
            out.varint(entry.offset.since(last.offset));
            out.varint(entry.position - last.position);
            last = *entry;
        }
    }

    pub(crate) fn decode(base: Offset, from: &mut Decoder<'_>) -> Result<OffsetIndex, Unusable> {
        let count = from.count(2)?;
        let mut entries = Vec::with_capacity(count);
        let mut offset = base;
        let mut position = 0_u64;
        for at in 0..count {
            let (offsets, bytes) = (from.varint()?, from.varint()?);
            if at > 0 && (offsets == 0 || bytes == 0) {
                return Err(Unusable::Invalid("index entries do not rise"));
            }
            let overflow = Unusable::Invalid("an index entry does not fit 63 bits");
            offset = offset.checked_add(offsets).ok_or(overflow)?;
            position = position.checked_add(bytes).ok_or(overflow)?;
            entries.push(IndexEntry { offset, position });
        }
        Ok(OffsetIndex { entries })
    }
}

/// Batches of an active segment whose places are all remembered.
const RECENT_MAX: usize = 128;

/// Every one of the newest batches of a segment, ascending, without gaps up to its end.
#[derive(Debug, Default)]
pub(crate) struct RecentBatches {
    entries: VecDeque<IndexEntry>,
}

impl RecentBatches {
    /// Notes the batch behind the one noted last.
    pub(crate) fn note(&mut self, offset: Offset, position: u64) {
        if self.entries.len() == RECENT_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(IndexEntry { offset, position });
    }

    /// The last batch at or below `offset`, and the first above it; `None` when the former is no
    /// longer known.
    pub(crate) fn around_offset(&self, offset: Offset) -> Option<(IndexEntry, Option<IndexEntry>)> {
        // Before the search: a reader that catches up asks for older ones.
        self.entries.front().filter(|at| at.offset <= offset)?;
        let above = self.entries.partition_point(|at| at.offset <= offset);
        let below = *self.entries.get(above.checked_sub(1)?)?;
        Some((below, self.entries.get(above).copied()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Kind, Owner};

    const KIND: Kind = Kind {
        magic: *b"comlogIX",
        format: 1,
    };

    fn index(entries: &[(i64, u64)]) -> OffsetIndex {
        let mut index = OffsetIndex::default();
        for (offset, position) in entries {
            index.note(Offset(*offset), *position, 1);
        }
        index
    }

    #[test]
    fn lookups_answer_the_entries_around() {
        let index = index(&[(10, 0), (20, 400), (30, 900)]);
        let found = |offset| {
            let (below, above) = index.around_offset(Offset(offset));
            (below.map(|e| e.position), above.map(|e| e.position))
        };
        assert_eq!(found(9), (None, Some(0)));
        assert_eq!(found(10), (Some(0), Some(400)));
        assert_eq!(found(29), (Some(400), Some(900)));
        assert_eq!(found(99), (Some(900), None));
        assert_eq!(index.at_position(899).map(|e| e.offset), Some(Offset(20)));
    }

    #[test]
    fn the_newest_batches_are_all_known() {
        let mut recent = RecentBatches::default();
        assert!(recent.around_offset(Offset(0)).is_none());
        let batches = 3 * RECENT_MAX as i64;
        for batch in 0..batches {
            recent.note(Offset(batch * 10), batch as u64 * 100);
        }
        let oldest = batches - RECENT_MAX as i64;
        assert!(recent.around_offset(Offset(oldest * 10 - 1)).is_none());
        for batch in oldest..batches {
            for offset in [batch * 10, batch * 10 + 9] {
                let (below, above) = recent.around_offset(Offset(offset)).unwrap();
                assert_eq!(
                    (below.offset.0, below.position),
                    (batch * 10, batch as u64 * 100)
                );
                let next = (batch + 1 < batches).then_some((batch + 1) * 10);
                assert_eq!(above.map(|above| above.offset.0), next);
            }
        }
    }

    #[test]
    fn entries_keep_their_distance() {
        let mut index = OffsetIndex::default();
        assert!(index.note(Offset(0), 0, 100));
        assert!(!index.note(Offset(1), 99, 100));
        assert!(index.note(Offset(2), 100, 100));
        index.truncate(100);
        assert_eq!(index.len(), 1);
    }

    proptest! {
        #[test]
        fn round_trip(base in 0..i64::MAX / 2, steps in prop::collection::vec((1_i64..1 << 40, 1_u64..1 << 30), 0..50)) {
            let (mut offset, mut position) = (base, 0);
            let mut index = OffsetIndex::default();
            for (offsets, bytes) in steps {
                index.note(Offset(offset), position, 1);
                offset += offsets;
                position += bytes;
            }
            let mut encoder = Encoder::new(KIND, Owner::SERVER, 1);
            index.encode(Offset(base), &mut encoder);
            let content = encoder.finish();
            let mut decoder = Decoder::open(KIND, Owner::SERVER, &content).unwrap();
            prop_assert_eq!(OffsetIndex::decode(Offset(base), &mut decoder), Ok(index));
            prop_assert_eq!(decoder.finish(), Ok(()));
        }
    }
}
