//! The file of the marks: two slots, overwritten in place.
#![allow(clippy::disallowed_methods, reason = "this is the local disk")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{io_error, no_space_or};
use crate::name::MARK_FILE;
use crate::{MARK_LEN, Mark, Result};

/// Each slot has a sector of its own, so that writing one cannot tear the other.
const SLOT_BYTES: usize = 512;
const FILE_BYTES: usize = 2 * SLOT_BYTES;

/// The marks of one log's directory. The file is made, and opened, with the first one.
#[derive(Debug)]
pub(super) struct Marks {
    path: PathBuf,
    file: OnceLock<File>,
}

impl Marks {
    pub(super) fn new(dir: &Path) -> Marks {
        Marks {
            path: dir.join(MARK_FILE),
            file: OnceLock::new(),
        }
    }

    /// Whether writing one takes nothing but a write.
    pub(super) fn is_open(&self) -> bool {
        self.file.get().is_some()
    }

    /// Makes sure that writing one needs no room. Blocks.
    pub(super) fn prepare(&self) -> Result<()> {
        if self.is_open() {
            return Ok(());
        }
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path);
        let file = opened.map_err(|error| no_space_or(&self.path, "open", error))?;
        let allocated = file.metadata().and_then(|metadata| {
            let len = (metadata.len() as usize).min(FILE_BYTES);
            file.write_all_at(&[0; FILE_BYTES][len..], len as u64)
        });
        allocated.map_err(|error| no_space_or(&self.path, "write", error))?;
        // Another call may have been first; its file is the same one.
        let _ = self.file.set(file);
        Ok(())
    }

    /// Puts `mark` into `slot`. Copies into the page cache; nothing is durable on return.
    pub(super) fn write(&self, slot: usize, mark: &Mark) -> Result<()> {
        self.prepare()?;
        let Some(file) = self.file.get() else {
            return Ok(());
        };
        let position = (slot % 2 * SLOT_BYTES) as u64;
        let written = file.write_all_at(mark, position);
        written.map_err(|error| no_space_or(&self.path, "write", error))
    }

    /// What stands in the slots. Blocks.
    pub(super) fn read(&self) -> Result<Vec<Mark>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("open", &self.path, error)),
        };
        let mut marks = Vec::with_capacity(2);
        for slot in 0..2 {
            let mut mark = [0; MARK_LEN];
            match file.read_exact_at(&mut mark, (slot * SLOT_BYTES) as u64) {
                Ok(()) => marks.push(mark),
                // A file that a crash left short, or a bad sector: there is no mark in it.
                Err(error) => tracing::debug!(%error, slot, "no mark"),
            }
        }
        Ok(marks)
    }
}
