//! The half of the suite that sealed segments suffice for.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use comlog_record::Offset;
use futures_util::future::join_all;

use super::{SealedSegment, check_refused, listed, pattern, read};
use crate::{Storage, StorageError};

/// Runs the reader suite. `given` opens a new storage that holds these sealed segments.
pub async fn check_reader<Fut>(mut given: impl FnMut(Vec<SealedSegment>) -> Fut)
where
    Fut: Future<Output = Arc<dyn Storage>>,
{
    segments_are_listed_by_base_offset(&given(some_segments()).await).await;
    an_empty_storage_lists_nothing(&given(Vec::new()).await).await;
    missing_segments_are_not_found(&given(some_segments()).await).await;
    every_range_reads_back(&given(vec![(Offset(7), chunks())]).await).await;
    ranges_outside_are_refused(&given(vec![(Offset(7), chunks())]).await).await;
    many_read_at_once(&given(some_segments()).await).await;
    bytes_outlive_their_reader(&given(some_segments()).await).await;
}

/// Not in order, with an empty one, and one longer than any page or buffer.
fn some_segments() -> Vec<SealedSegment> {
    vec![
        (Offset(500), vec![pattern(500, 10)]),
        (Offset(0), vec![pattern(0, 300_000)]),
        (Offset(9), Vec::new()),
        (Offset(i64::MAX), vec![pattern(3, 1)]),
    ]
}

/// Chunks whose ends fall on, before and behind the ends of pages and sectors.
fn chunks() -> Vec<Bytes> {
    [1, 511, 512, 4096, 0, 4095, 4097, 70_000]
        .iter()
        .enumerate()
        .map(|(seed, &len)| pattern(seed as u64, len))
        .collect()
}

async fn segments_are_listed_by_base_offset(storage: &Arc<dyn Storage>) {
    let expected = [(0, 300_000), (9, 0), (500, 10), (i64::MAX, 1)];
    assert_eq!(listed(storage).await, expected);
    for (base_offset, len) in expected {
        let reader = storage.open(Offset(base_offset)).await.unwrap();
        assert_eq!(reader.len(), len);
        assert_eq!(reader.is_empty(), len == 0);
    }
}

async fn an_empty_storage_lists_nothing(storage: &Arc<dyn Storage>) {
    assert_eq!(listed(storage).await, []);
}

async fn missing_segments_are_not_found(storage: &Arc<dyn Storage>) {
    for missing in [1, 499, 501] {
        let opened = storage.open(Offset(missing)).await;
        assert!(
            matches!(opened, Err(StorageError::NotFound { .. })),
            "{opened:?}"
        );
    }
}

async fn every_range_reads_back(storage: &Arc<dyn Storage>) {
    let content = chunks().concat();
    let reader = storage.open(Offset(7)).await.unwrap();
    let mut edges = vec![0, content.len()];
    let mut end = 0;
    for chunk in chunks() {
        end += chunk.len();
        edges.extend([end.saturating_sub(1), end, (end + 1).min(content.len())]);
    }
    for &start in &edges {
        for &end in edges.iter().filter(|&&end| end >= start) {
            let bytes = read(&reader, start as u64..end as u64).await;
            assert!(bytes == content[start..end], "bytes {start}..{end}");
        }
    }
}

async fn ranges_outside_are_refused(storage: &Arc<dyn Storage>) {
    let reader = storage.open(Offset(7)).await.unwrap();
    let len = reader.len();
    for (start, end) in [
        (0, len + 1),
        (len, len + 1),
        (len + 1, len + 1),
        (len + 1, len + 2),
        (u64::MAX, u64::MAX),
        (0, u64::MAX),
        (5, 4),
        (len + 1, len),
    ] {
        check_refused(&reader, start..end).await;
    }
}

async fn many_read_at_once(storage: &Arc<dyn Storage>) {
    let content = pattern(0, 300_000);
    let reads = (0..64).map(|number| {
        let content = &content;
        async move {
            let reader = storage.open(Offset(0)).await.unwrap();
            for step in 0..8 {
                let start = (number * 4_001 + step * 17) % 290_000;
                let bytes = read(&reader, start as u64..start as u64 + 10_000).await;
                assert!(bytes == content[start..start + 10_000]);
            }
        }
    });
    join_all(reads).await;
}

async fn bytes_outlive_their_reader(storage: &Arc<dyn Storage>) {
    let reader = storage.open(Offset(0)).await.unwrap();
    let chunks = reader.read(100..200_000).await.unwrap();
    drop(reader);
    assert!(chunks.concat() == pattern(0, 300_000)[100..200_000]);
}
