//! The local disk: one directory per log.
//!
//! Writes go by `pwritev` and `fdatasync`, because these return errors where a store into a
//! mapping dies of SIGBUS; only sealed segments are mapped. Every call that waits for the disk runs
//! on tokio's blocking threads, so all futures here need a tokio runtime.
#![allow(clippy::disallowed_methods, reason = "this is the local disk")]

mod active;
mod calls;
mod data_dir;
mod incarnation;
mod marks;
mod sealed;
mod sigbus;
mod tail;
mod write;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::Offset;

use crate::{
    Mark, Result, SegmentMeta, SegmentReader, SegmentWriter, Storage, StorageError,
    check_blob_name, parse_segment_name, segment_name,
};
use active::ActiveWriter;
use calls::Calls;
pub use data_dir::{DataDir, FORMAT};
use marks::Marks;
use sealed::{Maps, SealedReader};
pub use sigbus::install_sigbus_guard;
use tail::Tails;

/// Largest blob that is written or read back.
const BLOB_BYTES_MAX: u64 = 1 << 30;
/// Name of a blob while it is written; such files are left-overs of a crash.
const BLOB_TMP_SUFFIX: &str = ".tmp";

/// Bounds of one disk, shared by every log on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskOptions {
    /// Most writes and syncs under way at once (default 16).
    pub syncs_in_flight_max: usize,
    /// Most bytes of recent appends kept in memory for readers, all logs together (default 32 MiB).
    pub tail_bytes_max: usize,
    /// Most sealed segments mapped at once (default 4096).
    pub maps_max: usize,
    /// Most bytes allocated ahead of a segment's end at a time; starts at 16 KiB and doubles
    /// (default 32 MiB).
    pub preallocate_bytes_max: u64,
    /// Most bytes of an append without sync that are written on the calling thread, if their room
    /// is allocated (default 64 KiB; 0: none).
    ///
    /// Such a write copies into the page cache, which takes less time than waking a blocking
    /// thread, but it waits when the disk stalls for so long that the kernel holds writers back,
    /// or its file system is frozen. A program whose threads also serve others sets 0.
    pub inline_bytes_max: usize,
}

impl Default for DiskOptions {
    fn default() -> DiskOptions {
        DiskOptions {
            syncs_in_flight_max: 16,
            tail_bytes_max: 32 << 20,
            maps_max: 4096,
            preallocate_bytes_max: 32 << 20,
            inline_bytes_max: 64 << 10,
        }
    }
}

/// What the logs of one disk share.
#[derive(Debug)]
struct Disk {
    options: DiskOptions,
    calls: Arc<Calls>,
    maps: Arc<Maps>,
    tails: Tails,
}

impl Disk {
    fn new(mut options: DiskOptions) -> Disk {
        options.preallocate_bytes_max = options.preallocate_bytes_max.max(1 << 20);
        Disk {
            options,
            calls: Arc::new(Calls::new(options.syncs_in_flight_max)),
            maps: Arc::new(Maps::new(options.maps_max.min(sigbus::MAPS_MAX))),
            tails: Tails::new(options.tail_bytes_max),
        }
    }
}

/// One log's directory on the local disk. Opened through [`DataDir::storage`].
#[derive(Debug, Clone)]
pub struct MmapStorage {
    dir: PathBuf,
    disk: Arc<Disk>,
    last_segment: Arc<LastSegment>,
    marks: Arc<Marks>,
    incarnation: Option<Bytes>,
    /// Held while a blob is written or removed, also by a call whose future was dropped: two
    /// writers of one temporary file would mix, and an old content could come last.
    blobs: Arc<tokio::sync::Mutex<()>>,
}

/// The base offset of the last segment of a directory, remembered so that opening a segment does
/// not list all of them.
#[derive(Debug, Default)]
struct LastSegment(Mutex<Option<Offset>>);

impl LastSegment {
    fn lock(&self) -> MutexGuard<'_, Option<Offset>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when `dir` holds no segment. Blocks.
    fn get(&self, dir: &Path) -> Result<Option<Offset>> {
        let mut last = self.lock();
        if last.is_none() {
            let names = file_names(dir)?;
            *last = names
                .iter()
                .filter_map(|name| parse_segment_name(name))
                .max();
        }
        Ok(*last)
    }

    fn created(&self, base_offset: Offset) {
        let mut last = self.lock();
        *last = last.map(|last| last.max(base_offset)); // unknown stays so
    }

    fn removed(&self, base_offset: Offset) {
        let mut last = self.lock();
        *last = last.filter(|last| *last != base_offset);
    }
}

impl MmapStorage {
    /// Opens `dir`, which exists, removing what a crash left of blobs half written. Blocks.
    fn open(dir: PathBuf, disk: Arc<Disk>) -> Result<MmapStorage> {
        for name in file_names(&dir)? {
            if name.starts_with('.') && name.ends_with(BLOB_TMP_SUFFIX) {
                let path = dir.join(name);
                fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))?;
            }
        }
        Ok(MmapStorage {
            marks: Arc::new(Marks::new(&dir)),
            incarnation: incarnation::of(&dir),
            dir,
            disk,
            last_segment: Arc::default(),
            blobs: Arc::default(),
        })
    }

    fn segment_path(&self, base_offset: Offset) -> PathBuf {
        self.dir.join(segment_name(base_offset))
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&MmapStorage) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let own = self.clone();
        blocking(move || work(&own)).await
    }

    fn list_blocking(&self) -> Result<Vec<SegmentMeta>> {
        let mut found = Vec::new();
        for name in file_names(&self.dir)? {
            if let Some(base_offset) = parse_segment_name(&name) {
                let path = self.dir.join(name);
                let len = match fs::metadata(&path) {
                    Ok(metadata) => metadata.len(),
                    // Removed since its name was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(io_error("stat", &path, error)),
                };
                found.push(SegmentMeta {
                    base_offset,
                    len,
                    max_timestamp: None,
                });
            }
        }
        found.sort_by_key(|meta| meta.base_offset);
        Ok(found)
    }

    fn create_blocking(&self, base_offset: Offset, len_hint: u64) -> Result<ActiveWriter> {
        let path = self.segment_path(base_offset);
        // First, so that without a descriptor for it nothing was made.
        let dir = OpenDir::open(&self.dir)?;
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => StorageError::AlreadyExists {
                what: path.display().to_string(),
            },
            _ => no_space_or(&path, "create", error),
        })?;
        dir.sync()?;
        self.last_segment.created(base_offset);
        ActiveWriter::create(self.part(path, file), len_hint)
    }

    fn reopen_blocking(
        &self,
        base_offset: Offset,
        len: u64,
        len_hint: u64,
    ) -> Result<ActiveWriter> {
        let path = self.segment_path(base_offset);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let file = opened.map_err(|error| io_error("open", &path, error))?;
        ActiveWriter::reopen(self.part(path, file), len, len_hint)
    }

    fn part(&self, path: PathBuf, file: File) -> active::Part {
        active::Part {
            path,
            file,
            marks: self.marks.clone(),
            disk: self.disk.clone(),
        }
    }

    fn open_blocking(&self, base_offset: Offset) -> Result<Arc<SealedReader>> {
        // The last segment is the one that is appended to, or was before a crash and will be cut
        // by recovery: only what has a successor is certainly sealed and may be mapped.
        let sealed = self.last_segment.get(&self.dir)? > Some(base_offset);
        let maps = sealed.then(|| self.disk.maps.clone());
        SealedReader::open(&self.segment_path(base_offset), maps)
    }

    fn remove_blocking(&self, base_offset: Offset) -> Result<()> {
        let path = self.segment_path(base_offset);
        let dir = OpenDir::open(&self.dir)?;
        // The file lives on, unnamed, until the last reader and the last map of it are gone.
        fs::remove_file(&path).map_err(|error| io_error("remove", &path, error))?;
        self.last_segment.removed(base_offset);
        dir.sync()
    }
}

#[async_trait]
impl Storage for MmapStorage {
    async fn list(&self) -> Result<Vec<SegmentMeta>> {
        self.on_disk(MmapStorage::list_blocking).await
    }

    async fn create(&self, base_offset: Offset, len_hint: u64) -> Result<Box<dyn SegmentWriter>> {
        let writer = self
            .on_disk(move |own| own.create_blocking(base_offset, len_hint))
            .await?;
        Ok(Box::new(writer))
    }

    async fn reopen(
        &self,
        base_offset: Offset,
        len: u64,
        len_hint: u64,
    ) -> Result<Box<dyn SegmentWriter>> {
        let writer = self
            .on_disk(move |own| own.reopen_blocking(base_offset, len, len_hint))
            .await?;
        Ok(Box::new(writer))
    }

    async fn open(&self, base_offset: Offset) -> Result<Arc<dyn SegmentReader>> {
        Ok(self
            .on_disk(move |own| own.open_blocking(base_offset))
            .await?)
    }

    async fn remove(&self, base_offset: Offset) -> Result<()> {
        self.on_disk(move |own| own.remove_blocking(base_offset))
            .await
    }

    async fn read_blob(&self, name: &str) -> Result<Option<Bytes>> {
        check_blob_name(name)?;
        let path = self.dir.join(name);
        blocking(move || read_blob(&path)).await
    }

    async fn write_blob(&self, name: &str, content: Bytes) -> Result<()> {
        check_blob_name(name)?;
        if content.len() as u64 > BLOB_BYTES_MAX {
            let what = format!("blob {name} of {} bytes", content.len());
            return Err(StorageError::InvalidInput { what });
        }
        let name = name.to_owned();
        let turn = self.blobs.clone().lock_owned().await;
        self.on_disk(move |own| {
            let _turn = turn;
            replace_file(&own.dir, &name, &content)
        })
        .await
    }

    async fn remove_blob(&self, name: &str) -> Result<()> {
        check_blob_name(name)?;
        let path = self.dir.join(name);
        let turn = self.blobs.clone().lock_owned().await;
        let remove = move |own: &MmapStorage| {
            let _turn = turn;
            let dir = OpenDir::open(&own.dir)?;
            match fs::remove_file(&path) {
                Ok(()) => dir.sync(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(io_error("remove", &path, error)),
            }
        };
        self.on_disk(remove).await
    }

    async fn list_blobs(&self) -> Result<Vec<String>> {
        let list = |own: &MmapStorage| {
            let mut names = file_names(&own.dir)?;
            names.retain(|name| check_blob_name(name).is_ok());
            names.sort();
            Ok(names)
        };
        self.on_disk(list).await
    }

    async fn read_marks(&self) -> Result<Vec<Mark>> {
        self.on_disk(|own| own.marks.read()).await
    }

    fn incarnation(&self) -> Option<Bytes> {
        self.incarnation.clone()
    }
}

/// Runs `work` on a thread that may block. The work goes on when the future is dropped.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StorageError::Io {
            what: "run a blocking call".to_owned(),
            source: io::Error::other(error),
        }),
    }
}

fn io_error(verb: &str, path: &Path, error: io::Error) -> StorageError {
    if error.kind() == io::ErrorKind::NotFound {
        return StorageError::NotFound {
            what: path.display().to_string(),
        };
    }
    if active::is_no_descriptor(&error) {
        return StorageError::NoDescriptors {
            what: path.display().to_string(),
        };
    }
    StorageError::Io {
        what: format!("{verb} {}", path.display()),
        source: error,
    }
}

fn no_space_or(path: &Path, verb: &str, error: io::Error) -> StorageError {
    if active::is_no_space(&error) {
        return StorageError::NoSpace {
            what: path.display().to_string(),
        };
    }
    io_error(verb, path, error)
}

fn check_range(path: &Path, range: &Range<u64>, len: u64) -> Result<()> {
    if range.start <= range.end && range.end <= len {
        return Ok(());
    }
    let Range { start, end } = range;
    let what = format!(
        "bytes {start}..{end} of {}, which has {len}",
        path.display()
    );
    Err(StorageError::InvalidInput { what })
}

/// The names of the files in `dir`; those that are not UTF-8 are none of ours.
fn file_names(dir: &Path) -> Result<Vec<String>> {
    names(dir, |kind| kind.is_file())
}

fn names(dir: &Path, wanted: impl Fn(fs::FileType) -> bool) -> Result<Vec<String>> {
    let failed = |error| io_error("list", dir, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if wanted(entry.file_type().map_err(failed)?) {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

/// A directory that is open before something is changed in it, so that the change can be made
/// durable even if the process runs out of descriptors meanwhile.
struct OpenDir<'a> {
    path: &'a Path,
    file: File,
}

impl OpenDir<'_> {
    fn open(path: &Path) -> Result<OpenDir<'_>> {
        let file = File::open(path).map_err(|error| io_error("open", path, error))?;
        Ok(OpenDir { path, file })
    }

    /// Makes the names in it durable.
    fn sync(&self) -> Result<()> {
        let synced = self.file.sync_all();
        synced.map_err(|error| io_error("sync", self.path, error))
    }
}

/// Makes the names in `dir` durable.
fn sync_dir(dir: &Path) -> Result<()> {
    OpenDir::open(dir)?.sync()
}

fn read_blob(path: &Path) -> Result<Option<Bytes>> {
    let len = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("stat", path, error)),
    };
    if len > BLOB_BYTES_MAX {
        let what = path.display().to_string();
        return Err(StorageError::Damaged {
            what,
            range: BLOB_BYTES_MAX..len,
        });
    }
    let content = fs::read(path).map_err(|error| io_error("read", path, error))?;
    Ok(Some(content.into()))
}

/// Creates or replaces the file `name` in `dir`, whole, durable on return: the content is synced
/// under another name before the rename, and the directory after it.
fn replace_file(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let open_dir = OpenDir::open(dir)?;
    let tmp = dir.join(format!(".{name}{BLOB_TMP_SUFFIX}"));
    let written = File::create(&tmp).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&tmp, dir.join(name)));
    renamed.map_err(|error| {
        // Best effort: what is left over goes when the directory is opened again.
        let _ = fs::remove_file(&tmp);
        no_space_or(&tmp, "write", error)
    })?;
    open_dir.sync()
}
