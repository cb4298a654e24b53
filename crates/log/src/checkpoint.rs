//! The one small file that spares a restart from reading the log.
//!
//! It holds the log's state at a point up to which everything is durable. A restart takes the
//! state from here and scans only what lies behind the point.

use bytes::Bytes;
use comlog_record::{Offset, OffsetRange, Timestamp};

use crate::epoch::EpochTable;
use crate::frame::{Decoder, Encoder, Kind, Owner, Unusable};
use crate::offset_index::OffsetIndex;
use crate::producer_state::ProducerState;
use crate::segment::Indexes;
use crate::time_index::TimeIndex;
use crate::{DamagedRange, Durability};

/// The blob it is kept in.
pub(crate) const CHECKPOINT_NAME: &str = "checkpoint";

/// What it begins with.
pub(crate) const MAGIC: &[u8; 8] = b"comlogCP";

/// Its frame.
pub(crate) const CHECKPOINT: Kind = Kind {
    magic: *MAGIC,
    format: 1,
};

/// Up to where everything is durable, and where a scan starts: a batch boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecoveryPoint {
    /// The segment that was active.
    pub(crate) segment: Offset,
    /// Bytes of it that need no scan.
    pub(crate) position: u64,
    /// The offset of the batch at `position`.
    pub(crate) offset: Offset,
}

/// The log's state at its recovery point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The log it is of.
    pub(crate) owner: Owner,
    /// How often it was written.
    pub(crate) generation: u64,
    /// Nothing was appended after this was written.
    pub(crate) clean: bool,
    /// What acknowledgements promised at least, after this was written.
    pub(crate) durability: Durability,
    /// Most bytes that were written and not yet acknowledged, at any time after this was written: a
    /// group. A power of two, mostly small: it is raised, durably, before a larger one is written.
    pub(crate) group_bytes_max: u64,
    /// Log start offset.
    pub(crate) start: Offset,
    pub(crate) fencing_token: u64,
    pub(crate) point: RecoveryPoint,
    /// When the first record of the active segment was appended, if there is one.
    pub(crate) active_since: Option<Timestamp>,
    /// The generation of the blob `fence`; 0 before the first.
    pub(crate) fence: u64,
    /// The life of the machine and the mount in which this was written; `None` when unknown.
    pub(crate) incarnation: Option<Bytes>,
    pub(crate) epochs: EpochTable,
    /// What is known to be damaged.
    pub(crate) damaged: Vec<DamagedRange>,
    pub(crate) producers: ProducerState,
}

impl Checkpoint {
    /// The blob's content; `indexes` are those of the active segment up to the recovery point.
    pub(crate) fn encode(&self, indexes: &Indexes) -> Bytes {
        let mut out = Encoder::new(CHECKPOINT, self.owner, self.generation);
        out.u8(u8::from(self.clean));
        out.u8(match self.durability {
            Durability::Memory => 0,
            Durability::Durable => 1,
        });
        out.u64(self.group_bytes_max);
        out.i64(self.start.0);
        out.u64(self.fencing_token);
        out.i64(self.point.segment.0);
        out.u64(self.point.position);
        out.i64(self.point.offset.0);
        out.i64(self.active_since.unwrap_or(Timestamp(i64::MIN)).0);
        out.u64(self.fence);
        out.bytes(self.incarnation.as_deref().unwrap_or_default());
        self.epochs.encode(&mut out);
        out.varint(self.damaged.len() as u64);
        for range in &self.damaged {
            encode_damage(range, &mut out);
        }
        self.producers.encode(&mut out);
        indexes.offsets.encode(self.point.segment, &mut out);
        indexes.times.encode(self.point.segment, &mut out);
        out.finish()
    }

    /// Whosever it is: see [`Checkpoint::owner`].
    pub(crate) fn decode(content: &[u8]) -> Result<(Checkpoint, Indexes), Unusable> {
        let mut from = Decoder::open_any(CHECKPOINT, content)?;
        let (owner, generation) = (from.owner(), from.generation());
        let clean = from.u8()? != 0;
        let durability = match from.u8()? {
            0 => Durability::Memory,
            _ => Durability::Durable,
        };
        let group_bytes_max = from.u64()?;
        let start = Offset(from.i64()?);
        let fencing_token = from.u64()?;
        let point = RecoveryPoint {
            segment: Offset(from.i64()?),
            position: from.u64()?,
            offset: Offset(from.i64()?),
        };
        let active_since = Some(Timestamp(from.i64()?)).filter(|since| since.0 != i64::MIN);
        let fence = from.u64()?;
        let incarnation = Some(from.bytes()?)
            .filter(|life| !life.is_empty())
            .map(Bytes::copy_from_slice);
        let epochs = EpochTable::decode(&mut from)?;
        let damaged = (0..from.count(41)?)
            .map(|_| decode_damage(&mut from))
            .collect::<Result<_, _>>()?;
        let producers = ProducerState::decode(&mut from)?;
        let indexes = Indexes {
            offsets: OffsetIndex::decode(point.segment, &mut from)?,
            times: TimeIndex::decode(point.segment, &mut from)?,
        };
        from.finish()?;
        let checkpoint = Checkpoint {
            owner,
            generation,
            clean,
            durability,
            group_bytes_max,
            start,
            fencing_token,
            point,
            active_since,
            fence,
            incarnation,
            epochs,
            damaged,
            producers,
        };
        checkpoint.check()?;
        Ok((checkpoint, indexes))
    }

    /// As [`Checkpoint::decode`], of a log that must be `owner`'s.
    pub(crate) fn decode_of(
        owner: Owner,
        content: &[u8],
    ) -> Result<(Checkpoint, Indexes), Unusable> {
        let decoded = Checkpoint::decode(content)?;
        if decoded.0.owner == owner {
            Ok(decoded)
        } else {
            Err(Unusable::Owner(decoded.0.owner))
        }
    }

    fn check(&self) -> Result<(), Unusable> {
        let point = self.point;
        let rising = Offset::ZERO <= point.segment
            && point.segment <= point.offset
            && Offset::ZERO <= self.start
            && self.start <= point.offset;
        if rising {
            Ok(())
        } else {
            Err(Unusable::Invalid("offsets contradict each other"))
        }
    }
}

fn encode_damage(range: &DamagedRange, out: &mut Encoder) {
    out.i64(range.offsets.start.0);
    out.i64(range.offsets.end.0);
    out.i64(range.segment.0);
    out.u64(range.positions.start);
    out.u64(range.positions.end);
    out.text(&range.reason);
}

fn decode_damage(from: &mut Decoder<'_>) -> Result<DamagedRange, Unusable> {
    Ok(DamagedRange {
        offsets: OffsetRange::new(Offset(from.i64()?), Offset(from.i64()?)),
        segment: Offset(from.i64()?),
        positions: from.u64()?..from.u64()?,
        reason: from.text()?,
    })
}

#[cfg(test)]
mod tests {
    use comlog_record::LeaderEpoch;

    use super::*;

    fn sample() -> (Checkpoint, Indexes) {
        let mut epochs = EpochTable::new(Offset(3));
        epochs.raise(LeaderEpoch(4), Offset(90));
        let mut indexes = Indexes::default();
        indexes.offsets.note(Offset(80), 0, 1);
        indexes.times.note(Offset(80), Timestamp(-7), true);
        let checkpoint = Checkpoint {
            owner: Owner::partition(77, 5),
            generation: 12,
            clean: true,
            durability: Durability::Memory,
            group_bytes_max: 1 << 20,
            start: Offset(3),
            fencing_token: 11,
            point: RecoveryPoint {
                segment: Offset(80),
                position: 512,
                offset: Offset(99),
            },
            active_since: Some(Timestamp(5)),
            fence: 4,
            incarnation: Some(Bytes::from_static(b"boot/7")),
            epochs,
            damaged: vec![DamagedRange {
                offsets: OffsetRange::new(Offset(10), Offset(20)),
                segment: Offset(3),
                positions: 70..90,
                reason: "checksum mismatch".to_owned(),
            }],
            producers: ProducerState::new(),
        };
        (checkpoint, indexes)
    }

    #[test]
    fn round_trip() {
        let (checkpoint, indexes) = sample();
        let content = checkpoint.encode(&indexes);
        assert_eq!(Checkpoint::decode(&content), Ok((checkpoint, indexes)));
    }

    #[test]
    fn offsets_that_contradict_each_other_are_refused() {
        let (mut wrong, indexes) = sample();
        wrong.start = Offset(100);
        assert!(Checkpoint::decode(&wrong.encode(&indexes)).is_err());
    }
}
