//! The half of the suite that appends, removes, restarts and keeps blobs.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use comlog_record::Offset;
use futures_util::FutureExt;

use super::{Fixture, check_refused, listed, pattern, read};
use crate::{MARK_LEN, Mark, SegmentWriter, Storage, StorageError};

const HINT: u64 = 1 << 20;

/// Runs the writer suite. `fresh` opens a new, empty storage each time.
pub async fn check_writer<F, Fut>(fresh: impl Fn() -> Fut)
where
    F: Fixture,
    Fut: Future<Output = F>,
{
    names_are_taken_once(fresh().await).await;
    appended_bytes_are_read_at_once(fresh().await).await;
    readers_follow_the_writer(fresh().await).await;
    sealing_cuts_what_was_allocated(fresh().await).await;
    synced_bytes_outlive_a_restart(fresh().await).await;
    reopening_goes_on_behind_the_cut(fresh().await).await;
    reopening_shorter_forgets_the_rest(fresh().await).await;
    reopening_a_sealed_segment_unseals_it(fresh().await).await;
    reopening_what_is_not_there_is_refused(fresh().await).await;
    truncating_cuts_the_tail(fresh().await).await;
    removed_segments_stay_readable(fresh().await).await;
    a_removed_name_is_free(fresh().await).await;
    a_dropped_future_fails_the_writer(fresh().await).await;
    #[cfg(not(target_arch = "wasm32"))]
    super::threads::threads_read_while_the_writer_appends(fresh().await).await;
    blobs_are_replaced_whole(fresh().await).await;
    blob_names_are_checked(fresh().await).await;
    marks_come_with_what_they_mark(fresh().await).await;
    a_restart_without_a_crash_is_the_same_life(fresh().await).await;
}

pub(super) async fn create(fixture: &impl Fixture, base_offset: i64) -> Box<dyn SegmentWriter> {
    let created = fixture.storage().create(Offset(base_offset), HINT).await;
    created.unwrap()
}

async fn names_are_taken_once(mut fixture: impl Fixture) {
    drop(create(&fixture, 10).await);
    for base_offset in [3, 0] {
        create(&fixture, base_offset).await.seal().await.unwrap();
    }
    for base_offset in [0, 3, 10] {
        let again = fixture.storage().create(Offset(base_offset), 0).await;
        assert!(
            matches!(again, Err(StorageError::AlreadyExists { .. })),
            "{again:?}"
        );
    }
    fixture.restart().await;
    let names: Vec<i64> = listed(&fixture.storage())
        .await
        .iter()
        .map(|s| s.0)
        .collect();
    assert_eq!(names, [0, 3, 10]);
    let again = fixture.storage().create(Offset(10), 0).await;
    assert!(matches!(again, Err(StorageError::AlreadyExists { .. })));
}

/// A mark is there once its call returned, one slot does not touch the other, and both outlive the
/// writer and the process.
async fn marks_come_with_what_they_mark(mut fixture: impl Fixture) {
    assert!(fixture.storage().read_marks().await.unwrap().is_empty());
    let mut writer = create(&fixture, 0).await;
    let mark = |byte: u8| [byte; MARK_LEN];
    let chunk = [pattern(1, 100)];
    writer.mark_next(0, mark(1));
    writer.append(&chunk).await.unwrap();
    check_marks(&fixture, &[mark(1)]).await;
    writer.mark_next(1, mark(2));
    writer.append_and_sync(&chunk).await.unwrap();
    check_marks(&fixture, &[mark(1), mark(2)]).await;
    writer.append(&chunk).await.unwrap();
    writer.mark_next(0, mark(3));
    check_marks(&fixture, &[mark(1), mark(2)]).await;
    writer.sync().await.unwrap();
    check_marks(&fixture, &[mark(2), mark(3)]).await;
    drop(writer);
    fixture.restart().await;
    check_marks(&fixture, &[mark(2), mark(3)]).await;
    let mut writer = create(&fixture, 50).await;
    writer.mark_next(1, mark(4));
    writer.append(&chunk).await.unwrap();
    check_marks(&fixture, &[mark(3), mark(4)]).await;
    assert_eq!(fixture.storage().list_blobs().await.unwrap(), [""; 0]);
}

async fn check_marks(fixture: &impl Fixture, wanted: &[Mark]) {
    let mut found = fixture.storage().read_marks().await.unwrap();
    found.retain(|mark| mark.iter().any(|byte| *byte != 0)); // a slot never used may read as zeros
    found.sort_unstable();
    assert_eq!(found, wanted);
}

async fn a_restart_without_a_crash_is_the_same_life(mut fixture: impl Fixture) {
    let before = fixture.storage().incarnation();
    assert!(before.as_ref().is_none_or(|value| value.len() < 256));
    fixture.restart().await;
    assert_eq!(fixture.storage().incarnation(), before);
}

async fn appended_bytes_are_read_at_once(fixture: impl Fixture) {
    let mut writer = create(&fixture, 0).await;
    assert!(writer.is_empty() && writer.reader().is_empty());
    let chunks = [pattern(1, 100), Bytes::new(), pattern(2, 5_000)];
    writer.append(&chunks).await.unwrap();
    writer.append(&[]).await.unwrap();
    assert_eq!((writer.len(), writer.reader().len()), (5_100, 5_100));
    assert!(read(&writer.reader(), 0..5_100).await == chunks.concat());
    let listed = listed(&fixture.storage()).await;
    assert!(listed.len() == 1 && listed[0].1 >= 5_100, "{listed:?}");
}

async fn readers_follow_the_writer(fixture: impl Fixture) {
    let mut writer = create(&fixture, 0).await;
    let reader = writer.reader();
    let mut content = Vec::new();
    for round in 0..40 {
        let chunk = pattern(round, 997 * (1 + round as usize % 7));
        content.extend_from_slice(&chunk);
        if round % 3 == 0 {
            writer.append_and_sync(&[chunk]).await.unwrap();
        } else {
            writer.append(&[chunk]).await.unwrap();
        }
        let len = content.len() as u64;
        assert_eq!((writer.len(), reader.len()), (len, len));
        check_refused(&reader, len..len + 1).await;
        check_refused(&reader, 0..len + 1).await;
        let start = content.len() / 3;
        assert!(read(&reader, start as u64..len).await == content[start..]);
    }
    assert!(read(&reader, 0..content.len() as u64).await == content);
    let sealed = writer.seal().await.unwrap();
    assert!(read(&sealed, 0..sealed.len()).await == content);
    assert!(read(&reader, 0..reader.len()).await == content);
}

async fn sealing_cuts_what_was_allocated(mut fixture: impl Fixture) {
    let mut writer = create(&fixture, 0).await;
    writer.append(&[pattern(1, 5_000)]).await.unwrap();
    let sealed = writer.seal().await.unwrap();
    assert_eq!(sealed.len(), 5_000);
    assert_eq!(listed(&fixture.storage()).await, [(0, 5_000)]);
    drop(sealed);
    create(&fixture, 5).await.seal().await.unwrap();
    fixture.restart().await;
    assert_eq!(listed(&fixture.storage()).await, [(0, 5_000), (5, 0)]);
    let reader = fixture.storage().open(Offset(0)).await.unwrap();
    assert!(read(&reader, 0..5_000).await == pattern(1, 5_000));
}

/// What stands in an unsealed segment behind `written` is zeros, if there is anything.
async fn check_zeros_behind(storage: &Arc<dyn Storage>, base_offset: i64, written: &[u8]) {
    let reader = storage.open(Offset(base_offset)).await.unwrap();
    let content = read(&reader, 0..reader.len()).await;
    assert_eq!(
        listed(storage).await,
        [(base_offset, content.len() as u64)],
        "list and open must agree on the length"
    );
    assert!(content.len() >= written.len() && content[..written.len()] == *written);
    assert!(content[written.len()..].iter().all(|byte| *byte == 0));
}

async fn synced_bytes_outlive_a_restart(mut fixture: impl Fixture) {
    let mut writer = create(&fixture, 0).await;
    writer.append(&[pattern(1, 3_000)]).await.unwrap();
    writer.append(&[pattern(2, 3_000)]).await.unwrap();
    writer.sync().await.unwrap();
    drop(writer);
    fixture.restart().await;
    let written = [pattern(1, 3_000), pattern(2, 3_000)].concat();
    check_zeros_behind(&fixture.storage(), 0, &written).await;
}

async fn write_and_restart(fixture: &mut impl Fixture, content: Bytes) {
    let mut writer = create(fixture, 0).await;
    writer.append_and_sync(&[content]).await.unwrap();
    drop(writer);
    fixture.restart().await;
}

async fn reopen(fixture: &impl Fixture, len: u64) -> Box<dyn SegmentWriter> {
    let reopened = fixture.storage().reopen(Offset(0), len, HINT).await;
    reopened.unwrap()
}

async fn reopening_goes_on_behind_the_cut(mut fixture: impl Fixture) {
    write_and_restart(&mut fixture, pattern(1, 10_000)).await;
    let mut writer = reopen(&fixture, 6_001).await;
    assert_eq!((writer.len(), writer.reader().len()), (6_001, 6_001));
    check_refused(&writer.reader(), 6_000..6_002).await;
    writer.append_and_sync(&[pattern(2, 500)]).await.unwrap();
    let expected = [pattern(1, 6_001), pattern(2, 500)].concat();
    assert!(read(&writer.reader(), 0..6_501).await == expected);
    drop(writer);
    fixture.restart().await;
    check_zeros_behind(&fixture.storage(), 0, &expected).await;
}

async fn reopening_shorter_forgets_the_rest(mut fixture: impl Fixture) {
    write_and_restart(&mut fixture, pattern(1, 10_000)).await;
    drop(reopen(&fixture, 6_001).await);
    fixture.restart().await;
    check_zeros_behind(&fixture.storage(), 0, &pattern(1, 6_001)).await;
    drop(reopen(&fixture, 0).await);
    fixture.restart().await;
    check_zeros_behind(&fixture.storage(), 0, &[]).await;
}

async fn reopening_a_sealed_segment_unseals_it(mut fixture: impl Fixture) {
    let mut writer = create(&fixture, 0).await;
    writer.append(&[pattern(1, 9_000)]).await.unwrap();
    drop(writer.seal().await.unwrap());
    let mut writer = reopen(&fixture, 9_000).await;
    writer.append(&[pattern(2, 9_000)]).await.unwrap();
    let content = [pattern(1, 9_000), pattern(2, 9_000)].concat();
    assert!(read(&writer.reader(), 0..18_000).await == content);
    drop(writer.seal().await.unwrap());
    fixture.restart().await;
    assert_eq!(listed(&fixture.storage()).await, [(0, 18_000)]);
    let reader = fixture.storage().open(Offset(0)).await.unwrap();
    assert!(read(&reader, 0..18_000).await == content);
}

async fn reopening_what_is_not_there_is_refused(fixture: impl Fixture) {
    let missing = fixture.storage().reopen(Offset(0), 0, HINT).await;
    assert!(matches!(missing, Err(StorageError::NotFound { .. })));
    let mut writer = create(&fixture, 0).await;
    writer.append(&[pattern(1, 10)]).await.unwrap();
    drop(writer.seal().await.unwrap());
    let beyond = fixture.storage().reopen(Offset(0), 11, HINT).await;
    assert!(matches!(beyond, Err(StorageError::InvalidInput { .. })));
    assert_eq!(listed(&fixture.storage()).await, [(0, 10)]);
}

async fn truncating_cuts_the_tail(mut fixture: impl Fixture) {
    let mut writer = create(&fixture, 0).await;
    let reader = writer.reader();
    writer.append_and_sync(&[pattern(1, 10_000)]).await.unwrap();
    let beyond = writer.truncate(10_001).await;
    assert!(matches!(beyond, Err(StorageError::InvalidInput { .. })));
    writer.truncate(10_000).await.unwrap();
    writer.truncate(4_000).await.unwrap();
    assert_eq!((writer.len(), reader.len()), (4_000, 4_000));
    check_refused(&reader, 0..4_001).await;
    writer.append_and_sync(&[pattern(2, 100)]).await.unwrap();
    let expected = [pattern(1, 4_000), pattern(2, 100)].concat();
    assert!(read(&reader, 0..4_100).await == expected);
    drop((writer, reader));
    fixture.restart().await;
    check_zeros_behind(&fixture.storage(), 0, &expected).await;
    reopen(&fixture, 4_100).await.truncate(0).await.unwrap();
    fixture.restart().await;
    check_zeros_behind(&fixture.storage(), 0, &[]).await;
}

async fn removed_segments_stay_readable(mut fixture: impl Fixture) {
    let mut writer = create(&fixture, 0).await;
    writer.append(&[pattern(1, 50_000)]).await.unwrap();
    let sealed = writer.seal().await.unwrap();
    let opened = fixture.storage().open(Offset(0)).await.unwrap();
    let held = opened.read(10..40_000).await.unwrap();
    fixture.storage().remove(Offset(0)).await.unwrap();
    for reader in [&sealed, &opened] {
        assert!(read(reader, 0..50_000).await == pattern(1, 50_000));
    }
    assert!(held.concat() == pattern(1, 50_000)[10..40_000]);
    let storage = fixture.storage();
    assert_eq!(listed(&storage).await, []);
    let gone = storage.open(Offset(0)).await;
    assert!(matches!(gone, Err(StorageError::NotFound { .. })));
    let gone = storage.remove(Offset(0)).await;
    assert!(matches!(gone, Err(StorageError::NotFound { .. })));
    drop((sealed, opened, held, storage));
    fixture.restart().await;
    assert_eq!(listed(&fixture.storage()).await, []);
}

async fn a_removed_name_is_free(fixture: impl Fixture) {
    let mut writer = create(&fixture, 0).await;
    writer.append(&[pattern(1, 9_000)]).await.unwrap();
    let old = writer.seal().await.unwrap();
    fixture.storage().remove(Offset(0)).await.unwrap();
    let mut writer = create(&fixture, 0).await;
    assert!(writer.is_empty());
    writer.append(&[pattern(2, 100)]).await.unwrap();
    let new = writer.seal().await.unwrap();
    assert!(read(&new, 0..new.len()).await == pattern(2, 100));
    assert!(read(&old, 0..old.len()).await == pattern(1, 9_000));
}

/// Only where the backend does not finish at the first poll; elsewhere nothing can be dropped half way.
async fn a_dropped_future_fails_the_writer(mut fixture: impl Fixture) {
    let mut writer = create(&fixture, 0).await;
    writer.append_and_sync(&[pattern(1, 9_000)]).await.unwrap();
    let finished = writer.append_and_sync(&[pattern(2, 9_000)]).now_or_never();
    if let Some(appended) = finished {
        appended.unwrap();
    } else {
        check_failed(&mut writer).await;
    }
    drop(writer);
    fixture.restart().await;
    let mut writer = reopen(&fixture, 9_000).await;
    if writer.sync().now_or_never().is_none() {
        check_failed(&mut writer).await;
    }
    drop(writer);
    fixture.restart().await;
    check_zeros_behind(&fixture.storage(), 0, &pattern(1, 9_000)).await;
}

async fn check_failed(writer: &mut Box<dyn SegmentWriter>) {
    for _ in 0..2 {
        let appended = writer.append(&[pattern(3, 1)]).await;
        assert!(matches!(appended, Err(StorageError::Failed { .. })));
        let synced = writer.sync().await;
        assert!(matches!(synced, Err(StorageError::Failed { .. })));
        let truncated = writer.truncate(0).await;
        assert!(matches!(truncated, Err(StorageError::Failed { .. })));
    }
}

async fn blobs_are_replaced_whole(mut fixture: impl Fixture) {
    let storage = fixture.storage();
    assert_eq!(storage.read_blob("vote").await.unwrap(), None);
    storage.remove_blob("vote").await.unwrap();
    for (name, len) in [("vote", 100_000), ("a.index", 5), ("empty", 0), ("vote", 7)] {
        let content = pattern(len as u64, len);
        storage.write_blob(name, content.clone()).await.unwrap();
        assert_eq!(storage.read_blob(name).await.unwrap(), Some(content));
    }
    assert_eq!(
        storage.list_blobs().await.unwrap(),
        ["a.index", "empty", "vote"]
    );
    storage.remove_blob("a.index").await.unwrap();
    storage.remove_blob("a.index").await.unwrap();
    assert_eq!(listed(&storage).await, [], "a blob is no segment");
    drop(storage);
    fixture.restart().await;
    let storage = fixture.storage();
    assert_eq!(storage.list_blobs().await.unwrap(), ["empty", "vote"]);
    let vote = storage.read_blob("vote").await.unwrap();
    assert_eq!(vote, Some(pattern(7, 7)));
    let empty = storage.read_blob("empty").await.unwrap();
    assert_eq!(empty, Some(Bytes::new()));
    assert_eq!(storage.read_blob("a.index").await.unwrap(), None);
}

async fn blob_names_are_checked(fixture: impl Fixture) {
    let storage = fixture.storage();
    let long = "a".repeat(65);
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "../a",
        "A",
        "a b",
        "00000000000000000000.log",
        &long,
    ] {
        let refused = [
            storage.read_blob(name).await.map(|_| ()),
            storage.write_blob(name, Bytes::new()).await,
            storage.remove_blob(name).await,
        ];
        for result in refused {
            assert!(
                matches!(result, Err(StorageError::InvalidInput { .. })),
                "{name:?}: {result:?}"
            );
        }
    }
    assert!(storage.list_blobs().await.unwrap().is_empty());
}
