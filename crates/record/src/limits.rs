//! Every maximum of this crate, in one place.

/// Bounds on what is decoded, so that no claim inside the data decides how much memory is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one encoded batch, header included (default 8 MiB).
    pub batch_bytes_max: usize,
    /// Most records in one batch (default 1,000,000).
    pub batch_records_max: u32,
    /// Most bytes that the records part may have after decompression (default 64 MiB).
    pub decompressed_bytes_max: usize,
}

impl Limits {
    /// The defaults named at each field.
    pub const DEFAULT: Limits = Limits {
        batch_bytes_max: 8 << 20,
        batch_records_max: 1_000_000,
        decompressed_bytes_max: 64 << 20,
    };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}
