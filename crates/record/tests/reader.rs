//! The records of a batch, one by one, whatever they decompress to.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use comlog_record::{
    BatchBuilder, Compression, DecodeError, Limits, Offset, Piece, RecordBatch, Timestamp,
};
use proptest::prelude::*;

use common::{batch, compression, decode_records, header, records, sample, seal};

const LIMITS: Limits = Limits::DEFAULT;
const LARGE: usize = 4 << 20;

/// What a reader gives: the offset and value length of each record, `None` for one too large.
fn read(batch: &RecordBatch, limits: &Limits) -> Result<Vec<(i64, Option<usize>)>, DecodeError> {
    let mut reader = batch.reader(limits)?;
    let mut found = Vec::new();
    while let Some(piece) = reader.next()? {
        found.push(match piece {
            Piece::Record(record) => (record.offset.0, record.value.map(<[u8]>::len)),
            Piece::TooLarge { offset, bytes } => {
                assert!(bytes > limits.record_bytes_max as u64);
                (offset.0, None)
            }
        });
    }
    assert_eq!(reader.next(), Ok(None));
    Ok(found)
}

/// A batch of values of these lengths, filled so that they compress by different ratios.
fn of_lengths(lengths: &[usize], codec: Compression) -> RecordBatch {
    let limits = Limits {
        batch_bytes_max: 1 << 30,
        ..LIMITS
    };
    let mut builder = BatchBuilder::new(limits);
    for (index, &length) in lengths.iter().enumerate() {
        let value = vec![index as u8; length];
        let timestamp = Timestamp(1_000 + index as i64);
        builder
            .push(timestamp, None, Some(&value), std::iter::empty())
            .unwrap();
    }
    builder.build(codec, None).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn it_reads_what_is_read_as_a_whole(records in records(), compression in compression()) {
        let batch = batch(&records, compression);
        let whole = batch.records(&LIMITS).unwrap();
        let mut reader = batch.reader(&LIMITS).unwrap();
        for record in &whole {
            prop_assert_eq!(reader.next(), Ok(Some(Piece::Record(record.unwrap()))));
        }
        prop_assert_eq!(reader.next(), Ok(None));
        prop_assert_eq!(decode_records(&batch).len(), records.len());
    }

    #[test]
    fn noise_never_panics(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        count in 1i32..20,
        codec in 0i16..5,
        damaged in any::<prop::sample::Index>(),
    ) {
        let mut packed = batch(&sample(), Compression::ALL[codec as usize]).body().to_vec();
        let at = damaged.index(packed.len());
        packed[at] ^= 0x55;
        for body in [body, packed] {
            let header = comlog_record::BatchHeader { attributes: codec, ..header(count, &body) };
            let mut bytes = seal(header, &body);
            let Ok(batch) = RecordBatch::decode(&mut bytes, &LIMITS) else { continue };
            let limits = Limits { record_bytes_max: 20, decompressed_bytes_max: 1 << 10, ..LIMITS };
            let _ = read(&batch, &limits);
            let whole = batch.records(&LIMITS).and_then(|all| {
                all.iter().map(|record| record.map(|r| r.offset.0)).collect::<Result<Vec<_>, _>>()
            });
            if let Ok(whole) = whole {
                let found = read(&batch, &LIMITS).unwrap();
                prop_assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), whole);
            }
        }
    }
}

#[test]
fn a_record_beyond_the_bound_is_named_and_stepped_over() {
    let lengths = [10, LARGE, 20, 300_000, LARGE, 30];
    for codec in Compression::ALL {
        let mut batch = of_lengths(&lengths, codec);
        batch.assign(Offset(100), comlog_record::LeaderEpoch(0));
        let limits = Limits {
            record_bytes_max: 1 << 20,
            ..LIMITS
        };
        let found = read(&batch, &limits).unwrap();
        let expected = [
            (100, Some(10)),
            (101, None),
            (102, Some(20)),
            (103, Some(300_000)),
            (104, None),
            (105, Some(30)),
        ];
        assert_eq!(found, expected, "{codec}");
    }
}

#[test]
fn what_is_read_one_by_one_need_not_fit_the_bound_of_a_whole() {
    // 32 MiB come out; one record, and what the codec must remember, are far below.
    let lengths = [LARGE / 4; 32];
    for codec in Compression::ALL {
        let batch = of_lengths(&lengths, codec);
        let limits = Limits {
            record_bytes_max: LARGE,
            decompressed_bytes_max: 8 << 20,
            ..LIMITS
        };
        if codec != Compression::None {
            let whole = batch.records(&limits).map(|_| ());
            assert!(
                matches!(whole, Err(DecodeError::TooLarge { .. })),
                "{codec}"
            );
        }
        assert_eq!(read(&batch, &limits).unwrap().len(), 32, "{codec}");
    }
}

#[test]
fn work_is_bounded() {
    let limits = Limits {
        unpacked_bytes_max: 8 << 20,
        ..LIMITS
    };
    for codec in &Compression::ALL[1..] {
        let batch = of_lengths(&[LARGE; 4], *codec);
        let mut reader = batch.reader(&limits).unwrap();
        assert!(
            matches!(reader.next(), Ok(Some(Piece::Record(_)))),
            "{codec}"
        );
        let rest = std::iter::from_fn(|| match reader.next() {
            Ok(None) => None,
            Ok(Some(_)) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        });
        let error = rest.last().unwrap().unwrap_err();
        let DecodeError::TooLarge { what, max, .. } = error else {
            panic!("{codec}: {error}");
        };
        assert_eq!((what, max), ("unpacked bytes", 8 << 20));
    }
}

#[test]
fn a_count_or_an_end_that_is_false_is_an_error() {
    let records = sample();
    for codec in Compression::ALL {
        let good = batch(&records, codec);
        for (change, what) in [(1, "ends inside"), (-1, "longer than its records")] {
            let count = good.header().record_count + change;
            let mut header = *good.header();
            header.record_count = count;
            header.last_offset_delta = count.max(good.header().record_count) - 1;
            let mut bytes = seal(header, good.body());
            let false_count = RecordBatch::decode(&mut bytes, &LIMITS).unwrap();
            let error = read(&false_count, &LIMITS).unwrap_err().to_string();
            assert!(error.contains(what), "{codec} {change}: {error}");
        }
        if codec == Compression::None {
            continue;
        }
        let cut = good.body().slice(..good.body().len() - 1);
        let mut bytes = seal(shortened(&good, cut.len()), &cut);
        let cut = RecordBatch::decode(&mut bytes, &LIMITS).unwrap();
        assert!(read(&cut, &LIMITS).is_err(), "{codec}");
    }
}

fn shortened(batch: &RecordBatch, body_len: usize) -> comlog_record::BatchHeader {
    let mut header = *batch.header();
    header.batch_length -= (batch.body().len() - body_len) as i32;
    header
}

#[test]
fn full_checks_hold_records_to_the_bound_and_timestamps_to_the_truth() {
    let limits = Limits {
        record_bytes_max: 1 << 20,
        ..LIMITS
    };
    for codec in Compression::ALL {
        let batch = of_lengths(&[10, LARGE, 10], codec);
        let error = batch.check_from_client(&limits).unwrap_err();
        assert!(
            matches!(
                error,
                DecodeError::TooLarge {
                    what: "record bytes",
                    ..
                }
            ),
            "{codec}: {error}"
        );
        let known = codec == Compression::None;
        assert_eq!(
            batch.check_record_lengths(&limits).is_err(),
            known,
            "{codec}"
        );
        assert_eq!(batch.check_from_client(&LIMITS), Ok(()));

        for (timestamp, good) in [(1_002, true), (1_003, false), (1_001, false), (-1, false)] {
            let mut header = *batch.header();
            header.max_timestamp = Timestamp(timestamp);
            let mut bytes: Bytes = seal(header, batch.body());
            let claimed = RecordBatch::decode(&mut bytes, &LIMITS).unwrap();
            assert_eq!(claimed.check_from_client(&LIMITS).is_ok(), good, "{codec}");
            assert_eq!(claimed.check_records(&LIMITS), Ok(()), "{codec}");
        }
    }
}
