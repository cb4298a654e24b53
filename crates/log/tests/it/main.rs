//! The log by its behaviour, over any storage.
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error has failed"
)]

mod append_read;
mod chains;
mod damage;
mod faults;
mod idempotence;
mod inspect;
mod model;
mod recovery;
mod segment_scan;
mod sharing;
mod support;
mod tail;
#[cfg(not(target_arch = "wasm32"))]
mod threads;
