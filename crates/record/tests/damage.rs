//! Damaged, cut and hostile bytes are errors: they never panic and never pass.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use comlog_record::{
    BatchBuilder, BatchHeader, BatchStream, Compression, DecodeError, Limits, Offset, RecordBatch,
    Timestamp,
};
use proptest::prelude::*;

use common::{batch, decode_records, header, records, sample, seal};

const LIMITS: Limits = Limits::DEFAULT;

/// Decodes everything there is, and says how many records that was.
fn decode_all(bytes: &Bytes) -> Result<usize, DecodeError> {
    let mut stream = BatchStream::new([bytes.clone()]);
    let mut count = 0;
    while let Some(batch) = stream.next_batch(&LIMITS)? {
        for record in &batch.records(&LIMITS)? {
            record?.headers.for_each(drop);
            count += 1;
        }
    }
    Ok(count)
}

#[test]
fn every_flipped_bit_is_noticed() {
    for compression in Compression::ALL {
        let bytes = batch(&sample(), compression).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 0x80 >> (bit % 8);
            let result = decode_all(&damaged.into());
            // Base offset and leader epoch are the log's to assign, so no checksum covers them.
            let assigned = (1..64).contains(&bit) || (96..128).contains(&bit);
            assert_eq!(
                result.is_ok(),
                assigned,
                "{compression} bit {bit}: {result:?}"
            );
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    for compression in Compression::ALL {
        let bytes = batch(&sample(), compression).to_bytes();
        for end in 1..bytes.len() {
            let cut = bytes.slice(..end);
            let expected = DecodeError::Truncated {
                needed: if end < 61 { 61 } else { bytes.len() },
                available: end,
            };
            let mut rest = cut.clone();
            assert_eq!(
                RecordBatch::decode(&mut rest, &LIMITS),
                Err(expected.clone())
            );
            assert_eq!(rest, cut, "what cannot be decoded is not taken");
            assert_eq!(decode_all(&cut), Err(expected));
        }
    }
}

#[test]
fn a_stream_goes_on_behind_a_bad_checksum_and_stays_before_anything_else() {
    let good = batch(&sample(), Compression::Lz4).to_bytes();
    let mut damaged = good.to_vec();
    damaged[70] ^= 1;
    let mut stream = BatchStream::new([damaged.into(), good.slice(..80), good.slice(80..)]);
    assert!(matches!(
        stream.next_batch(&LIMITS),
        Err(DecodeError::Checksum { .. })
    ));
    let next = stream.next_batch(&LIMITS).unwrap().unwrap();
    assert_eq!(decode_records(&next), sample());

    let mut old = good.to_vec();
    old[16] = 1;
    let mut stream = BatchStream::new([Bytes::from(old)]);
    for _ in 0..2 {
        assert_eq!(stream.next_batch(&LIMITS), Err(DecodeError::Magic(1)));
        assert_eq!(stream.len(), good.len());
    }
}

#[test]
fn a_stream_behind_a_wrong_length_may_find_what_was_never_a_batch() {
    let inner = batch(&sample(), Compression::None).to_bytes();
    let mut builder = BatchBuilder::new(LIMITS);
    let at = builder.encoded_len() + 8; // behind the record's length and the fields before its value
    builder
        .push(Timestamp(0), None, Some(&inner), std::iter::empty())
        .unwrap();
    let mut outer = builder.encode(Compression::None, None).unwrap().to_vec();
    assert!(outer[at..].starts_with(&inner), "the value stands there");
    outer[8..12].copy_from_slice(&(at as i32 - 12).to_be_bytes());
    let mut stream = BatchStream::new([Bytes::from(outer)]);
    let damaged = stream.next_batch(&LIMITS);
    assert!(matches!(damaged, Err(DecodeError::Checksum { .. })));
    let found = stream.next_batch(&LIMITS).unwrap().unwrap();
    assert_eq!(decode_records(&found), sample());
}

#[test]
fn records_that_lie_about_their_places_are_not_found() {
    let beyond = [[12, 0, 0, 0, 1, 1, 0], [12, 0, 0, 4, 1, 1, 0]].concat();
    let late = [12, 0, 0, 2, 1, 1, 0].repeat(2);
    let cut = [[12, 0, 0, 0, 1, 1, 0], [14, 0, 0, 2, 1, 1, 0]].concat();
    for (body, first_is_found) in [(beyond, true), (late, false), (cut, true)] {
        let bytes = seal(header(2, &body), &body);
        let batch = RecordBatch::decode(&mut bytes.clone(), &LIMITS).unwrap();
        let records = batch.records(&LIMITS).unwrap();
        let wrong = if first_is_found { Offset(1) } else { Offset(0) };
        assert_eq!(records.get(Offset(0)).is_ok(), first_is_found, "{body:x?}");
        let answer = records.get(wrong);
        assert!(matches!(answer, Err(DecodeError::Invalid(_))), "{answer:?}");
    }
}

#[test]
fn a_batch_over_the_limit_is_refused_before_its_body_is_there() {
    let limits = Limits {
        batch_bytes_max: 100,
        ..LIMITS
    };
    let mut claim = header(1, b"");
    claim.batch_length = i32::MAX;
    let mut bytes = Bytes::copy_from_slice(&claim.encode());
    let expected = Err(DecodeError::TooLarge {
        what: "batch bytes",
        actual: i32::MAX as u64 + 12,
        max: 100,
    });
    assert_eq!(RecordBatch::decode(&mut bytes, &limits), expected);
    let stream = BatchStream::new([bytes]).next_batch(&limits);
    assert_eq!(stream.map(|_| ()), expected.map(|_| ()));
}

#[test]
fn a_bomb_is_refused() {
    let bomb = vec![0; 65 << 20];
    for compression in &Compression::ALL[1..] {
        let body = compression.compress(&bomb).unwrap();
        let mut header = header(1, &body);
        header.attributes = *compression as i16;
        let batch = RecordBatch::decode(&mut seal(header, &body), &LIMITS).unwrap();
        let error = batch.records(&LIMITS).map(|_| ()).unwrap_err();
        assert!(
            matches!(
                error,
                DecodeError::TooLarge {
                    what: "decompressed bytes",
                    ..
                }
            ),
            "{compression}: {error}"
        );
    }
}

/// What an uncompressed batch of one record with these bytes decodes to.
fn decode_body(body: &[u8]) -> Result<usize, DecodeError> {
    decode_all(&seal(header(1, body), body))
}

#[test]
fn malformed_records_are_errors() {
    let invalid = |body: &[u8], what| {
        assert_eq!(
            decode_body(body),
            Err(DecodeError::Invalid(what)),
            "{body:x?}"
        );
    };
    // Length, attributes, timestamp delta, offset delta, no key, no value, no headers; zig-zag.
    assert_eq!(decode_body(&[12, 0, 0, 0, 1, 1, 0]), Ok(1));
    invalid(
        &[12, 0, 0, 0, 1, 1, 0, 9],
        "batch is longer than its records",
    );
    invalid(
        &[14, 0, 0, 0, 1, 1, 0, 9],
        "record is longer than its fields",
    );
    invalid(&[14, 0, 0, 0, 1, 1, 0], "length does not fit the record");
    invalid(&[1, 0, 0, 0, 0, 0, 0], "record with a negative length");
    invalid(&[0, 0, 0, 0, 0, 0, 0], "record without attributes");
    invalid(&[12, 0, 0, 0, 3, 1, 0], "negative length");
    invalid(
        &[12, 0, 0, 0, 1, 1, 1],
        "header count does not fit the record",
    );
    invalid(
        &[12, 0, 0, 0, 1, 1, 2],
        "header count does not fit the record",
    );
    invalid(&[16, 0, 0, 0, 1, 1, 2, 1, 1], "header without a name");
    invalid(
        &[12, 0, 0, 2, 1, 1, 0],
        "offset deltas do not rise within the batch",
    );
    invalid(
        &[12, 0, 0, 1, 1, 1, 0],
        "offset deltas do not rise within the batch",
    );
    invalid(&[12, 0, 0, 0, 1, 1, 0x80], "record ends inside a number");
    let long = [&[40, 0, 0][..], &[0xff; 18]].concat();
    invalid(&long, "number longer than 64 bits");
    let wide = [&[24, 0, 0][..], &[0xff; 9], &[1, 0]].concat();
    invalid(&wide, "number longer than 32 bits");
}

#[test]
fn a_false_count_is_an_error_and_ends_the_records() {
    let body = [12, 0, 0, 0, 1, 1, 0].repeat(2);
    let compressed = Compression::Gzip.compress(&body[..7]).unwrap();
    let mut more = header(1_000_000_000, &compressed);
    more.attributes = Compression::Gzip as i16;
    for bytes in [seal(header(1, &body), &body), seal(more, &compressed)] {
        let batch = RecordBatch::decode(&mut bytes.clone(), &LIMITS).unwrap();
        let records = batch.records(&LIMITS).unwrap();
        let results: Vec<_> = records.iter().collect();
        assert_eq!(results.len(), 2);
        assert!(results[0].is_ok() && results[1].is_err());
    }
    let claim = seal(header(i32::MAX, &body), &body);
    assert_eq!(
        BatchHeader::decode(&claim),
        Err(DecodeError::Invalid(
            "more records claimed than the bytes can hold"
        ))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Someone who can compute a CRC gets no further than one who cannot.
    #[test]
    fn damage_under_a_right_checksum_never_panics(
        records in records(),
        compression in common::compression(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
    ) {
        let batch = batch(&records, compression);
        let mut body = batch.body().to_vec();
        for (index, bits) in flips {
            let index = index.index(body.len());
            body[index] ^= bits;
        }
        if let Ok(count) = decode_all(&seal(*batch.header(), &body)) {
            prop_assert_eq!(count, records.len());
        }
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        if bytes.len() > 16 {
            bytes[16] = 2;
            bytes[8..11].fill(0);
        }
        prop_assert!(decode_all(&bytes.clone().into()).is_err() || bytes.is_empty());
    }
}
