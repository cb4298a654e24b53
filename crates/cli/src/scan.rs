//! Reads a segment file from front to back, offline: batches, damage, and the zeros behind them.
//!
//! Nothing is trusted: a length is checked before it is read, every CRC is computed, and behind
//! damage the scan looks for the next place where a valid batch begins.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use comlog_record::{BATCH_HEADER_LEN, BatchHeader, DecodeError, Limits, Offset, RecordBatch};

/// Bytes looked at in one read while searching.
const WINDOW_BYTES: usize = 1 << 20;
/// Where the magic byte stands in a batch.
const MAGIC_AT: usize = 16;

/// The bounds for files, which may be older than the current configuration.
pub(crate) const FILE_LIMITS: Limits = Limits {
    batch_bytes_max: 128 << 20,
    batch_records_max: u32::MAX,
    decompressed_bytes_max: 1 << 30,
    record_bytes_max: i32::MAX as usize,
    ..Limits::DEFAULT
};

/// What stands at some place of a segment file.
#[derive(Debug)]
pub(crate) enum Found {
    /// A batch with a valid CRC.
    Batch {
        /// Position of its first byte.
        position: u64,
        /// The batch.
        batch: RecordBatch,
    },
    /// Bytes that are no valid batch.
    Damage {
        /// Positions; behind them a valid batch begins, or the file ends.
        positions: Range<u64>,
        /// What is wrong at the first of them.
        reason: String,
    },
    /// Zeros up to the end of the file: allocated ahead, never written.
    Zeros {
        /// Positions.
        positions: Range<u64>,
    },
}

/// An iterator over a segment file.
#[derive(Debug)]
pub(crate) struct SegmentScan {
    file: File,
    position: u64,
    end: u64,
    /// Where offsets must go on: batches never go back.
    next_offset: Offset,
}

impl SegmentScan {
    /// Opens the file at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<SegmentScan> {
        let file = File::open(path)?;
        let end = file.metadata()?.len();
        Ok(SegmentScan {
            file,
            position: 0,
            end,
            next_offset: Offset::ZERO,
        })
    }

    /// What stands next, `None` at the end of the file.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) fn next_found(&mut self) -> io::Result<Option<Found>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        match self.batch_at(position)? {
            Ok(batch) => {
                self.position += batch.total_len() as u64;
                self.next_offset = batch.header().next_offset();
                Ok(Some(Found::Batch { position, batch }))
            }
            Err(reason) => self.behind_batches(&reason).map(Some),
        }
    }

    /// Where the last batch found ended, or where the file begins.
    fn behind_batches(&mut self, reason: &DecodeError) -> io::Result<Found> {
        let start = self.position;
        if self.only_zeros(start)? {
            self.position = self.end;
            return Ok(Found::Zeros {
                positions: start..self.end,
            });
        }
        self.position = self.find_batch(start + 1)?.unwrap_or(self.end);
        Ok(Found::Damage {
            positions: start..self.position,
            reason: reason.to_string(),
        })
    }

    fn batch_at(&self, position: u64) -> io::Result<Result<RecordBatch, DecodeError>> {
        let left = usize::try_from(self.end - position).unwrap_or(usize::MAX);
        let head = self.read(position, left.min(BATCH_HEADER_LEN))?;
        let header = match BatchHeader::decode(&head) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        if header.base_offset < self.next_offset {
            return Ok(Err(DecodeError::Invalid(
                "its base offset lies before the end of the batch before",
            )));
        }
        let whole = header
            .total_len()
            .min(left)
            .min(FILE_LIMITS.batch_bytes_max);
        let mut bytes = Bytes::from(self.read(position, whole)?);
        Ok(RecordBatch::decode(&mut bytes, &FILE_LIMITS))
    }

    /// The first position from `from` on where a valid batch begins.
    fn find_batch(&self, from: u64) -> io::Result<Option<u64>> {
        let mut start = from;
        while start + BATCH_HEADER_LEN as u64 <= self.end {
            let left = usize::try_from(self.end - start).unwrap_or(usize::MAX);
            let window = self.read(start, left.min(WINDOW_BYTES))?;
            let candidates = window.len() + 1 - BATCH_HEADER_LEN;
            for at in memchr::memchr_iter(2, &window[MAGIC_AT..MAGIC_AT + candidates]) {
                let plausible = BatchHeader::decode(&window[at..])
                    .is_ok_and(|header| header.total_len() as u64 <= self.end - start - at as u64);
                if plausible && self.batch_at(start + at as u64)?.is_ok() {
                    return Ok(Some(start + at as u64));
                }
            }
            start += candidates as u64;
        }
        Ok(None)
    }

    fn only_zeros(&self, from: u64) -> io::Result<bool> {
        let mut start = from;
        while start < self.end {
            let left = usize::try_from(self.end - start).unwrap_or(usize::MAX);
            let window = self.read(start, left.min(WINDOW_BYTES))?;
            if window.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            start += window.len() as u64;
        }
        Ok(true)
    }

    fn read(&self, position: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; count];
        self.file.read_exact_at(&mut out, position)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use comlog_record::{BatchBuilder, Compression, LeaderEpoch, Timestamp};

    use super::*;

    fn batch(base: i64, count: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new(FILE_LIMITS);
        for number in 0..count {
            builder
                .push(Timestamp(number), None, Some(b"value"), std::iter::empty())
                .expect("within the limits");
        }
        let mut batch = builder.build(Compression::None, None).expect("not empty");
        batch.assign(Offset(base), LeaderEpoch(0));
        batch.to_bytes().to_vec()
    }

    /// One letter for each thing found, and the positions of damage and zeros.
    fn scan(content: &[u8]) -> (String, Vec<(u64, u64)>) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), content).expect("it takes the content");
        let mut scan = SegmentScan::open(file.path()).expect("it is there");
        let (mut letters, mut ranges) = (String::new(), Vec::new());
        while let Some(found) = scan.next_found().expect("it can be read") {
            match found {
                Found::Batch { .. } => letters.push('b'),
                Found::Damage { positions, .. } => {
                    letters.push('d');
                    ranges.push((positions.start, positions.end));
                }
                Found::Zeros { positions } => {
                    letters.push('z');
                    ranges.push((positions.start, positions.end));
                }
            }
        }
        (letters, ranges)
    }

    #[test]
    fn zeros_behind_the_batches_are_no_damage() {
        let mut content = [batch(5, 3), batch(8, 1)].concat();
        let written = content.len() as u64;
        assert_eq!(scan(&content).0, "bb");
        content.resize(content.len() + 3_000_000, 0);
        assert_eq!(
            scan(&content),
            ("bbz".to_owned(), vec![(written, written + 3_000_000)])
        );
    }

    #[test]
    fn the_scan_goes_on_behind_any_flipped_byte() {
        let first = batch(0, 2);
        let middle = batch(2, 4);
        let last = batch(6, 1);
        let damaged = (first.len() as u64, (first.len() + middle.len()) as u64);
        for at in LEADER_EPOCH_END..middle.len() {
            let mut middle = middle.clone();
            middle[at] ^= 0x55;
            let content = [&first[..], &middle, &last].concat();
            assert_eq!(
                scan(&content),
                ("bdb".to_owned(), vec![damaged]),
                "byte {at}"
            );
        }
    }

    /// Base offset, length and leader epoch come first and lie outside the CRC.
    const LEADER_EPOCH_END: usize = 16;

    #[test]
    fn a_cut_batch_is_damage_to_the_end() {
        let content = [batch(0, 2), batch(2, 9)].concat();
        let start = batch(0, 2).len() as u64;
        // Its first seven bytes are zeros: alone they look like bytes never written.
        for end in start as usize + 8..content.len() {
            assert_eq!(
                scan(&content[..end]),
                ("bd".to_owned(), vec![(start, end as u64)])
            );
        }
    }

    #[test]
    fn an_older_batch_behind_newer_ones_is_damage() {
        let content = [batch(10, 2), batch(3, 2), batch(12, 1)].concat();
        let start = batch(10, 2).len() as u64;
        let end = start + batch(3, 2).len() as u64;
        assert_eq!(scan(&content), ("bdb".to_owned(), vec![(start, end)]));
    }
}
