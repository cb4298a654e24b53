//! Snappy as Kafka has it: blocks in the framing of xerial's snappy-java (not Snappy's own frame
//! format), and on the way in also one raw block without framing, as some clients write it.

use bytes::{Buf, Bytes};

use super::Failure;
use super::piecewise::{Piecewise, move_out};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// The version of the framing, and the oldest version that can read it: both 1.
const VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
const HEADER_LEN: usize = MAGIC.len() + VERSIONS.len();
/// What snappy-java puts into a block.
const BLOCK_LEN: usize = 32 * 1024;
/// No element of Snappy's format makes more of its bytes: three of them copy 64.
const EXPANSION_MAX: usize = 22;

pub(super) fn compress(records: &[u8]) -> Result<Vec<u8>, String> {
    let blocks = records.len().div_ceil(BLOCK_LEN);
    let room =
        HEADER_LEN + blocks * (4 + snap::raw::max_compress_len(BLOCK_LEN.min(records.len())));
    let mut out = Vec::with_capacity(room);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSIONS);
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(BLOCK_LEN) {
        let start = out.len() + 4;
        out.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let length = encoder
            .compress(block, &mut out[start..])
            .map_err(|error| error.to_string())?;
        out.truncate(start + length);
        out[start - 4..start].copy_from_slice(&(length as u32).to_be_bytes());
    }
    Ok(out)
}

pub(super) fn decompress(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    if !body.starts_with(&MAGIC) {
        append_block(&mut out, body, bytes_max)?;
        return Ok(out);
    }
    let mut rest = body;
    while !rest.is_empty() {
        // Streams may follow each other, each with its header.
        if rest.starts_with(&MAGIC) {
            rest = after_header(rest)?;
            continue;
        }
        let (block, behind) = split_block(rest)?;
        append_block(&mut out, block, bytes_max)?;
        rest = behind;
    }
    Ok(out)
}

/// Block by block; a block is held as a whole, and may be as long as its producer made it.
pub(super) struct Blocks {
    rest: Bytes,
    /// Whether the blocks are framed; if not, `rest` is one block.
    is_framed: bool,
    block_bytes_max: usize,
    block: Vec<u8>,
    /// Bytes of `block` that were given out.
    at: usize,
    ended: bool,
}

impl Blocks {
    pub(super) fn new(body: Bytes, block_bytes_max: usize) -> Blocks {
        Blocks {
            is_framed: body.starts_with(&MAGIC),
            rest: body,
            block_bytes_max,
            block: Vec::new(),
            at: 0,
            ended: false,
        }
    }

    /// Decompresses the next block.
    fn next_block(&mut self) -> Result<(), Failure> {
        self.block.clear();
        self.at = 0;
        if !self.is_framed {
            self.ended = true;
            return append_block(&mut self.block, &self.rest, self.block_bytes_max);
        }
        while self.rest.starts_with(&MAGIC) {
            after_header(&self.rest)?;
            self.rest.advance(HEADER_LEN);
        }
        if self.rest.is_empty() {
            self.ended = true;
            return Ok(());
        }
        let (block, behind) = split_block(&self.rest)?;
        let taken = self.rest.len() - behind.len();
        append_block(&mut self.block, block, self.block_bytes_max)?;
        self.rest.advance(taken);
        Ok(())
    }
}

impl Piecewise for Blocks {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Failure> {
        while self.at == self.block.len() {
            if self.ended {
                return Ok(0);
            }
            self.next_block()?;
        }
        Ok(move_out(&self.block, &mut self.at, out))
    }
}

fn after_header(stream: &[u8]) -> Result<&[u8], Failure> {
    let (header, rest) = stream
        .split_at_checked(HEADER_LEN)
        .ok_or_else(|| Failure::corrupt("the xerial header is cut short"))?;
    // The version, big endian and signed: as snappy-java does, any from 1 on is taken.
    if header[8..12] < VERSIONS[..4] || header[8] >= 0x80 {
        return Err(Failure::corrupt("unknown version of the xerial framing"));
    }
    Ok(rest)
}

fn split_block(rest: &[u8]) -> Result<(&[u8], &[u8]), Failure> {
    let cut = || Failure::corrupt("a xerial block is cut short");
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| cut())?;
    rest.split_at_checked(length).ok_or_else(cut)
}

/// Decompresses one raw block onto the end of `out`.
fn append_block(out: &mut Vec<u8>, block: &[u8], bytes_max: usize) -> Result<(), Failure> {
    let claimed = snap::raw::decompress_len(block).map_err(Failure::corrupt)?;
    if claimed > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(Failure::corrupt("a block claims more than it can hold"));
    }
    if claimed > bytes_max - out.len() {
        return Err(Failure::TooLarge);
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let length = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(Failure::corrupt)?;
    out.truncate(start + length);
    Ok(())
}
