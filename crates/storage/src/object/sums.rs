//! A checksum for each block of an object, so that a ranged GET can be checked by itself.
//!
//! Layout, big-endian: magic `comlogSM`, CRC-32C of what follows it, format number (u32), length of
//! the object (u64), its CRC-32C (u32), bytes of a block (u32), then a CRC-32C (u32) for each block.

use std::ops::Range;

use bytes::Bytes;

/// Bytes of a block: what one GET asks for, and what is cached.
pub const BLOCK_BYTES: u32 = 2 << 20;

const MAGIC: &[u8; 8] = b"comlogSM";
const FORMAT: u32 = 1;
const HEAD_LEN: usize = 32;
const CHECKED_FROM: usize = 12;

/// The checksums of one object and of its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSums {
    len: u64,
    crc: u32,
    sums: Vec<u32>,
}

impl BlockSums {
    /// Bytes of the object.
    #[must_use]
    pub fn object_len(&self) -> u64 {
        self.len
    }

    /// CRC-32C of the whole object.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc
    }

    pub(super) fn block_count(&self) -> u32 {
        u32::try_from(self.sums.len()).unwrap_or(u32::MAX)
    }

    /// Whether `bytes` are what the block with this number held.
    #[must_use]
    pub fn check(&self, block: u32, bytes: &[u8]) -> bool {
        let range = block_range(block, self.len);
        bytes.len() as u64 == range.end - range.start
            && self.sums.get(block as usize) == Some(&crc32c::crc32c(bytes))
    }

    /// The content of the object that keeps them.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(HEAD_LEN + 4 * self.sums.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&FORMAT.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
        out.extend_from_slice(&self.crc.to_be_bytes());
        out.extend_from_slice(&BLOCK_BYTES.to_be_bytes());
        for sum in &self.sums {
            out.extend_from_slice(&sum.to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[CHECKED_FROM..]);
        out[8..CHECKED_FROM].copy_from_slice(&crc.to_be_bytes());
        out.into()
    }

    /// What [`BlockSums::encode`] made; `None` when it is anything else. Such sums are made anew
    /// from the object itself.
    #[must_use]
    pub fn decode(content: &[u8]) -> Option<BlockSums> {
        let (head, rest) = content.split_first_chunk::<HEAD_LEN>()?;
        let number =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let whole = head.starts_with(MAGIC)
            && number(8) == crc32c::crc32c(&content[CHECKED_FROM..])
            && number(12) == FORMAT
            && number(28) == BLOCK_BYTES;
        let len = (u64::from(number(16)) << 32) | u64::from(number(20));
        let (sums, odd) = rest.as_chunks::<4>();
        if !whole || !odd.is_empty() || sums.len() as u64 != len.div_ceil(BLOCK_BYTES.into()) {
            return None;
        }
        Some(BlockSums {
            len,
            crc: number(24),
            sums: sums.iter().map(|sum| u32::from_be_bytes(*sum)).collect(),
        })
    }
}

/// The bytes of a block in an object of `len` bytes.
pub(crate) fn block_range(block: u32, len: u64) -> Range<u64> {
    let start = u64::from(block) * u64::from(BLOCK_BYTES);
    start.min(len)..(start + u64::from(BLOCK_BYTES)).min(len)
}

/// Takes the content of an object piece by piece.
#[derive(Debug, Default)]
pub struct SumsBuilder {
    len: u64,
    crc: u32,
    sums: Vec<u32>,
    block_crc: u32,
}

impl SumsBuilder {
    /// Adds the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        while !bytes.is_empty() {
            let filled = self.len % u64::from(BLOCK_BYTES);
            let room = (u64::from(BLOCK_BYTES) - filled) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block_crc = crc32c::crc32c_append(self.block_crc, now);
            self.len += now.len() as u64;
            if self.len.is_multiple_of(u64::from(BLOCK_BYTES)) {
                self.sums.push(std::mem::take(&mut self.block_crc));
            }
            bytes = later;
        }
    }

    /// The checksums of all that was added.
    #[must_use]
    pub fn finish(mut self) -> BlockSums {
        if !self.len.is_multiple_of(u64::from(BLOCK_BYTES)) {
            self.sums.push(self.block_crc);
        }
        BlockSums {
            len: self.len,
            crc: self.crc,
            sums: self.sums,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(content: &[u8], piece: usize) -> BlockSums {
        let mut builder = SumsBuilder::default();
        content
            .chunks(piece)
            .for_each(|piece| builder.update(piece));
        builder.finish()
    }

    #[test]
    fn pieces_do_not_matter_and_every_block_is_checked() {
        for len in [0, 1, BLOCK_BYTES as usize, BLOCK_BYTES as usize * 2 + 7] {
            let content: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let whole = sums(&content, len.max(1));
            assert_eq!(whole, sums(&content, 1_000_003));
            assert_eq!(whole.crc(), crc32c::crc32c(&content));
            assert_eq!(BlockSums::decode(&whole.encode()), Some(whole.clone()));
            for (block, bytes) in content.chunks(BLOCK_BYTES as usize).enumerate() {
                assert!(whole.check(block as u32, bytes));
                assert!(!whole.check(block as u32, &bytes[1..]));
                assert!(!whole.check(block as u32 + 1, bytes));
            }
        }
    }

    #[test]
    fn damage_is_seen() {
        let encoded = sums(&[7; 100], 9).encode();
        for at in 0..encoded.len() {
            let mut broken = encoded.to_vec();
            broken[at] ^= 1;
            assert_eq!(BlockSums::decode(&broken), None, "byte {at}");
            assert_eq!(BlockSums::decode(&encoded[..at]), None, "cut at {at}");
        }
    }
}
