//! What was fetched from one partition, on its way to the application: batch by batch, and where a
//! batch unpacks to a lot, piece by piece, so that memory is bounded by what one poll returns.

use std::collections::VecDeque;

use comlog_proto::v1;
use comlog_record::{
    BatchBuilder, BatchStream, Compression, DecodeError, LeaderEpoch, Limits, Offset, OffsetRange,
    Piece, Record, RecordBatch, RecordReader, Records,
};

use crate::fetched::FetchedBatch;
use crate::follow::Followed;
use crate::{Error, answer};

const OFFSETS_DO_NOT_RISE: DecodeError =
    DecodeError::Invalid("base offset outside what was fetched, or below the batch before");

/// A batch that unpacks to more is handed out in pieces of about this size.
const WHOLE_BYTES_MAX: usize = 8 << 20;
const PIECE_BYTES: usize = 1 << 20;

/// One message of a tail, as far as it was not handed out.
#[derive(Debug)]
pub(crate) struct Reading {
    stream: BatchStream,
    /// Where the message ends.
    next_offset: Offset,
    /// A batch was taken from it.
    began: bool,
    /// The batch that is being unpacked.
    unpacking: Option<Box<Unpacking>>,
}

/// What one poll gets from it.
struct Output<'a> {
    batches: &'a mut Vec<FetchedBatch>,
    /// How many were there before.
    already: usize,
    bytes: usize,
    bytes_max: usize,
    /// Where the position and the batches stood before the last batch that was handed out whole.
    before_last: Option<(Offset, usize)>,
}

impl Output<'_> {
    fn is_enough(&self) -> bool {
        self.batches.len() > self.already && self.bytes >= self.bytes_max
    }
}

/// How reading goes on.
enum Flow {
    On,
    /// The rest is for another poll.
    Enough,
    /// Nothing is left, or the partition rests.
    Over,
}

impl Followed {
    /// Takes what was fetched; [`Followed::read_on`] hands it out.
    pub(crate) fn take(&mut self, fetched: v1::Fetched) {
        if let Err(error) = answer::fetched(self.position.unwrap_or_default().0, &fetched) {
            return self.park(error);
        }
        self.resets = 0;
        self.high_watermark = Some(Offset(fetched.high_watermark));
        self.reading = Some(Reading {
            stream: BatchStream::new(fetched.chunks),
            next_offset: Offset(fetched.next_offset),
            began: false,
            unpacking: None,
        });
    }

    /// Decodes what was fetched and moves the position behind it, until there are `bytes_max` of it
    /// or all; at least one batch. Damage parks the partition, with what comes before it handed out.
    pub(crate) fn read_on(
        &mut self,
        limits: &Limits,
        bytes_max: usize,
        batches: &mut Vec<FetchedBatch>,
    ) {
        let Some(mut reading) = self.reading.take() else {
            return;
        };
        let mut output = Output {
            already: batches.len(),
            batches,
            bytes: 0,
            bytes_max,
            before_last: None,
        };
        loop {
            let flow = match reading.unpacking.take() {
                Some(unpacking) => self.read_piece(unpacking, &mut reading, &mut output),
                None => self.read_batch(&mut reading, limits, &mut output),
            };
            match flow {
                Flow::On => {}
                Flow::Over => return,
                Flow::Enough => {
                    self.reading = Some(reading);
                    return;
                }
            }
        }
    }

    fn read_piece(
        &mut self,
        mut unpacking: Box<Unpacking>,
        reading: &mut Reading,
        output: &mut Output<'_>,
    ) -> Flow {
        if output.is_enough() {
            reading.unpacking = Some(unpacking);
            return Flow::Enough;
        }
        output.before_last = None;
        let offsets = unpacking.offsets;
        match unpacking.next() {
            Step::Records(records, next) => {
                self.hand_out(records, next, output);
                reading.unpacking = Some(unpacking);
                Flow::On
            }
            Step::End => {
                self.position = Some(offsets.end);
                Flow::On
            }
            Step::TooLarge(offset, bytes) => self.too_large(offset, bytes),
            Step::Failed(error) => self.damaged(Some(offsets), reading.next_offset, &error),
        }
    }

    fn read_batch(
        &mut self,
        reading: &mut Reading,
        limits: &Limits,
        output: &mut Output<'_>,
    ) -> Flow {
        let (position, next_offset) = (self.position.unwrap_or_default(), reading.next_offset);
        if reading.stream.is_empty() {
            self.position = Some(position.max(next_offset));
            return Flow::Over;
        }
        let header = match reading.stream.peek_header() {
            Ok(header) => header,
            Err(error) => return self.damaged(None, next_offset, &error),
        };
        let offsets = header.offsets();
        let out_of_place = if reading.began {
            offsets.start < position
        } else {
            offsets.end <= position
        };
        if output.is_enough() && !out_of_place {
            return Flow::Enough;
        }
        let batch = match reading.stream.next_batch(limits) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Flow::On,
            Err(error) => return self.damaged(Some(offsets), next_offset, &error),
        };
        if out_of_place || offsets.end > next_offset {
            // No checksum covers a base offset. It rises from batch to batch, so when one is too
            // low, the one before may be too high.
            if let Some((position, count)) = output.before_last.filter(|_| out_of_place) {
                self.position = Some(position);
                output.batches.truncate(count);
            }
            return self.damaged(None, next_offset, &OFFSETS_DO_NOT_RISE);
        }
        reading.began = true;
        self.open_batch(&batch, reading, limits, output)
    }

    /// Hands a batch out, or begins to unpack it.
    fn open_batch(
        &mut self,
        batch: &RecordBatch,
        reading: &mut Reading,
        limits: &Limits,
        output: &mut Output<'_>,
    ) -> Flow {
        let (position, offsets) = (self.position.unwrap_or_default(), batch.header().offsets());
        let before = Some((position, output.batches.len()));
        // Markers are checked like records, and not handed out.
        match open(batch, limits, position) {
            Ok(_) if batch.header().is_control() => {
                output.before_last = before;
                self.position = Some(offsets.end);
            }
            Ok(Opened::Whole(records)) => {
                output.before_last = before;
                self.hand_out(records, offsets.end, output);
            }
            Ok(Opened::Pieces(unpacking)) => reading.unpacking = Some(unpacking),
            Err(error) => return self.damaged(Some(offsets), reading.next_offset, &error),
        }
        Flow::On
    }

    fn hand_out(&mut self, records: Records, next: Offset, output: &mut Output<'_>) {
        let (topic, position) = (self.topic.clone(), self.position.unwrap_or_default());
        output.bytes += records.encoded().len();
        let batch = FetchedBatch::new(topic, self.partition, records, position);
        output.batches.push(batch);
        self.position = Some(next);
    }

    fn too_large(&mut self, offset: Offset, bytes: u64) -> Flow {
        self.position = Some(offset);
        self.park(Error::RecordTooLarge {
            topic: self.topic.clone(),
            partition: self.partition,
            offset,
            bytes,
        });
        Flow::Over
    }

    /// The range is what the batch claims to cover, if that is plausible.
    fn damaged(
        &mut self,
        claimed: Option<OffsetRange>,
        next_offset: Offset,
        error: &DecodeError,
    ) -> Flow {
        let position = self.position.unwrap_or_default();
        let plausible =
            claimed.filter(|range| range.contains(position) && range.end <= next_offset);
        let end = plausible.map_or(next_offset, |range| range.end);
        let offsets = OffsetRange::new(position, end.max(position.next()));
        self.park(Error::corrupt(&self.topic, self.partition, offsets, error));
        Flow::Over
    }
}

enum Opened {
    Whole(Records),
    Pieces(Box<Unpacking>),
}

/// The records of a batch, from `from` on: at once, or piece by piece when they are many.
fn open(batch: &RecordBatch, limits: &Limits, from: Offset) -> Result<Opened, DecodeError> {
    let whole = Limits {
        decompressed_bytes_max: limits.decompressed_bytes_max.min(WHOLE_BYTES_MAX),
        ..*limits
    };
    match batch.records(&whole) {
        Ok(records) => Ok(Opened::Whole(records)),
        Err(DecodeError::TooLarge { .. }) => Ok(Opened::Pieces(Box::new(Unpacking {
            offsets: batch.header().offsets(),
            from,
            reader: batch.reader(limits)?,
            open: None,
            ready: VecDeque::new(),
        }))),
        Err(error) => Err(error),
    }
}

/// A batch that is read record by record and handed out as several.
#[derive(Debug)]
struct Unpacking {
    offsets: OffsetRange,
    /// Records before this are not wanted.
    from: Offset,
    reader: RecordReader,
    open: Option<Open>,
    /// What comes before more is read.
    ready: VecDeque<Step>,
}

/// Records that follow each other without a gap.
#[derive(Debug)]
struct Open {
    base: Offset,
    next: Offset,
    builder: BatchBuilder,
}

#[derive(Debug)]
enum Step {
    /// Some records, and the offset behind them.
    Records(Records, Offset),
    /// A record beyond the bound, and its bytes.
    TooLarge(Offset, u64),
    End,
    Failed(DecodeError),
}

impl Unpacking {
    /// What comes next; nothing behind [`Step::End`] and what is no records.
    fn next(&mut self) -> Step {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return step;
            }
            let step = match self.reader.next() {
                Ok(Some(Piece::Record(record))) => {
                    if record.offset >= self.from {
                        let full = add(&mut self.open, &record);
                        self.ready.extend(full.and_then(Open::close));
                    }
                    continue;
                }
                Ok(Some(Piece::TooLarge { offset, bytes })) => {
                    if offset < self.from {
                        continue;
                    }
                    Step::TooLarge(offset, bytes)
                }
                Ok(None) => Step::End,
                Err(error) => Step::Failed(error),
            };
            self.ready.extend(self.open.take().and_then(Open::close));
            self.ready.push_back(step);
        }
    }
}

/// Adds a record; what was open before, when it is full or does not reach up to the record.
fn add(open: &mut Option<Open>, record: &Record<'_>) -> Option<Open> {
    let ends =
        |open: &mut Open| open.next != record.offset || open.builder.encoded_len() >= PIECE_BYTES;
    let full = open.take_if(ends);
    let limits = Limits {
        batch_bytes_max: i32::MAX as usize,
        batch_records_max: i32::MAX as u32,
        ..Limits::DEFAULT
    };
    let open = open.get_or_insert_with(|| Open {
        base: record.offset,
        next: record.offset,
        builder: BatchBuilder::new(limits),
    });
    let headers: Vec<_> = record.headers.collect();
    let pushed = open.builder.push(
        record.timestamp,
        record.key,
        record.value,
        headers.into_iter(),
    );
    // The bound of a record keeps a piece far from what a batch can hold.
    debug_assert!(pushed.is_ok(), "{pushed:?}");
    open.next = record.offset.next();
    full
}

impl Open {
    fn close(self) -> Option<Step> {
        let built = self.builder.build(Compression::None, None).ok();
        let mut batch = built?;
        batch.assign(self.base, LeaderEpoch::default());
        match batch.records(&Limits::DEFAULT) {
            Ok(records) => Some(Step::Records(records, self.next)),
            Err(error) => Some(Step::Failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use comlog_record::{BatchBuilder, Compression, LeaderEpoch, Timestamp};

    use super::*;
    use crate::StartAt;
    use crate::follow::Follow;

    /// A message with a batch of ten records at each base offset, said to end at `next_offset`.
    fn fetched(bases: &[i64], next_offset: i64) -> v1::Fetched {
        let batch = |base: &i64| {
            let mut builder = BatchBuilder::new(Limits::DEFAULT);
            for _ in 0..10 {
                builder
                    .push(Timestamp(0), None, Some(b"x"), std::iter::empty())
                    .unwrap();
            }
            let mut batch = builder.build(Compression::None, None).unwrap();
            batch.assign(Offset(*base), LeaderEpoch(0));
            batch.to_bytes()
        };
        v1::Fetched {
            chunks: bases.iter().map(batch).collect(),
            next_offset,
            high_watermark: next_offset,
            ..v1::Fetched::default()
        }
    }

    /// Takes a message at `position`; how many batches came out, where the consumer stands, and
    /// whether it reports damage.
    fn take(position: i64, message: v1::Fetched) -> (usize, i64, bool) {
        let mut follow = Follow::new(1_000);
        follow.add(&Arc::from("t"), 0, StartAt::Offset(Offset(position)));
        let followed = follow.get_mut("t", 0).unwrap();
        let mut batches = Vec::new();
        followed.take(message);
        followed.read_on(&Limits::DEFAULT, usize::MAX, &mut batches);
        (batches.len(), followed.position.unwrap().0, followed.parked)
    }

    #[test]
    fn batches_rise_within_what_was_fetched() {
        assert_eq!(take(0, fetched(&[0, 10, 20], 30)), (3, 30, false));
        assert_eq!(
            take(5, fetched(&[0, 10], 20)),
            (2, 20, false),
            "the first holds the position"
        );
        assert_eq!(
            take(0, fetched(&[0, 50], 60)),
            (2, 60, false),
            "gaps are allowed"
        );
        assert_eq!(take(0, fetched(&[], 60)), (0, 60, false));
    }

    #[test]
    fn a_flipped_base_offset_is_damage_and_never_a_skip() {
        assert_eq!(
            take(0, fetched(&[0, 12, 20], 30)),
            (1, 10, true),
            "12 is too high, seen at 20"
        );
        assert_eq!(
            take(0, fetched(&[0, 8, 20], 30)),
            (0, 0, true),
            "8 is too low, or 0 too high"
        );
        assert_eq!(
            take(0, fetched(&[0, 1_000_010], 20)),
            (1, 10, true),
            "beyond what was fetched"
        );
        assert_eq!(
            take(100, fetched(&[50], 110)),
            (0, 100, true),
            "below what was asked for"
        );
    }
}
