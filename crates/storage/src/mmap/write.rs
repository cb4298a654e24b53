//! Writing a group of buffers to a segment's file, so that a sync behind it has little left to do.
#![allow(clippy::disallowed_methods, reason = "this is the local disk")]

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;

use bytes::Bytes;
use rustix::io::Errno;

/// Most buffers of one `pwritev` (IOV_MAX).
const BUFFERS_MAX: usize = 1024;
/// Most bytes of one `pwritev`; of those for one write, all but the last end where these divide the
/// position. The page cache allocates a folio as large as the write: large ones come from memory that
/// was not used for long, and in a virtual machine the host has then taken it back. See
/// `bench/README.md`.
const PIECE_BYTES: u64 = 32 << 10;
/// The disk begins with so many bytes while those behind them are still being copied.
const WRITEBACK_BYTES: u64 = 1 << 20;

/// Whether a sync follows the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    Sync,
}

/// Writes all of `chunks` at `position`, in place of what is there. Nothing is durable on return.
///
/// # Errors
/// As `pwritev`; what was written then is not known. A failure to begin writing back is none of
/// those: it has no error number, so that nobody takes it for a full disk and tries again.
pub(super) fn write_all(
    file: &File,
    chunks: &[Bytes],
    mut position: u64,
    then: Then,
) -> io::Result<()> {
    let len: usize = chunks.iter().map(Bytes::len).sum();
    let in_one_piece = len as u64 <= PIECE_BYTES;
    let mut begun = match then {
        Then::Sync => position,
        // Of the writes before, what did not fill its block has not begun.
        Then::Nothing => position - position % WRITEBACK_BYTES,
    };
    let mut left = Left::of(chunks);
    while !left.is_empty() {
        let beyond = if in_one_piece {
            0
        } else {
            position % PIECE_BYTES
        };
        let piece = left.first(PIECE_BYTES - beyond);
        let written = match rustix::io::pwritev(file, &piece, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        left.advance(written);
        position += written as u64;
        // The sync itself begins with what is last.
        let is_last = then == Then::Sync && left.is_empty();
        if position - begun >= WRITEBACK_BYTES && !is_last {
            let end = match then {
                Then::Sync => position,
                Then::Nothing => position - position % WRITEBACK_BYTES,
            };
            begin_writeback(file, begun..end).map_err(io::Error::other)?;
            begun = end;
        }
    }
    Ok(())
}

/// What is left to write.
struct Left<'a> {
    /// The first is never empty.
    chunks: &'a [Bytes],
    /// How much of the first is written.
    skip: usize,
}

impl<'a> Left<'a> {
    fn of(chunks: &'a [Bytes]) -> Left<'a> {
        let mut left = Left { chunks, skip: 0 };
        left.advance(0);
        left
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The first bytes, at most `bytes_max` of them, in at most [`BUFFERS_MAX`] buffers.
    fn first(&self, bytes_max: u64) -> Vec<IoSlice<'a>> {
        let mut room = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let mut from = self.skip;
        let mut piece = Vec::new();
        for chunk in self.chunks.iter().take(BUFFERS_MAX) {
            let to = chunk.len().min(from.saturating_add(room));
            piece.push(IoSlice::new(&chunk[from..to]));
            room -= to - from;
            from = 0;
            if room == 0 {
                break;
            }
        }
        piece
    }

    fn advance(&mut self, written: usize) {
        self.skip += written;
        while let [first, rest @ ..] = self.chunks
            && self.skip >= first.len()
        {
            self.skip -= first.len();
            self.chunks = rest;
        }
    }
}

/// Lets the disk begin with `range`, and returns without waiting for it. File systems that cannot
/// do without: the sync does all then.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no crate here wraps this call")]
fn begin_writeback(file: &File, range: Range<u64>) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;

    let (Ok(from), Ok(len)) = (
        i64::try_from(range.start),
        i64::try_from(range.end - range.start),
    ) else {
        return Err(Errno::FBIG);
    };
    // SAFETY: takes three numbers and a descriptor that `file` keeps open, and no memory.
    let done =
        unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) };
    match Errno::from_io_error(&io::Error::last_os_error()) {
        _ if done == 0 => Ok(()),
        Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::SPIPE | Errno::INTR) => Ok(()),
        error => Err(error.unwrap_or(Errno::IO)),
    }
}

#[cfg(not(target_os = "linux"))]
fn begin_writeback(_: &File, _: Range<u64>) -> Result<(), Errno> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Buffers of these lengths, each byte telling which place in the whole it has.
    fn chunks(lens: &[usize]) -> Vec<Bytes> {
        let mut next = 0u32;
        let mut chunk = |len: usize| {
            let from = next;
            next += len as u32;
            (from..next).map(|at| (at % 251) as u8).collect()
        };
        lens.iter().map(|&len| chunk(len)).collect()
    }

    fn written(chunks: &[Bytes], position: u64, then: Then) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        write_all(&file, chunks, position, then).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn every_byte_goes_to_its_place() {
        let many = vec![7; BUFFERS_MAX * 2 + 1];
        let sets: [&[usize]; 6] = [
            &[],
            &[0, 0],
            &[0, 3, 0, 0, 5, 0],
            &[61, 2 << 20, 61, 1, (1 << 20) - 1, 90_000],
            &[PIECE_BYTES as usize, PIECE_BYTES as usize + 1, 1],
            &many,
        ];
        for lens in sets {
            for position in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 100_000] {
                for then in [Then::Nothing, Then::Sync] {
                    let chunks = chunks(lens);
                    let whole = chunks.concat();
                    let content = written(&chunks, position, then);
                    let from = content.len().min(position as usize);
                    assert_eq!(content.len() - from, whole.len());
                    assert!(content[from..] == whole, "{lens:?} at {position}");
                    assert!(content[..from].iter().all(|&byte| byte == 0));
                }
            }
        }
    }

    #[test]
    fn a_full_disk_is_told_by_its_number() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = write_all(&full, &chunks(&[5]), 0, Then::Sync).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
    }
}
