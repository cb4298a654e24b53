//! Kafka record batches, format v2 (magic 2), byte for byte.
//!
//! A [`RecordBatch`] is what producers send, segments hold, and consumers decode: a fixed
//! [`BatchHeader`] of 61 bytes and a body of records, compressed or not. Its bytes are
//! described, with a worked example, in `format.md` beside this crate.
//!
//! Nothing here reads a clock, a file or a socket, and the crate compiles for
//! wasm32-unknown-unknown. Bytes from outside never panic: they are a [`DecodeError`].
//!
//! # Build a batch, and read it again
//!
//! ```
//! use comlog_record::{
//!     BatchBuilder, Compression, HeaderRef, LeaderEpoch, Limits, Offset, RecordBatch, Timestamp,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = Limits::default();
//! let mut builder = BatchBuilder::new(limits);
//! let headers: [HeaderRef; 1] = [(b"trace", Some(b"4711"))];
//! builder.push(Timestamp(1_700_000_000_000), Some(b"key"), Some(b"value"), headers.into_iter())?;
//! builder.push(Timestamp(1_700_000_000_005), None, None, std::iter::empty())?;
//! let mut batch = builder.build(Compression::Zstd, None)?;
//!
//! // The log gives it its place; neither the records nor the checksum change.
//! batch.assign(Offset(42), LeaderEpoch(0));
//! let mut bytes = batch.to_bytes();
//!
//! let batch = RecordBatch::decode(&mut bytes, &limits)?;
//! assert!(bytes.is_empty(), "the batch was taken off the front");
//! let records = batch.records(&limits)?;
//! for record in &records {
//!     let record = record?;
//!     println!("{} {:?} {:?}", record.offset, record.key, record.value);
//!     for (name, value) in record.headers {
//!         println!("  {name:?} {value:?}");
//!     }
//! }
//! # let offsets: Vec<_> = records.iter().map(|record| record.map(|r| r.offset)).collect();
//! # assert_eq!(offsets, [Ok(Offset(42)), Ok(Offset(43))]);
//! # Ok(())
//! # }
//! ```
//!
//! # Read what was fetched
//!
//! Batches arrive back to back, in chunks that may end anywhere: [`BatchStream`] puts them
//! together, copying only what a cut divides.
//!
//! ```
//! use bytes::Bytes;
//! use comlog_record::{BatchStream, DecodeError, Limits};
//!
//! fn count(chunks: Vec<Bytes>) -> Result<usize, DecodeError> {
//!     let limits = Limits::default();
//!     let mut stream = BatchStream::new(chunks);
//!     let mut count = 0;
//!     while let Some(batch) = stream.next_batch(&limits)? {
//!         if batch.header().is_control() {
//!             continue; // a marker of the log's own, which consumers skip
//!         }
//!         for record in &batch.records(&limits)? {
//!             record?;
//!             count += 1;
//!         }
//!     }
//!     Ok(count)
//! }
//! # assert_eq!(count(Vec::new()), Ok(0));
//! ```
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `pure-zstd` | no | `Compression::decompress_portable`: the Zstandard decoder of wasm32, natively |
//!
//! All five codecs are always there. Zstandard is the C library natively (a C compiler is
//! needed) and Rust on wasm32, where it is only read; the others are Rust everywhere.
//!
//! Nothing here is async, and nothing needs tokio. Rust 1.95 or later.
#![deny(clippy::disallowed_methods)]

mod batch;
mod builder;
mod compression;
mod header;
mod limits;
mod offset;
mod reader;
mod record;
mod varint;

pub use batch::{BatchStream, RecordBatch, RecordIter, Records};
pub use builder::{BatchBuilder, HeaderRef, ProducerIds};
pub use compression::{Compression, UnknownCompression};
pub use header::{BATCH_HEADER_LEN, BatchHeader, LENGTH_PREFIX_LEN, TimestampType};
pub use limits::Limits;
pub use offset::{LeaderEpoch, Offset, OffsetRange, Timestamp};
pub use reader::{Piece, RecordReader};
pub use record::{Headers, Record};

/// What is wrong with bytes that claim to be a record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the batch does; `needed` is the length of the whole, as far as it is known.
    #[error("record batch is cut short: {available} bytes of {needed}")]
    Truncated {
        /// Bytes that the batch (or the part of it that was looked at) takes.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// The magic byte is not 2.
    #[error("record batch format {0} is not supported, only 2")]
    Magic(i8),
    /// CRC-32C over attributes to the end of the batch differs from the stored one.
    #[error("record batch checksum mismatch: stored {stored:#010x}, computed {computed:#010x}")]
    Checksum {
        /// The CRC in the header.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// A field holds a value that no batch can have, or two fields contradict each other.
    #[error("invalid record batch: {0}")]
    Invalid(&'static str),
    /// A bound of [`Limits`] is exceeded.
    #[error("record batch exceeds a limit: {what} is {actual}, at most {max} allowed")]
    TooLarge {
        /// Which bound.
        what: &'static str,
        /// The value found or claimed.
        actual: u64,
        /// The bound.
        max: u64,
    },
    /// The compressed records do not decompress.
    #[error("cannot decompress {codec} records: {reason}")]
    Decompress {
        /// The codec named in the attributes.
        codec: Compression,
        /// What the codec said.
        reason: String,
    },
}

/// Why records cannot become a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A batch holds at least one record.
    #[error("a record batch holds at least one record")]
    Empty,
    /// A bound of [`Limits`] is exceeded.
    #[error("{what} is {actual}, at most {max} allowed")]
    TooLarge {
        /// Which bound.
        what: &'static str,
        /// The value.
        actual: u64,
        /// The bound.
        max: u64,
    },
    /// The codec failed.
    #[error("cannot compress records with {codec}: {reason}")]
    Compress {
        /// The codec asked for.
        codec: Compression,
        /// What the codec said.
        reason: String,
    },
}
