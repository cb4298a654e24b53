//! The small files beside the segments: indexes, the checkpoint and what else a log keeps.
#![no_main]

use comlog_log::Inspected;
use comlog_log::frame::FRAME_LEN;
use libfuzzer_sys::fuzz_target;

const MAGICS: [&[u8; 8]; 4] = [b"comlogOX", b"comlogTX", b"comlogCP", b"comlogSG"];

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    let _ = Inspected::decode(data);
    if let Some(repaired) = repair(MAGICS[usize::from(kind) % MAGICS.len()], data) {
        let _ = Inspected::decode(&repaired);
    }
});

/// The same bytes in a whole frame, so that what lies in it is reached.
fn repair(magic: &[u8; 8], data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let payload = u64::try_from(bytes.len().checked_sub(FRAME_LEN)?).ok()?;
    bytes[..8].copy_from_slice(magic);
    bytes[12..16].copy_from_slice(&1u32.to_be_bytes());
    bytes[FRAME_LEN - 8..FRAME_LEN].copy_from_slice(&payload.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_be_bytes());
    Some(bytes)
}
