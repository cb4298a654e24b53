//! Writes the batches of the golden files as this crate encodes them, for another implementation
//! to read: `cargo run -p comlog-record --example emit_batches -- DIR` (see ci/record-interop).
//!
//! One file a batch and codec, each with the batch twice: at offset 0, and at 1,000,000 under
//! leader epoch 3.
// An example opens files; the crate does not.
#![allow(clippy::disallowed_methods)]

#[path = "../tests/common/golden.rs"]
mod golden;

use std::error::Error;
use std::path::PathBuf;

use comlog_record::{Compression, LeaderEpoch, Offset};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: emit_batches DIR")?);
    for (name, records, producer) in golden::batches() {
        for compression in Compression::ALL {
            let mut batch = golden::builder(&records)?.build(compression, producer)?;
            let first = batch.to_bytes();
            batch.assign(Offset(1_000_000), LeaderEpoch(3));
            let both = [first, batch.to_bytes()].concat();
            std::fs::write(folder.join(format!("{name}.{compression}")), both)?;
        }
    }
    Ok(())
}
