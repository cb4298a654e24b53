//! The codecs of the records part, bounded on the way out.
//!
//! What a codec reads is what Kafka's Java client reads, and it writes what that client can read:
//! `format.md` says which framing each of them has. Memory follows the bytes that come out, up to
//! the caller's bound, and never a length that the data claims.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use crate::{DecodeError, EncodeError};

mod gzip;
mod lz4;
pub(crate) mod piecewise;
mod snappy;
#[cfg(not(target_arch = "wasm32"))]
mod zstd_native;
#[cfg(any(target_arch = "wasm32", feature = "pure-zstd", test))]
mod zstd_pure;

#[cfg(not(target_arch = "wasm32"))]
use zstd_native as zstd;
#[cfg(target_arch = "wasm32")]
use zstd_pure as zstd;

/// How the records part of a batch is compressed (attributes, bits 0 to 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy in the framing of xerial's snappy-java; raw Snappy is read as well.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// A name that no codec has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: use none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompression(pub String);

impl Compression {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// The name used in configuration: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    pub(crate) fn from_attributes(attributes: i16) -> Result<Compression, DecodeError> {
        Compression::ALL
            .get((attributes & 0x07) as usize)
            .copied()
            .ok_or(DecodeError::Invalid("unknown compression codec"))
    }

    pub(crate) fn attributes(self) -> i16 {
        self as i16
    }

    /// Compresses a records part.
    ///
    /// # Errors
    /// [`EncodeError::Compress`].
    pub fn compress(self, records: &[u8]) -> Result<Vec<u8>, EncodeError> {
        match self {
            Compression::None => Ok(records.to_vec()),
            Compression::Gzip => gzip::compress(records),
            Compression::Snappy => snappy::compress(records),
            Compression::Lz4 => lz4::compress(records),
            Compression::Zstd => zstd::compress(records),
        }
        .map_err(|reason| EncodeError::Compress {
            codec: self,
            reason,
        })
    }

    /// Decompresses a records part, at most `bytes_max` bytes of it.
    ///
    /// Gzip members and Zstandard frames may follow each other, as Kafka allows; an LZ4 body is
    /// one frame. Bytes behind the end are an error.
    ///
    /// # Errors
    /// [`DecodeError::Decompress`], or [`DecodeError::TooLarge`] when there are more.
    pub fn decompress(self, body: &[u8], bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
        match self {
            Compression::None if body.len() > bytes_max => Err(Failure::TooLarge),
            Compression::None => Ok(body.to_vec()),
            Compression::Gzip => gzip::decompress(body, bytes_max),
            Compression::Snappy => snappy::decompress(body, bytes_max),
            Compression::Lz4 => lz4::decompress(body, bytes_max),
            Compression::Zstd => zstd::decompress(body, bytes_max),
        }
        .map_err(|failure| failure.into_error(self, bytes_max))
    }

    /// [`decompress`](Compression::decompress) as it works on wasm32, where Zstandard is decoded
    /// in Rust and no longer window than the larger of `bytes_max` and 8 MiB is accepted.
    ///
    /// # Errors
    /// As [`decompress`](Compression::decompress).
    #[cfg(feature = "pure-zstd")]
    pub fn decompress_portable(
        self,
        body: &[u8],
        bytes_max: usize,
    ) -> Result<Vec<u8>, DecodeError> {
        if self != Compression::Zstd {
            return self.decompress(body, bytes_max);
        }
        zstd_pure::decompress(body, bytes_max)
            .map_err(|failure| failure.into_error(self, bytes_max))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    /// Reads a [`name`](Compression::name).
    fn from_str(name: &str) -> Result<Compression, UnknownCompression> {
        Compression::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// Why a codec could not decompress.
pub(crate) enum Failure {
    /// There is more than the caller allows.
    TooLarge,
    /// What the codec said.
    Corrupt(String),
}

impl Failure {
    fn corrupt(reason: impl fmt::Display) -> Failure {
        Failure::Corrupt(reason.to_string())
    }

    pub(crate) fn into_error(self, codec: Compression, bytes_max: usize) -> DecodeError {
        match self {
            Failure::TooLarge => DecodeError::TooLarge {
                what: "decompressed bytes",
                // How many there really are is not known: decompression stopped here.
                actual: (bytes_max as u64).saturating_add(1),
                max: bytes_max as u64,
            },
            Failure::Corrupt(reason) => DecodeError::Decompress { codec, reason },
        }
    }
}

/// Reads `decoder` to its end into a buffer that grows with what comes out.
fn read_bounded(decoder: impl Read, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    decoder
        .take((bytes_max as u64).saturating_add(1))
        .read_to_end(&mut out)
        .map_err(Failure::corrupt)?;
    if out.len() > bytes_max {
        return Err(Failure::TooLarge);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
