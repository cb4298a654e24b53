//! Reads records from a stream of bytes: one a line, or each behind its length.
//!
//! Lines are bytes, not text. Input is read in pieces of [`CHUNK_BYTES`], and a record is a slice
//! of the piece it was read in; only a record that crosses into the next piece is copied.

use std::io::{self, Read};

use bytes::{Buf, Bytes, BytesMut};
use clap::ValueEnum;

use crate::framing::LENGTH_OF_NONE;

/// Bytes asked for in one read.
const CHUNK_BYTES: usize = 256 << 10;

/// How records are told apart in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Framing {
    /// One record a line; the newline is not part of it
    #[default]
    Lines,
    /// One record a line, its newline included: with `consume --framing none` the exact bytes come back
    KeepNewlines,
    /// A big-endian u32 with the length, then that many bytes; 2^32-1 stands for "no value"
    Length,
}

/// Reads records from a stream.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    input: R,
    framing: Framing,
    buffer: BytesMut,
    /// Bytes at the front of `buffer` known to hold no newline.
    searched: usize,
    ended: bool,
    record_bytes_max: usize,
    /// Records taken so far, for messages.
    count: u64,
}

impl<R: Read> FrameReader<R> {
    /// A reader of `input` that refuses records above `record_bytes_max`.
    pub(crate) fn new(input: R, framing: Framing, record_bytes_max: usize) -> FrameReader<R> {
        FrameReader {
            input,
            framing,
            buffer: BytesMut::new(),
            searched: 0,
            ended: false,
            record_bytes_max,
            count: 0,
        }
    }

    /// The records that are there without waiting, at least one; `None` at the end. A record is
    /// `None` when it has no value.
    ///
    /// # Errors
    /// Those of the input; `InvalidData` when a record is too large or cut short.
    pub(crate) fn next_group(&mut self) -> io::Result<Option<Vec<Option<Bytes>>>> {
        loop {
            let mut group = Vec::new();
            loop {
                match self.take() {
                    Ok(Some(record)) => group.push(record),
                    // It comes again with the next call.
                    Err(error) if group.is_empty() => return Err(error),
                    Ok(None) | Err(_) => break,
                }
                self.count += 1;
            }
            if group.is_empty() && self.ended {
                return Ok(self.take_last()?.map(|last| vec![last]));
            }
            if !group.is_empty() {
                return Ok(Some(group));
            }
            self.fill()?;
        }
    }

    /// A whole record from the buffer, if it holds one.
    fn take(&mut self) -> io::Result<Option<Option<Bytes>>> {
        match self.framing {
            Framing::Lines => Ok(self.take_line()?.map(|mut line| {
                line.truncate(line.len() - 1);
                Some(line)
            })),
            Framing::KeepNewlines => Ok(self.take_line()?.map(Some)),
            Framing::Length => self.take_prefixed(),
        }
    }

    fn take_line(&mut self) -> io::Result<Option<Bytes>> {
        let found = memchr::memchr(b'\n', &self.buffer[self.searched..]);
        let length = found.map_or(self.buffer.len(), |at| self.searched + at);
        self.check_length(length)?;
        match found {
            Some(_) => {
                self.searched = 0;
                Ok(Some(self.buffer.split_to(length + 1).freeze()))
            }
            None => {
                self.searched = length;
                Ok(None)
            }
        }
    }

    fn take_prefixed(&mut self) -> io::Result<Option<Option<Bytes>>> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix);
        if length == LENGTH_OF_NONE {
            self.buffer.advance(4);
            return Ok(Some(None));
        }
        let length = length as usize;
        self.check_length(length)?;
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(Some(self.buffer.split_to(length).freeze())))
    }

    /// What is left at the end of the input: a last line without a newline, or nothing.
    fn take_last(&mut self) -> io::Result<Option<Option<Bytes>>> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        if self.framing == Framing::Length {
            return Err(self.invalid("the input ends inside it"));
        }
        self.count += 1;
        self.searched = 0;
        Ok(Some(Some(self.buffer.split().freeze())))
    }

    fn fill(&mut self) -> io::Result<()> {
        let filled = self.buffer.len();
        self.buffer.resize(filled + CHUNK_BYTES, 0);
        let count = loop {
            match self.input.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(filled + *count.as_ref().unwrap_or(&0));
        self.ended = count? == 0;
        Ok(())
    }

    fn check_length(&self, length: usize) -> io::Result<()> {
        if length <= self.record_bytes_max {
            return Ok(());
        }
        Err(self.invalid(&format!(
            "it is longer than {} bytes (see --record-bytes-max)",
            self.record_bytes_max
        )))
    }

    fn invalid(&self, what: &str) -> io::Error {
        let unit = if self.framing == Framing::Length {
            "record"
        } else {
            "line"
        };
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{unit} {}: {what}", self.count + 1),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::OutputFraming;

    /// Hands out a few bytes at a time, so that records cross from piece to piece.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(out.len());
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn read_all(input: &[u8], step: usize, framing: Framing) -> io::Result<Vec<Option<Vec<u8>>>> {
        let mut reader = FrameReader::new(Dribble(input, step), framing, 100);
        let mut records = Vec::new();
        while let Some(group) = reader.next_group()? {
            assert!(!group.is_empty());
            records.extend(
                group
                    .into_iter()
                    .map(|record| record.map(|bytes| bytes.to_vec())),
            );
        }
        Ok(records)
    }

    #[test]
    fn lines_are_bytes_and_the_last_needs_no_newline() {
        for step in 1..8 {
            let records =
                read_all(b"a\n\n\xff\r\nlast", step, Framing::Lines).expect("valid input");
            let expected: [&[u8]; 4] = [b"a", b"", b"\xff\r", b"last"];
            assert_eq!(records, expected.map(|line| Some(line.to_vec())));
        }
        assert!(
            read_all(b"", 1, Framing::Lines)
                .expect("valid input")
                .is_empty()
        );
        assert_eq!(
            read_all(b"\n", 1, Framing::Lines).expect("valid input"),
            [Some(vec![])]
        );
    }

    #[test]
    fn kept_newlines_give_back_the_exact_input() {
        for input in [&b"a\n\nb"[..], b"a\n\nb\n", b"\n", b"x"] {
            for step in 1..4 {
                let records = read_all(input, step, Framing::KeepNewlines).expect("valid input");
                let mut out = Vec::new();
                for record in &records {
                    OutputFraming::None
                        .write(&mut out, record.as_deref())
                        .expect("memory takes all");
                }
                assert_eq!(out, input);
            }
        }
    }

    #[test]
    fn what_is_written_with_lengths_is_read_back() {
        let records = [
            Some(b"a\nb".to_vec()),
            None,
            Some(vec![]),
            Some(vec![7; 100]),
        ];
        let mut out = Vec::new();
        for record in &records {
            OutputFraming::Length
                .write(&mut out, record.as_deref())
                .expect("memory takes all");
        }
        for step in [1, 3, 1000] {
            assert_eq!(
                read_all(&out, step, Framing::Length).expect("valid input"),
                records
            );
        }
    }

    #[test]
    fn long_and_cut_records_are_refused_by_number() {
        let mut long = b"short\n".to_vec();
        long.extend([b'x'; 101]);
        let error = read_all(&long, 10, Framing::Lines).expect_err("101 bytes are too many");
        assert!(
            error.to_string().starts_with("line 2: it is longer"),
            "{error}"
        );
        let error = read_all(&[0xff, 0, 0, 0], 4, Framing::Length).expect_err("4 GB are too many");
        assert!(
            error.to_string().starts_with("record 1: it is longer"),
            "{error}"
        );
        let error = read_all(&[0, 0, 0, 2, 1], 4, Framing::Length).expect_err("a byte is missing");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
