//! The frame of every small file: what it is, whether it is whole, and whose it is.
//!
//! ```text
//! magic, CRC-32C of what follows, format, topic id, partition, generation, length, payload
//! ```
//!
//! See `format.md` beside this crate, section "Frame". A file is used only if all of it fits: a
//! flipped bit, a file cut short or with something behind it, one of another kind and one that
//! belongs to something else are each told apart ([`Unusable`]).

use std::fmt;

use bytes::Bytes;

/// Bytes before the payload.
pub const FRAME_LEN: usize = 52;
/// The checksum covers everything from here on.
const CHECKED_FROM: usize = 12;
/// The partition of a file that belongs to none.
const NO_PARTITION: u32 = u32::MAX;

/// What a file is: eight bytes at its front, and the format number that is written and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The first bytes of the file.
    pub magic: [u8; 8],
    /// The newest format number this version knows.
    pub format: u32,
}

/// What a file belongs to: a partition, a topic, or the server itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The topic's id; 0 for what belongs to no topic.
    pub topic_id: u128,
    /// The partition; `u32::MAX` for what belongs to none.
    pub partition: u32,
}

impl Owner {
    /// Of files of the data directory itself, and of logs that belong to no topic.
    pub const SERVER: Owner = Owner {
        topic_id: 0,
        partition: NO_PARTITION,
    };

    /// A partition of a topic.
    #[must_use]
    pub const fn partition(topic_id: u128, partition: u32) -> Owner {
        Owner {
            topic_id,
            partition,
        }
    }

    /// A topic as a whole.
    #[must_use]
    pub const fn topic(topic_id: u128) -> Owner {
        Owner {
            topic_id,
            partition: NO_PARTITION,
        }
    }

    /// A partition of the topic whose id is written `digits`; one that is not an id counts as 0.
    #[must_use]
    pub fn named(digits: &str, partition: u32) -> Owner {
        Owner::partition(Owner::parse_topic_id(digits).unwrap_or(0), partition)
    }

    /// A topic id as it is written in names: 32 hex digits. `None` when it is not.
    #[must_use]
    pub fn parse_topic_id(digits: &str) -> Option<u128> {
        let hex = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        hex.then(|| u128::from_str_radix(digits, 16).ok())?
    }
}

impl Default for Owner {
    fn default() -> Owner {
        Owner::SERVER
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.topic_id, self.partition) {
            (0, NO_PARTITION) => f.write_str("no topic"),
            (topic, NO_PARTITION) => write!(f, "topic {topic:032x}"),
            (topic, partition) => write!(f, "partition {partition} of topic {topic:032x}"),
        }
    }
}

/// Why the content of a file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// There is no such file.
    #[error("missing")]
    Missing,
    /// It does not begin as it should.
    #[error("not of its kind")]
    Magic,
    /// It is whole, of a format that this version does not know.
    #[error("format {0} is not known")]
    Format(u32),
    /// Some bit of it changed.
    #[error("checksum mismatch")]
    Checksum,
    /// It was cut, or the content claims more than there is.
    #[error("ends early")]
    Short,
    /// It is whole, and another's: this is whose.
    #[error("belongs to {0}")]
    Owner(Owner),
    /// It is whole and makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Collects a payload and frames it.
#[derive(Debug)]
pub struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    /// `generation` rises with every write of the same file.
    #[must_use]
    pub fn new(kind: Kind, owner: Owner, generation: u64) -> Encoder {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&kind.magic);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&kind.format.to_be_bytes());
        out.extend_from_slice(&owner.topic_id.to_be_bytes());
        out.extend_from_slice(&owner.partition.to_be_bytes());
        out.extend_from_slice(&generation.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        Encoder { out }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, big-endian, two's complement.
    pub fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Unsigned, seven bits a byte, least significant first.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// A length (varint) and the bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.out.extend_from_slice(value);
    }

    /// A length (varint) and UTF-8.
    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// The whole file.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        let len = (self.out.len() - FRAME_LEN) as u64;
        self.out[FRAME_LEN - 8..FRAME_LEN].copy_from_slice(&len.to_be_bytes());
        let crc = crc32c::crc32c(&self.out[CHECKED_FROM..]);
        self.out[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&crc.to_be_bytes());
        self.out.into()
    }
}

/// Takes a payload apart; never reads beyond it, never allocates by a number it holds.
#[derive(Debug)]
pub struct Decoder<'a> {
    owner: Owner,
    generation: u64,
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Checks the frame of a file that must be `owner`'s.
    ///
    /// # Errors
    /// Whatever does not fit.
    pub fn open(kind: Kind, owner: Owner, content: &'a [u8]) -> Result<Decoder<'a>, Unusable> {
        let decoder = Decoder::open_any(kind, content)?;
        if decoder.owner == owner {
            Ok(decoder)
        } else {
            Err(Unusable::Owner(decoder.owner))
        }
    }

    /// As [`Decoder::open`], whoever it belongs to: see [`Decoder::owner`].
    ///
    /// # Errors
    /// Whatever does not fit.
    pub fn open_any(kind: Kind, content: &'a [u8]) -> Result<Decoder<'a>, Unusable> {
        if content.len() < kind.magic.len() {
            return Err(Unusable::Short);
        }
        if !content.starts_with(&kind.magic) {
            return Err(Unusable::Magic);
        }
        let mut from = Decoder {
            owner: Owner::SERVER,
            generation: 0,
            rest: &content[kind.magic.len()..],
        };
        let crc = u32::from_be_bytes(from.array()?);
        if crc != crc32c::crc32c(from.rest) {
            return Err(Unusable::Checksum);
        }
        let format = from.u32()?;
        if format != kind.format {
            return Err(Unusable::Format(format));
        }
        from.owner = Owner {
            topic_id: u128::from_be_bytes(from.array()?),
            partition: from.u32()?,
        };
        from.generation = from.u64()?;
        if from.u64()? != from.rest.len() as u64 {
            return Err(Unusable::Short);
        }
        Ok(from)
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// How often the file had been written.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unusable> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Unusable::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Unusable::Short`] at the end, as of all the others.
    pub fn u8(&mut self) -> Result<u8, Unusable> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// See [`Encoder::u32`].
    ///
    /// # Errors
    /// [`Unusable::Short`].
    pub fn u32(&mut self) -> Result<u32, Unusable> {
        self.array().map(u32::from_be_bytes)
    }

    /// See [`Encoder::u64`].
    ///
    /// # Errors
    /// [`Unusable::Short`].
    pub fn u64(&mut self) -> Result<u64, Unusable> {
        self.array().map(u64::from_be_bytes)
    }

    /// See [`Encoder::i64`].
    ///
    /// # Errors
    /// [`Unusable::Short`].
    pub fn i64(&mut self) -> Result<i64, Unusable> {
        self.array().map(i64::from_be_bytes)
    }

    /// See [`Encoder::varint`].
    ///
    /// # Errors
    /// [`Unusable::Short`]; [`Unusable::Invalid`] when it does not fit 64 bits.
    pub fn varint(&mut self) -> Result<u64, Unusable> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unusable::Invalid("a number does not fit 64 bits"))
    }

    /// A count (varint) of things that take at least `bytes_each`, more than 0; never more than can
    /// be there.
    ///
    /// # Errors
    /// [`Unusable::Short`]; [`Unusable::Invalid`] when it does not fit 64 bits.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize, Unusable> {
        let count = usize::try_from(self.varint()?).map_err(|_| Unusable::Short)?;
        if count > self.rest.len() / bytes_each.max(1) {
            return Err(Unusable::Short);
        }
        Ok(count)
    }

    /// See [`Encoder::bytes`].
    ///
    /// # Errors
    /// As [`Decoder::count`].
    pub fn bytes(&mut self) -> Result<&'a [u8], Unusable> {
        let len = self.count(1)?;
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(head)
    }

    /// See [`Encoder::text`].
    ///
    /// # Errors
    /// As [`Decoder::count`]; [`Unusable::Invalid`] when it is not UTF-8.
    pub fn text(&mut self) -> Result<String, Unusable> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map(str::to_owned)
            .map_err(|_| Unusable::Invalid("text is not UTF-8"))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`Unusable::Invalid`] when something is left over.
    pub fn finish(self) -> Result<(), Unusable> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Unusable::Invalid("bytes are left over"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        magic: *b"comlogXX",
        format: 3,
    };
    const OWNER: Owner = Owner::partition(0x1234, 7);

    fn sample() -> Bytes {
        let mut encoder = Encoder::new(KIND, OWNER, 9);
        encoder.u8(7);
        encoder.i64(-5);
        encoder.u32(70_000);
        for value in [0, 127, 128, u64::from(u32::MAX), u64::MAX] {
            encoder.varint(value);
        }
        encoder.text("torn");
        encoder.finish()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let content = sample();
        let mut decoder = Decoder::open(KIND, OWNER, &content).unwrap();
        assert_eq!((decoder.owner(), decoder.generation()), (OWNER, 9));
        assert_eq!(decoder.u8(), Ok(7));
        assert_eq!(decoder.i64(), Ok(-5));
        assert_eq!(decoder.u32(), Ok(70_000));
        for value in [0, 127, 128, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(decoder.varint(), Ok(value));
        }
        assert_eq!(decoder.text().as_deref(), Ok("torn"));
        assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let content = sample();
        for at in 0..content.len() {
            let mut wrong = content.to_vec();
            wrong[at] ^= 0x10;
            assert!(Decoder::open_any(KIND, &wrong).is_err(), "byte {at}");
            assert!(
                Decoder::open_any(KIND, &content[..at]).is_err(),
                "cut at {at}"
            );
        }
        let longer = [&content[..], &[0]].concat();
        assert!(Decoder::open_any(KIND, &longer).is_err());
    }

    #[test]
    fn what_belongs_to_another_is_not_used() {
        let content = sample();
        let others = [
            Owner::SERVER,
            Owner::topic(OWNER.topic_id),
            Owner::partition(OWNER.topic_id, 8),
        ];
        for other in others {
            let refused = Decoder::open(KIND, other, &content).map(drop);
            assert_eq!(refused, Err(Unusable::Owner(OWNER)), "{other}");
        }
    }

    #[test]
    fn a_topic_id_is_32_hex_digits() {
        let id = "0123456789abcdef0123456789abcdef";
        let parsed = Owner::parse_topic_id(id).unwrap();
        assert_eq!(format!("{parsed:032x}"), id);
        for wrong in ["", "7", "+123456789abcdef0123456789abcdef", &id[1..]] {
            assert_eq!(Owner::parse_topic_id(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_claimed_count_is_checked_against_the_bytes() {
        let mut encoder = Encoder::new(KIND, OWNER, 0);
        encoder.varint(1 << 40);
        let content = encoder.finish();
        let mut decoder = Decoder::open(KIND, OWNER, &content).unwrap();
        assert_eq!(decoder.count(2), Err(Unusable::Short));
    }
}
