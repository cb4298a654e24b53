//! Every maximum of this crate, in one place.

/// Bounds on what is decoded, so that no claim inside the data decides how much memory is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one encoded batch, header included (default 8 MiB).
    pub batch_bytes_max: usize,
    /// Most records in one batch (default 1,000,000).
    pub batch_records_max: u32,
    /// Most bytes of one record as it stands in a batch, uncompressed (default 64 MiB): longer ones
    /// are not handed out, but can be stepped over. See [`crate::RecordReader`].
    pub record_bytes_max: usize,
    /// Most decompressed bytes held at once (default 64 MiB): a whole records part where it is
    /// decompressed as a whole, what the codec must remember where it is read record by record.
    pub decompressed_bytes_max: usize,
    /// Most bytes that the records part of one batch may have after decompression where it is read
    /// record by record (default 1 GiB): it bounds the work, not the memory.
    pub unpacked_bytes_max: u64,
}

impl Limits {
    /// The defaults named at each field.
    pub const DEFAULT: Limits = Limits {
        batch_bytes_max: 8 << 20,
        batch_records_max: 1_000_000,
        record_bytes_max: 64 << 20,
        decompressed_bytes_max: 64 << 20,
        unpacked_bytes_max: 1 << 30,
    };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}
