//! Zstandard by the C library.

use std::cell::RefCell;
use std::io::Read;

use bytes::{Buf, Bytes, buf::Reader};
use zstd::stream::read::Decoder;
use zstd::zstd_safe::{self, CCtx, DCtx, zstd_sys::ZSTD_ErrorCode};

use super::Failure;
use super::piecewise::Piecewise;

/// What Kafka's clients use.
const LEVEL: i32 = 3;
/// How much room the first try has, for each compressed byte, and how much more the next one.
const GROWTH: usize = 8;
const FIRST_TRY_MIN: usize = 4 * 1024;
/// The windows that the library's decoder takes, as powers of two.
const WINDOW_LOG_MIN: u32 = 10;
const WINDOW_LOG_MAX: u32 = 31;

thread_local! {
    // Making one costs more than a small batch does. They stay with the thread: about 1.3 MB for
    // the compressor of level 3, 160 KB for the decompressor, which needs no window.
    static COMPRESSOR: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static DECOMPRESSOR: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

pub(super) fn compress(records: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(records.len()));
    COMPRESSOR
        .with_borrow_mut(|compressor| compressor.compress(&mut out, records, LEVEL))
        .map_err(|code| zstd_safe::get_error_name(code).to_owned())?;
    Ok(out)
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
    loop {
        let mut out = Vec::with_capacity(room);
        let result =
            DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.decompress(&mut out, body));
        match result {
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

/// Frames behind each other, a block at a time. The decoder reserves the window that a frame asks
/// for, but touches only what comes out.
pub(super) struct Frames(Decoder<'static, Reader<Bytes>>);

impl Frames {
    pub(super) fn new(body: Bytes, window_bytes_max: usize) -> Result<Frames, Failure> {
        let mut decoder = Decoder::with_buffer(body.reader()).map_err(Failure::corrupt)?;
        let log = window_bytes_max.checked_ilog2().unwrap_or(0);
        decoder
            .window_log_max(log.clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX))
            .map_err(Failure::corrupt)?;
        Ok(Frames(decoder))
    }
}

impl Piecewise for Frames {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Failure> {
        self.0.read(out).map_err(Failure::corrupt)
    }
}

/// Whether the decoder ran out of room. The library returns its error numbers negated.
fn is_too_small(code: zstd_safe::ErrorCode) -> bool {
    code == (ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize).wrapping_neg()
}
