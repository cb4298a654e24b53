//! The mark: how far the log had got when it last acknowledged something.
//!
//! It costs no sync of its own, so a crash of the machine may leave an older one or none; a crash of
//! the process leaves it whole. What lies below it was acknowledged: damage there is no tear.

use comlog_record::Offset;
use comlog_storage::{MARK_LEN, Mark};

use crate::checkpoint::Checkpoint;
use crate::frame::{Decoder, FRAME_LEN, Kind, Owner, Unusable};
use crate::scan::Valid;

/// Its frame.
pub(crate) const MARK: Kind = Kind {
    magic: *b"comlogMK",
    format: 1,
};

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Rises with each mark; the slot follows from it.
    pub(crate) number: u64,
    /// The generation of the checkpoint before it. A later checkpoint covers all that it says.
    pub(crate) checkpoint: u64,
    /// The segment that was active.
    pub(crate) segment: Offset,
    /// The end of what was acknowledged.
    pub(crate) end: Valid,
    /// The end of what was acknowledged as durable, in the same segment.
    pub(crate) durable: Valid,
}

impl Reached {
    /// Where it is put.
    pub(crate) fn slot(&self) -> usize {
        (self.number % 2) as usize
    }

    pub(crate) fn encode(&self, owner: Owner) -> Mark {
        let mut out = [0; MARK_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MARK.magic);
        put(&[0; 4]);
        put(&MARK.format.to_be_bytes());
        put(&owner.topic_id.to_be_bytes());
        put(&owner.partition.to_be_bytes());
        put(&self.number.to_be_bytes());
        put(&((MARK_LEN - FRAME_LEN) as u64).to_be_bytes());
        put(&self.checkpoint.to_be_bytes());
        put(&self.segment.0.to_be_bytes());
        for valid in [self.end, self.durable] {
            put(&valid.position.to_be_bytes());
            put(&valid.offset.0.to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Whosever it is.
    pub(crate) fn decode(content: &[u8]) -> Result<(Owner, Reached), Unusable> {
        let mut from = Decoder::open_any(MARK, content)?;
        let (owner, number) = (from.owner(), from.generation());
        let checkpoint = from.u64()?;
        let segment = Offset(from.i64()?);
        let mut valid = || -> Result<Valid, Unusable> {
            Ok(Valid {
                position: from.u64()?,
                offset: Offset(from.i64()?),
            })
        };
        let (end, durable) = (valid()?, valid()?);
        from.finish()?;
        let reached = Reached {
            number,
            checkpoint,
            segment,
            end,
            durable,
        };
        let rising = Offset::ZERO <= segment
            && segment <= durable.offset
            && durable.offset <= end.offset
            && durable.position <= end.position;
        if rising {
            Ok((owner, reached))
        } else {
            Err(Unusable::Invalid("offsets contradict each other"))
        }
    }
}

/// What the slots say, set beside the checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The newest, if it says more than the checkpoint.
    pub(crate) newest: Option<Reached>,
    /// The generation of the checkpoint before the newest one.
    pub(crate) checkpoint: u64,
    /// The largest number in a slot.
    pub(crate) number: u64,
    /// Whether any slot holds a mark of this log.
    pub(crate) any: bool,
    /// The checkpoint that the newest one follows was not found: an older one is in its place.
    pub(crate) checkpoint_older: bool,
}

impl Marks {
    /// Sets what stands in the slots beside `state`, the checkpoint if there is a usable one.
    pub(crate) fn of(slots: &[Mark], owner: Owner, state: Option<&Checkpoint>) -> Marks {
        let decoded = slots.iter().filter_map(|slot| Reached::decode(slot).ok());
        let own = decoded.filter(|(of, _)| *of == owner);
        let Some(newest) = own
            .map(|(_, reached)| reached)
            .max_by_key(|reached| reached.number)
        else {
            return Marks::default();
        };
        let known = state.map_or(0, |state| state.generation);
        Marks {
            // Without a checkpoint nothing says whether a truncation came after it.
            newest: Some(newest).filter(|newest| state.is_some() && newest.checkpoint >= known),
            checkpoint: newest.checkpoint,
            number: newest.number,
            any: true,
            checkpoint_older: state.is_some() && newest.checkpoint > known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Reached {
        let valid = |position, offset| Valid {
            position,
            offset: Offset(offset),
        };
        Reached {
            number: 7,
            checkpoint: 3,
            segment: Offset(100),
            end: valid(9_000, 130),
            durable: valid(8_400, 121),
        }
    }

    #[test]
    fn a_mark_comes_back_and_every_flipped_bit_is_noticed() {
        let owner = Owner::partition(5, 1);
        let mark = sample().encode(owner);
        assert_eq!(Reached::decode(&mark), Ok((owner, sample())));
        for at in 0..mark.len() {
            let mut wrong = mark;
            wrong[at] ^= 4;
            assert!(Reached::decode(&wrong).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_newest_mark_of_this_log_counts() {
        let owner = Owner::partition(5, 1);
        let older = Reached {
            number: 6,
            ..sample()
        };
        let slots = [sample().encode(owner), older.encode(owner)];
        assert_eq!(Marks::of(&slots, owner, None).number, 7);
        let torn = [[0; MARK_LEN], older.encode(owner)];
        assert_eq!(Marks::of(&torn, owner, None).number, 6);
        let other = Owner::partition(5, 2);
        assert_eq!(Marks::of(&slots, other, None), Marks::default());
    }
}
