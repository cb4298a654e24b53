//! Batch headers, streams of batches, records and their headers.
#![no_main]

use bytes::Bytes;
use comlog_record::{BatchHeader, BatchStream, Limits};
use comlog_fuzz::BYTES_MAX;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    batch_bytes_max: BYTES_MAX,
    batch_records_max: 100_000,
    decompressed_bytes_max: BYTES_MAX,
    ..Limits::DEFAULT
};

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else {
        return;
    };
    decode(data, cut);
    if let Some(repaired) = repair(data) {
        decode(&repaired, cut);
    }
});

/// The same bytes with a right length, magic and CRC, so that what lies behind them is reached.
fn repair(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let length = i32::try_from(bytes.len().checked_sub(12)?).ok()?;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    *bytes.get_mut(16)? = 2;
    let header = BatchHeader::decode(&bytes).ok()?;
    let crc = header.compute_crc(&[&bytes[61..]]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Some(bytes)
}

fn decode(data: &[u8], cut: u8) {
    let data = Bytes::copy_from_slice(data);
    let cut = data.len() * usize::from(cut) / 255;
    let mut stream = BatchStream::new([data.slice(..cut), data.slice(cut..)]);
    while let Ok(Some(batch)) = stream.next_batch(&LIMITS) {
        let header = *batch.header();
        assert!(batch.total_len() <= data.len());
        assert!(header.last_offset() >= header.base_offset);
        let _ = header.check_from_client(&LIMITS);
        let Ok(records) = batch.records(&LIMITS) else {
            continue;
        };
        let mut count = 0;
        for record in &records {
            let Ok(record) = record else { break };
            assert!(header.offsets().contains(record.offset));
            assert_eq!(record.headers.len(), record.headers.count());
            count += 1;
        }
        let whole = batch.check_records(&LIMITS).is_ok();
        assert!(!whole || count == header.record_count);
    }
}
