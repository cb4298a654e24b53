//! Zstandard in Rust, for wasm32. Natively it is built for tests and by the feature `pure-zstd`,
//! so that both decoders can be held against each other.

use std::io::Read;

#[cfg(any(target_arch = "wasm32", test))]
use bytes::{Buf, Bytes};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::Failure;
#[cfg(any(target_arch = "wasm32", test))]
use super::piecewise::Piecewise;

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
    while let Some(mut frame) = next_frame(&mut rest, bytes_max)? {
        append_frame(&mut out, &mut frame, &mut rest, bytes_max)?;
    }
    Ok(out)
}

/// A decoder that has read the header of the next frame; skippable frames are passed over.
fn next_frame(rest: &mut &[u8], window_bytes_max: usize) -> Result<Option<FrameDecoder>, Failure> {
    while !rest.is_empty() {
        // A decoder that is used again reserves the window that the frame claims; a new one grows.
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(WINDOW_LEN.max(window_bytes_max as u64));
        match frame.init(&mut *rest) {
            Ok(()) => return Ok(Some(frame)),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                *rest = rest
                    .get(length as usize..)
                    .ok_or_else(|| Failure::corrupt("a skippable frame is cut short"))?;
            }
            Err(error) => return Err(Failure::corrupt(error)),
        }
    }
    Ok(None)
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
        decode_block(frame, rest)?;
        if frame.can_collect() > bytes_max - out.len() {
            return Err(Failure::TooLarge);
        }
        frame.by_ref().read_to_end(out).map_err(Failure::corrupt)?;
    }
    check_frame(frame, (out.len() - start) as u64)
}

fn decode_block(frame: &mut FrameDecoder, rest: &mut &[u8]) -> Result<(), Failure> {
    let blocks = frame.decode_blocks(&mut *rest, BlockDecodingStrategy::UptoBlocks(1));
    blocks.map(|_| ()).map_err(Failure::corrupt)
}

/// Holds a frame that was decoded to its end, to `length` bytes, to what it says of itself.
fn check_frame(frame: &FrameDecoder, length: u64) -> Result<(), Failure> {
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

/// Frames behind each other, a block at a time.
#[cfg(any(target_arch = "wasm32", test))]
pub(super) struct Frames {
    rest: Bytes,
    window_bytes_max: usize,
    /// The frame under way, and the bytes it gave out.
    frame: Option<(Box<FrameDecoder>, u64)>,
}

#[cfg(any(target_arch = "wasm32", test))]
impl Frames {
    pub(super) fn new(body: Bytes, window_bytes_max: usize) -> Result<Frames, Failure> {
        Ok(Frames {
            rest: body,
            window_bytes_max,
            frame: None,
        })
    }
}

#[cfg(any(target_arch = "wasm32", test))]
impl Piecewise for Frames {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Failure> {
        loop {
            let mut rest = &self.rest[..];
            match &mut self.frame {
                None => match next_frame(&mut rest, self.window_bytes_max)? {
                    Some(frame) => self.frame = Some((Box::new(frame), 0)),
                    None => return Ok(0),
                },
                Some((frame, given)) => {
                    let count = frame.read(out).map_err(Failure::corrupt)?;
                    *given += count as u64;
                    if count > 0 || out.is_empty() {
                        return Ok(count);
                    }
                    if frame.is_finished() {
                        check_frame(frame, *given)?;
                        self.frame = None;
                    } else {
                        decode_block(frame, &mut rest)?;
                    }
                }
            }
            let taken = self.rest.len() - rest.len();
            self.rest.advance(taken);
        }
    }
}
