//! The records of the golden files; tests/golden/interop.py has the same in Python.
#![allow(dead_code, missing_docs, unreachable_pub)]

use comlog_record::{BatchBuilder, EncodeError, Limits, ProducerIds, Timestamp};

const START: i64 = 1_700_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoldenRecord {
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn record(timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> GoldenRecord {
    GoldenRecord {
        timestamp,
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: Vec::new(),
    }
}

/// Absent and empty, repeated headers, bytes that are no text, time going back.
pub fn few() -> Vec<GoldenRecord> {
    let hello = b"hello ".repeat(40);
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut records = vec![
        record(START, Some(b"user-1"), Some(&hello)),
        record(START + 5, None, Some(b"")),
        record(START - 20, Some(b""), None),
        record(
            4_102_444_800_000,
            Some("ключ".as_bytes()),
            Some(&every_byte),
        ),
        record(START, Some(b"user-1"), Some(&hello)),
    ];
    records[0].headers = vec![
        (b"trace".to_vec(), Some(b"abc".to_vec())),
        (b"trace".to_vec(), Some(Vec::new())),
        (Vec::new(), None),
        ("ключ".as_bytes().to_vec(), Some(vec![0, 255])),
    ];
    records
}

/// More than one block of every codec.
pub fn many() -> Vec<GoldenRecord> {
    let one = |i: i64| {
        let key = format!("key-{}", i % 17);
        let value = format!("record {i} of many, squared {}", i * i);
        let mut record = record(START + 3 * i, Some(key.as_bytes()), Some(value.as_bytes()));
        if i % 100 == 0 {
            record.headers = vec![(b"hundred".to_vec(), Some(i.to_string().into_bytes()))];
        }
        record
    };
    (0..1_500).map(one).collect()
}

/// Name, records and producer of each golden batch.
pub fn batches() -> [(&'static str, Vec<GoldenRecord>, Option<ProducerIds>); 2] {
    let producer = ProducerIds {
        producer_id: 4_000,
        producer_epoch: 7,
        base_sequence: i32::MAX - 2,
    };
    [("few", few(), Some(producer)), ("many", many(), None)]
}

pub fn builder(records: &[GoldenRecord]) -> Result<BatchBuilder, EncodeError> {
    let mut builder = BatchBuilder::new(Limits::DEFAULT);
    for record in records {
        let headers = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.push(Timestamp(record.timestamp), key, value, headers)?;
    }
    Ok(builder)
}
