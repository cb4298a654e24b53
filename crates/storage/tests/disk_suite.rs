//! The conformance suite over the local disk.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use comlog_storage::conformance::{Fixture, check_reader, check_writer, fill};
use comlog_storage::{DataDir, DiskOptions, Storage};
use tempfile::TempDir;

struct Disk {
    dir: TempDir,
    open: Option<Arc<dyn Storage>>,
}

fn open(dir: &TempDir) -> Arc<dyn Storage> {
    let data_dir = DataDir::open(dir.path(), DiskOptions::default()).unwrap();
    data_dir.storage("topic/0").unwrap()
}

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let open = Some(open(&dir));
        Disk { dir, open }
    }
}

#[async_trait]
impl Fixture for Disk {
    fn storage(&self) -> Arc<dyn Storage> {
        self.open.clone().unwrap()
    }

    async fn restart(&mut self) {
        drop(self.open.take());
        self.open = Some(open(&self.dir));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_reads_as_the_contract_says() {
    let dirs: Vec<TempDir> = (0..10).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut unused = dirs.iter();
    let given = |segments| {
        let storage = open(unused.next().unwrap());
        async move {
            fill(&storage, segments).await;
            storage
        }
    };
    check_reader(given).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_writes_as_the_contract_says() {
    check_writer(|| async { Disk::new() }).await;
}
