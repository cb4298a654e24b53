//! Directories in memory that outlive a server, with syncs that can be counted, held back and failed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::Offset;
use comlog_server::LogDirs;
use comlog_storage::{
    MemoryStorage, Result, SegmentMeta, SegmentReader, SegmentWriter, Storage, StorageError,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// A tree of directories in memory.
#[derive(Debug)]
pub(crate) struct MemoryDirs {
    dirs: Mutex<BTreeMap<String, MemoryStorage>>,
    disk: Arc<Disk>,
}

/// What all directories share.
#[derive(Debug)]
struct Disk {
    syncs: AtomicU64,
    /// Syncs, and removals of directories, wait while this is `true`.
    held: watch::Sender<bool>,
    fail_syncs: AtomicBool,
    full: AtomicBool,
    fail_opens_in: Mutex<Option<String>>,
}

impl Disk {
    fn check_room(&self) -> Result<()> {
        if self.full.load(Ordering::SeqCst) {
            let what = "test".to_owned();
            return Err(StorageError::NoSpace { what });
        }
        Ok(())
    }

    async fn wait(&self) {
        let mut held = self.held.subscribe();
        // The sender lives as long as the disk.
        drop(held.wait_for(|held| !held).await);
    }
}

impl Default for MemoryDirs {
    fn default() -> MemoryDirs {
        MemoryDirs {
            dirs: Mutex::default(),
            disk: Arc::new(Disk {
                syncs: AtomicU64::new(0),
                held: watch::channel(false).0,
                fail_syncs: AtomicBool::new(false),
                full: AtomicBool::new(false),
                fail_opens_in: Mutex::new(None),
            }),
        }
    }
}

impl MemoryDirs {
    /// Syncs of segments so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.disk.syncs.load(Ordering::SeqCst)
    }

    /// Holds every sync, and every removal of a directory, back until [`MemoryDirs::release_syncs`].
    pub(crate) fn hold_syncs(&self) {
        self.disk.held.send_replace(true);
    }

    pub(crate) fn release_syncs(&self) {
        self.disk.held.send_replace(false);
    }

    /// From now on every sync fails.
    pub(crate) fn fail_syncs(&self) {
        self.disk.fail_syncs.store(true, Ordering::SeqCst);
    }

    /// From now on there is no room for anything.
    pub(crate) fn fill(&self) {
        self.disk.full.store(true, Ordering::SeqCst);
    }

    pub(crate) fn heal(&self) {
        self.disk.full.store(false, Ordering::SeqCst);
        self.disk.fail_syncs.store(false, Ordering::SeqCst);
        *self.disk.fail_opens_in.lock() = None;
    }

    /// From now on the directory that ends with `suffix` cannot be listed.
    pub(crate) fn fail_opens_in(&self, suffix: &str) {
        *self.disk.fail_opens_in.lock() = Some(suffix.to_owned());
    }

    /// Every directory there is.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.dirs.lock().keys().cloned().collect()
    }

    /// Takes a directory and everything in it away, or puts it back, while nobody has it open.
    pub(crate) fn take(&self, path: &str) -> BTreeMap<String, MemoryStorage> {
        let below = format!("{path}/");
        let ours = |dir: &String| dir == path || dir.starts_with(&below);
        let mut dirs = self.dirs.lock();
        let taken: Vec<String> = dirs.keys().filter(|dir| ours(dir)).cloned().collect();
        let taken = taken.into_iter();
        taken.filter_map(|dir| dirs.remove_entry(&dir)).collect()
    }

    /// Changes the segment that begins at `base_offset` while nobody has it open.
    pub(crate) async fn change_segment(
        &self,
        path: &str,
        base_offset: Offset,
        change: impl FnOnce(&mut Vec<u8>),
    ) {
        let storage = self.raw(path);
        let reader = storage.open(base_offset).await.expect("is there");
        let chunks = reader.read(0..reader.len()).await.expect("reads");
        let mut content = chunks.concat();
        change(&mut content);
        storage.remove(base_offset).await.expect("removes");
        let mut writer = storage.create(base_offset, 0).await.expect("creates");
        writer.append(&[content.into()]).await.expect("writes");
        writer.seal().await.expect("seals");
    }

    /// The storage below the counting.
    pub(crate) fn raw(&self, path: &str) -> MemoryStorage {
        self.dirs.lock().entry(path.to_owned()).or_default().clone()
    }
}

#[async_trait]
impl LogDirs for MemoryDirs {
    async fn storage(&self, path: &str) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(Watched {
            path: path.to_owned(),
            inner: self.raw(path),
            disk: self.disk.clone(),
        }))
    }

    async fn list(&self, path: &str) -> Result<Vec<String>> {
        let below = format!("{path}/");
        let dirs = self.dirs.lock();
        let inside = dirs.keys().filter_map(|dir| dir.strip_prefix(&below));
        let names: BTreeSet<&str> = inside.filter_map(|rest| rest.split('/').next()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    async fn remove(&self, path: &str) -> Result<()> {
        self.disk.wait().await;
        let below = format!("{path}/");
        self.dirs
            .lock()
            .retain(|dir, _| dir != path && !dir.starts_with(&below));
        Ok(())
    }
}

/// A storage whose writers are watched.
#[derive(Debug)]
struct Watched {
    path: String,
    inner: MemoryStorage,
    disk: Arc<Disk>,
}

impl Watched {
    fn watch(&self, inner: Box<dyn SegmentWriter>) -> Box<dyn SegmentWriter> {
        Box::new(WatchedWriter {
            inner,
            disk: self.disk.clone(),
        })
    }
}

#[async_trait]
impl Storage for Watched {
    async fn list(&self) -> Result<Vec<SegmentMeta>> {
        let broken = self.disk.fail_opens_in.lock().clone();
        if broken.is_some_and(|suffix| self.path.ends_with(&suffix)) {
            return Err(failure("list"));
        }
        self.inner.list().await
    }

    async fn create(&self, base_offset: Offset, len_hint: u64) -> Result<Box<dyn SegmentWriter>> {
        self.disk.check_room()?;
        Ok(self.watch(self.inner.create(base_offset, len_hint).await?))
    }

    async fn reopen(
        &self,
        base_offset: Offset,
        len: u64,
        len_hint: u64,
    ) -> Result<Box<dyn SegmentWriter>> {
        Ok(self.watch(self.inner.reopen(base_offset, len, len_hint).await?))
    }

    async fn open(&self, base_offset: Offset) -> Result<Arc<dyn SegmentReader>> {
        self.inner.open(base_offset).await
    }

    async fn remove(&self, base_offset: Offset) -> Result<()> {
        self.inner.remove(base_offset).await
    }

    async fn read_blob(&self, name: &str) -> Result<Option<Bytes>> {
        self.inner.read_blob(name).await
    }

    async fn write_blob(&self, name: &str, content: Bytes) -> Result<()> {
        self.disk.check_room()?;
        self.inner.write_blob(name, content).await
    }

    async fn remove_blob(&self, name: &str) -> Result<()> {
        self.inner.remove_blob(name).await
    }

    async fn list_blobs(&self) -> Result<Vec<String>> {
        self.inner.list_blobs().await
    }
}

#[derive(Debug)]
struct WatchedWriter {
    inner: Box<dyn SegmentWriter>,
    disk: Arc<Disk>,
}

#[async_trait]
impl SegmentWriter for WatchedWriter {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn reader(&self) -> Arc<dyn SegmentReader> {
        self.inner.reader()
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<()> {
        self.disk.check_room()?;
        self.inner.append(chunks).await
    }

    async fn sync(&mut self) -> Result<()> {
        self.disk.wait().await;
        if self.disk.fail_syncs.load(Ordering::SeqCst) {
            return Err(failure("sync"));
        }
        self.disk.syncs.fetch_add(1, Ordering::SeqCst);
        self.inner.sync().await
    }

    async fn truncate(&mut self, len: u64) -> Result<()> {
        self.inner.truncate(len).await
    }

    async fn seal(self: Box<Self>) -> Result<Arc<dyn SegmentReader>> {
        self.inner.seal().await
    }
}

fn failure(what: &str) -> StorageError {
    StorageError::Io {
        what: format!("test: {what}"),
        source: io::Error::other("made to fail"),
    }
}
