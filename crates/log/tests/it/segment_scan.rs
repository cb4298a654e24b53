//! One segment by itself: what is whole, what is damaged, what was never written.

use std::sync::Arc;

use comlog_log::{LogConfig, SegmentItem, SegmentPlace, SegmentScan};
use comlog_record::{Limits, Offset};
use comlog_storage::SegmentReader;

use crate::support::*;

async fn reader(content: &[u8]) -> Arc<dyn SegmentReader> {
    let storage = memory();
    let mut writer = storage.create(Offset(0), 0).await.unwrap();
    // In odd pieces: the boundaries of chunks mean nothing.
    for piece in content.chunks(97) {
        let piece = bytes::Bytes::copy_from_slice(piece);
        writer.append(&[piece]).await.unwrap();
    }
    writer.seal().await.unwrap()
}

/// The content of a segment with records 0 to 39, four a batch, and where its batches begin.
async fn written() -> (Vec<u8>, Vec<usize>) {
    let storage = memory();
    let (mut log, _) = open(&storage, LogConfig::default()).await;
    append_numbers(&mut log, 40, 4).await;
    let content = content(&storage, 0).await;
    let at = boundaries(&content);
    (content, at)
}

/// One line for each item.
async fn scan(content: &[u8], limits: Limits) -> Vec<String> {
    let reader = reader(content).await;
    let start = SegmentScan::start_of(&*reader).await.unwrap();
    let mut scan = SegmentScan::new(&*reader, start, limits);
    let mut lines = Vec::new();
    while let Some(item) = scan.next_item().await.unwrap() {
        lines.push(match item {
            SegmentItem::Batch { position, batch } => {
                format!("{position} {}", batch.header().offsets())
            }
            SegmentItem::Damage {
                positions,
                first,
                next,
                ..
            } => {
                let next = next.map_or("?".to_owned(), |next| next.to_string());
                format!("damage {positions:?} {first}..{next}")
            }
            SegmentItem::Zeros { positions } => format!("zeros {positions:?}"),
        });
    }
    assert_eq!(scan.place().position, content.len() as u64);
    lines
}

fn whole(at: &[usize]) -> Vec<String> {
    (0..at.len() - 1)
        .map(|n| format!("{} [{}, {})", at[n], n * 4, n * 4 + 4))
        .collect()
}

#[async_test]
async fn a_whole_segment_is_its_batches() {
    let (content, at) = written().await;
    assert_eq!(at.len(), 11);
    assert_eq!(scan(&content, Limits::DEFAULT).await, whole(&at));
    assert!(scan(&[], Limits::DEFAULT).await.is_empty());
}

#[async_test]
async fn any_flipped_byte_is_damage_and_the_scan_goes_on_behind_it() {
    let (content, at) = written().await;
    let expected = |damaged: usize| {
        let mut lines = whole(&at);
        lines[damaged] = format!(
            "damage {}..{} {}..{}",
            at[damaged],
            at[damaged + 1],
            damaged * 4,
            damaged * 4 + 4
        );
        lines
    };
    for position in at[3]..at[4] {
        // The leader epoch lies outside the CRC and is the log's to judge.
        if (at[3] + 12..at[3] + 16).contains(&position) {
            continue;
        }
        let mut damaged = content.clone();
        damaged[position] ^= 0x55;
        let found = scan(&damaged, Limits::DEFAULT).await;
        assert_eq!(found, expected(3), "byte {}", position - at[3]);
    }
}

#[async_test]
async fn zeros_to_the_end_were_never_written_and_a_cut_batch_was() {
    let (mut content, at) = written().await;
    let end = content.len();
    content.resize(end + 3_000_000, 0);
    let mut lines = whole(&at);
    lines.push(format!("zeros {end}..{}", content.len()));
    assert_eq!(scan(&content, Limits::DEFAULT).await, lines);

    content.truncate(end - 1);
    let mut lines = whole(&at);
    *lines.last_mut().unwrap() = format!("damage {}..{} 36..?", at[9], end - 1);
    assert_eq!(scan(&content, Limits::DEFAULT).await, lines);
}

#[async_test]
async fn a_batch_beyond_the_limits_is_named_and_not_read() {
    let (content, at) = written().await;
    let limits = Limits {
        batch_bytes_max: 60,
        ..Limits::DEFAULT
    };
    let lines = scan(&content, limits).await;
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[1], format!("damage {}..{} 4..8", at[1], at[2]));
}

#[async_test]
async fn a_scan_goes_on_where_another_stood() {
    let (content, at) = written().await;
    let reader = reader(&content).await;
    let mut first = SegmentScan::new(&*reader, SegmentPlace::default(), Limits::DEFAULT);
    first.next_item().await.unwrap();
    let place = first.place();
    assert_eq!(
        place,
        SegmentPlace {
            position: at[1] as u64,
            offset: Offset(4)
        }
    );
    assert!(SegmentScan::seems_right(&*reader, place).await.unwrap());
    let beside = SegmentPlace {
        position: place.position + 1,
        ..place
    };
    assert!(!SegmentScan::seems_right(&*reader, beside).await.unwrap());
    let mut second = SegmentScan::new(&*reader, place, Limits::DEFAULT);
    let item = second.next_item().await.unwrap();
    assert!(matches!(item, Some(SegmentItem::Batch { position, .. }) if position == at[1] as u64));
}
