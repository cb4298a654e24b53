//! Looking into the small files of a log from outside.

use comlog_log::Inspected;
use comlog_record::{Offset, Timestamp};
use comlog_storage::segment_name;

use crate::support::{append, async_test, batch_at, batch_of, memory, open, small};

#[async_test]
async fn every_file_of_a_closed_log_can_be_read() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    append(&mut log, batch_of((7, 0, 0), &["a", "b"])).await;
    for number in 0..20 {
        append(&mut log, batch_at(1_000 + number, &["some value"])).await;
    }
    log.fence(3).await.unwrap();
    log.close().await.unwrap();

    let segments = storage.list().await.unwrap();
    assert!(segments.len() > 2, "the log must have rolled");
    let (mut offset_indexes, mut time_indexes, mut checkpoints) = (0, 0, 0);
    for name in storage.list_blobs().await.unwrap() {
        let content = storage.read_blob(&name).await.unwrap().unwrap();
        match Inspected::decode(&content).unwrap() {
            Inspected::OffsetIndex { segment, entries } => {
                offset_indexes += 1;
                assert_eq!(entries[0], (segment.base, 0));
                let sealed = segments
                    .iter()
                    .find(|meta| meta.base_offset == segment.base);
                assert_eq!(sealed.unwrap().len, segment.len);
                assert_eq!(name, segment_name(segment.base).replace(".log", ".index"));
            }
            Inspected::TimeIndex {
                segment,
                entries,
                max,
            } => {
                time_indexes += 1;
                assert_eq!(entries[0].1, segment.base);
                assert!(max >= Some(Timestamp(1_000)));
            }
            Inspected::Checkpoint(checkpoint) => {
                checkpoints += 1;
                assert!(checkpoint.clean);
                assert_eq!(checkpoint.fencing_token, 3);
                assert_eq!(checkpoint.recovery_offset, Offset(22));
                assert_eq!((checkpoint.producers, checkpoint.producer_id_max), (1, 7));
                assert_eq!(
                    Some(checkpoint.recovery_segment),
                    segments.last().map(|meta| meta.base_offset)
                );
            }
            Inspected::Fence { fencing_token, .. } => {
                assert_eq!((&*name, fencing_token), ("fence", 3));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(checkpoints, 1);
    assert_eq!(
        (offset_indexes, time_indexes),
        (segments.len() - 1, segments.len() - 1)
    );
}

#[async_test]
async fn a_flipped_byte_anywhere_is_noticed() {
    let storage = memory();
    let (mut log, _) = open(&storage, small()).await;
    append(&mut log, batch_of((7, 0, 0), &["a"])).await;
    log.close().await.unwrap();
    let content = storage.read_blob("checkpoint").await.unwrap().unwrap();
    for at in 0..content.len() {
        let mut damaged = content.to_vec();
        damaged[at] ^= 1;
        assert!(Inspected::decode(&damaged).is_err(), "byte {at}");
        assert!(Inspected::decode(&content[..at]).is_err(), "cut at {at}");
    }
}
