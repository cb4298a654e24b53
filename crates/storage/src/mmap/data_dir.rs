//! The data directory: locked against a second process, versioned, with a directory per log.
#![allow(clippy::disallowed_methods, reason = "this is the local disk")]

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{Disk, DiskOptions, MmapStorage, io_error, names, replace_file, sync_dir};
use crate::{Result, StorageError};

/// The format this version writes; it reads every format up to it.
pub const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
const FORMAT_MAGIC: &str = "comlog data directory, format ";
const LOCK_FILE: &str = "lock";
/// Directories on their way out; a crash may leave some.
const TRASH_PREFIX: &str = ".trash-";
/// What may lie in a directory that is not yet comlog's: what `mkfs` makes.
const HARMLESS: [&str; 2] = [LOCK_FILE, "lost+found"];

/// A data directory, locked while this value lives: keep it at least as long as its storages.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    disk: Arc<Disk>,
    /// Directories whose sub directories are all durable as names; one opens or makes them at a time.
    durable: Mutex<HashSet<PathBuf>>,
    /// How many directories were removed, for the names of their remains.
    removals: AtomicU64,
    /// Holds the lock; the kernel lets go of it with the file, however the process ends.
    _lock: Lock,
}

impl DataDir {
    /// Opens or creates the data directory at `path` and locks it. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Locked`] names the process that has it open; [`StorageError::UnknownFormat`]
    /// when it is of a newer format, or holds something else: nothing is touched then.
    pub fn open(path: &Path, options: DiskOptions) -> Result<Arc<DataDir>> {
        create_durably(path)?;
        check_format(path)?;
        let lock = lock(path)?;
        // Once more, since another process may have made it its own before the lock was taken.
        if !check_format(path)? {
            let content = format!("{FORMAT_MAGIC}{FORMAT}\n");
            replace_file(path, FORMAT_FILE, content.as_bytes())?;
        }
        empty_trash(path)?;
        Ok(Arc::new(DataDir {
            path: path.to_owned(),
            disk: Arc::new(Disk::new(options)),
            durable: Mutex::default(),
            removals: AtomicU64::new(0),
            _lock: lock,
        }))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory `relative` as the storage of one log, creating it, durably. Blocks.
    ///
    /// # Errors
    /// [`StorageError::InvalidInput`] when `relative` is not a plain relative path.
    pub fn storage(&self, relative: &str) -> Result<Arc<MmapStorage>> {
        let mut dir = self.path.clone();
        let mut durable = self.durable();
        for component in components(relative)? {
            let parent = dir.clone();
            dir.push(component);
            if !dir.is_dir() {
                fs::create_dir(&dir).map_err(|error| io_error("create", &dir, error))?;
                durable.remove(&parent);
            }
            // Also when it was there: a process that was killed may not have come to this.
            if !durable.contains(&parent) {
                sync_dir(&parent)?;
                durable.insert(parent);
            }
        }
        drop(durable);
        // For the names in it the same holds: a blob that is read must not be an older one later.
        sync_dir(&dir)?;
        Ok(Arc::new(MmapStorage::open(dir, self.disk.clone())?))
    }

    /// The names of the directories in `relative` (or at the top, when it is empty), ascending;
    /// none when it does not exist. A link to a directory is one. Blocks.
    ///
    /// # Errors
    /// As [`DataDir::storage`].
    pub fn list(&self, relative: &str) -> Result<Vec<String>> {
        let dir = components(relative)?
            .iter()
            .fold(self.path.clone(), |dir, name| dir.join(name));
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = names(&dir, |kind| kind.is_dir() || kind.is_symlink())?;
        found.retain(|name| !name.starts_with('.') && dir.join(name).is_dir());
        found.sort();
        Ok(found)
    }

    /// Removes the directory `relative` and all in it, durably on return; no error when there is
    /// none. A crash leaves all of it or nothing that is listed. Blocks.
    ///
    /// # Errors
    /// As [`DataDir::storage`].
    pub fn remove(&self, relative: &str) -> Result<()> {
        let components = components(relative)?;
        let dir = components
            .iter()
            .fold(self.path.clone(), |dir, name| dir.join(name));
        let Some(parent) = dir
            .parent()
            .filter(|_| dir.is_dir() && !components.is_empty())
        else {
            return Ok(());
        };
        // A number of its own, since an earlier removal may have failed half way.
        let number = self.removals.fetch_add(1, Ordering::Relaxed);
        let trash = self.path.join(format!("{TRASH_PREFIX}{number}"));
        fs::rename(&dir, &trash).map_err(|error| io_error("rename", &dir, error))?;
        self.durable().retain(|other| !other.starts_with(&dir));
        sync_dir(parent)?;
        sync_dir(&self.path)?;
        fs::remove_dir_all(&trash).map_err(|error| io_error("remove", &trash, error))?;
        sync_dir(&self.path)
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates the directory and those above it that are missing, durably.
fn create_durably(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    // The parent of a single relative name is the empty path, which is the current directory.
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    };
    if parent != path {
        create_durably(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made.map_err(|error| io_error("create", path, error))?,
    }
    sync_dir(parent)
}

/// The names in a relative path, each plain.
fn components(relative: &str) -> Result<Vec<&str>> {
    let plain = |component| match component {
        Component::Normal(name) => name.to_str().filter(|name| !name.starts_with('.')),
        _ => None,
    };
    let names: Option<Vec<&str>> = Path::new(relative).components().map(plain).collect();
    let invalid = || StorageError::InvalidInput {
        what: format!("directory name {relative:?}"),
    };
    names.ok_or_else(invalid)
}

/// Whether the directory is comlog's, in a format this version knows; an empty one is not yet.
fn check_format(path: &Path) -> Result<bool> {
    let unknown = |found: &str| StorageError::UnknownFormat {
        path: path.to_owned(),
        found: found.to_owned(),
        supported: FORMAT,
    };
    let file = path.join(FORMAT_FILE);
    if !file.exists() {
        let strange = names(path, |_| true)?
            .into_iter()
            .find(|name| !HARMLESS.contains(&name.as_str()) && !name.starts_with(".format"));
        return match strange {
            Some(name) => Err(unknown(&format!("none, but holds {name:?}"))),
            None => Ok(false),
        };
    }
    let mut content = String::new();
    let opened = File::open(&file).map_err(|error| io_error("open", &file, error))?;
    if opened.take(256).read_to_string(&mut content).is_err() {
        return Err(unknown("not text"));
    }
    let number = content
        .strip_prefix(FORMAT_MAGIC)
        .and_then(|rest| rest.trim_end().parse().ok());
    match number {
        Some(1..=FORMAT) => Ok(true),
        Some(newer) => Err(unknown(&newer.to_string())),
        None => Err(unknown(&format!("{:?}", content.trim_end()))),
    }
}

/// What keeps other processes out: a lock on the file that says who holds it, and one on the
/// directory itself, which holds when that file is deleted.
#[derive(Debug)]
struct Lock {
    _file: File,
    /// Not on a file system that locks no directories.
    _dir: Option<File>,
}

/// Takes the lock and writes this process's id into it.
fn lock(path: &Path) -> Result<Lock> {
    let file_path = path.join(LOCK_FILE);
    let dir = File::open(path).map_err(|error| io_error("open", path, error))?;
    let dir = match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Some(dir),
        Err(Errno::WOULDBLOCK) => {
            let holder = File::open(&file_path).ok();
            return Err(locked(path, holder));
        }
        Err(_) => None,
    };
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file_path);
    let mut file = opened.map_err(|error| io_error("open", &file_path, error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(locked(path, Some(file))),
        Err(error) => return Err(io_error("lock", &file_path, error.into())),
    }
    let pid = format!("{}\n", std::process::id());
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(pid.as_bytes()));
    // The lock holds even when there is no room for the number.
    if let Err(error) = written {
        tracing::warn!(%error, "cannot write the process id into the lock file");
    }
    Ok(Lock {
        _file: file,
        _dir: dir,
    })
}

/// Another process has the directory; `holder`, if it is there, says which.
fn locked(path: &Path, holder: Option<File>) -> StorageError {
    let mut text = String::new();
    let pid = holder
        .and_then(|mut file| file.read_to_string(&mut text).ok())
        .and_then(|_| text.trim().parse().ok());
    StorageError::Locked {
        path: path.to_owned(),
        pid,
    }
}

fn empty_trash(path: &Path) -> Result<()> {
    for name in names(path, |kind| kind.is_dir())? {
        if name.starts_with(TRASH_PREFIX) {
            let trash = path.join(name);
            fs::remove_dir_all(&trash).map_err(|error| io_error("remove", &trash, error))?;
        }
    }
    Ok(())
}
