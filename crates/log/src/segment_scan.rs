//! One segment by itself, front to back: for who has its file and not the log around it.

use std::ops::Range;

use bytes::Bytes;
use comlog_record::{BATCH_HEADER_LEN, BatchHeader, Limits, Offset, RecordBatch};
use comlog_storage::{SegmentReader, StorageError};

use crate::scan::{Offsets, Scanner, Step, Valid};

/// A place between two batches of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentPlace {
    /// Bytes from the start of the segment.
    pub position: u64,
    /// No batch from here on has a smaller base offset.
    pub offset: Offset,
}

/// What stands at some place of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentItem {
    /// A batch: its CRC is right, and its offsets fit between its neighbours'.
    Batch {
        /// Position of its first byte.
        position: u64,
        /// The batch.
        batch: RecordBatch,
    },
    /// Bytes that are no such batch.
    Damage {
        /// Behind them a valid batch begins, or the segment ends.
        positions: Range<u64>,
        /// The first offset that may be lost.
        first: Offset,
        /// Where offsets go on; `None` when nothing valid follows.
        next: Option<Offset>,
        /// What is wrong at the first of the bytes.
        reason: String,
    },
    /// Zeros up to the end: allocated ahead by a writer that did not seal the segment.
    Zeros {
        /// Their positions.
        positions: Range<u64>,
    },
}

/// Goes through the batches of one segment, trusting nothing: every length is checked before it
/// is used, every CRC is computed, and behind damage it goes on where a valid batch begins.
///
/// Reads in windows of 1 MiB at most (a batch may be longer), each only when it is needed, so the
/// segment may lie anywhere that ranges can be read from.
#[allow(
    missing_debug_implementations,
    reason = "a window of bytes says nothing"
)]
pub struct SegmentScan<'a> {
    reader: &'a dyn SegmentReader,
    scanner: Scanner<'a>,
    limits: Limits,
}

impl<'a> SegmentScan<'a> {
    /// Scans `reader` from `from` to its end; batches beyond `limits` are reported as damage.
    #[must_use]
    pub fn new(reader: &'a dyn SegmentReader, from: SegmentPlace, limits: Limits) -> Self {
        SegmentScan::up_to(reader, from, Offset(i64::MAX), limits)
    }

    /// As [`SegmentScan::new`], where the segment is known to end at `end`: behind damage no batch
    /// that reaches beyond is taken for one.
    #[must_use]
    pub fn up_to(
        reader: &'a dyn SegmentReader,
        from: SegmentPlace,
        end: Offset,
        limits: Limits,
    ) -> Self {
        let from = Valid {
            position: from.position,
            offset: from.offset,
        };
        let end = Valid {
            position: reader.len(),
            offset: end,
        };
        SegmentScan {
            reader,
            scanner: Scanner::new(reader, Offsets::Rising, from, end),
            limits,
        }
    }

    /// Where the segment begins: position 0, and the base offset that its first batch claims (0
    /// when there is no telling).
    ///
    /// # Errors
    /// Those of reading.
    pub async fn start_of(reader: &dyn SegmentReader) -> Result<SegmentPlace, StorageError> {
        let header = header_at(reader, 0).await?;
        Ok(SegmentPlace {
            position: 0,
            offset: header.map_or(Offset::ZERO, |header| header.base_offset),
        })
    }

    /// Whether a batch with this base offset seems to begin at `place`: for hints that may be wrong.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn seems_right(
        reader: &dyn SegmentReader,
        place: SegmentPlace,
    ) -> Result<bool, StorageError> {
        let header = header_at(reader, place.position).await?;
        Ok(header.is_some_and(|header| header.base_offset == place.offset))
    }

    /// Where the scan stands: a later one can go on from here.
    #[must_use]
    pub fn place(&self) -> SegmentPlace {
        let at = self.scanner.at();
        SegmentPlace {
            position: at.position,
            offset: at.offset,
        }
    }

    /// What stands next; `None` at the end of the segment.
    ///
    /// Cancel safe: a call that was dropped is repeated by the next.
    ///
    /// # Errors
    /// Those of reading, but for [`StorageError::Damaged`], which is an item.
    pub async fn next_item(&mut self) -> Result<Option<SegmentItem>, StorageError> {
        let before = self.scanner.at();
        match self.scanner.step().await? {
            Step::End => Ok(None),
            Step::Damage(reason) => self.behind_damage(reason).await.map(Some),
            Step::Batch { position, header } => {
                let taken = self.take(position, &header).await;
                if taken.is_err() {
                    self.scanner.jump(before);
                }
                taken.map(Some)
            }
        }
    }

    async fn take(&self, position: u64, header: &BatchHeader) -> Result<SegmentItem, StorageError> {
        let positions = position..position + header.total_len() as u64;
        let refused = |reason: String| SegmentItem::Damage {
            positions: positions.clone(),
            first: header.base_offset,
            next: Some(header.next_offset()),
            reason,
        };
        if header.total_len() > self.limits.batch_bytes_max {
            return Ok(refused(format!(
                "batch of {} bytes, at most {} are read",
                header.total_len(),
                self.limits.batch_bytes_max
            )));
        }
        let mut bytes = match self.scanner.window(positions.clone()) {
            Some(bytes) => bytes,
            None => Bytes::from(self.reader.read(positions.clone()).await?.concat()),
        };
        match RecordBatch::decode(&mut bytes, &self.limits) {
            Ok(batch) => Ok(SegmentItem::Batch { position, batch }),
            Err(error) => Ok(refused(error.to_string())),
        }
    }

    async fn behind_damage(&mut self, reason: String) -> Result<SegmentItem, StorageError> {
        let at = self.scanner.at();
        let end = Valid {
            position: self.scanner.end().position,
            offset: at.offset,
        };
        if self.scanner.only_zeros(at.position).await? {
            self.scanner.jump(end);
            return Ok(SegmentItem::Zeros {
                positions: at.position..end.position,
            });
        }
        let next = self.scanner.resync(at.position + 1).await?;
        self.scanner.jump(next.unwrap_or(end));
        Ok(SegmentItem::Damage {
            positions: at.position..next.unwrap_or(end).position,
            first: at.offset,
            next: next.map(|next| next.offset),
            reason,
        })
    }
}

async fn header_at(
    reader: &dyn SegmentReader,
    position: u64,
) -> Result<Option<BatchHeader>, StorageError> {
    let end = position.saturating_add(BATCH_HEADER_LEN as u64);
    if end > reader.len() {
        return Ok(None);
    }
    match reader.read(position..end).await {
        Ok(chunks) => Ok(BatchHeader::decode(&chunks.concat()).ok()),
        Err(StorageError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
