//! One LZ4 frame, as Kafka's own reader takes it: independent blocks of at most 64 KiB are
//! written; any block size of the frame format, and linked blocks, are read.

use std::io::{BufRead, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use bytes::Bytes;

use super::Failure;
use super::piecewise::Piecewise;

/// The little-endian 0x184D2204. The legacy format and skippable frames are not Kafka's.
const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

pub(super) fn compress(records: &[u8]) -> Result<Vec<u8>, String> {
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder
        .write_all(records)
        .map_err(|error| error.to_string())?;
    encoder.finish().map_err(|error| error.to_string())
}

pub(super) fn decompress(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut decoder = decoder(body)?;
    let mut out = Vec::new();
    // A block at a time. The decoder's own buffers hold one block, at most 4 MiB by the format.
    loop {
        let block = decoder.fill_buf().map_err(Failure::corrupt)?;
        if block.is_empty() {
            break;
        }
        if block.len() > bytes_max - out.len() {
            return Err(Failure::TooLarge);
        }
        out.extend_from_slice(block);
        let taken = block.len();
        decoder.consume(taken);
    }
    decoder.get_ref().check_end()?;
    Ok(out)
}

/// One frame, block by block.
pub(super) struct Blocks(FrameDecoder<Source<Bytes>>);

impl Blocks {
    pub(super) fn new(body: Bytes) -> Result<Blocks, Failure> {
        decoder(body).map(Blocks)
    }
}

impl Piecewise for Blocks {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Failure> {
        let count = self.0.read(out).map_err(Failure::corrupt)?;
        if count == 0 && !out.is_empty() {
            self.0.get_ref().check_end()?;
        }
        Ok(count)
    }
}

fn decoder<B: AsRef<[u8]>>(body: B) -> Result<FrameDecoder<Source<B>>, Failure> {
    if !body.as_ref().starts_with(&MAGIC) {
        return Err(Failure::corrupt("not an LZ4 frame"));
    }
    Ok(FrameDecoder::new(Source {
        body,
        at: 0,
        ran_out: false,
    }))
}

/// The body, remembering whether more was asked for than there is: the decoder takes that for an
/// orderly end when it happens between two blocks.
struct Source<B> {
    body: B,
    /// Bytes taken.
    at: usize,
    ran_out: bool,
}

impl<B: AsRef<[u8]>> Source<B> {
    fn rest(&self) -> &[u8] {
        &self.body.as_ref()[self.at..]
    }

    /// Whether the frame that was read to its end was whole, and was all there is.
    fn check_end(&self) -> Result<(), Failure> {
        if self.ran_out {
            return Err(Failure::corrupt("the LZ4 frame has no end mark"));
        }
        if !self.rest().is_empty() {
            return Err(Failure::corrupt("bytes behind the LZ4 frame"));
        }
        Ok(())
    }
}

impl<B: AsRef<[u8]>> Read for Source<B> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let mut rest = self.rest();
        let ran_out = out.len() > rest.len();
        let count = rest.read(out)?;
        self.at += count;
        self.ran_out |= ran_out;
        Ok(count)
    }
}
