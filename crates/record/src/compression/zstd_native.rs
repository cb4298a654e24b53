//! Zstandard by the C library.

use zstd::zstd_safe::{self, DCtx, zstd_sys::ZSTD_ErrorCode};

use super::Failure;

/// What Kafka's clients use.
const LEVEL: i32 = 3;
/// How much room the first try has, for each compressed byte, and how much more the next one.
const GROWTH: usize = 8;
const FIRST_TRY_MIN: usize = 4 * 1024;

pub(super) fn compress(records: &[u8]) -> Result<Vec<u8>, String> {
    zstd::bulk::compress(records, LEVEL).map_err(|error| error.to_string())
}

/// Decodes in one go, so the decoder needs no window of its own, whatever the frame asks for.
/// The size in the frame header is not believed: when the room turns out too small, it grows and
/// the work starts over, which costs at most a seventh more.
pub(super) fn decompress(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut room = body
        .len()
        .saturating_mul(GROWTH)
        .max(FIRST_TRY_MIN)
        .min(bytes_max);
    let mut decoder = DCtx::create();
    loop {
        let mut out = Vec::with_capacity(room);
        match decoder.decompress(&mut out, body) {
            Ok(_) if out.len() > bytes_max => return Err(Failure::TooLarge),
            Ok(_) => return Ok(out),
            Err(code) if !is_too_small(code) => {
                return Err(Failure::corrupt(zstd_safe::get_error_name(code)));
            }
            Err(_) if room >= bytes_max => return Err(Failure::TooLarge),
            Err(_) => room = room.saturating_mul(GROWTH).min(bytes_max),
        }
    }
}

/// Whether the decoder ran out of room. The library returns its error numbers negated.
fn is_too_small(code: zstd_safe::ErrorCode) -> bool {
    code == (ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize).wrapping_neg()
}
