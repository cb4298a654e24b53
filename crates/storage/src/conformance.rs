//! One suite for every backend: what [`crate::Storage`] promises, asked of a real one.
//!
//! [`check_reader`] needs sealed segments only, so that backends that cannot append (an object
//! store) run it too. [`check_writer`] needs appends, blobs and clean restarts. Both panic at the
//! first broken promise; a backend passes when they return.
//!
//! What only faults can show (what a crash keeps, what an error leaves) is checked where faults
//! are made: [`crate::FaultyStorage`] and the simulator.
// A suite fails by panicking; it is compiled for tests only.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod reader;
#[cfg(not(target_arch = "wasm32"))]
mod threads;
mod writer;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::Offset;

pub use reader::check_reader;
pub use writer::check_writer;

use crate::{SegmentReader, Storage, StorageError};

/// A storage under test that can be closed and opened again.
#[async_trait]
pub trait Fixture: Send {
    /// The storage as it is now. The suite drops what it got before it calls `restart`.
    fn storage(&self) -> Arc<dyn Storage>;

    /// Ends the process, as it were, without a crash, and opens the same content again.
    async fn restart(&mut self);
}

/// A sealed segment that [`check_reader`] wants to find: base offset and content.
pub type SealedSegment = (Offset, Vec<Bytes>);

/// Writes `segments` and seals them: what a backend that can append gives to [`check_reader`].
pub async fn fill(storage: &Arc<dyn Storage>, segments: Vec<SealedSegment>) {
    for (base_offset, chunks) in segments {
        let mut writer = storage.create(base_offset, 0).await.unwrap();
        for chunk in chunks {
            writer.append(&[chunk]).await.unwrap();
        }
        writer.seal().await.unwrap();
    }
}

/// `len` bytes that differ by position and by `seed`, none of them zero.
fn pattern(seed: u64, len: usize) -> Bytes {
    let byte = |position: u64| {
        let mixed = (position ^ (seed << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        (mixed % 255) as u8 + 1
    };
    (0..len as u64).map(byte).collect()
}

/// The bytes of `range`, read by both doors, which must agree.
async fn read(reader: &Arc<dyn SegmentReader>, range: Range<u64>) -> Vec<u8> {
    let awaited = reader.read(range.clone()).await.unwrap().concat();
    if let Some(tried) = reader.try_read(range.clone()).unwrap() {
        assert!(
            tried.concat() == awaited,
            "try_read and read differ at {range:?}"
        );
    }
    awaited
}

/// That `range` is refused by both doors.
async fn check_refused(reader: &Arc<dyn SegmentReader>, range: Range<u64>) {
    let tried = reader.try_read(range.clone());
    assert!(
        matches!(tried, Err(StorageError::InvalidInput { .. })),
        "try_read of {range:?}: {tried:?}"
    );
    let awaited = reader.read(range.clone()).await;
    assert!(
        matches!(awaited, Err(StorageError::InvalidInput { .. })),
        "read of {range:?}: {awaited:?}"
    );
}

/// What `list` says, as pairs of base offset and length.
async fn listed(storage: &Arc<dyn Storage>) -> Vec<(i64, u64)> {
    let list = storage.list().await.unwrap();
    list.iter()
        .map(|segment| (segment.base_offset.0, segment.len))
        .collect()
}
