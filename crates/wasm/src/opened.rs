//! A batch whose records are taken some at a time, whatever they decompress to.

use comlog_record::{
    BatchHeader, BatchStream, Compression, DecodeError, Limits, Offset, Piece, RecordBatch,
    RecordReader,
};

use crate::failure::{Failure, Result};
use crate::frame::{FrameWriter, Unread};

/// The bytes up to which an uncompressed batch is taken as a whole, which is faster.
const WHOLE_BYTES_MAX: usize = 1 << 20;

/// A batch under way: which of its records come next.
#[derive(Debug)]
pub(crate) struct Opened {
    header: BatchHeader,
    source: Source,
    next: Offset,
}

#[derive(Debug)]
enum Source {
    /// Small and not compressed.
    Whole(RecordBatch),
    Pieces(RecordReader),
    /// Even its beginning cannot be read.
    Refused(DecodeError),
    /// Nothing is left.
    Done,
}

/// Why no more records were put into a frame.
#[derive(Debug)]
pub(crate) enum Stop {
    /// All were; nothing of the batch is left.
    End,
    /// The frame is full.
    Full,
    /// The next one cannot be given. Reading goes on after it: with the same batch if it was one
    /// record beyond the bound, else behind the batch.
    Unread(Unread),
}

impl Opened {
    pub(crate) fn new(batch: &RecordBatch, limits: &Limits) -> Opened {
        let header = *batch.header();
        let is_plain = header.compression() == Compression::None;
        let source = if is_plain && batch.body().len() <= WHOLE_BYTES_MAX {
            Source::Whole(batch.clone())
        } else {
            match batch.reader(limits) {
                Ok(reader) => Source::Pieces(reader),
                Err(error) => Source::Refused(error),
            }
        };
        Opened {
            header,
            source,
            next: header.base_offset,
        }
    }

    pub(crate) fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// No record below this offset is left in it.
    pub(crate) fn next(&self) -> Offset {
        self.next
    }

    /// Puts records from offset `from` on into `frame` until that has `bytes_max` bytes (one at
    /// least, and a small uncompressed batch whole).
    pub(crate) fn put(&mut self, frame: &mut FrameWriter, from: Offset, bytes_max: usize) -> Stop {
        let mut first = true;
        loop {
            match std::mem::replace(&mut self.source, Source::Done) {
                Source::Done => return Stop::End,
                Source::Refused(error) => return self.give_up(&error),
                Source::Whole(batch) => return self.put_whole(frame, &batch, from),
                Source::Pieces(reader) if !first && frame.size() >= bytes_max => {
                    self.source = Source::Pieces(reader);
                    return Stop::Full;
                }
                Source::Pieces(reader) => match self.step(frame, reader, from) {
                    Step::Put => first = false,
                    Step::Before => {}
                    Step::Stop(stop) => return stop,
                },
            }
        }
    }

    fn put_whole(&mut self, frame: &mut FrameWriter, batch: &RecordBatch, from: Offset) -> Stop {
        let records = match batch.records(&Limits::DEFAULT) {
            Ok(records) => records,
            Err(error) => return self.give_up(&error),
        };
        for record in &records {
            match record {
                Ok(record) => {
                    self.next = Offset(record.offset.0 + 1);
                    if record.offset >= from {
                        frame.record(&record);
                    }
                }
                Err(error) => return self.give_up(&error),
            }
        }
        self.next = self.header.next_offset();
        Stop::End
    }

    /// Takes one record from `reader`, and keeps that unless nothing is left.
    fn step(&mut self, frame: &mut FrameWriter, mut reader: RecordReader, from: Offset) -> Step {
        let step = match reader.next() {
            Ok(Some(Piece::Record(record))) => {
                self.next = Offset(record.offset.0 + 1);
                if record.offset < from {
                    Step::Before
                } else {
                    frame.record(&record);
                    Step::Put
                }
            }
            Ok(Some(Piece::TooLarge { offset, bytes })) => {
                self.next = Offset(offset.0 + 1);
                match offset < from {
                    true => Step::Before,
                    false => Step::Stop(Stop::Unread(too_large(offset, bytes))),
                }
            }
            Ok(None) => {
                self.next = self.header.next_offset();
                return Step::Stop(Stop::End);
            }
            Err(error) => return Step::Stop(self.give_up(&error)),
        };
        self.source = Source::Pieces(reader);
        step
    }

    /// What is left of the batch cannot be read.
    fn give_up(&mut self, error: &DecodeError) -> Stop {
        let next = self.header.next_offset();
        Stop::Unread(Unread {
            is_too_large: false,
            first: std::mem::replace(&mut self.next, next),
            next: next.0,
            reason: error.to_string(),
        })
    }
}

/// What came of one record.
enum Step {
    Put,
    /// It lies before what is wanted.
    Before,
    Stop(Stop),
}

/// Puts records from offset `from` on into `frame`, about `bytes_max` bytes; where to read on, if that
/// is not behind the last batch. `kept` is the batch in which the last call ended, so that it need not
/// be decompressed from its beginning again.
///
/// # Errors
/// The first contradiction in the bytes; or the record at `from` cannot be given: its offset, and
/// where reading can go on.
pub(crate) fn put_records(
    frame: &mut FrameWriter,
    batches: &mut BatchStream,
    from: Offset,
    bytes_max: usize,
    limits: &Limits,
    kept: &mut Option<Opened>,
) -> Result<Option<Offset>> {
    while let Some(batch) = batches.next_batch(limits)? {
        if batch.header().next_offset() <= from {
            continue;
        }
        let mut opened = match kept.take() {
            Some(kept) if kept.header == *batch.header() && kept.next == from => kept,
            _ => Opened::new(&batch, limits),
        };
        match opened.put(frame, from, bytes_max) {
            // What was compressed may be many times larger than it was.
            Stop::End if frame.size() >= bytes_max => return Ok(Some(opened.next())),
            Stop::End => {}
            Stop::Full => {
                let next = opened.next();
                *kept = Some(opened);
                return Ok(Some(next));
            }
            // The next call comes to it.
            Stop::Unread(unread) if frame.records() > 0 => return Ok(Some(unread.first)),
            Stop::Unread(unread) => return Err(Failure::from(unread)),
        }
    }
    Ok(None)
}

fn too_large(offset: Offset, bytes: u64) -> Unread {
    Unread {
        is_too_large: true,
        first: offset,
        next: offset.0 + 1,
        reason: format!(
            "the record at offset {offset} has {bytes} bytes, more than can be read; go on at {}",
            offset.0 + 1
        ),
    }
}
