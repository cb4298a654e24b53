//! Reads a segment from front to back, trusting nothing: for recovery, verification and lost indexes.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use comlog_record::{BATCH_HEADER_LEN, BatchHeader, Offset};
use comlog_storage::{SegmentReader, StorageError};

/// Bytes read at once.
const WINDOW: u64 = 1 << 20;
/// Bytes read at once where the medium is bad, so that little is lost beside them.
const SMALL_WINDOW: u64 = 4 << 10;
/// Where the magic byte stands in a batch.
const MAGIC_AT: u64 = 16;

/// What the offsets of a segment's batches look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offsets {
    /// Each batch starts where the one before ended: as written.
    Contiguous,
    /// Offsets rise, with gaps: after compaction. A batch behind a gap must agree with what
    /// follows it, since no checksum covers its base offset.
    Rising,
}

/// What stands at the scanner's position.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole batch, its CRC right and its base offset as expected; the scanner stands behind it.
    Batch { position: u64, header: BatchHeader },
    /// No such batch; the scanner stands before it.
    Damage(String),
    /// The end of what was to be scanned.
    End,
}

/// Where a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Valid {
    pub(crate) position: u64,
    pub(crate) offset: Offset,
}

/// Why bytes are not there.
enum Missing {
    /// The medium cannot give them back.
    Unreadable,
    Storage(StorageError),
}

/// Goes through the batches of one segment, in bounded windows.
pub(crate) struct Scanner<'a> {
    reader: &'a dyn SegmentReader,
    kind: Offsets,
    /// Where the scan ends: position, and the offset that no batch reaches beyond.
    end: u64,
    offset_max: Offset,
    position: u64,
    /// The offset that the batch at `position` should have.
    expected: Offset,
    window: Bytes,
    window_start: u64,
    /// Bytes fetched from the storage.
    pub(crate) bytes_read: u64,
}

impl<'a> Scanner<'a> {
    /// Scans `reader` from `from` up to `end` (its position cut to what is there).
    pub(crate) fn new(
        reader: &'a dyn SegmentReader,
        kind: Offsets,
        from: Valid,
        end: Valid,
    ) -> Scanner<'a> {
        Scanner {
            reader,
            kind,
            end: end.position.min(reader.len()),
            offset_max: end.offset,
            position: from.position,
            expected: from.offset,
            window: Bytes::new(),
            window_start: 0,
            bytes_read: 0,
        }
    }

    /// Where the scanner stands.
    pub(crate) fn at(&self) -> Valid {
        Valid {
            position: self.position,
            offset: self.expected,
        }
    }

    /// Where the scan ends.
    pub(crate) fn end(&self) -> Valid {
        Valid {
            position: self.end,
            offset: self.offset_max,
        }
    }

    /// Goes on at `at`.
    pub(crate) fn jump(&mut self, at: Valid) {
        self.position = at.position;
        self.expected = at.offset;
    }

    /// The batch at the scanner's position.
    pub(crate) async fn step(&mut self) -> Result<Step, StorageError> {
        if self.position >= self.end {
            return Ok(Step::End);
        }
        let position = self.position;
        match self.check_batch(position, self.expected, self.kind).await? {
            Ok(header) => {
                self.position = position + header.total_len() as u64;
                self.expected = header.next_offset();
                Ok(Step::Batch { position, header })
            }
            Err(reason) => Ok(Step::Damage(reason)),
        }
    }

    /// The first valid batch behind the damage at the scanner's position, starting at or behind
    /// `from`, with offsets between the one expected and the end.
    pub(crate) async fn resync(&mut self, from: u64) -> Result<Option<Valid>, StorageError> {
        if let Some(next) = self.structural_next().await?
            && next.position >= from
        {
            return Ok(Some(next));
        }
        let mut position = from.max(self.position + 1);
        while position + BATCH_HEADER_LEN as u64 <= self.end {
            let Some(candidate) = self.next_magic(position).await? else {
                return Ok(None);
            };
            if let Some(valid) = self.valid_at(candidate).await? {
                return Ok(Some(valid));
            }
            position = candidate + 1;
        }
        Ok(None)
    }

    /// The batch that the damaged one's own length leads to. When only its body is damaged this
    /// is the way on; looking for a batch byte by byte could find one inside a record.
    async fn structural_next(&mut self) -> Result<Option<Valid>, StorageError> {
        let header = match self.header(self.position).await {
            Ok(Ok(header)) if header.base_offset == self.expected => header,
            Ok(_) | Err(Missing::Unreadable) => return Ok(None),
            Err(Missing::Storage(error)) => return Err(error),
        };
        let next = self.position + header.total_len() as u64;
        match self.valid_at(next).await? {
            Some(valid) if valid.offset >= header.next_offset() => Ok(Some(valid)),
            _ => Ok(None),
        }
    }

    async fn valid_at(&mut self, position: u64) -> Result<Option<Valid>, StorageError> {
        let checked = self
            .check_batch(position, self.expected, Offsets::Rising)
            .await?;
        Ok(checked.ok().map(|header| Valid {
            position,
            offset: header.base_offset,
        }))
    }

    /// Behind the last byte from `from` on that is not zero; `from` when all are.
    pub(crate) async fn content_end(&mut self, from: u64) -> Result<u64, StorageError> {
        let mut content_end = from;
        let mut position = from;
        while position < self.end {
            let len = match self.fill(position, 1).await {
                Ok(()) => {
                    let bytes = self.at_hand(position);
                    if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                        content_end = position + last as u64 + 1;
                    }
                    bytes.len() as u64
                }
                Err(Missing::Unreadable) => SMALL_WINDOW,
                Err(Missing::Storage(error)) => return Err(error),
            };
            position += len;
        }
        Ok(content_end)
    }

    /// Whether every byte from `from` to the end is zero; what cannot be read is not.
    pub(crate) async fn only_zeros(&mut self, from: u64) -> Result<bool, StorageError> {
        let mut position = from;
        while position < self.end {
            match self.fill(position, 1).await {
                Ok(()) => {}
                Err(Missing::Unreadable) => return Ok(false),
                Err(Missing::Storage(error)) => return Err(error),
            }
            let bytes = self.at_hand(position);
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += bytes.len() as u64;
        }
        Ok(true)
    }

    /// Where the next batch could start, by its magic byte, at or behind `position`.
    async fn next_magic(&mut self, mut position: u64) -> Result<Option<u64>, StorageError> {
        while position + (BATCH_HEADER_LEN as u64) <= self.end {
            let magic_at = position + MAGIC_AT;
            match self.fill(magic_at, 1).await {
                Ok(()) => {
                    let bytes = self.at_hand(magic_at);
                    if let Some(found) = bytes.iter().position(|byte| *byte == 2) {
                        return Ok(Some(position + found as u64));
                    }
                    position += bytes.len() as u64;
                }
                Err(Missing::Unreadable) => {
                    position += SMALL_WINDOW - magic_at % SMALL_WINDOW;
                }
                Err(Missing::Storage(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The header of a good batch at `position`, or what is wrong with it.
    async fn check_batch(
        &mut self,
        position: u64,
        expected: Offset,
        kind: Offsets,
    ) -> Result<Result<BatchHeader, String>, StorageError> {
        let header = match self.header(position).await {
            Ok(Ok(header)) => header,
            Ok(Err(reason)) => return Ok(Err(reason)),
            Err(missing) => return missing.told(),
        };
        let end = position + header.total_len() as u64;
        if end > self.end {
            return Ok(Err("batch is longer than its segment".to_owned()));
        }
        let continues = match kind {
            _ if header.base_offset == expected => header.next_offset() <= self.offset_max,
            Offsets::Contiguous => false,
            Offsets::Rising => header.base_offset > expected && self.agrees(&header, end).await?,
        };
        if !continues {
            let found = header.base_offset;
            return Ok(Err(format!("base offset {found} where {expected} belongs")));
        }
        match self
            .crc(&header, position + BATCH_HEADER_LEN as u64..end)
            .await
        {
            Ok(crc) if crc == header.crc => Ok(Ok(header)),
            Ok(_) => Ok(Err("checksum mismatch".to_owned())),
            Err(missing) => missing.told(),
        }
    }

    /// Whether what follows at `end` leaves room for the offsets of `header`.
    async fn agrees(&mut self, header: &BatchHeader, end: u64) -> Result<bool, StorageError> {
        let bound = match self.header(end).await {
            Ok(Ok(next)) if next.base_offset <= self.offset_max => next.base_offset,
            Ok(_) | Err(Missing::Unreadable) => self.offset_max,
            Err(Missing::Storage(error)) => return Err(error),
        };
        Ok(header.next_offset() <= bound)
    }

    async fn header(&mut self, position: u64) -> Result<Result<BatchHeader, String>, Missing> {
        if position + BATCH_HEADER_LEN as u64 > self.end {
            return Ok(Err("segment ends inside a batch header".to_owned()));
        }
        self.fill(position, BATCH_HEADER_LEN as u64).await?;
        Ok(BatchHeader::decode(self.at_hand(position)).map_err(|error| error.to_string()))
    }

    /// The CRC of a batch, window by window: a claimed length allocates nothing.
    async fn crc(&mut self, header: &BatchHeader, body: Range<u64>) -> Result<u32, Missing> {
        const NOTHING: &[Bytes] = &[];
        let mut crc = header.compute_crc(NOTHING);
        let mut position = body.start;
        while position < body.end {
            self.fill(position, 1).await?;
            let bytes = self.at_hand(position);
            let len = (bytes.len() as u64).min(body.end - position);
            crc = crc32c::crc32c_append(crc, &bytes[..len as usize]);
            position += len;
        }
        Ok(crc)
    }

    /// The bytes of `range` if the window holds them all, without copying.
    pub(crate) fn window(&self, range: Range<u64>) -> Option<Bytes> {
        let start = usize::try_from(range.start.checked_sub(self.window_start)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.window_start)?).ok()?;
        (end <= self.window.len()).then(|| self.window.slice(start..end))
    }

    /// What the window holds from `position` on.
    fn at_hand(&self, position: u64) -> &[u8] {
        &self.window[(position - self.window_start) as usize..]
    }

    /// Makes the window hold at least `len` bytes from `position` on, which must be inside the scan.
    async fn fill(&mut self, position: u64, len: u64) -> Result<(), Missing> {
        let window = self.window_start..self.window_start + self.window.len() as u64;
        if window.start <= position && position + len <= window.end {
            return Ok(());
        }
        let large = position..(position + WINDOW.max(len)).min(self.end);
        let small = position..(position + len).max((position / SMALL_WINDOW + 1) * SMALL_WINDOW);
        for range in [large, small.start..small.end.min(self.end)] {
            match self.reader.read(range.clone()).await {
                Ok(chunks) => {
                    self.bytes_read += range.end - range.start;
                    self.window = concat(chunks);
                    self.window_start = position;
                    return Ok(());
                }
                Err(StorageError::Damaged { .. }) => {}
                Err(error) => return Err(Missing::Storage(error)),
            }
        }
        Err(Missing::Unreadable)
    }
}

impl Missing {
    fn told<T>(self) -> Result<Result<T, String>, StorageError> {
        match self {
            Missing::Unreadable => Ok(Err("the medium cannot be read".to_owned())),
            Missing::Storage(error) => Err(error),
        }
    }
}

fn concat(mut chunks: Vec<Bytes>) -> Bytes {
    if chunks.len() == 1 {
        return chunks.pop().unwrap_or_default();
    }
    let mut out = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        out.extend_from_slice(&chunk);
    }
    out.freeze()
}
