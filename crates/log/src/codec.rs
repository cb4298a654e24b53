//! The frame of every file that is not a segment, and the few encodings inside it.
//!
//! `magic, CRC-32C, format number, payload`: see `format.md` beside `src`.

use bytes::Bytes;

/// Bytes before the payload: magic (8), CRC-32C of what follows it (4), format number (4).
const FRAME_LEN: usize = 16;
/// The checksum covers everything from here: format number and payload.
const CHECKED_FROM: usize = 12;

/// What a file is: eight bytes at its front, and the newest format number this version writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) magic: &'static [u8; 8],
    pub(crate) format: u32,
}

/// Why the content of a blob cannot be used. It is rebuilt then, so the reason is only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("missing")]
    Missing,
    #[error("not of its kind")]
    Magic,
    #[error("format {0} is not known")]
    Format(u32),
    #[error("checksum mismatch")]
    Checksum,
    #[error("ends early")]
    Short,
    #[error("{0}")]
    Invalid(&'static str),
}

/// Collects a payload and frames it.
#[derive(Debug)]
pub(crate) struct Encoder {
    kind: Kind,
    out: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(kind: Kind) -> Encoder {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(kind.magic);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&kind.format.to_be_bytes());
        Encoder { kind, out }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Unsigned, seven bits a byte, least significant first.
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.varint(value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn finish(mut self) -> Bytes {
        debug_assert_eq!(&self.out[..8], self.kind.magic);
        let crc = crc32c::crc32c(&self.out[CHECKED_FROM..]);
        self.out[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&crc.to_be_bytes());
        self.out.into()
    }
}

/// Takes a payload apart; never reads beyond it, never allocates by a number it holds.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Checks the frame.
    pub(crate) fn open(kind: Kind, content: &'a [u8]) -> Result<Decoder<'a>, Unusable> {
        if content.len() < FRAME_LEN {
            return Err(Unusable::Short);
        }
        let mut rest = Decoder {
            rest: &content[kind.magic.len()..],
        };
        if !content.starts_with(kind.magic) {
            return Err(Unusable::Magic);
        }
        if u32::from_be_bytes(rest.array()?) != crc32c::crc32c(&content[CHECKED_FROM..]) {
            return Err(Unusable::Checksum);
        }
        let format = u32::from_be_bytes(rest.array()?);
        if format != kind.format {
            return Err(Unusable::Format(format));
        }
        Ok(rest)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unusable> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Unusable::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Unusable> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Unusable> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Unusable> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Unusable> {
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

    /// A count of things that take at least `bytes_each`.
    pub(crate) fn count(&mut self, bytes_each: usize) -> Result<usize, Unusable> {
        let count = usize::try_from(self.varint()?).map_err(|_| Unusable::Short)?;
        if count > self.rest.len() / bytes_each {
            return Err(Unusable::Short);
        }
        Ok(count)
    }

    pub(crate) fn text(&mut self) -> Result<String, Unusable> {
        let len = self.count(1)?;
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        String::from_utf8(head.to_vec()).map_err(|_| Unusable::Invalid("text is not UTF-8"))
    }

    pub(crate) fn finish(self) -> Result<(), Unusable> {
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
        magic: b"comlogXX",
        format: 3,
    };

    fn sample() -> Bytes {
        let mut encoder = Encoder::new(KIND);
        encoder.u8(7);
        encoder.i64(-5);
        for value in [0, 127, 128, u64::from(u32::MAX), u64::MAX] {
            encoder.varint(value);
        }
        encoder.text("torn");
        encoder.finish()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let content = sample();
        let mut decoder = Decoder::open(KIND, &content).unwrap();
        assert_eq!(decoder.u8(), Ok(7));
        assert_eq!(decoder.i64(), Ok(-5));
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
            assert!(Decoder::open(KIND, &wrong).is_err(), "byte {at}");
            assert!(Decoder::open(KIND, &content[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_claimed_count_is_checked_against_the_bytes() {
        let mut encoder = Encoder::new(KIND);
        encoder.varint(1 << 40);
        let content = encoder.finish();
        let mut decoder = Decoder::open(KIND, &content).unwrap();
        assert_eq!(decoder.count(2), Err(Unusable::Short));
    }
}
