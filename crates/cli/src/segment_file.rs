//! A segment file on the local disk, read in place while no server has it open.

use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use comlog_log::{SegmentItem, SegmentPlace, SegmentScan};
use comlog_record::{Limits, Offset};
use comlog_storage::{SegmentReader, StorageError};
use futures_util::FutureExt;

use crate::error::{CliError, Result};

/// The bounds for files, which may be older than the current configuration.
pub(crate) const FILE_LIMITS: Limits = Limits {
    batch_bytes_max: 128 << 20,
    batch_records_max: u32::MAX,
    decompressed_bytes_max: 1 << 30,
    record_bytes_max: i32::MAX as usize,
    ..Limits::DEFAULT
};

/// The file.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    file: File,
    len: u64,
    name: String,
}

impl SegmentFile {
    /// Opens the file at `path`.
    pub(crate) fn open(path: &Path) -> Result<SegmentFile> {
        let error = |error| CliError::file(path.display(), &error);
        let file = File::open(path).map_err(error)?;
        let len = file.metadata().map_err(error)?.len();
        let name = path.display().to_string();
        Ok(SegmentFile { file, len, name })
    }

    /// Goes through it with the log's own scanner, from `start` on: what [`SegmentScan`] finds.
    /// No batch behind damage reaches beyond `end`.
    pub(crate) fn scan(
        &self,
        start: Offset,
        end: Offset,
        mut each: impl FnMut(SegmentItem) -> Result<()>,
    ) -> Result<()> {
        let from = SegmentPlace {
            position: 0,
            offset: start,
        };
        let mut scan = SegmentScan::up_to(self, from, end, FILE_LIMITS);
        while let Some(item) = self.now(scan.next_item())? {
            each(item)?;
        }
        Ok(())
    }

    /// The base offset that its first batch claims.
    pub(crate) fn claimed_start(&self) -> Result<Offset> {
        Ok(self.now(SegmentScan::start_of(self))?.offset)
    }

    /// A file is read in place, so nothing of it is ever waited for.
    fn now<T>(&self, work: impl Future<Output = Result<T, StorageError>>) -> Result<T> {
        let failed = |what: String| CliError::Failed(format!("{}: {what}", self.name));
        match work.now_or_never() {
            Some(result) => result.map_err(|error| failed(error.to_string())),
            None => Err(failed("cannot be read in place".to_owned())),
        }
    }
}

#[async_trait]
impl SegmentReader for SegmentFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn try_read(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>, StorageError> {
        let invalid = || StorageError::InvalidInput {
            what: format!("bytes {range:?} of {}", self.name),
        };
        let count = range.end.checked_sub(range.start).ok_or_else(invalid)?;
        let fits = range.end <= self.len;
        let count = usize::try_from(count).ok().filter(|_| fits);
        let mut out = vec![0; count.ok_or_else(invalid)?];
        match self.file.read_exact_at(&mut out, range.start) {
            Ok(()) => Ok(Some(vec![out.into()])),
            // The medium is bad there, or the file was cut meanwhile.
            Err(error) if is_damage(&error) => Err(StorageError::Damaged {
                what: self.name.clone(),
                range,
            }),
            Err(source) => Err(StorageError::Io {
                what: format!("read {}", self.name),
                source,
            }),
        }
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>, StorageError> {
        Ok(self.try_read(range)?.unwrap_or_default())
    }
}

fn is_damage(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(EIO)
}
