//! Sealed segments on an object store: ranged GETs through one bounded cache.

mod ahead;
mod cache;
mod reader;
mod sums;

pub use cache::{BlockCache, CacheOptions, CacheStats};
pub use reader::ObjectReader;
pub use sums::{BLOCK_BYTES, BlockSums, SumsBuilder};
