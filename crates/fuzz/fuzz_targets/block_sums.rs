//! The checksums of an archived segment's blocks.
#![no_main]

use comlog_storage::BlockSums;
use libfuzzer_sys::fuzz_target;

/// Where the checksum begins to count, behind magic and itself.
const CHECKED_FROM: usize = 12;

fuzz_target!(|data: &[u8]| {
    check(data);
    if data.len() < CHECKED_FROM {
        return;
    }
    // The same bytes with a right checksum, so that what it covers is reached.
    let mut repaired = data.to_vec();
    repaired[..8].copy_from_slice(b"comlogSM");
    let crc = crc32c::crc32c(&repaired[CHECKED_FROM..]);
    repaired[8..CHECKED_FROM].copy_from_slice(&crc.to_be_bytes());
    check(&repaired);
});

fn check(data: &[u8]) {
    if let Some(sums) = BlockSums::decode(data) {
        assert_eq!(sums.encode(), data);
        assert!(!sums.check(u32::MAX, data));
    }
}
