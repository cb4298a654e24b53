//! What readers see: the positions of the log and the segments below them.
//!
//! The owner of the tail publishes a [`View`]; readers take what they need from it under a short
//! lock that is never held over I/O.

use std::sync::{Arc, RwLock};

use comlog_record::{Offset, OffsetRange};
use tokio::sync::watch;

use crate::offset_index::IndexEntry;
use crate::segment::{Segment, read_lock, write_lock};
use crate::{DamagedRange, Positions, ReadError};

/// Damaged ranges that are remembered. What is behind them is found again when it is read.
pub(crate) const DAMAGED_MAX: usize = 1_000;

/// One consistent picture of the log.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) positions: Positions,
    /// The position of the high watermark in the active segment.
    pub(crate) visible_position: u64,
    /// Ascending; the last one is active.
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    /// Ascending by offset.
    pub(crate) damaged: Arc<Vec<DamagedRange>>,
}

/// Where a read may look: one segment, between two batches.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    /// The batch behind the last damage before the offset asked for.
    pub(crate) floor: Option<IndexEntry>,
    /// The end of what may be read: position, and the offset there.
    pub(crate) limit: IndexEntry,
}

impl Place {
    pub(crate) fn is_in(&self, segment: &Arc<Segment>) -> bool {
        Arc::ptr_eq(&self.segment, segment)
    }
}

impl View {
    /// The offsets that can be read.
    pub(crate) fn visible(&self) -> OffsetRange {
        OffsetRange::new(self.positions.start, self.positions.high_watermark)
    }

    /// Where to look for the batch that holds `from`; `None` at the high watermark.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`]; [`ReadError::Corrupt`] when `from` is known to be damaged.
    pub(crate) fn locate(&self, from: Offset) -> Result<Option<Place>, ReadError> {
        let visible = self.visible();
        if from == visible.end {
            return Ok(None);
        }
        if !visible.contains(from) {
            return Err(ReadError::OutOfRange {
                requested: from,
                log: visible,
            });
        }
        if let Some(range) = self
            .damaged
            .iter()
            .find(|range| range.offsets.contains(from))
        {
            return Err(corrupt(range));
        }
        let above = match self.segments.last() {
            Some(last) if last.base <= from => self.segments.len(),
            _ => self.segments.partition_point(|at| at.base <= from),
        };
        let Some(at) = above.checked_sub(1) else {
            return Err(ReadError::OutOfRange {
                requested: from,
                log: visible,
            });
        };
        let place = self.place(&self.segments[at]);
        if self.damaged.is_empty() {
            return Ok(Some(place));
        }
        Ok(Some(self.between_damage(place, from)))
    }

    /// All that may be read of `segment`, damage not regarded.
    pub(crate) fn place(&self, segment: &Arc<Segment>) -> Place {
        let limit = match segment.end() {
            Some(end) => IndexEntry {
                offset: end.end,
                position: end.len,
            },
            None => IndexEntry {
                offset: self.positions.high_watermark,
                position: self.visible_position,
            },
        };
        Place {
            segment: Arc::clone(segment),
            floor: None,
            limit,
        }
    }

    fn between_damage(&self, mut place: Place, from: Offset) -> Place {
        for range in self.damaged.iter() {
            if range.segment != place.segment.base {
                continue;
            }
            if range.offsets.end <= from {
                place.floor = Some(IndexEntry {
                    offset: range.offsets.end,
                    position: range.positions.end,
                });
            } else if range.offsets.start < place.limit.offset {
                place.limit = IndexEntry {
                    offset: range.offsets.start,
                    position: range.positions.start,
                };
                break;
            }
        }
        place
    }
}

/// The error for reading inside `range`.
pub(crate) fn corrupt(range: &DamagedRange) -> ReadError {
    ReadError::Corrupt {
        offsets: range.offsets,
        reason: range.reason.clone(),
    }
}

/// The view, and the owner's side of those who wait for it.
#[derive(Debug)]
pub(crate) struct Watermark {
    view: Arc<RwLock<View>>,
    positions: watch::Sender<Positions>,
}

impl Watermark {
    pub(crate) fn new(view: View) -> Watermark {
        let positions = watch::Sender::new(view.positions);
        Watermark {
            view: Arc::new(RwLock::new(view)),
            positions,
        }
    }

    /// The readers' side.
    pub(crate) fn view(&self) -> Arc<RwLock<View>> {
        Arc::clone(&self.view)
    }

    pub(crate) fn positions(&self) -> Positions {
        read_lock(&self.view).positions
    }

    pub(crate) fn damaged(&self) -> Vec<DamagedRange> {
        read_lock(&self.view).damaged.to_vec()
    }

    /// Every segment, ascending; the last one is active.
    pub(crate) fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&read_lock(&self.view).segments)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Positions> {
        self.positions.subscribe()
    }

    /// Changes the view, then wakes those who wait for its positions.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut View)) {
        let positions = {
            let mut view = write_lock(&self.view);
            change(&mut view);
            view.positions
        };
        self.positions.send_replace(positions);
    }
}

/// Adds to the damage known; what overlaps becomes one range.
pub(crate) fn add_damage(view: &RwLock<View>, found: &[DamagedRange]) {
    if found.is_empty() {
        return;
    }
    let mut view = write_lock(view);
    let known = Arc::make_mut(&mut view.damaged);
    for range in found {
        let inside = |old: &DamagedRange| {
            old.segment == range.segment
                && old.positions.start <= range.positions.start
                && range.positions.end <= old.positions.end
        };
        if known.iter().any(inside) {
            continue;
        }
        tracing::error!(offsets = %range.offsets, reason = range.reason, "part of the log is damaged");
        let merged = absorb(known, range.clone());
        if known.len() < DAMAGED_MAX {
            known.push(merged);
        }
    }
    known.sort_unstable_by_key(|range| range.offsets.start);
}

/// Takes what overlaps `range` out of `known` and into it.
fn absorb(known: &mut Vec<DamagedRange>, mut range: DamagedRange) -> DamagedRange {
    known.retain(|old| {
        let apart = old.segment != range.segment
            || old.positions.end <= range.positions.start
            || range.positions.end <= old.positions.start;
        if !apart {
            range.offsets.start = range.offsets.start.min(old.offsets.start);
            range.offsets.end = range.offsets.end.max(old.offsets.end);
            range.positions.start = range.positions.start.min(old.positions.start);
            range.positions.end = range.positions.end.max(old.positions.end);
        }
        apart
    });
    range
}

#[cfg(test)]
mod tests {
    use comlog_record::LeaderEpoch;

    use super::*;
    use crate::segment::SegmentEnd;

    fn view() -> View {
        let segments = [(0, 10), (10, 30)].map(|(base, end)| {
            Arc::new(Segment::sealed(SegmentEnd {
                base: Offset(base),
                end: Offset(end),
                len: 1_000,
            }))
        });
        View {
            positions: Positions {
                start: Offset(2),
                high_watermark: Offset(30),
                durable: Offset(30),
                end: Offset(30),
                leader_epoch: LeaderEpoch(0),
            },
            visible_position: 0,
            segments: Arc::new(segments.into()),
            damaged: Arc::new(vec![DamagedRange {
                offsets: OffsetRange::new(Offset(15), Offset(20)),
                segment: Offset(10),
                positions: 400..600,
                reason: "test".to_owned(),
            }]),
        }
    }

    #[test]
    fn a_read_looks_in_one_segment_between_damage() {
        let view = view();
        let place = |from| view.locate(Offset(from)).unwrap().unwrap();
        assert_eq!(place(2).limit.position, 1_000);
        assert_eq!(place(9).segment.base, Offset(0));
        assert_eq!(place(14).limit.position, 400);
        assert_eq!(place(14).floor, None);
        assert_eq!(place(20).floor.map(|floor| floor.position), Some(600));
        assert_eq!(place(20).limit.position, 1_000);
        assert!(matches!(
            view.locate(Offset(17)),
            Err(ReadError::Corrupt { .. })
        ));
        assert!(view.locate(Offset(30)).unwrap().is_none());
        for outside in [1, 31, -1] {
            assert!(matches!(
                view.locate(Offset(outside)),
                Err(ReadError::OutOfRange { .. })
            ));
        }
    }

    #[test]
    fn the_same_damage_is_noted_once() {
        let view = RwLock::new(view());
        let known = read_lock(&view).damaged[0].clone();
        add_damage(&view, &[known]);
        assert_eq!(read_lock(&view).damaged.len(), 1);
    }

    #[test]
    fn wider_damage_takes_the_place_of_what_it_covers() {
        let view = RwLock::new(view());
        let mut wider = read_lock(&view).damaged[0].clone();
        wider.offsets = OffsetRange::new(Offset(12), Offset(16));
        wider.positions = 300..410;
        add_damage(&view, &[wider]);
        let known = read_lock(&view).damaged.to_vec();
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].offsets, OffsetRange::new(Offset(12), Offset(20)));
        assert_eq!(known[0].positions, 300..600);
    }
}
