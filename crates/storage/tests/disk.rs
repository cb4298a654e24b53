//! The local disk through its public door: locks, formats, files damaged from outside.
#![cfg(feature = "mmap")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use comlog_record::Offset;
use comlog_storage::{DataDir, DiskOptions, Storage, StorageError, segment_name};
use futures_util::FutureExt;

fn open(path: &Path) -> std::sync::Arc<DataDir> {
    DataDir::open(path, DiskOptions::default()).unwrap()
}

fn snapshot(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap_or_default(),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_second_opener_is_told_who_holds_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path());
    let error = DataDir::open(dir.path(), DiskOptions::default()).unwrap_err();
    assert!(
        matches!(error, StorageError::Locked { pid: Some(pid), .. } if pid == std::process::id())
    );
    assert!(error.to_string().contains(&std::process::id().to_string()));
    drop(held);
    open(dir.path());
}

#[test]
fn a_deleted_lock_file_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path());
    fs::remove_file(dir.path().join("lock")).unwrap();
    for _ in 0..2 {
        let error = DataDir::open(dir.path(), DiskOptions::default()).unwrap_err();
        assert!(
            matches!(error, StorageError::Locked { pid: None, .. }),
            "{error}"
        );
    }
    drop(held);
    open(dir.path());
}

#[test]
fn what_is_not_ours_or_newer_is_not_touched() {
    for (name, content) in [
        ("format", "comlog data directory, format 2\n"),
        ("format", "comlog data directory, format x"),
        ("format", ""),
        ("holiday.jpg", "not a log"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), content).unwrap();
        let before = snapshot(dir.path());
        let error = DataDir::open(dir.path(), DiskOptions::default()).unwrap_err();
        assert!(
            matches!(error, StorageError::UnknownFormat { .. }),
            "{error}"
        );
        assert_eq!(snapshot(dir.path()), before);
    }
}

#[test]
fn directories_stay_inside() {
    let dir = tempfile::tempdir().unwrap();
    let data = open(dir.path());
    for name in ["../x", "/etc", "a/../../b", ".hidden", "a/./../b"] {
        assert!(
            matches!(data.storage(name), Err(StorageError::InvalidInput { .. })),
            "{name}"
        );
        assert!(data.remove(name).is_err(), "{name}");
    }
    data.storage("topics/a/0").unwrap();
    data.storage("topics/b/0").unwrap();
    assert_eq!(data.list("topics").unwrap(), ["a", "b"]);
    data.remove("topics/a").unwrap();
    data.remove("topics/a").unwrap();
    assert_eq!(data.list("topics").unwrap(), ["b"]);
}

#[tokio::test]
async fn left_overs_of_a_crash_go_and_strange_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).storage("a").unwrap());
    fs::create_dir(dir.path().join(".trash-x")).unwrap();
    fs::write(dir.path().join("a/.checkpoint.tmp"), "half").unwrap();
    fs::write(dir.path().join("a/README"), "mine").unwrap();
    let storage = open(dir.path()).storage("a").unwrap();
    assert!(!dir.path().join(".trash-x").exists());
    assert!(!dir.path().join("a/.checkpoint.tmp").exists());
    assert!(dir.path().join("a/README").exists());
    assert!(storage.list_blobs().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_file_cut_short_gives_an_error_for_that_range_only() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).storage("a").unwrap();
    let mut writer = storage.create(Offset(0), 1 << 20).await.unwrap();
    writer
        .append_and_sync(&[Bytes::from(vec![7; 300_000])])
        .await
        .unwrap();
    let reader = writer.seal().await.unwrap();
    let path = dir.path().join("a").join(segment_name(Offset(0)));
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        300_000,
        "sealing cuts the preallocation"
    );
    cut(&path, 100_000);
    let error = reader.read(90_000..200_000).await.unwrap_err();
    assert!(
        matches!(&error, StorageError::Damaged { range, .. } if *range == (100_000..200_000)),
        "{error}"
    );
    let kept = reader.read(0..100_000).await.unwrap().concat();
    assert!(kept.len() == 100_000 && kept.iter().all(|&byte| byte == 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_are_bounded_and_their_bytes_outlive_them() {
    let dir = tempfile::tempdir().unwrap();
    let options = DiskOptions {
        maps_max: 4,
        ..DiskOptions::default()
    };
    let storage = DataDir::open(dir.path(), options)
        .unwrap()
        .storage("a")
        .unwrap();
    let mut readers = Vec::new();
    for base in 0..32 {
        let mut writer = storage.create(Offset(base), 0).await.unwrap();
        writer
            .append_and_sync(&[Bytes::from(vec![base as u8; 100_000])])
            .await
            .unwrap();
        readers.push(writer.seal().await.unwrap());
    }
    let first = readers[0].read(0..100_000).await.unwrap().remove(0);
    for _ in 0..3 {
        for reader in &readers {
            reader.read(0..10).await.unwrap();
        }
    }
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps
        .lines()
        .filter(|line| line.contains(dir.path().to_str().unwrap()))
        .count();
    assert!(
        (1..=5).contains(&mapped),
        "{mapped} maps: four, and the one still held"
    );
    assert!(first.iter().all(|&byte| byte == 0));
    storage.remove(Offset(0)).await.unwrap();
    assert!(
        first.iter().all(|&byte| byte == 0),
        "a removed segment's bytes stay"
    );
}

/// The runtime has one thread for calls that block, and that is taken while it matters.
#[test]
fn small_appends_end_at_once_and_larger_ones_wait_for_a_thread() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let options = DiskOptions {
            inline_bytes_max: 1000,
            ..DiskOptions::default()
        };
        let data_dir = DataDir::open(dir.path(), options).unwrap();
        let storage = data_dir.storage("a").unwrap();
        let mut writer = storage.create(Offset(0), 1 << 20).await.unwrap();
        let chunk = |value, len| [Bytes::from(vec![value; len])];
        let first = chunk(0, 100);
        writer.append(&first).await.unwrap(); // allocates

        let (release, held) = std::sync::mpsc::channel::<()>();
        let (taken, taking) = tokio::sync::oneshot::channel();
        let holder = tokio::task::spawn_blocking(move || {
            taken.send(()).unwrap();
            // Ends when its sender is dropped.
            let _ = held.recv();
        });
        taking.await.unwrap();
        let small = chunk(1, 1000);
        writer.append(&small).now_or_never().unwrap().unwrap();
        assert!(writer.append(&chunk(2, 1001)).now_or_never().is_none());
        drop(release);
        holder.await.unwrap();

        for _ in 0..2 {
            let refused = writer.append(&small).await;
            assert!(matches!(refused, Err(StorageError::Failed { .. })));
        }
        assert_eq!(writer.len(), 1100);
        let found = writer.reader().read(0..1100).await.unwrap().concat();
        assert!(found == [&first[0][..], &small[0][..]].concat());
        let file = fs::read(dir.path().join("a").join(segment_name(Offset(0)))).unwrap();
        assert!(file[..1100] == found, "it went to the file");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn more_logs_than_calls_may_be_under_way_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let options = DiskOptions {
        syncs_in_flight_max: 2,
        ..DiskOptions::default()
    };
    let data_dir = DataDir::open(dir.path(), options).unwrap();
    let mut logs = tokio::task::JoinSet::new();
    for log in 0..20u8 {
        let storage = data_dir.storage(&format!("log-{log}")).unwrap();
        logs.spawn(async move {
            let mut writer = storage.create(Offset(0), 1 << 20).await.unwrap();
            for _ in 0..50 {
                let chunk = [Bytes::from(vec![log; 10])];
                writer.append_and_sync(&chunk).await.unwrap();
            }
            let found = writer.reader().read(0..500).await.unwrap().concat();
            assert!(found == vec![log; 500]);
        });
    }
    while let Some(ended) = logs.join_next().await {
        ended.unwrap();
    }
}

/// A call that finds its runtime shut down is told so, and the disk serves the next runtime.
#[test]
fn a_runtime_that_was_shut_down_takes_no_turn_from_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let options = DiskOptions {
        syncs_in_flight_max: 1,
        ..DiskOptions::default()
    };
    let data_dir = DataDir::open(dir.path(), options).unwrap();
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let chunk = [Bytes::from_static(b"x")];

    let first = runtime();
    let handle = first.handle().clone();
    let storage = data_dir.storage("a").unwrap();
    let mut writer = first.block_on(storage.create(Offset(0), 1 << 20)).unwrap();
    first.shutdown_background();
    let entered = handle.enter();
    let told = writer.append_and_sync(&chunk).now_or_never().unwrap();
    assert!(matches!(told, Err(StorageError::Io { .. })), "{told:?}");
    drop(entered);

    let second = runtime();
    let storage = data_dir.storage("b").unwrap();
    let mut writer = second.block_on(storage.create(Offset(0), 1 << 20)).unwrap();
    second.block_on(writer.append_and_sync(&chunk)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_is_served_from_the_writers_buffers_and_the_rest_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = DiskOptions {
        tail_bytes_max: 1700, // ten chunks of 100, with what it costs to keep each
        ..DiskOptions::default()
    };
    let storage = DataDir::open(dir.path(), options)
        .unwrap()
        .storage("a")
        .unwrap();
    let mut writer = storage.create(Offset(0), 1 << 20).await.unwrap();
    let reader = writer.reader();
    for value in 0..20u8 {
        writer
            .append(&[Bytes::from(vec![value; 100])])
            .await
            .unwrap();
    }
    assert!(reader.try_read(1000..2000).unwrap().is_some());
    assert!(
        reader.try_read(999..2000).unwrap().is_none(),
        "older bytes need the file"
    );
    let all = reader.read(0..2000).await.unwrap().concat();
    assert!(
        all.iter()
            .enumerate()
            .all(|(at, &byte)| byte == (at / 100) as u8)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_cut_before_it_is_mapped_is_damaged_behind_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).storage("a").unwrap();
    let mut writer = storage.create(Offset(0), 0).await.unwrap();
    let content = Bytes::from(vec![7; 8 << 20]);
    writer.append_and_sync(&[content]).await.unwrap();
    let reader = writer.seal().await.unwrap();
    storage.create(Offset(1), 0).await.unwrap();
    cut(&dir.path().join("a").join(segment_name(Offset(0))), 100_000);
    let kept = reader.read(0..100_000).await.unwrap().concat();
    assert!(kept.iter().all(|&byte| byte == 7));
    for (start, end) in [(99_000, 120_000), (200_000, 200_001), (5 << 20, 8 << 20)] {
        let error = reader.read(start..end).await.unwrap_err();
        let missing = start.max(100_000)..end;
        assert!(
            matches!(&error, StorageError::Damaged { range, .. } if *range == missing),
            "{error}"
        );
    }
}

fn cut(path: &Path, len: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_append_is_over_when_the_segment_is_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).storage("a").unwrap();
    let path = dir.path().join("a").join(segment_name(Offset(0)));
    let mut writer = storage.create(Offset(0), 0).await.unwrap();
    let chunks = vec![Bytes::from(vec![7; 4096]); 8192]; // several calls of the kernel
    for _ in 0..8 {
        let _begun = writer.append(&chunks).now_or_never();
        let reader = writer.reader();
        drop(writer);
        writer = storage.reopen(Offset(0), 0, 0).await.unwrap();
        for _ in 0..10 {
            assert_eq!(fs::metadata(&path).unwrap().len(), 0, "still written to");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(reader); // which must not have kept the segment from being reopened
    }
    writer.append_and_sync(&[Bytes::from("new")]).await.unwrap();
    drop(writer.seal().await.unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn a_failed_writer_shows_what_it_had() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path()).storage("a").unwrap();
        let mut writer = storage.create(Offset(0), 0).await.unwrap();
        writer.append_and_sync(&[Bytes::from("old")]).await.unwrap();
        // With the only thread for it busy, the append cannot end before it is dropped.
        let (free, busy) = std::sync::mpsc::channel::<()>();
        let thread = tokio::task::spawn_blocking(move || busy.recv());
        let lost = writer.append(&[Bytes::from("lost")]).now_or_never();
        assert!(lost.is_none());
        let truncated = writer.truncate(0).await;
        assert!(matches!(truncated, Err(StorageError::Failed { .. })));
        let reader = writer.reader();
        assert_eq!(reader.len(), 3);
        drop(free);
        assert!(thread.await.unwrap().is_err());
        assert_eq!(reader.read(0..3).await.unwrap().concat(), b"old");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_contents_of_a_blob_the_later_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).storage("a").unwrap();
    let long = Bytes::from(vec![7; 16 << 20]);
    for _ in 0..4 {
        let _begun = storage.write_blob("state", long.clone()).now_or_never();
        storage
            .write_blob("state", Bytes::from("new"))
            .await
            .unwrap();
        for _ in 0..10 {
            let content = storage.read_blob("state").await.unwrap().unwrap();
            assert!(
                content == "new",
                "{} bytes of the old content",
                content.len()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
