//! Reads what is visible.

use std::sync::Arc;

use comlog_record::{
    BatchStream, DecodeError, Limits, Offset, OffsetRange, Piece, RecordBatch, Timestamp,
};
use comlog_storage::StorageError;
use tokio::sync::watch;

use crate::fetch::{Attempt, Source, attempt};
use crate::library::Library;
use crate::segment::{Resident, read_lock};
use crate::watermark::{Place, View, corrupt};
use crate::{DamagedRange, Fetched, Positions, ReadError, SegmentInfo, TimestampedOffset};

/// Bytes read at once while looking for a timestamp.
const SEARCH_BYTES: usize = 256 << 10;

/// What was acknowledged is held to no limit of appends: those of today may be lower than they were.
const STORED: Limits = Limits {
    batch_bytes_max: i32::MAX as usize,
    ..Limits::DEFAULT
};

/// Reads one log from any task; cheap to clone.
///
/// It outlives the log: what was visible when the log was closed can still be read.
#[derive(Debug, Clone)]
pub struct LogReader {
    library: Arc<Library>,
    positions: watch::Receiver<Positions>,
}

impl LogReader {
    pub(crate) fn new(library: Arc<Library>, positions: watch::Receiver<Positions>) -> LogReader {
        LogReader { library, positions }
    }

    fn view(&self) -> std::sync::RwLockReadGuard<'_, View> {
        read_lock(&self.library.view)
    }

    /// Where the log stands now.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.view().positions
    }

    /// Whole batches from the one that holds `from` (or, where offsets have a gap, the first
    /// behind it), up to `max_bytes` (at most 16 MiB) but at least one batch, never beyond the
    /// high watermark and never across two segments.
    ///
    /// Read on at `offsets.end` of the answer, which is empty only when no batch lies between
    /// `from` and the high watermark. `Ok(None)` when it would have to wait for a disk: use
    /// [`LogReader::read`].
    ///
    /// Batches are returned as stored; it is for who decodes them to check the CRC, and that their
    /// offsets, which it does not cover, rise from batch to batch within the range answered.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`]; [`ReadError::Corrupt`] when `from` is known to be damaged, or an
    /// archive has lost it; [`ReadError::Storage`], also when an archive does not answer now.
    pub fn try_read(&self, from: Offset, max_bytes: usize) -> Result<Option<Fetched>, ReadError> {
        let Some(place) = self.view().locate(from)? else {
            return Ok(Some(nothing_at(from)));
        };
        let Some(resident) = self.library.at_hand(&place.segment) else {
            return Ok(None);
        };
        let source = Source::new(&*resident.reader);
        match attempt(&resident, &place, &source, from, max_bytes) {
            Ok(Attempt::Found(fetched)) => Ok(Some(fetched)),
            // The read that may wait goes to the next segment, or finds out what is damaged.
            Ok(Attempt::Nothing | Attempt::Wants(_) | Attempt::Contradiction(_)) => Ok(None),
            Err(error) => Err(storage_error(error)),
        }
    }

    /// As [`LogReader::try_read`], waiting for the disk. Cancel safe.
    ///
    /// # Errors
    /// As [`LogReader::try_read`]; [`ReadError::Corrupt`] names the offsets that are lost, and
    /// a read at its `offsets.end` goes on behind them.
    pub async fn read(&self, from: Offset, max_bytes: usize) -> Result<Fetched, ReadError> {
        let mut from = from;
        let mut inspected = None;
        loop {
            let Some(place) = self.view().locate(from)? else {
                return Ok(nothing_at(from));
            };
            let resident = match self.library.resident(&place.segment).await {
                Ok(resident) => resident,
                Err(error) => {
                    self.check_visible(from)?;
                    return Err(lost_segment(error, from, &place));
                }
            };
            // Opening the segment may have found damage, which changes where to look.
            let Some(place) = self
                .view()
                .locate(from)?
                .filter(|now| now.is_in(&place.segment))
            else {
                continue;
            };
            match self.fetch(&resident, &place, from, max_bytes).await? {
                Attempt::Found(fetched) => return Ok(fetched),
                Attempt::Nothing => from = place.limit.offset,
                Attempt::Contradiction(reason) => {
                    self.check_visible(from)?;
                    if inspected == Some(place.segment.base) {
                        let offsets = OffsetRange::new(from, place.limit.offset);
                        return Err(ReadError::Corrupt { offsets, reason });
                    }
                    inspected = Some(place.segment.base);
                    let found = self.library.inspect(&place.segment).await?;
                    if let Some(range) = found.iter().find(|range| range.offsets.contains(from)) {
                        return Err(corrupt(range));
                    }
                }
                Attempt::Wants(_) => {}
            }
        }
    }

    /// What makes the next segment ready for a reader that is at `from` and goes on: within
    /// [`LogConfig::look_ahead_bytes`](crate::LogConfig::look_ahead_bytes) of the end of a segment,
    /// when the next one is neither at hand nor being made ready. Whoever can runs it beside its
    /// reads, and so does not wait where the segments meet; without, reads are as right.
    pub fn look_ahead(&self, from: Offset) -> Option<impl Future<Output = ()> + Send + use<>> {
        let segments = Arc::clone(&self.view().segments);
        let above = segments.partition_point(|segment| segment.base <= from);
        let (current, next) = (segments.get(above.checked_sub(1)?)?, segments.get(above)?);
        let (below, _) = current.resident()?.around_offset(from);
        let position = below.map_or(0, |below| below.position);
        if current.end()?.len >= position.saturating_add(self.library.look_ahead_bytes()) {
            return None;
        }
        let is_at_hand = next.resident().is_some_and(|resident| {
            let begins = beginning(&resident);
            matches!(resident.reader.try_read(begins), Ok(Some(_)))
        });
        if is_at_hand {
            return None;
        }
        let preparing = next.prepare()?;
        let (library, next) = (Arc::clone(&self.library), Arc::clone(next));
        Some(async move {
            // What goes wrong shows when it is read.
            if let Ok(resident) = library.resident(&next).await {
                drop(resident.reader.read(beginning(&resident)).await);
            }
            drop(preparing);
        })
    }

    async fn fetch(
        &self,
        resident: &Resident,
        place: &Place,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Attempt, ReadError> {
        let mut source = Source::new(&*resident.reader);
        let mut place = place.clone();
        loop {
            let range = match attempt(resident, &place, &source, from, max_bytes) {
                Ok(Attempt::Wants(range)) => range,
                Ok(done) => return Ok(done),
                Err(error) => return Err(storage_error(error)),
            };
            match resident.reader.read(range.clone()).await {
                Ok(chunks) => source.hand_in(range, chunks),
                Err(error @ StorageError::Damaged { .. }) => {
                    return Ok(Attempt::Contradiction(error.to_string()));
                }
                Err(StorageError::Lost {
                    what,
                    range,
                    reason,
                }) => {
                    let indexes = read_lock(&resident.indexes);
                    match indexes.offsets.at_position(range.start) {
                        // What lies before it can still be read.
                        Some(before) if before.offset > from => place.limit = before,
                        _ => {
                            let behind = indexes.offsets.at_or_behind(range.end);
                            let end = behind.map_or(place.limit.offset, |entry| entry.offset);
                            drop(indexes);
                            self.check_visible(from)?;
                            return Err(lost_range(from, end, &what, &range, &reason));
                        }
                    }
                }
                Err(error) => return Err(storage_error(error)),
            }
        }
    }

    /// A segment may have been trimmed away while it was read: then that is the error.
    fn check_visible(&self, from: Offset) -> Result<(), ReadError> {
        self.view().locate(from).map(drop)
    }

    /// Waits until the high watermark is above `offset`, so that a read at `offset` returns
    /// something. Cancel safe.
    ///
    /// # Errors
    /// [`ReadError::Closed`].
    pub async fn wait_visible(&self, offset: Offset) -> Result<Positions, ReadError> {
        let mut positions = self.positions.clone();
        positions
            .wait_for(|now| now.high_watermark > offset)
            .await
            .map(|now| *now)
            .map_err(|_| ReadError::Closed)
    }

    /// A receiver that follows the positions; ends when the log is closed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Positions> {
        self.positions.clone()
    }

    /// The first visible record whose timestamp is at least `timestamp`; `None` when there is
    /// none. Cancel safe.
    ///
    /// # Errors
    /// As [`LogReader::read`]; damage on the way is an error, since what was asked for may have
    /// been in it.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: Timestamp,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        let segments = Arc::clone(&self.view().segments);
        for segment in segments.iter() {
            let max = self.library.max_timestamp(segment).await?;
            if max.is_none_or(|max| max < timestamp) {
                continue;
            }
            let resident = self.library.resident(segment).await?;
            let start = read_lock(&resident.indexes).times.start_for(timestamp);
            let start = start.unwrap_or(segment.base);
            if let Some(found) = self.search(start, timestamp).await? {
                self.check_whole(found.offset)?;
                return Ok(Some(found));
            }
        }
        self.check_whole(self.positions().high_watermark)?;
        Ok(None)
    }

    /// That nothing is known to be damaged below `end`.
    fn check_whole(&self, end: Offset) -> Result<(), ReadError> {
        let start = self.positions().start;
        match self.known_damage(OffsetRange::new(start, end)).first() {
            Some(range) => Err(corrupt(range)),
            None => Ok(()),
        }
    }

    /// Goes through the batches from `from` on.
    async fn search(
        &self,
        from: Offset,
        timestamp: Timestamp,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        let mut from = from.max(self.positions().start);
        loop {
            let fetched = self.read(from, SEARCH_BYTES).await?;
            if fetched.chunks.is_empty() {
                return Ok(None);
            }
            from = fetched.offsets.end;
            let mut batches = BatchStream::new(fetched.chunks);
            loop {
                let damaged = |error: DecodeError| ReadError::Corrupt {
                    offsets: fetched.offsets,
                    reason: error.to_string(),
                };
                let Some(batch) = batches.next_batch(&STORED).map_err(damaged)? else {
                    break;
                };
                // No checksum covers the base offset: it must fit between its neighbours.
                let next = batches.peek_header().map(|next| next.base_offset);
                if batch.header().next_offset() > next.unwrap_or(fetched.offsets.end) {
                    return Err(damaged(DecodeError::Invalid(
                        "base offset does not fit the batches around it",
                    )));
                }
                if let Some(found) = self.search_batch(&batch, timestamp).map_err(damaged)? {
                    return Ok(Some(found));
                }
            }
        }
    }

    /// Record by record: what a batch decompresses to, nobody knew when it was acknowledged.
    fn search_batch(
        &self,
        batch: &RecordBatch,
        timestamp: Timestamp,
    ) -> Result<Option<TimestampedOffset>, DecodeError> {
        if batch.header().max_timestamp < timestamp || batch.header().is_control() {
            return Ok(None);
        }
        let start = self.positions().start;
        // No record is longer than the batch that holds it, unless that is compressed.
        let limits = Limits {
            record_bytes_max: STORED.record_bytes_max.max(batch.header().total_len()),
            ..STORED
        };
        let mut records = batch.reader(&limits)?;
        while let Some(piece) = records.next()? {
            match piece {
                Piece::Record(record)
                    if record.timestamp >= timestamp && record.offset >= start =>
                {
                    return Ok(Some(TimestampedOffset {
                        offset: record.offset,
                        timestamp: record.timestamp,
                    }));
                }
                Piece::TooLarge { offset, bytes } if offset >= start => {
                    return Err(DecodeError::TooLarge {
                        what: "record bytes",
                        actual: bytes,
                        max: limits.record_bytes_max as u64,
                    });
                }
                Piece::Record(_) | Piece::TooLarge { .. } => {}
            }
        }
        Ok(None)
    }

    /// The segments, ascending. Of the active one, what is visible.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let view = self.view();
        let (end, len) = (view.positions.high_watermark, view.visible_position);
        view.segments
            .iter()
            .map(|segment| segment.info(end, len))
            .collect()
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.len).sum()
    }

    /// Reads every visible batch, checking CRCs and continuity; returns the damage found, which
    /// is fenced from then on. Cancel safe.
    ///
    /// # Errors
    /// [`ReadError::Storage`]. Damage is not an error here.
    pub async fn verify(&self) -> Result<Vec<DamagedRange>, ReadError> {
        let segments = Arc::clone(&self.view().segments);
        let mut damaged = Vec::new();
        for segment in segments.iter() {
            damaged.extend(self.library.inspect(segment).await?);
        }
        Ok(damaged)
    }

    /// What is known to be damaged of `range`.
    #[must_use]
    pub fn known_damage(&self, range: OffsetRange) -> Vec<DamagedRange> {
        let view = self.view();
        let overlaps = |known: &&DamagedRange| {
            known.offsets.start < range.end && range.start < known.offsets.end
        };
        view.damaged.iter().filter(overlaps).cloned().collect()
    }
}

/// The first byte, if there is one.
fn beginning(resident: &Resident) -> std::ops::Range<u64> {
    0..resident.reader.len().min(1)
}

fn nothing_at(offset: Offset) -> Fetched {
    Fetched {
        chunks: Vec::new(),
        offsets: OffsetRange::new(offset, offset),
        len: 0,
    }
}

/// A segment that is part of the log and not in the storage is lost.
fn lost_segment(error: ReadError, from: Offset, place: &Place) -> ReadError {
    match &error {
        ReadError::Storage(source)
            if matches!(
                **source,
                StorageError::NotFound { .. } | StorageError::Lost { .. }
            ) =>
        {
            ReadError::Corrupt {
                offsets: OffsetRange::new(from, place.limit.offset),
                reason: error.to_string(),
            }
        }
        _ => error,
    }
}

/// What an archive has lost of a segment; not remembered, since it may come back.
fn lost_range(
    from: Offset,
    end: Offset,
    what: &str,
    range: &std::ops::Range<u64>,
    reason: &str,
) -> ReadError {
    tracing::error!(start = %from, end = %end, object = what, positions = ?range, reason,
        "archived records cannot be read");
    ReadError::Corrupt {
        offsets: OffsetRange::new(from, end),
        reason: format!("{what} at bytes {}..{}: {reason}", range.start, range.end),
    }
}

fn storage_error(error: StorageError) -> ReadError {
    ReadError::Storage(Arc::new(error))
}
