//! The local disk in a process of its own: one that holds the lock, one that has no room.
#![cfg(feature = "mmap")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use comlog_record::Offset;
use comlog_storage::{DataDir, DiskOptions, Storage, StorageError, segment_name};

/// Set in the processes that the tests start; holds the data directory.
const CHILD: &str = "COMLOG_TEST_DISK_CHILD";
const CHUNK_LEN: u64 = 100_000;

fn child_dir() -> Option<String> {
    std::env::var(CHILD).ok()
}

#[test]
fn another_process_is_named_and_its_end_unlocks() {
    if let Some(dir) = child_dir() {
        let _held = DataDir::open(Path::new(&dir), DiskOptions::default()).unwrap();
        println!("\nheld");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process_is_named_and_its_end_unlocks"])
        .arg("--nocapture")
        .env(CHILD, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "held"));
    let error = DataDir::open(dir.path(), DiskOptions::default()).unwrap_err();
    assert!(
        matches!(error, StorageError::Locked { pid: Some(pid), .. } if pid == child.id()),
        "{error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    DataDir::open(dir.path(), DiskOptions::default()).unwrap();
}

/// The limit on a file's size stands in for a full disk: `fallocate` and `pwritev` refuse alike.
#[test]
fn without_room_nothing_is_kept_and_with_room_it_goes_on() {
    if let Some(dir) = child_dir() {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(fill_up(Path::new(&dir)));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // 6144 blocks are 3 or 6 MiB, by the shell: no size that doubling the allocation comes to.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 6144; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "without_room_nothing_is_kept_and_with_room_it_goes_on",
        ])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

async fn fill_up(dir: &Path) {
    let limit = file_size_limit();
    let storage = DataDir::open(dir, DiskOptions::default())
        .unwrap()
        .storage("a")
        .unwrap();
    let path = dir.join("a").join(segment_name(Offset(0)));
    let chunk = |value| Bytes::from(vec![value; CHUNK_LEN as usize]);
    let mut writer = storage.create(Offset(0), 1 << 30).await.unwrap();
    let mut appended = 0;
    let refused = loop {
        match writer.append_and_sync(&[chunk(appended as u8)]).await {
            Ok(()) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StorageError::NoSpace { .. }), "{refused}");
    assert_eq!(appended, limit / CHUNK_LEN, "all that fits was taken");
    let len = appended * CHUNK_LEN;
    assert_eq!(writer.len(), len);
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        len,
        "and no more is kept"
    );

    writer.sync().await.unwrap();
    let rest = Bytes::from(vec![9; (limit - len) as usize]);
    writer.append_and_sync(&[rest]).await.unwrap();
    writer.truncate(CHUNK_LEN).await.unwrap();
    writer.append_and_sync(&[chunk(5)]).await.unwrap();
    let all = writer.reader().read(0..2 * CHUNK_LEN).await.unwrap();
    assert!(all.concat() == [chunk(0), chunk(5)].concat());

    let blob = Bytes::from(vec![1; limit as usize + 1]);
    let refused = storage.write_blob("state", blob).await.unwrap_err();
    assert!(matches!(refused, StorageError::NoSpace { .. }), "{refused}");
    assert!(storage.read_blob("state").await.unwrap().is_none());
}

fn file_size_limit() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max file size"));
    line.unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}
