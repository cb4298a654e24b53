//! Which segments are too old or too many: a pure function.

use std::time::Duration;

use comlog_record::Timestamp;

use crate::{LogConfig, SegmentInfo};

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Retention {
    /// Keep at least this many of the newest bytes; older segments may go.
    pub(crate) bytes: Option<u64>,
    /// Segments whose newest record is older than this may go.
    pub(crate) age: Option<Duration>,
}

impl Retention {
    pub(crate) fn of(config: &LogConfig) -> Retention {
        Retention {
            bytes: config.retention_bytes,
            age: config.retention_age,
        }
    }

    /// Whether a segment is too old at `now`; not when its newest timestamp is not known.
    pub(crate) fn is_expired(&self, segment: &SegmentInfo, now: Timestamp) -> bool {
        let (Some(age), Some(newest)) = (self.age, segment.max_timestamp) else {
            return false;
        };
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        newest.0 < now.0.saturating_sub(age)
    }

    /// How many of the oldest of `segments` (ascending) may go; never one that is not sealed.
    ///
    /// By bytes, a segment goes only if the rest still holds the bytes to keep.
    pub(crate) fn deletable(&self, segments: &[SegmentInfo], now: Timestamp) -> usize {
        let mut rest: u64 = segments.iter().map(|segment| segment.len).sum();
        let goes = |segment: &&SegmentInfo| {
            rest -= segment.len;
            let surplus = self.bytes.is_some_and(|keep| rest >= keep);
            segment.sealed && (surplus || self.is_expired(segment, now))
        };
        segments.iter().take_while(goes).count()
    }
}

#[cfg(test)]
mod tests {
    use comlog_record::Offset;

    use super::*;

    /// Segments of (bytes, newest timestamp); the last one is active.
    fn segments(plan: &[(u64, Option<i64>)]) -> Vec<SegmentInfo> {
        let last = plan.len() - 1;
        plan.iter()
            .enumerate()
            .map(|(at, (len, newest))| SegmentInfo {
                base_offset: Offset(at as i64 * 10),
                end_offset: Offset(at as i64 * 10 + 10),
                len: *len,
                max_timestamp: newest.map(Timestamp),
                sealed: at != last,
            })
            .collect()
    }

    fn deletable(bytes: Option<u64>, age_ms: Option<u64>, plan: &[(u64, Option<i64>)]) -> usize {
        let age = age_ms.map(Duration::from_millis);
        Retention { bytes, age }.deletable(&segments(plan), Timestamp(1_000))
    }

    const PLAN: &[(u64, Option<i64>)] = &[
        (100, Some(100)),
        (100, Some(500)),
        (100, Some(300)),
        (100, Some(900)),
    ];

    #[test]
    fn table() {
        for (bytes, age, expected) in [
            (None, None, 0),
            (Some(400), None, 0),
            (Some(301), None, 0),
            (Some(300), None, 1),
            (Some(250), None, 1),
            (Some(0), None, 3),   // the active one stays
            (None, Some(900), 0), // exactly as old as allowed
            (None, Some(899), 1),
            (None, Some(600), 1), // what lies behind a young one stays
            (None, Some(499), 3),
            (None, Some(0), 3),
            (Some(200), Some(899), 2),
        ] {
            assert_eq!(
                deletable(bytes, age, PLAN),
                expected,
                "{bytes:?} bytes, {age:?} ms"
            );
        }
    }

    #[test]
    fn an_unknown_age_is_not_old() {
        assert_eq!(deletable(None, Some(1), &[(100, None), (100, Some(1))]), 0);
    }

    #[test]
    fn one_active_segment_is_never_deleted() {
        assert_eq!(deletable(Some(0), Some(0), &[(100, Some(1))]), 0);
    }
}
