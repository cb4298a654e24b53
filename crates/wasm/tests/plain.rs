//! What the module gives of batches and segments, whatever is in them.

#![allow(missing_docs, clippy::unwrap_used)]

use bytes::Bytes;
use comlog_record::{BatchBuilder, Compression, Limits, Offset, RecordBatch, Timestamp};
use comlog_wasm::plain::{decode_batches, decode_records, encode_batch, scan_segment};
use proptest::prelude::*;

const MIB: usize = 1 << 20;
const PAGE: usize = MIB;
/// The bits of an item's attributes.
const MORE: i64 = 1 << 6;
const TOO_LARGE: i64 = 1 << 7;

/// A frame, read as JavaScript does.
struct Frame<'a>(&'a [u8]);

impl Frame<'_> {
    fn number(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.0[8 * at..8 * at + 8].try_into().unwrap())
    }

    fn items(&self) -> Vec<Vec<i64>> {
        let item = |at: usize| (0..18).map(|n| self.number(8 + 18 * at + n)).collect();
        (0..self.number(1) as usize).map(item).collect()
    }

    fn offsets(&self) -> Vec<i64> {
        let (records, items) = (self.number(0) as usize, self.number(1) as usize);
        let first = 8 + 18 * items + records;
        (0..records).map(|at| self.number(first + at)).collect()
    }
}

/// One batch at offset 10 whose values have these lengths.
fn batch(lens: &[usize], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(Limits {
        batch_bytes_max: 100 * MIB,
        ..Limits::DEFAULT
    });
    for len in lens {
        let value = vec![7; *len];
        let headers = std::iter::empty();
        builder
            .push(Timestamp(5), None, Some(&value), headers)
            .unwrap();
    }
    let mut batch: RecordBatch = builder.build(compression, None).unwrap();
    let epoch = batch.header().leader_epoch;
    batch.assign(Offset(10), epoch);
    batch.to_bytes()
}

fn items(frames: &[Vec<u8>]) -> Vec<Vec<i64>> {
    frames
        .iter()
        .flat_map(|frame| Frame(frame).items())
        .collect()
}

#[test]
fn a_batch_larger_than_the_default_of_topics_is_given() {
    let bytes = batch(&[5 * MIB; 2], Compression::None);
    let frame = decode_records(&bytes, 10, 32 * MIB).unwrap();
    assert_eq!(Frame(&frame).offsets(), [10, 11]);
    let frame = decode_batches(&bytes).unwrap();
    assert_eq!(Frame(&frame).offsets(), [10, 11]);
}

#[test]
fn a_batch_that_unpacks_beyond_the_bound_is_given_piece_by_piece() {
    // 70 MiB in some KB: more than is unpacked at once anywhere.
    let bytes = batch(&[MIB; 70], Compression::Gzip);
    let mut from = 10;
    let mut found = Vec::new();
    while from >= 0 {
        let frame = decode_records(&bytes, from, 32 * MIB).unwrap();
        assert!(frame.len() < 34 * MIB);
        found.extend(Frame(&frame).offsets());
        from = Frame(&frame).number(4);
    }
    assert_eq!(found, Vec::from_iter(10..80));

    let frames = scan_segment(&bytes, 0, None, PAGE).unwrap();
    assert!(frames.len() > 30 && frames.iter().all(|frame| frame.len() < 3 * MIB));
    let offsets = frames.iter().flat_map(|frame| Frame(frame).offsets());
    assert_eq!(Vec::from_iter(offsets), Vec::from_iter(10..80));
    let items = items(&frames);
    let (last, before) = items.split_last().unwrap();
    assert!(before.iter().all(|item| item[7] & MORE != 0));
    assert_eq!(last[7] & MORE, 0);
    assert!(items.iter().all(|item| item[15] == 0), "nothing is wrong");
}

#[test]
fn one_record_beyond_the_bound_is_named_and_stepped_over() {
    let bytes = batch(&[3, 65 * MIB, 4], Compression::Gzip);
    let first = decode_records(&bytes, 0, PAGE).unwrap();
    assert_eq!(Frame(&first).offsets(), [10]);
    assert_eq!(Frame(&first).number(4), 11);
    let refused = decode_records(&bytes, 11, PAGE).unwrap_err();
    let wanted = "BATCH_TOO_LARGE: the record at offset 11 has 681574";
    assert!(refused.starts_with(wanted), "{refused}");
    let last = decode_records(&bytes, 12, PAGE).unwrap();
    assert_eq!(Frame(&last).offsets(), [12]);
    assert_eq!(Frame(&last).number(4), -1);
    let refused = decode_batches(&bytes).unwrap_err();
    assert!(refused.contains("offset 11"), "{refused}");

    let items = items(&scan_segment(&bytes, 0, None, PAGE).unwrap());
    let told = |item: &Vec<i64>| (item[5], item[7] & (MORE | TOO_LARGE), item[16], item[17]);
    let expected = [(1, MORE | TOO_LARGE, 11, 12), (1, 0, 0, 0)];
    assert_eq!(Vec::from_iter(items.iter().map(told)), expected);
}

#[test]
fn what_does_not_unpack_is_told_with_the_records_before_it() {
    let mut bytes = batch(&[10_000; 50], Compression::Lz4).to_vec();
    let len = bytes.len();
    bytes[len - 60..].fill(0);
    mend_sums(&mut bytes);
    let items = items(&scan_segment(&bytes, 0, None, PAGE).unwrap());
    let [item] = &items[..] else {
        panic!("{items:?}")
    };
    assert!(item[15] > 0 && item[7] & (MORE | TOO_LARGE) == 0);
    assert_eq!((item[16], item[17]), (10 + item[5], 60));
}

fn segment() -> Vec<u8> {
    [
        batch(&[5, 0, 900], Compression::None),
        batch(&[300; 30], Compression::Zstd),
        batch(&[3; 9], Compression::Lz4),
        batch(&[70; 20], Compression::Snappy),
    ]
    .concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_in_a_segment_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        right_sums in any::<bool>(),
        from in any::<i64>(),
        base in any::<Option<i64>>(),
        page in 0..5_000_usize,
    ) {
        let mut bytes = segment();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if right_sums {
            mend_sums(&mut bytes);
        }
        let _ = decode_batches(&bytes);
        let _ = decode_records(&bytes, from, page);
        for (from, base) in [(from, base), (0, None)] {
            for frame in &scan_segment(&bytes, from, base, page + 1).unwrap() {
                let frame = Frame(frame);
                let records: i64 = frame.items().iter().map(|item| item[5]).sum();
                prop_assert_eq!(records, frame.number(0));
            }
        }
    }

    #[test]
    fn nothing_in_a_frame_makes_it_panic(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(255), any::<u8>()], 0..80),
    ) {
        for codec in ["none", "gzip", "snappy", "lz4", "zstd", "rar"] {
            let _ = encode_batch(&bytes, codec);
        }
    }
}

/// Lets the checksums of the batches be right again, where their lengths still are.
fn mend_sums(bytes: &mut [u8]) {
    let mut at = 0;
    while bytes.len() >= at + 61 {
        let len = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize + 12;
        let Some(batch) = bytes.get_mut(at..at + len).filter(|one| one.len() >= 61) else {
            return;
        };
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        at += len;
    }
}
