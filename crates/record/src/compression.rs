//! The codecs of the records part, bounded on the way out.

use std::fmt;

use crate::{DecodeError, EncodeError};

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
        let _ = records;
        Err(EncodeError::Compress {
            codec: self,
            reason: "not built yet".to_owned(),
        })
    }

    /// Decompresses a records part, at most `bytes_max` bytes of it.
    ///
    /// # Errors
    /// [`DecodeError::Decompress`], or [`DecodeError::TooLarge`] when there are more.
    pub fn decompress(self, body: &[u8], bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
        let _ = (body, bytes_max);
        Err(DecodeError::Decompress {
            codec: self,
            reason: "not built yet".to_owned(),
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
