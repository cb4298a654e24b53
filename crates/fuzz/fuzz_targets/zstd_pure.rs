//! The decoder of wasm32, held against frames of the C library.
#![no_main]

use comlog_record::Compression::Zstd;
use comlog_fuzz::BYTES_MAX;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Damaged frames without a checksum may decode to different bytes in the two decoders (the
    // batch's CRC is what notices damage), so these are compared on whole frames only.
    if let Ok(out) = Zstd.decompress_portable(data, BYTES_MAX) {
        assert!(out.len() <= BYTES_MAX);
    }
    let level = data.first().map_or(3, |byte| i32::from(byte % 19) + 1);
    let body = zstd::bulk::compress(data, level).expect("anything can be compressed");
    let back = Zstd.decompress_portable(&body, data.len());
    assert_eq!(back.as_deref(), Ok(data));
});
