//! Batches that another implementation wrote decode to the records it was given, and uncompressed
//! ones are, byte for byte, what this crate writes. (That the other one reads ours is the business
//! of ci/record-interop.)
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/golden.rs"]
mod golden;

use std::path::Path;

use bytes::Bytes;
use comlog_record::{BatchStream, Compression, Limits, ProducerIds, RecordBatch};

use golden::{GoldenRecord, batches, builder};

// The golden files are read here, in a test: the crate itself opens no file.
#[allow(clippy::disallowed_methods)]
fn read(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read(path).unwrap().into()
}

fn decode_one(bytes: Bytes) -> RecordBatch {
    let mut stream = BatchStream::new([bytes]);
    let batch = stream.next_batch(&Limits::DEFAULT).unwrap().unwrap();
    assert!(stream.is_empty());
    batch
}

fn check(batch: &RecordBatch, expected: &[GoldenRecord], producer: Option<ProducerIds>) {
    let header = batch.header();
    header.check_from_client(&Limits::DEFAULT).unwrap();
    assert_eq!(header.producer_id, producer.map_or(-1, |it| it.producer_id));
    assert_eq!(
        header.producer_epoch,
        producer.map_or(-1, |it| it.producer_epoch)
    );
    assert_eq!(
        header.base_sequence,
        producer.map_or(-1, |it| it.base_sequence)
    );
    let newest = expected.iter().map(|record| record.timestamp).max();
    assert_eq!(Some(header.max_timestamp.0), newest);

    let records = batch.records(&Limits::DEFAULT).unwrap();
    let mut found = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let record = record.unwrap();
        assert_eq!(record.offset.0, index as i64);
        found.push(GoldenRecord {
            timestamp: record.timestamp.0,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        });
    }
    assert_eq!(found, expected);
}

#[test]
fn batches_of_another_implementation_decode_to_its_records() {
    for (name, records, producer) in batches() {
        for compression in Compression::ALL {
            let batch = decode_one(read(&format!("{name}.{compression}")));
            assert_eq!(batch.header().compression(), compression);
            check(&batch, &records, producer);
        }
    }
}

#[test]
fn snappy_without_framing_decodes_too() {
    let (_, records, producer) = &batches()[0];
    let batch = decode_one(read("few-raw.snappy"));
    assert!(!batch.body().starts_with(b"\x82SNAPPY"));
    check(&batch, records, *producer);
}

#[test]
fn uncompressed_batches_are_the_same_byte_for_byte() {
    for (name, records, producer) in batches() {
        let ours = builder(&records)
            .unwrap()
            .encode(Compression::None, producer)
            .unwrap();
        assert!(ours == read(&format!("{name}.none")), "{name}");
    }
}
