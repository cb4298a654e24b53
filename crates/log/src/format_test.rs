//! The worked examples of `format.md` are what this version writes, and it reads them.

use comlog_record::{
    BATCH_HEADER_LEN, BatchHeader, LENGTH_PREFIX_LEN, LeaderEpoch, Offset, OffsetRange, Timestamp,
};

use crate::checkpoint::{Checkpoint, RecoveryPoint};
use crate::epoch::EpochTable;
use crate::frame::Owner;
use crate::producer_state::ProducerState;
use crate::segment::{Indexes, SegmentEnd, decode_indexes, encode_indexes};
use crate::{DamagedRange, Durability};

/// Partition 3 of a topic.
const OWNER: Owner = Owner::partition(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, 3);

const FORMAT_MD: &str = include_str!("../format.md");

/// The bytes of the example under the heading `## {name}`: hex before `|` in its last code block.
fn example(name: &str) -> Vec<u8> {
    let section = FORMAT_MD.split("\n## ").find(|part| part.starts_with(name));
    let block = section
        .unwrap()
        .split("```")
        .skip(1)
        .step_by(2)
        .last()
        .unwrap();
    let hex = block
        .lines()
        .skip(1)
        .filter_map(|line| line.split('|').next());
    hex.flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn indexes(entries: &[(i64, u64, i64)]) -> Indexes {
    let mut indexes = Indexes::default();
    for (offset, position, timestamp) in entries {
        indexes.offsets.note(Offset(*offset), *position, 1);
        indexes
            .times
            .note(Offset(*offset), Timestamp(*timestamp), true);
    }
    indexes
}

#[test]
fn the_index_files() {
    let segment = SegmentEnd {
        base: Offset(100),
        end: Offset(130),
        len: 9_000,
    };
    let indexes = indexes(&[(100, 0, 5_000), (112, 4_200, 4_900), (121, 8_400, 5_300)]);
    let (offsets, times) = encode_indexes(OWNER, segment, &indexes);
    assert_eq!(offsets, example("`<base>.index`"), "{offsets:02x?}");
    assert_eq!(times, example("`<base>.timeindex`"), "{times:02x?}");
    assert_eq!(
        decode_indexes(OWNER, segment, &offsets, &times),
        Ok(indexes)
    );
}

#[test]
fn the_checkpoint() {
    let mut epochs = EpochTable::new(Offset(90));
    epochs.raise(LeaderEpoch(3), Offset(120));
    let mut producers = ProducerState::new();
    let sent = BatchHeader {
        base_offset: Offset(121),
        batch_length: (BATCH_HEADER_LEN - LENGTH_PREFIX_LEN) as i32,
        leader_epoch: LeaderEpoch(3),
        crc: 0,
        attributes: 0,
        last_offset_delta: 8,
        base_timestamp: Timestamp(5_300),
        max_timestamp: Timestamp(5_300),
        producer_id: 7,
        producer_epoch: 1,
        base_sequence: 0,
        record_count: 9,
    };
    producers.record(&sent, Timestamp(5_400));
    let checkpoint = Checkpoint {
        owner: OWNER,
        generation: 5,
        clean: true,
        durability: Durability::Durable,
        group_bytes_max: 16 << 20,
        start: Offset(90),
        fencing_token: 2,
        point: RecoveryPoint {
            segment: Offset(100),
            position: 9_000,
            offset: Offset(130),
        },
        active_since: Some(Timestamp(5_000)),
        fence: 4,
        incarnation: Some(bytes::Bytes::from_static(b"boot/7")),
        epochs,
        damaged: vec![DamagedRange {
            offsets: OffsetRange::new(Offset(92), Offset(95)),
            segment: Offset(50),
            positions: 700..900,
            reason: "crc".to_owned(),
        }],
        producers,
    };
    let indexes = indexes(&[(100, 0, 5_000), (121, 8_400, 5_300)]);
    let content = checkpoint.encode(&indexes);
    assert_eq!(content, example("`checkpoint`"), "{content:02x?}");
    assert_eq!(Checkpoint::decode(&content), Ok((checkpoint, indexes)));
}
