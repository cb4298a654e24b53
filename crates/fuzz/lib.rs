//! What the fuzz targets share.

use comlog_record::Compression;

/// Most bytes that a target lets come out of a decompressor.
pub const BYTES_MAX: usize = 1 << 20;

/// Decompresses `data` as it is, and brings back what was compressed from it.
pub fn check_codec(codec: Compression, data: &[u8]) {
    if let Ok(out) = codec.decompress(data, BYTES_MAX) {
        assert!(out.len() <= BYTES_MAX);
    }
    let body = codec.compress(data).expect("anything can be compressed");
    let back = codec.decompress(&body, data.len());
    assert_eq!(back.as_deref(), Ok(data));
}
