//! Zstandard in Rust, for wasm32. Natively it is built for tests and by the feature `pure-zstd`,
//! so that both decoders can be held against each other.

use std::io::Read;

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::Failure;

/// The window that RFC 8878 asks every decoder to support.
const WINDOW_LEN: u64 = 8 << 20;

/// An encoder would be a tenth of the module that browsers load, and three others are there.
#[cfg(target_arch = "wasm32")]
pub(super) fn compress(_records: &[u8]) -> Result<Vec<u8>, String> {
    Err("zstd is read but not written on wasm32, use lz4, snappy or gzip".to_owned())
}

#[cfg(all(test, not(target_arch = "wasm32")))]
pub(super) fn compress(records: &[u8]) -> Result<Vec<u8>, String> {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    Ok(ruzstd::encoding::compress_to_vec(records, level))
}

pub(super) fn decompress(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        // A decoder that is used again reserves the window that the frame claims; a new one grows.
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(WINDOW_LEN.max(bytes_max as u64));
        match frame.init(&mut rest) {
            Ok(()) => append_frame(&mut out, &mut frame, &mut rest, bytes_max)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                rest = rest
                    .get(length as usize..)
                    .ok_or_else(|| Failure::corrupt("a skippable frame is cut short"))?;
            }
            Err(error) => return Err(Failure::corrupt(error)),
        }
    }
    Ok(out)
}

/// Decodes a frame whose header was read, block by block: the decoder holds the window and one
/// block, and `out` what left the window.
fn append_frame(
    out: &mut Vec<u8>,
    frame: &mut FrameDecoder,
    rest: &mut &[u8],
    bytes_max: usize,
) -> Result<(), Failure> {
    let start = out.len();
    while !frame.is_finished() {
        frame
            .decode_blocks(&mut *rest, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(Failure::corrupt)?;
        if frame.can_collect() > bytes_max - out.len() {
            return Err(Failure::TooLarge);
        }
        frame.by_ref().read_to_end(out).map_err(Failure::corrupt)?;
    }
    let length = (out.len() - start) as u64;
    if frame.content_size() != 0 && frame.content_size() != length {
        return Err(Failure::corrupt(
            "the frame has another length than it says",
        ));
    }
    match frame.get_checksum_from_data() {
        Some(stored) if frame.get_calculated_checksum() != Some(stored) => {
            Err(Failure::corrupt("the frame's checksum does not match"))
        }
        _ => Ok(()),
    }
}
