//! Leader epoch -> start offset.

use comlog_record::{LeaderEpoch, Offset};

use crate::frame::{Decoder, Encoder, Unusable};

/// Where each reign starts, ascending by epoch and by offset; a reign that wrote nothing is
/// forgotten when the next one starts. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EpochTable {
    reigns: Vec<(LeaderEpoch, Offset)>,
}

impl EpochTable {
    /// Epoch 0 from `start` on.
    pub(crate) fn new(start: Offset) -> EpochTable {
        EpochTable {
            reigns: vec![(LeaderEpoch(0), start)],
        }
    }

    /// The epoch that new batches are written in.
    pub(crate) fn current(&self) -> LeaderEpoch {
        self.reigns
            .last()
            .map_or(LeaderEpoch(0), |(epoch, _)| *epoch)
    }

    pub(crate) fn reigns(&self) -> &[(LeaderEpoch, Offset)] {
        &self.reigns
    }

    /// Notes that batches from `start` on are of `epoch`; no effect unless it rises.
    pub(crate) fn raise(&mut self, epoch: LeaderEpoch, start: Offset) {
        if epoch <= self.current() {
            return;
        }
        while self.reigns.last().is_some_and(|(_, begin)| *begin >= start) {
            self.reigns.pop();
        }
        self.reigns.push((epoch, start));
    }

    /// The last epoch at or below `epoch`, and the offset behind its last record, as Kafka's
    /// OffsetForLeaderEpoch: what a replica in that epoch may keep. `None` when every epoch is later.
    pub(crate) fn end_of(
        &self,
        epoch: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let above = self.reigns.partition_point(|(known, _)| *known <= epoch);
        let (found, _) = *self.reigns.get(above.checked_sub(1)?)?;
        let end = self.reigns.get(above).map_or(log_end, |(_, start)| *start);
        Some((found, end))
    }

    /// Forgets the reigns that start behind `end`, except the current one, which then starts
    /// there: offsets that are given again must not be given in an earlier epoch.
    pub(crate) fn truncate(&mut self, end: Offset) {
        let current = self.current();
        let keep = self.reigns.partition_point(|(_, start)| *start <= end);
        self.reigns.truncate(keep.max(1));
        self.raise(current, end);
    }

    /// Forgets the reigns that ended at or before `start`, and moves the start of the first.
    pub(crate) fn trim(&mut self, start: Offset) {
        let ended = self.reigns.partition_point(|(_, begin)| *begin <= start);
        self.reigns.drain(..ended.saturating_sub(1));
        if let Some((_, begin)) = self.reigns.first_mut() {
            *begin = (*begin).max(start);
        }
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.varint(self.reigns.len() as u64);
        for (epoch, start) in &self.reigns {
            out.varint(u64::try_from(epoch.0).unwrap_or(0));
            out.i64(start.0);
        }
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<EpochTable, Unusable> {
        let count = from.count(9)?;
        let mut reigns: Vec<(LeaderEpoch, Offset)> = Vec::with_capacity(count);
        for _ in 0..count {
            let epoch = i32::try_from(from.varint()?)
                .map_err(|_| Unusable::Invalid("a leader epoch does not fit 31 bits"))?;
            let reign = (LeaderEpoch(epoch), Offset(from.i64()?));
            if let Some(last) = reigns.last()
                && (reign.0 <= last.0 || reign.1 <= last.1)
            {
                return Err(Unusable::Invalid("leader epochs do not rise"));
            }
            reigns.push(reign);
        }
        if reigns.is_empty() {
            return Err(Unusable::Invalid("no leader epoch"));
        }
        Ok(EpochTable { reigns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(reigns: &[(i32, i64)]) -> EpochTable {
        let mut table = EpochTable::new(Offset::ZERO);
        for (epoch, start) in reigns {
            table.raise(LeaderEpoch(*epoch), Offset(*start));
        }
        table
    }

    fn plain(table: &EpochTable) -> Vec<(i32, i64)> {
        table.reigns().iter().map(|(e, o)| (e.0, o.0)).collect()
    }

    #[test]
    fn an_epoch_ends_where_the_next_starts() {
        let table = table(&[(2, 10), (5, 30)]);
        let end = |epoch| {
            table
                .end_of(LeaderEpoch(epoch), Offset(44))
                .map(|(e, o)| (e.0, o.0))
        };
        assert_eq!(end(0), Some((0, 10)));
        assert_eq!(end(1), Some((0, 10)));
        assert_eq!(end(4), Some((2, 30)));
        assert_eq!(end(9), Some((5, 44)));
        assert_eq!(end(-1), None);
    }

    #[test]
    fn a_reign_without_records_leaves_no_trace() {
        assert_eq!(plain(&table(&[(1, 10), (3, 10)])), [(0, 0), (3, 10)]);
        assert_eq!(plain(&table(&[(1, 0)])), [(1, 0)]);
        assert_eq!(plain(&table(&[(4, 5), (4, 9), (2, 9)])), [(0, 0), (4, 5)]);
    }

    #[test]
    fn truncate_and_trim_keep_what_the_log_still_holds() {
        let mut cut = table(&[(2, 10), (5, 30)]);
        cut.truncate(Offset(29));
        assert_eq!(plain(&cut), [(0, 0), (2, 10), (5, 29)]);
        cut.truncate(Offset(10));
        assert_eq!(plain(&cut), [(0, 0), (5, 10)]);
        let mut trimmed = table(&[(2, 10), (5, 30)]);
        trimmed.trim(Offset(12));
        assert_eq!(plain(&trimmed), [(2, 12), (5, 30)]);
        trimmed.trim(Offset(99));
        assert_eq!(plain(&trimmed), [(5, 99)]);
    }
}
