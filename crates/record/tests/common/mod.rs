//! What the tests of this crate share: owned records, and batches put together by hand.
// Each test binary compiles this module and uses its own part of it.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use bytes::Bytes;
use comlog_record::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, Compression, LeaderEpoch, Limits, Offset,
    ProducerIds, Record, RecordBatch, Timestamp,
};
use proptest::prelude::*;

pub type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnedRecord {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<OwnedHeader>,
}

impl From<Record<'_>> for OwnedRecord {
    fn from(record: Record<'_>) -> OwnedRecord {
        assert_eq!(record.headers.len(), record.headers.count());
        OwnedRecord {
            offset: record.offset.0,
            timestamp: record.timestamp.0,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
    ]
}

/// Absent, empty and filled keys, values and headers; timestamps near each other and extreme.
pub fn record() -> impl Strategy<Value = OwnedRecord> {
    let timestamp = prop_oneof![
        6 => 1_700_000_000_000i64..1_700_000_100_000,
        1 => any::<i64>(),
        1 => Just(-1),
    ];
    let headers = proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..4);
    let option = || proptest::option::of(bytes());
    (timestamp, option(), option(), headers).prop_map(|(timestamp, key, value, headers)| {
        OwnedRecord {
            offset: 0,
            timestamp,
            key,
            value,
            headers,
        }
    })
}

pub fn records() -> impl Strategy<Value = Vec<OwnedRecord>> {
    proptest::collection::vec(record(), 1..20).prop_map(|mut records| {
        for (offset, record) in records.iter_mut().enumerate() {
            record.offset = offset as i64;
        }
        records
    })
}

pub fn compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL.to_vec())
}

pub fn builder(records: &[OwnedRecord]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Limits::DEFAULT);
    for record in records {
        let headers = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_deref()));
        builder
            .push(
                Timestamp(record.timestamp),
                record.key.as_deref(),
                record.value.as_deref(),
                headers,
            )
            .unwrap();
    }
    builder
}

pub fn batch(records: &[OwnedRecord], compression: Compression) -> RecordBatch {
    builder(records).build(compression, None).unwrap()
}

/// Three records that use everything a record has.
pub fn sample() -> Vec<OwnedRecord> {
    let record = |offset, key: Option<&str>, value: Option<&str>| OwnedRecord {
        offset,
        timestamp: 1_700_000_000_000 + offset * 7,
        key: key.map(|key| key.as_bytes().to_vec()),
        value: value.map(|value| value.as_bytes().to_vec()),
        headers: Vec::new(),
    };
    let mut records = vec![
        record(0, Some("key"), Some("value, which value, that value")),
        record(1, None, Some("")),
        record(2, Some(""), None),
    ];
    records[0].headers = vec![(b"a".to_vec(), Some(b"b".to_vec())), (b"".to_vec(), None)];
    records
}

pub fn decode_records(batch: &RecordBatch) -> Vec<OwnedRecord> {
    let records = batch.records(&Limits::DEFAULT).unwrap();
    records
        .iter()
        .map(|record| record.unwrap().into())
        .collect()
}

/// A header that is right for `count` records without gaps in `body`, but for the CRC.
pub fn header(count: i32, body: &[u8]) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(0),
        batch_length: (BATCH_HEADER_LEN - 12 + body.len()) as i32,
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: Timestamp(1_000),
        max_timestamp: Timestamp(1_000),
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: count,
    }
}

/// The bytes of a batch whose CRC is right, whatever else is in it.
pub fn seal(mut header: BatchHeader, body: &[u8]) -> Bytes {
    header.crc = header.compute_crc(&[body]);
    [&header.encode()[..], body].concat().into()
}

pub const PRODUCER: ProducerIds = ProducerIds {
    producer_id: 1 << 40,
    producer_epoch: 3,
    base_sequence: i32::MAX,
};
