//! The codecs once more, piece by piece: what comes out is never held as a whole.

use std::io::Read;

use bytes::{Buf, Bytes, buf::Reader};
use flate2::bufread::MultiGzDecoder;

use super::{Compression, Failure, lz4, snappy, zstd};

/// Gives out what a records part decompresses to, as much at a time as the caller has room for.
pub(crate) trait Piecewise: Send {
    /// Fills the front of `out` and says how many bytes; 0 at the end, when the data was whole:
    /// it is then not to be called again.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Failure>;
}

impl Compression {
    /// A decoder of `body` that holds at most `window_bytes_max` bytes of what it gave out, beside
    /// what its format asks of every decoder.
    pub(crate) fn piecewise(
        self,
        body: Bytes,
        window_bytes_max: usize,
    ) -> Result<Box<dyn Piecewise>, Failure> {
        Ok(match self {
            Compression::None => Box::new(Plain(body)),
            Compression::Gzip => Box::new(Gzip(MultiGzDecoder::new(body.reader()))),
            Compression::Snappy => Box::new(snappy::Blocks::new(body, window_bytes_max)),
            Compression::Lz4 => Box::new(lz4::Blocks::new(body)?),
            Compression::Zstd => Box::new(zstd::Frames::new(body, window_bytes_max)?),
        })
    }

    /// [`piecewise`](Compression::piecewise) as it works on wasm32.
    #[cfg(test)]
    pub(crate) fn piecewise_portable(
        self,
        body: Bytes,
        window_bytes_max: usize,
    ) -> Result<Box<dyn Piecewise>, Failure> {
        match self {
            Compression::Zstd => {
                let frames = super::zstd_pure::Frames::new(body, window_bytes_max)?;
                Ok(Box::new(frames))
            }
            codec => codec.piecewise(body, window_bytes_max),
        }
    }
}

struct Plain(Bytes);

impl Piecewise for Plain {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Failure> {
        let count = out.len().min(self.0.len());
        self.0.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}

struct Gzip(MultiGzDecoder<Reader<Bytes>>);

impl Piecewise for Gzip {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Failure> {
        self.0.read(out).map_err(Failure::corrupt)
    }
}

/// Moves as many bytes as fit from `from`, of which `at` were moved already.
pub(super) fn move_out(from: &[u8], at: &mut usize, out: &mut [u8]) -> usize {
    let rest = &from[*at..];
    let count = rest.len().min(out.len());
    out[..count].copy_from_slice(&rest[..count]);
    *at += count;
    count
}
