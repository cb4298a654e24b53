//! Truncate: cut the tail, for replication. A follower that diverged gives up what its leader does
//! not have.

use std::sync::Arc;

use comlog_record::{Offset, OffsetRange};
use comlog_storage::{SegmentWriter, StorageError};

use crate::checkpoint::RecoveryPoint;
use crate::scan::{Offsets, Scanner, Step, Valid};
use crate::segment::{Indexes, Resident, Segment, read_lock, remove_segment};
use crate::{Log, LogError};

impl Log {
    pub(crate) async fn truncate_segments(&mut self, end: Offset) -> Result<Offset, LogError> {
        let positions = self.positions();
        if end >= positions.end {
            return Ok(positions.end);
        }
        if end < positions.start {
            return Err(LogError::OutOfRange {
                requested: end,
                log: OffsetRange::new(positions.start, positions.end),
            });
        }
        self.sync_written().await.map_err(LogError::Storage)?;
        let segments = self.watermark.segments();
        let at = segments.partition_point(|segment| segment.base <= end);
        let Some((last, older)) = segments[..at].split_last() else {
            return Ok(positions.end);
        };
        let (cut, indexes) = self.cut_at(last, end).await?;
        match self.cut_behind(older, last, &segments[at..], indexes).await {
            Ok(()) => Ok(cut.offset),
            Err(error) => Err(LogError::Storage(self.fail(StorageError::Failed {
                what: format!("truncate: {error}"),
            }))),
        }
    }

    /// Moves the state back to the last batch boundary of `segment` at or below `end`; returns it,
    /// and the indexes up to it.
    async fn cut_at(
        &mut self,
        segment: &Arc<Segment>,
        end: Offset,
    ) -> Result<(Valid, Indexes), LogError> {
        let resident = self.library.resident(segment).await?;
        let start = Valid {
            position: 0,
            offset: segment.base,
        };
        let written = Valid {
            position: u64::MAX,
            offset: segment.end().map_or(self.state.point.offset, |at| at.end),
        };
        let damaged = self.watermark.damaged();
        let mut scanner = Scanner::new(&*resident.reader, Offsets::Rising, start, written);
        let mut cut = start;
        let mut batches = Vec::new();
        loop {
            match scanner.step().await? {
                Step::Batch { header, .. } if header.next_offset() > end => break,
                Step::Batch { header, .. } => {
                    batches.push(header);
                    cut = scanner.at();
                }
                Step::End => break,
                Step::Damage(_) => {
                    let at = scanner.at();
                    let known = damaged.iter().find(|range| {
                        range.segment == segment.base && range.positions.start == at.position
                    });
                    let Some(range) = known.filter(|range| range.offsets.end <= end) else {
                        break;
                    };
                    scanner.jump(Valid {
                        position: range.positions.end,
                        offset: range.offsets.end,
                    });
                    cut = scanner.at();
                }
            }
        }
        let mut indexes = read_lock(&resident.indexes).clone();
        indexes.truncate(cut.offset, cut.position);
        self.state
            .producers
            .rewind(cut.offset, &batches, self.clock.now());
        self.state.epochs.truncate(cut.offset);
        self.state.point = RecoveryPoint {
            segment: segment.base,
            position: cut.position,
            offset: cut.offset,
        };
        self.durable = cut.offset;
        self.durable_position = cut.position;
        self.next_offset = cut.offset;
        Ok((cut, indexes))
    }

    /// Notes the lower end, first for readers, then durably, so that a crash finds either log;
    /// then cuts.
    async fn cut_behind(
        &mut self,
        older: &[Arc<Segment>],
        last: &Arc<Segment>,
        removed: &[Arc<Segment>],
        indexes: Indexes,
    ) -> Result<(), LogError> {
        let resident = self.library.resident(last).await?;
        self.show_shortened(older, Resident::new(Arc::clone(&resident.reader), indexes));
        self.write_checkpoint(false).await?;
        let mut writer = self.cut_files(removed).await?;
        // The mark of before says more than there is, should the checkpoint be lost.
        let point = self.state.point;
        let reached = self.reached(point.position, point.offset, true);
        writer.mark_next(reached.slot(), reached.encode(self.config.owner));
        writer.sync().await?;
        self.mark_number = reached.number;
        let indexes = read_lock(&self.active.indexes).clone();
        self.show_shortened(older, Resident::new(writer.reader(), indexes));
        self.writer = Some(writer);
        Ok(())
    }

    fn show_shortened(&mut self, older: &[Arc<Segment>], active: Arc<Resident>) {
        self.active = active;
        let point = self.state.point;
        let last = Segment::active(point.segment, Arc::clone(&self.active));
        let mut segments = older.to_vec();
        segments.push(Arc::new(last));
        let durable = self.durable;
        self.watermark.publish(|view| {
            let positions = &mut view.positions;
            positions.high_watermark = point.offset;
            positions.durable = durable;
            positions.end = point.offset;
            view.visible_position = point.position;
            view.segments = Arc::new(segments);
            Arc::make_mut(&mut view.damaged).retain(|range| range.offsets.end <= point.offset);
        });
        self.publish();
    }

    /// Removes the segments behind the cut, the last one first, and cuts the one it lies in.
    async fn cut_files(
        &mut self,
        removed: &[Arc<Segment>],
    ) -> Result<Box<dyn SegmentWriter>, StorageError> {
        self.writer = None;
        for segment in removed.iter().rev() {
            remove_segment(&*self.storage, segment.base).await?;
        }
        let point = self.state.point;
        let hint = self.config.segment_bytes_max.max(point.position);
        self.storage
            .reopen(point.segment, point.position, hint)
            .await
    }
}
