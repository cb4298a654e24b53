//! A file cut short under a mapping, in a process of its own: it must live, and say so.
#![cfg(feature = "mmap")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use bytes::Bytes;
use comlog_record::Offset;
use comlog_storage::{
    DataDir, DiskOptions, Storage, StorageError, install_sigbus_guard, segment_name,
};

const CHILD: &str = "COMLOG_TEST_SIGBUS_CHILD";

#[test]
fn a_process_survives_a_file_cut_short_under_its_map() {
    if let Some(guarded) = std::env::var_os(CHILD) {
        return child(guarded == "guarded");
    }
    let run = |mode: &str| {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_process_survives_a_file_cut_short_under_its_map",
                "--nocapture",
            ])
            .env(CHILD, mode)
            .output()
            .unwrap()
    };
    let guarded = run("guarded");
    assert!(
        guarded.status.success(),
        "{}",
        String::from_utf8_lossy(&guarded.stderr)
    );
    assert!(String::from_utf8_lossy(&guarded.stdout).contains("still alive"));
    // Without the guard the same steps end the process: so the test above can fail.
    assert!(!run("bare").status.success());
}

fn child(guarded: bool) {
    if guarded {
        install_sigbus_guard().unwrap();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let storage = DataDir::open(dir.path(), DiskOptions::default())
            .unwrap()
            .storage("a")
            .unwrap();
        let mut writer = storage.create(Offset(0), 0).await.unwrap();
        writer
            .append_and_sync(&[Bytes::from(vec![7; 300_000])])
            .await
            .unwrap();
        let reader = writer.seal().await.unwrap();
        let whole = reader.read(0..300_000).await.unwrap().remove(0);
        let path = dir.path().join("a").join(segment_name(Offset(0)));
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(8192)
            .unwrap();
        assert!(whole[..8192].iter().all(|&byte| byte == 7));
        assert!(
            whole[8192..].iter().all(|&byte| byte == 0),
            "zeros instead of death"
        );
        let error = reader.read(0..300_000).await.unwrap_err();
        assert!(matches!(error, StorageError::Damaged { range, .. } if range == (8192..300_000)));
        assert_eq!(reader.read(0..8192).await.unwrap().concat(), vec![7; 8192]);
    });
    println!("still alive");
}
