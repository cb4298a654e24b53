//! What Kafka's format allows is accepted, and what only a broker may write is refused to clients.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use comlog_record::{
    BatchHeader, Compression, DecodeError, Limits, Offset, OffsetRange, RecordBatch, Timestamp,
};

use common::{batch, decode_records, header, sample, seal};

const LIMITS: Limits = Limits::DEFAULT;

/// A record of timestamp delta 0, without key, value and headers.
fn bare(offset_delta: u8) -> [u8; 7] {
    [12, 0, 0, offset_delta << 1, 1, 1, 0]
}

fn decode(header: BatchHeader, body: &[u8]) -> Result<RecordBatch, DecodeError> {
    RecordBatch::decode(&mut seal(header, body), &LIMITS)
}

fn refused(header: &BatchHeader) -> &'static str {
    match header.check_from_client(&LIMITS) {
        Err(DecodeError::Invalid(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn compaction_leaves_gaps() {
    let body = [bare(1), bare(4)].concat();
    let mut header = header(2, &body);
    header.base_offset = Offset(100);
    header.last_offset_delta = 9;
    let batch = decode(header, &body).unwrap();
    let offsets: Vec<i64> = decode_records(&batch).iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [101, 104]);
    let records = batch.records(&LIMITS).unwrap();
    let there: Vec<i64> = (98..112)
        .filter(|&offset| records.get(Offset(offset)).unwrap().is_some())
        .collect();
    assert_eq!(there, offsets);
    let range = OffsetRange::new(Offset(100), Offset(110));
    assert_eq!(batch.header().offsets(), range);
    assert_eq!(batch.records(&LIMITS).unwrap().offsets(), range);
    assert_eq!(
        refused(&header),
        "record count is not last offset delta + 1"
    );
}

#[test]
fn compaction_may_leave_nothing() {
    // As Kafka keeps the last sequence of a producer: no records, no timestamps.
    for codec in Compression::ALL {
        let mut header = header(0, b"");
        header.attributes = codec as i16;
        header.last_offset_delta = 5;
        header.base_timestamp = Timestamp::NONE;
        header.max_timestamp = Timestamp::NONE;
        (
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
        ) = (7, 0, 12);
        let batch = decode(header, b"").unwrap();
        assert_eq!(decode_records(&batch), []);
        assert_eq!(batch.check_records(&LIMITS), Ok(()));
        assert_eq!(batch.header().offsets().len(), 6);
        assert_eq!(
            refused(&header),
            "record count is not last offset delta + 1"
        );
    }
}

#[test]
fn control_batches_are_read_and_not_taken_from_clients() {
    // A commit marker: version 0, type 1; version 0, coordinator epoch 0. Transactional, control.
    let body = b"\x20\0\0\0\x08\0\0\0\x01\x0c\0\0\0\0\0\0\0";
    let mut header = header(1, body);
    header.attributes = 0x30;
    (header.producer_id, header.producer_epoch) = (7, 0);
    let batch = decode(header, body).unwrap();
    assert!(batch.header().is_control());
    assert_eq!(
        decode_records(&batch)[0].key.as_deref(),
        Some(&[0, 0, 0, 1][..])
    );
    assert_eq!(refused(&header), "clients may not write control batches");
    header.attributes = 0x10;
    assert_eq!(refused(&header), "transactions are not supported");
}

#[test]
fn a_delete_horizon_takes_the_place_of_the_base_timestamp() {
    let body = [10 + 2, 0, 2 * 5, 0, 1, 1, 0];
    let mut header = header(1, &body);
    header.attributes = 0x40;
    let batch = decode(header, &body).unwrap();
    assert_eq!(decode_records(&batch)[0].timestamp, 1_005);
    assert_eq!(refused(&header), "unknown attribute bits are set");
}

#[test]
fn bits_of_a_later_version_are_read_and_not_taken_from_clients() {
    let mut header = header(1, &bare(0));
    for bit in 7..16 {
        header.attributes = (1u16 << bit) as i16;
        assert!(decode(header, &bare(0)).is_ok());
        assert_eq!(refused(&header), "unknown attribute bits are set");
    }
}

#[test]
fn the_append_time_is_the_log_s_to_give() {
    let mut header = header(1, &bare(0));
    header.attributes = 0x08;
    let batch = decode(header, &bare(0)).unwrap();
    assert_eq!(decode_records(&batch)[0].timestamp, 1_000);
    assert_eq!(refused(&header), "clients may not claim the append time");
}

#[test]
fn no_timestamp_is_minus_one_and_far_deltas_wrap() {
    let mut records = sample();
    records[0].timestamp = -1;
    records[1].timestamp = i64::MAX;
    records[2].timestamp = i64::MIN;
    let batch = batch(&records, Compression::None);
    assert_eq!(decode_records(&batch), records);
    assert_eq!(batch.header().base_timestamp, Timestamp::NONE);
    assert_eq!(batch.header().max_timestamp, Timestamp(i64::MAX));
}

#[test]
fn fields_that_no_batch_can_have_are_refused() {
    let invalid = |change: fn(&mut BatchHeader), what| {
        let mut header = header(1, &bare(0));
        change(&mut header);
        assert_eq!(decode(header, &bare(0)), Err(DecodeError::Invalid(what)));
    };
    invalid(|h| h.base_offset.0 = -1, "base offset is negative");
    invalid(|h| h.base_offset.0 = i64::MAX, "offsets do not fit 63 bits");
    invalid(
        |h| h.batch_length = 48,
        "batch length is shorter than the header",
    );
    invalid(
        |h| h.batch_length = -1,
        "batch length is shorter than the header",
    );
    invalid(
        |h| h.last_offset_delta = -1,
        "last offset delta is negative",
    );
    invalid(|h| h.attributes = 5, "unknown compression codec");
    let contradiction = "record count and last offset delta contradict each other";
    invalid(|h| h.record_count = 2, contradiction);
    invalid(|h| h.record_count = -1, contradiction);
    let mut last = header(1, &bare(0));
    last.base_offset.0 = i64::MAX - 1;
    assert!(decode(last, &bare(0)).is_ok());
}

#[test]
fn clients_keep_to_the_limits_and_to_whole_producer_ids() {
    let mut good = header(1, &bare(0));
    good.check_from_client(&LIMITS).unwrap();
    for (id, epoch, sequence) in [
        (-1, 0, -1),
        (-1, -1, 0),
        (0, -1, 0),
        (0, 0, -1),
        (-2, -1, -1),
    ] {
        (good.producer_id, good.producer_epoch, good.base_sequence) = (id, epoch, sequence);
        assert_eq!(
            refused(&good),
            "producer id, epoch and sequence contradict each other"
        );
    }
    let limited = |limits: Limits| header(1, &bare(0)).check_from_client(&limits);
    let bytes = Limits {
        batch_bytes_max: 67,
        ..LIMITS
    };
    let records = Limits {
        batch_records_max: 0,
        ..LIMITS
    };
    for limits in [bytes, records] {
        assert!(matches!(limited(limits), Err(DecodeError::TooLarge { .. })));
    }
}
