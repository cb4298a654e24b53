//! The worked example of format.md is what this crate writes and reads.
#![allow(missing_docs, clippy::unwrap_used)]

use bytes::Bytes;
use comlog_record::{BatchBuilder, Compression, HeaderRef, Limits, RecordBatch, Timestamp};

/// The bytes of the page's `hex` block: what stands left of the explanations.
fn example() -> Vec<u8> {
    let page = include_str!("../format.md");
    let (_, block) = page.split_once("```hex\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let columns = block.lines().filter_map(|line| line.split("  ").next());
    columns
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn the_example_is_what_is_written() {
    let mut builder = BatchBuilder::new(Limits::DEFAULT);
    let headers: [HeaderRef<'_>; 1] = [(b"a", Some(b"b"))];
    let first = Timestamp(1_700_000_000_000);
    let second = Timestamp(1_700_000_000_005);
    builder
        .push(first, Some(b"key"), Some(b"hello"), headers.into_iter())
        .unwrap();
    builder
        .push(second, None, Some(b""), std::iter::empty())
        .unwrap();
    let bytes = builder.encode(Compression::None, None).unwrap();
    assert_eq!(bytes, example());
}

#[test]
fn the_example_is_read() {
    let mut bytes = Bytes::from(example());
    let batch = RecordBatch::decode(&mut bytes, &Limits::DEFAULT).unwrap();
    assert_eq!((batch.total_len(), bytes.len()), (87, 0));
    let records = batch.records(&Limits::DEFAULT).unwrap();
    let records: Vec<_> = records.iter().map(Result::unwrap).collect();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].key, Some(&b"key"[..]));
    assert_eq!(
        records[0].headers.collect::<Vec<_>>(),
        [(&b"a"[..], Some(&b"b"[..]))]
    );
    assert_eq!(records[1].timestamp, Timestamp(1_700_000_000_005));
    assert_eq!((records[1].key, records[1].value), (None, Some(&b""[..])));
}
