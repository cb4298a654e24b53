//! Logical positions in a log: [`Offset`], [`LeaderEpoch`], [`Timestamp`].

use std::fmt;

/// The logical position of a record in one partition, counted from 0.
///
/// Never a position in bytes. Kafka's offsets are signed; negative values never name a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

impl Offset {
    /// The first offset of every log.
    pub const ZERO: Offset = Offset(0);

    /// The offset `count` behind this one; `None` when it does not fit 63 bits.
    #[must_use]
    pub fn checked_add(self, count: u64) -> Option<Offset> {
        self.0.checked_add_unsigned(count).map(Offset)
    }

    /// The next offset. The last one, 2^63 - 1, names no record and stays where it is, so that a
    /// number from a peer is never a reason to panic.
    #[must_use]
    pub fn next(self) -> Offset {
        Offset(self.0.saturating_add(1))
    }

    /// How many offsets lie in `[earlier, self)`, 0 when `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Offset) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A half-open range of offsets: `start` is inside, `end` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    /// The first offset of the range.
    pub start: Offset,
    /// The first offset behind the range.
    pub end: Offset,
}

impl OffsetRange {
    /// The range `[start, end)`.
    #[must_use]
    pub fn new(start: Offset, end: Offset) -> OffsetRange {
        OffsetRange { start, end }
    }

    /// Whether `offset` lies inside.
    #[must_use]
    pub fn contains(&self, offset: Offset) -> bool {
        self.start <= offset && offset < self.end
    }

    /// Whether no offset lies inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// How many offsets lie inside.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end.since(self.start)
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// The reign of a partition leader, counted from 0; stored in every batch as partitionLeaderEpoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaderEpoch(pub i32);

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Unix time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Kafka's value for "no timestamp".
    pub const NONE: Timestamp = Timestamp(-1);
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
