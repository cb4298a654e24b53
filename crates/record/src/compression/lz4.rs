//! One LZ4 frame, as Kafka's own reader takes it: independent blocks of at most 64 KiB are
//! written; any block size of the frame format, and linked blocks, are read.

use std::io::{BufRead, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::Failure;

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
    if !body.starts_with(&MAGIC) {
        return Err(Failure::corrupt("not an LZ4 frame"));
    }
    let mut decoder = FrameDecoder::new(Source {
        rest: body,
        ran_out: false,
    });
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
    let source = decoder.get_ref();
    if source.ran_out {
        return Err(Failure::corrupt("the LZ4 frame has no end mark"));
    }
    if !source.rest.is_empty() {
        return Err(Failure::corrupt("bytes behind the LZ4 frame"));
    }
    Ok(out)
}

/// The body, remembering whether more was asked for than there is: the decoder takes that for an
/// orderly end when it happens between two blocks.
struct Source<'a> {
    rest: &'a [u8],
    ran_out: bool,
}

impl Read for Source<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.ran_out |= out.len() > self.rest.len();
        self.rest.read(out)
    }
}
