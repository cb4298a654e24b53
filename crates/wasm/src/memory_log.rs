//! A log in memory that keeps to a budget of bytes.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use comlog_log::{AppendRequest, Appended, Fetched, Log, LogConfig, LogReader};
use comlog_record::{BatchStream, Limits, Offset, RecordBatch, Timestamp, TimestampType};
use comlog_storage::{MemoryStorage, Storage};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::batches::{build, producer};
use crate::failure::{Failure, Result};
use crate::frame::FrameWriter;
use crate::now::{DateClock, at_once};
use crate::opened::{Opened, put_records};

/// Most bytes of encoded batches taken from the log for one read.
const READ_BYTES_MAX: usize = 16 << 20;

/// The smallest and the largest step in which memory grows ahead of the log.
const GROWTH_BYTES: Range<u64> = 1 << 20..16 << 20;

/// A log in memory. Over its budget the oldest segments go, whole; a batch that is larger than the
/// budget is refused.
#[wasm_bindgen]
#[derive(Debug)]
pub struct MemoryLog {
    storage: Arc<dyn Storage>,
    log: Log,
    reader: LogReader,
    bytes_max: u64,
    /// Bytes by which the instance's memory was grown ahead, and those of them not yet appended.
    grown: u64,
    ahead: u64,
    /// The batch in which the last read ended.
    kept: Option<Opened>,
}

/// What is asked of an append, beside its records.
struct Conditions {
    expected_offset: Option<Offset>,
}

#[wasm_bindgen]
impl MemoryLog {
    /// Opens an empty log.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`.
    #[wasm_bindgen(constructor)]
    pub fn new(
        bytes_max: f64,
        segment_bytes_max: f64,
        batch_bytes_max: u32,
        stamp_append_time: bool,
    ) -> Result<MemoryLog, JsValue> {
        let config = LogConfig {
            segment_bytes_max: segment_bytes_max as u64,
            timestamp_type: match stamp_append_time {
                true => TimestampType::LogAppendTime,
                false => TimestampType::CreateTime,
            },
            limits: Limits {
                batch_bytes_max: batch_bytes_max as usize,
                // What is appended can be read.
                record_bytes_max: Limits::DEFAULT
                    .record_bytes_max
                    .max(batch_bytes_max as usize),
                ..Limits::DEFAULT
            },
            // Nothing outlives the instance: there is nothing to recover.
            checkpoint_bytes: u64::MAX,
            ..LogConfig::default()
        };
        Ok(MemoryLog::open(bytes_max as u64, config)?)
    }

    /// Appends records as one batch. Answers with first and next offset, whether they were there
    /// already, and the append time or -1.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`; nothing was appended.
    pub fn append(
        &mut self,
        frame: &[u8],
        compression: &str,
        expected_offset: Option<i64>,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
    ) -> Result<Vec<i64>, JsValue> {
        let limits = self.log.config().limits;
        let producer = producer(producer_id, producer_epoch, base_sequence);
        let batch = build(frame, compression, producer, limits)?;
        let conditions = Conditions {
            expected_offset: expected_offset.map(Offset),
        };
        Ok(answer(&self.append_all(vec![batch], &conditions)?))
    }

    /// Appends whole encoded batches, back to back, in one group.
    ///
    /// All are checked, their records too, before any is appended.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`. When the sequence of a producer is at fault, the batches
    /// before it have been appended.
    #[wasm_bindgen(js_name = appendBatches)]
    pub fn append_batches(
        &mut self,
        bytes: Vec<u8>,
        expected_offset: Option<i64>,
    ) -> Result<Vec<i64>, JsValue> {
        let batches = self.decode(bytes.into())?;
        let conditions = Conditions {
            expected_offset: expected_offset.map(Offset),
        };
        Ok(answer(&self.append_all(batches, &conditions)?))
    }

    /// Records from offset `from` on: a frame whose head says where to read on.
    ///
    /// Takes records until they fill `max_bytes`, but one at least.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`.
    pub fn read(&mut self, from: i64, max_bytes: u32) -> Result<Vec<u8>, JsValue> {
        Ok(self.read_records(Offset(from), max_bytes as usize)?)
    }

    /// Whole encoded batches from the one that holds `from` on, behind a frame's head.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`.
    #[wasm_bindgen(js_name = readBatches)]
    pub fn read_batches(&self, from: i64, max_bytes: u32) -> Result<Vec<u8>, JsValue> {
        let fetched = self.fetch(Offset(from), max_bytes as usize)?;
        let says = [fetched.offsets.start.0, fetched.offsets.end.0, 0, 0];
        let mut out = FrameWriter::default().finish(says);
        fetched
            .chunks
            .iter()
            .for_each(|chunk| out.extend_from_slice(chunk));
        Ok(out)
    }

    /// The first record at or after `timestamp`: its offset and timestamp, or nothing.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`.
    #[wasm_bindgen(js_name = offsetForTimestamp)]
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Vec<i64>, JsValue> {
        let search = self.reader.offset_for_timestamp(Timestamp(timestamp));
        let found = at_once(search)?.map_err(Failure::from)?;
        Ok(found.map_or(Vec::new(), |found| vec![found.offset.0, found.timestamp.0]))
    }

    /// Raises the log start offset and returns it.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`.
    pub fn trim(&mut self, start: i64) -> Result<i64, JsValue> {
        Ok(self.trim_to(Offset(start))?.0)
    }

    /// Start offset, end offset, bytes, budget, then five numbers for each segment: base offset, end
    /// offset, bytes, largest timestamp (-1 when unknown), whether it is sealed.
    #[must_use]
    pub fn stats(&self) -> Vec<i64> {
        let positions = self.reader.positions();
        let segments = self.reader.segments();
        let bytes: u64 = segments.iter().map(|segment| segment.len).sum();
        let mut out = vec![
            positions.start.0,
            positions.high_watermark.0,
            bytes as i64,
            self.bytes_max as i64,
        ];
        for segment in segments {
            out.extend([
                segment.base_offset.0,
                segment.end_offset.0,
                segment.len as i64,
                segment.max_timestamp.unwrap_or(Timestamp::NONE).0,
                i64::from(segment.sealed),
            ]);
        }
        out
    }

    /// Where the log starts and ends.
    #[must_use]
    pub fn positions(&self) -> Vec<i64> {
        let positions = self.reader.positions();
        vec![positions.start.0, positions.high_watermark.0]
    }

    /// The content of the segment that begins at `base_offset`, as its file would be.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`.
    #[wasm_bindgen(js_name = exportSegment)]
    pub fn export_segment(&self, base_offset: i64) -> Result<Vec<u8>, JsValue> {
        Ok(self.segment_bytes(Offset(base_offset))?)
    }
}

impl MemoryLog {
    fn open(bytes_max: u64, config: LogConfig) -> Result<MemoryLog> {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let opened = Log::open(Arc::clone(&storage), config, Arc::new(DateClock));
        let (log, _) = at_once(opened)??;
        let reader = log.reader();
        Ok(MemoryLog {
            storage,
            log,
            reader,
            bytes_max,
            grown: 0,
            ahead: 0,
            kept: None,
        })
    }

    fn decode(&self, bytes: Bytes) -> Result<Vec<RecordBatch>> {
        let limits = self.log.config().limits;
        let mut stream = BatchStream::new([bytes]);
        let mut batches = Vec::new();
        while let Some(batch) = stream.next_batch(&limits)? {
            batch.header().check_from_client(&limits)?;
            batch.check_from_client(&limits)?;
            batches.push(batch);
        }
        match batches.is_empty() {
            true => Err(Failure::invalid("there is no batch to append")),
            false => Ok(batches),
        }
    }

    fn append_all(
        &mut self,
        batches: Vec<RecordBatch>,
        conditions: &Conditions,
    ) -> Result<Vec<Appended>> {
        self.check_expected(conditions)?;
        let bytes = batches.iter().map(|batch| batch.total_len() as u64).sum();
        self.make_room(bytes)?;
        self.grow_ahead(bytes);
        let mut group: Vec<_> = batches.into_iter().map(AppendRequest::new).collect();
        group[0].expected_offset = conditions.expected_offset;
        group.iter_mut().for_each(|request| request.chain = Some(0));
        let answers = at_once(self.log.append(group))?;
        answers
            .into_iter()
            .map(|answer| answer.map_err(Failure::from))
            .collect()
    }

    /// Before anything is trimmed: what is refused must change nothing.
    fn check_expected(&self, conditions: &Conditions) -> Result<()> {
        let actual = self.log.positions().end;
        match conditions.expected_offset {
            Some(expected) if expected != actual => {
                Err(comlog_log::AppendError::UnexpectedOffset { expected, actual }.into())
            }
            _ => Ok(()),
        }
    }

    /// Lets the oldest segments go until `bytes` more fit the budget.
    fn make_room(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.bytes_max {
            let message = format!(
                "{bytes} bytes exceed the log's budget of {}",
                self.bytes_max
            );
            return Err(Failure::new("STORAGE_FULL", message));
        }
        while self.reader.size_bytes() + bytes > self.bytes_max {
            let segments = self.reader.segments();
            let Some(oldest) = segments.first() else {
                return Ok(());
            };
            if !oldest.sealed {
                at_once(self.log.roll())??;
            }
            at_once(self.log.trim(oldest.end_offset))??;
        }
        Ok(())
    }

    /// Makes the instance's memory grow in large steps: each step costs about as much as a thousand
    /// records, and the allocator alone would take one for each 64 KiB.
    fn grow_ahead(&mut self, bytes: u64) {
        if bytes > self.ahead && self.grown < self.bytes_max {
            let step = (self.grown / 4).clamp(GROWTH_BYTES.start, GROWTH_BYTES.end);
            drop(std::hint::black_box(Vec::<u8>::with_capacity(
                step as usize,
            )));
            self.grown += step;
            self.ahead = step;
        }
        self.ahead = self.ahead.saturating_sub(bytes);
    }

    fn trim_to(&mut self, start: Offset) -> Result<Offset> {
        Ok(at_once(self.log.trim(start))??)
    }

    fn fetch(&self, from: Offset, max_bytes: usize) -> Result<Fetched> {
        Ok(at_once(
            self.reader.read(from, max_bytes.min(READ_BYTES_MAX)),
        )??)
    }

    fn read_records(&mut self, from: Offset, max_bytes: usize) -> Result<Vec<u8>> {
        let fetched = self.fetch(from, max_bytes)?;
        let limits = self.log.config().limits;
        let end = fetched.offsets.end.max(from);
        let mut batches = BatchStream::new(fetched.chunks);
        let mut frame = FrameWriter::default();
        let next = put_records(
            &mut frame,
            &mut batches,
            from,
            max_bytes,
            &limits,
            &mut self.kept,
        )?;
        Ok(frame.finish([next.unwrap_or(end).0, 0, 0, 0]))
    }

    fn segment_bytes(&self, base: Offset) -> Result<Vec<u8>> {
        let visible = self.reader.segments();
        let segment = visible.iter().find(|segment| segment.base_offset == base);
        let Some(segment) = segment else {
            return Err(Failure::invalid(format!(
                "no segment begins at offset {base}"
            )));
        };
        let reader = at_once(self.storage.open(base))?.map_err(|error| Failure::from(&error))?;
        let read = at_once(reader.read(0..segment.len))?;
        Ok(read.map_err(|error| Failure::from(&error))?.concat())
    }
}

/// What an append answers with.
fn answer(appended: &[Appended]) -> Vec<i64> {
    let (Some(first), Some(last)) = (appended.first(), appended.last()) else {
        return Vec::new();
    };
    vec![
        first.offsets.start.0,
        last.offsets.end.0,
        i64::from(appended.iter().all(|appended| appended.duplicate)),
        last.append_time.unwrap_or(Timestamp::NONE).0,
    ]
}
