//! The log in a browser tab: an in-memory log, record batches and segment files for JavaScript.
//!
//! This is the inner half of the npm package's entry `comlog/log`; its outer half, in TypeScript, is
//! what people use. The two speak in frames (`frame.rs`), so that a call crosses the border once however many
//! records it carries.
//!
//! Nothing here waits: the log lives in memory, and a segment whose bytes JavaScript must fetch is
//! driven step by step ([`Segment::poll`]). Each open log or segment is meant to live in a
//! WebAssembly instance of its own: a trap then breaks only that one, and its memory, which an
//! instance never shrinks, goes back when it is dropped.

mod batches;
mod failure;
mod frame;
mod memory_log;
mod now;
mod opened;
mod panic;
pub mod plain;
mod ranged;
mod segment;
mod segment_op;

pub use batches::{decode_batches, decode_records, encode_batch};
pub use memory_log::MemoryLog;
pub use panic::last_panic;
pub use segment::Segment;
