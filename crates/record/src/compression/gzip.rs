//! Gzip, one member or several behind each other.

use std::io::Write;

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::{Failure, read_bounded};

pub(super) fn compress(records: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder
        .write_all(records)
        .and_then(|()| encoder.finish())
        .map_err(|error| error.to_string())
}

pub(super) fn decompress(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    read_bounded(MultiGzDecoder::new(body), bytes_max)
}
