//! Sparse running maximum of timestamps -> offset: where to start looking for a time.

use comlog_record::{Offset, Timestamp};

use crate::frame::{Decoder, Encoder, Unusable};

/// No batch before `offset` holds a timestamp above `timestamp`... and the batch at `offset` does not either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimeEntry {
    timestamp: Timestamp,
    offset: Offset,
}

/// The running maximum of timestamps in one segment, noted where it rose, at most once for each
/// entry of the offset index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeIndex {
    entries: Vec<TimeEntry>,
    max: Timestamp,
}

impl Default for TimeIndex {
    fn default() -> TimeIndex {
        TimeIndex {
            entries: Vec::new(),
            max: Timestamp(i64::MIN),
        }
    }
}

impl TimeIndex {
    /// Takes a batch into account: its base offset and largest timestamp. `due` says whether an
    /// entry may be made of it.
    pub(crate) fn note(&mut self, offset: Offset, timestamp: Timestamp, due: bool) {
        self.max = self.max.max(timestamp);
        let rose = self
            .entries
            .last()
            .is_none_or(|last| last.timestamp < self.max);
        if due && rose {
            let timestamp = self.max;
            self.entries.push(TimeEntry { timestamp, offset });
        }
    }

    /// The largest timestamp; `None` when nothing was noted.
    pub(crate) fn max(&self) -> Option<Timestamp> {
        (self.max.0 != i64::MIN).then_some(self.max)
    }

    /// An offset before which no record is as late as `timestamp`; `None` for the start.
    pub(crate) fn start_for(&self, timestamp: Timestamp) -> Option<Offset> {
        let at = self
            .entries
            .partition_point(|entry| entry.timestamp < timestamp);
        at.checked_sub(1).map(|at| self.entries[at].offset)
    }

    /// Forgets every batch at or behind `offset`. The maximum stays an upper bound.
    pub(crate) fn truncate(&mut self, offset: Offset) {
        let keep = self.entries.partition_point(|entry| entry.offset < offset);
        self.entries.truncate(keep);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (Timestamp, Offset)> {
        self.entries
            .iter()
            .map(|entry| (entry.timestamp, entry.offset))
    }

    pub(crate) fn encode(&self, base: Offset, out: &mut Encoder) {
        out.i64(self.max.0);
        out.varint(self.entries.len() as u64);
        let mut last = TimeEntry {
            timestamp: Timestamp(0),
            offset: base,
        };
        for entry in &self.entries {
            // The first difference may be negative or huge: two's complement carries both.
            out.varint(entry.timestamp.0.wrapping_sub(last.timestamp.0) as u64);
            out.varint(entry.offset.since(last.offset));
            last = *entry;
        }
    }

    pub(crate) fn decode(base: Offset, from: &mut Decoder<'_>) -> Result<TimeIndex, Unusable> {
        let max = Timestamp(from.i64()?);
        let count = from.count(2)?;
        let mut entries: Vec<TimeEntry> = Vec::with_capacity(count);
        let mut last = TimeEntry {
            timestamp: Timestamp(0),
            offset: base,
        };
        for at in 0..count {
            let timestamp = Timestamp(last.timestamp.0.wrapping_add(from.varint()? as i64));
            let offset = last.offset.checked_add(from.varint()?);
            let offset = offset.ok_or(Unusable::Invalid("a time entry does not fit 63 bits"))?;
            if at > 0 && (timestamp <= last.timestamp || offset <= last.offset) || timestamp > max {
                return Err(Unusable::Invalid("time entries do not rise"));
            }
            last = TimeEntry { timestamp, offset };
            entries.push(last);
        }
        Ok(TimeIndex { entries, max })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Kind, Owner};

    const KIND: Kind = Kind {
        magic: *b"comlogTI",
        format: 1,
    };

    #[test]
    fn a_search_starts_before_every_record_late_enough() {
        let mut index = TimeIndex::default();
        for (offset, timestamp) in [(0, 50), (10, 40), (20, 70), (30, 60), (40, 90)] {
            index.note(Offset(offset), Timestamp(timestamp), true);
        }
        assert_eq!(index.start_for(Timestamp(50)), None);
        assert_eq!(index.start_for(Timestamp(51)), Some(Offset(0)));
        assert_eq!(index.start_for(Timestamp(71)), Some(Offset(20)));
        assert_eq!(index.start_for(Timestamp(999)), Some(Offset(40)));
        assert_eq!(index.max(), Some(Timestamp(90)));
        assert_eq!(TimeIndex::default().max(), None);
    }

    proptest! {
        #[test]
        fn round_trip(batches in prop::collection::vec((any::<i64>(), any::<bool>()), 0..50)) {
            let mut index = TimeIndex::default();
            for (at, (timestamp, due)) in batches.into_iter().enumerate() {
                index.note(Offset(7 + at as i64), Timestamp(timestamp), due);
            }
            let mut encoder = Encoder::new(KIND, Owner::SERVER, 1);
            index.encode(Offset(7), &mut encoder);
            let content = encoder.finish();
            let mut decoder = Decoder::open(KIND, Owner::SERVER, &content).unwrap();
            prop_assert_eq!(TimeIndex::decode(Offset(7), &mut decoder), Ok(index));
            prop_assert_eq!(decoder.finish(), Ok(()));
        }
    }
}
