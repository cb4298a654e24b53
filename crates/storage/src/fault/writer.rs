//! The right to append to a segment of the faulty disk.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use comlog_record::Offset;
use rand::Rng;

use super::file::{self, SharedFile};
use super::{FaultyStorage, io_error};
use crate::{Mark, Result, SegmentReader, SegmentWriter, StorageError, segment_name};

#[derive(Debug)]
pub(super) struct FaultyWriter {
    storage: FaultyStorage,
    base_offset: Offset,
    file: SharedFile,
    /// Set while a call is under way too: a dropped future leaves it set.
    failed: bool,
    mark: Option<(usize, Mark)>,
}

impl FaultyWriter {
    pub(super) fn new(
        storage: FaultyStorage,
        base_offset: Offset,
        file: SharedFile,
    ) -> FaultyWriter {
        FaultyWriter {
            storage,
            base_offset,
            file,
            failed: false,
            mark: None,
        }
    }

    fn write_mark(&mut self) {
        if let Some((slot, mark)) = self.mark.take() {
            self.storage.lock().marks[slot % 2].seen = Some(mark);
        }
    }

    /// Begins a call that leaves the writer failed unless [`FaultyWriter::end`] is reached.
    fn begin(&mut self) -> Result<()> {
        if self.failed {
            let what = segment_name(self.base_offset);
            return Err(StorageError::Failed { what });
        }
        self.failed = true;
        Ok(())
    }

    fn end(&mut self) {
        self.failed = false;
    }

    /// Writes as much of `bytes` as the call is let to, then the rest.
    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let (first, fails) = {
            let mut disk = self.storage.lock();
            let first = disk.rng.random_range(0..=bytes.len());
            let append_error = disk.plan.append_error;
            (first, disk.happens(append_error))
        };
        let position = self.len();
        file::lock(&self.file).write(position, &bytes[..first]);
        self.storage.pause().await;
        if fails {
            return Err(io_error("append"));
        }
        let mut file = file::lock(&self.file);
        file.write(position + first as u64, &bytes[first..]);
        file.len += bytes.len() as u64;
        Ok(())
    }

    fn write_back(&self) {
        let mut guard = self.storage.lock();
        let disk = &mut *guard;
        let writeback = disk.plan.writeback;
        if disk.happens(writeback) {
            file::lock(&self.file).flush_some(&mut disk.rng);
        }
    }

    async fn flush(&mut self) -> Result<()> {
        self.storage.pause().await;
        {
            let mut guard = self.storage.lock();
            let disk = &mut *guard;
            if disk.plan.sync_lies {
                return Ok(());
            }
            let sync_error = disk.plan.sync_error;
            if disk.happens(sync_error) {
                file::lock(&self.file).lose_some(&mut disk.rng);
                return Err(io_error("sync"));
            }
            file::lock(&self.file).flush_some(&mut disk.rng);
        }
        self.storage.pause().await;
        file::lock(&self.file).flush();
        self.storage.pause().await;
        Ok(())
    }
}

#[async_trait]
impl SegmentWriter for FaultyWriter {
    fn len(&self) -> u64 {
        file::lock(&self.file).len
    }

    fn reader(&self) -> Arc<dyn SegmentReader> {
        self.storage.reader(self.base_offset, self.file.clone())
    }

    async fn append(&mut self, chunks: &[Bytes]) -> Result<()> {
        self.begin()?;
        self.storage.pause().await;
        if let Err(full) = self.storage.check_space(&segment_name(self.base_offset)) {
            self.end();
            return Err(full);
        }
        self.write(&chunks.concat()).await?;
        self.write_back();
        self.storage.pause().await;
        self.write_mark();
        self.storage.pause().await;
        self.end();
        Ok(())
    }

    async fn append_and_sync(&mut self, chunks: &[Bytes]) -> Result<()> {
        let mark = self.mark.take();
        self.append(chunks).await?;
        self.mark = mark;
        self.sync().await
    }

    fn mark_next(&mut self, slot: usize, mark: Mark) {
        self.mark = Some((slot, mark));
    }

    async fn sync(&mut self) -> Result<()> {
        self.begin()?;
        self.flush().await?;
        self.write_mark();
        self.storage.pause().await;
        self.end();
        Ok(())
    }

    async fn truncate(&mut self, len: u64) -> Result<()> {
        self.begin()?;
        let name = segment_name(self.base_offset);
        if len > self.len() {
            self.end();
            let what = format!("cut {name} at {len}, it has {}", self.len());
            return Err(StorageError::InvalidInput { what });
        }
        self.storage.pause().await;
        self.storage.check_name(&name)?;
        file::lock(&self.file).cut_cache(len);
        self.storage.pause().await;
        self.storage.check_name(&name)?;
        file::lock(&self.file).cut_disk(len);
        self.storage.pause().await;
        self.end();
        Ok(())
    }

    async fn seal(mut self: Box<Self>) -> Result<Arc<dyn SegmentReader>> {
        self.begin()?;
        self.flush().await?;
        let len = self.len();
        file::lock(&self.file).cut_cache(len);
        self.storage.pause().await;
        file::lock(&self.file).cut_disk(len);
        self.storage.pause().await;
        Ok(self.reader())
    }
}
