//! What is encoded comes back, however the bytes are cut.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use comlog_record::{
    BatchBuilder, BatchStream, Compression, EncodeError, LeaderEpoch, Limits, Offset, RecordBatch,
    Timestamp, TimestampType,
};
use proptest::prelude::*;

use common::{PRODUCER, batch, builder, compression, decode_records, records, sample};

const LIMITS: Limits = Limits::DEFAULT;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn records_come_back(records in records(), compression in compression()) {
        let bytes = builder(&records).encode(compression, Some(PRODUCER)).unwrap();
        let built = builder(&records).build(compression, Some(PRODUCER)).unwrap();
        prop_assert_eq!(built.to_bytes(), bytes.clone());

        let mut rest = bytes.clone();
        let decoded = RecordBatch::decode(&mut rest, &LIMITS).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(&decoded, &built);
        prop_assert_eq!(decoded.total_len(), bytes.len());
        prop_assert_eq!(decode_records(&decoded), records.clone());
        prop_assert_eq!(decoded.check_records(&LIMITS), Ok(()));

        let all = decoded.records(&LIMITS).unwrap();
        for record in &all {
            let record = record.unwrap();
            prop_assert_eq!(all.get(record.offset), Ok(Some(record)));
        }
        prop_assert_eq!(all.get(all.offsets().end), Ok(None));

        let header = decoded.header();
        prop_assert_eq!(header.check_from_client(&LIMITS), Ok(()));
        prop_assert_eq!(header.compression(), compression);
        prop_assert_eq!(header.record_count as usize, records.len());
        prop_assert_eq!(header.base_timestamp.0, records[0].timestamp);
        let newest = records.iter().map(|record| record.timestamp).max();
        prop_assert_eq!(Some(header.max_timestamp.0), newest);
        prop_assert_eq!(header.producer_id, PRODUCER.producer_id);
        prop_assert_eq!(header.producer_epoch, PRODUCER.producer_epoch);
        prop_assert_eq!(header.base_sequence, PRODUCER.base_sequence);
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(
        batches in proptest::collection::vec((records(), compression()), 0..4),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let batches: Vec<RecordBatch> = batches
            .iter()
            .map(|(records, compression)| batch(records, *compression))
            .collect();
        let whole: Bytes = batches.iter().flat_map(RecordBatch::to_bytes).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|cut| whole.slice(cut[0]..cut[1]));

        let mut stream = BatchStream::new(chunks);
        let mut left = whole.len();
        for batch in &batches {
            prop_assert_eq!(stream.len(), left);
            prop_assert_eq!(&stream.peek_header().unwrap(), batch.header());
            let taken = stream.next_batch(&LIMITS).unwrap();
            prop_assert_eq!(taken.as_ref(), Some(batch));
            left -= batch.total_len();
        }
        prop_assert!(stream.is_empty());
        prop_assert_eq!(stream.next_batch(&LIMITS), Ok(None));
    }
}

#[test]
fn a_batch_inside_one_chunk_is_not_copied() {
    let bytes = batch(&sample(), Compression::None).to_bytes();
    let mut stream = BatchStream::new([bytes.clone()]);
    let batch = stream.next_batch(&LIMITS).unwrap().unwrap();
    assert_eq!(batch.body().as_ptr(), bytes[61..].as_ptr());
    let records = batch.records(&LIMITS).unwrap();
    assert_eq!(records.encoded().as_ptr(), bytes[61..].as_ptr());
}

#[test]
fn assigning_keeps_the_checksum() {
    let mut batch = batch(&sample(), Compression::None);
    batch.assign(Offset(1 << 40), LeaderEpoch(9));
    let decoded = RecordBatch::decode(&mut batch.to_bytes(), &LIMITS).unwrap();
    assert_eq!(decoded.header().leader_epoch, LeaderEpoch(9));
    assert_eq!(decoded.header().last_offset(), Offset((1 << 40) + 2));
    assert_eq!(decoded.header().next_offset(), Offset((1 << 40) + 3));
    let offsets: Vec<i64> = decode_records(&decoded).iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [1 << 40, (1 << 40) + 1, (1 << 40) + 2]);
}

#[test]
fn the_append_time_is_every_record_s_timestamp() {
    for compression in Compression::ALL {
        let mut batch = batch(&sample(), compression);
        batch.stamp_log_append_time(Timestamp(5));
        let decoded = RecordBatch::decode(&mut batch.to_bytes(), &LIMITS).unwrap();
        let header = decoded.header();
        assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(header.compression(), compression);
        let records = decode_records(&decoded);
        assert!(records.iter().all(|record| record.timestamp == 5));
        assert!(header.check_from_client(&LIMITS).is_err());
    }
}

#[test]
fn a_record_too_many_leaves_the_batch_as_it_was() {
    let limits = Limits {
        batch_bytes_max: 100,
        batch_records_max: 2,
        ..LIMITS
    };
    let push = |builder: &mut BatchBuilder, length: usize| {
        builder.push(
            Timestamp(1),
            None,
            Some(&vec![b'x'; length]),
            std::iter::empty(),
        )
    };
    let mut builder = BatchBuilder::with_capacity(limits, usize::MAX);
    // 61 of header, 7 around a short value.
    assert!(matches!(
        push(&mut builder, 33),
        Err(EncodeError::TooLarge { actual: 101, .. })
    ));
    assert!(builder.is_empty());
    push(&mut builder, 20).unwrap();
    assert_eq!(builder.encoded_len(), 61 + 27);
    assert!(push(&mut builder, 6).is_err());
    push(&mut builder, 5).unwrap();
    assert_eq!((builder.encoded_len(), builder.len()), (100, 2));
    let batch = builder.build(Compression::None, None).unwrap();
    assert_eq!(batch.to_bytes().len(), 100);
    assert_eq!(batch.check_records(&limits), Ok(()));

    let mut builder = BatchBuilder::new(Limits {
        batch_bytes_max: 1_000,
        ..limits
    });
    push(&mut builder, 1).unwrap();
    push(&mut builder, 1).unwrap();
    assert!(matches!(
        push(&mut builder, 1),
        Err(EncodeError::TooLarge { actual: 3, .. })
    ));
    assert_eq!(builder.len(), 2);
}

#[test]
fn what_compression_would_push_over_the_limit_stays_as_it_is() {
    let limits = Limits {
        batch_bytes_max: 100,
        ..LIMITS
    };
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(limits);
        let value: Vec<u8> = (0..32).map(|index| u8::wrapping_mul(index, 37)).collect();
        builder
            .push(Timestamp(1), None, Some(&value), std::iter::empty())
            .unwrap();
        let batch = builder.build(compression, None).unwrap();
        assert_eq!(batch.header().compression(), Compression::None);
        assert_eq!(batch.total_len(), 100);
        assert_eq!(decode_records(&batch)[0].value, Some(value));
    }
}

#[test]
fn an_empty_batch_is_not_built() {
    let empty = || BatchBuilder::new(LIMITS);
    let built = empty().build(Compression::Gzip, None);
    assert_eq!(built, Err(EncodeError::Empty));
    let encoded = empty().encode(Compression::None, None);
    assert_eq!(encoded, Err(EncodeError::Empty));
}
