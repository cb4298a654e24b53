//! Scans a part of a segment into a frame.

use std::sync::{Arc, Mutex, PoisonError};

use comlog_log::{SegmentItem, SegmentPlace, SegmentScan};
use comlog_record::{Limits, Offset, RecordBatch};
use comlog_storage::SegmentReader;

use crate::failure::{Failure, Result};
use crate::frame::{FrameWriter, Item, Kind};
use crate::ranged::RangedReader;

/// The bounds of batches in files, which may be older than any configuration.
const FILE_LIMITS: Limits = Limits {
    batch_bytes_max: 128 << 20,
    batch_records_max: u32::MAX,
    decompressed_bytes_max: 256 << 20,
    ..Limits::DEFAULT
};
/// A place is remembered each so many bytes.
const PLACE_BYTES: u64 = 64 << 10;

/// Where batches begin, as far as is known: ascending by offset. Hints, checked before use.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Vec<SegmentPlace>>);

impl Places {
    pub(crate) fn add(&self, place: SegmentPlace) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = places.partition_point(|known| known.offset < place.offset);
        if places
            .get(behind)
            .is_none_or(|next| next.offset > place.offset)
        {
            places.insert(behind, place);
        }
    }

    /// The last place at or before `offset`.
    fn before(&self, offset: Offset) -> Option<SegmentPlace> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = places.partition_point(|known| known.offset <= offset);
        places.get(behind.checked_sub(1)?).copied()
    }
}

/// What to scan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanRequest {
    /// Where to begin; `None` finds the place for `from`.
    pub(crate) at: Option<SegmentPlace>,
    /// The base offset by the file's name, when it is known.
    pub(crate) base: Option<Offset>,
    /// What lies before this offset is left out.
    pub(crate) from: Offset,
    /// The frame is full at so many bytes, but takes one batch at least.
    pub(crate) max_bytes: usize,
    /// Whether records are decoded, or only headers told.
    pub(crate) with_records: bool,
}

/// Scans on; the head of the frame says position and offset to go on from, and whether this is the end.
pub(crate) async fn scan(
    reader: Arc<RangedReader>,
    places: Arc<Places>,
    request: ScanRequest,
) -> Result<Vec<u8>> {
    let start = match request.at {
        Some(at) => at,
        None => find_start(&reader, &places, &request).await?,
    };
    let mut scan = SegmentScan::new(&*reader, start, FILE_LIMITS);
    let mut frame = FrameWriter::default();
    let mut noted = start.position;
    let mut at_end = false;
    while frame.size() < request.max_bytes {
        match scan
            .next_item()
            .await
            .map_err(|error| Failure::from(&error))?
        {
            Some(item) => put(&mut frame, item, &request),
            None => {
                at_end = true;
                break;
            }
        }
        let place = scan.place();
        if place.position >= noted + PLACE_BYTES && place.position < reader.len() {
            places.add(place);
            noted = place.position;
        }
    }
    let place = scan.place();
    Ok(frame.finish([place.position as i64, place.offset.0, i64::from(at_end), 0]))
}

async fn find_start(
    reader: &RangedReader,
    places: &Places,
    request: &ScanRequest,
) -> Result<SegmentPlace> {
    let failed = |error| Failure::from(&error);
    if let Some(place) = places.before(request.from)
        && SegmentScan::seems_right(reader, place)
            .await
            .map_err(failed)?
    {
        return Ok(place);
    }
    let start = SegmentScan::start_of(reader).await.map_err(failed)?;
    Ok(SegmentPlace {
        offset: request.base.unwrap_or(start.offset),
        ..start
    })
}

fn put(frame: &mut FrameWriter, item: SegmentItem, request: &ScanRequest) {
    let mark = frame.mark();
    match item {
        SegmentItem::Batch { position, batch } => {
            if batch.header().next_offset() <= request.from {
                return;
            }
            let end = position + batch.total_len() as u64;
            let told = Item::new(Kind::Batch, position, end).header(batch.header());
            let error = match request.with_records {
                true => put_records(frame, &batch, request.from).err(),
                false => None,
            };
            if error.is_some() {
                frame.truncate(&mark);
            }
            let text = error.map_or(String::new(), |error| error.to_string());
            frame.item(told, &mark, &text);
        }
        SegmentItem::Damage {
            positions,
            first,
            next,
            reason,
        } => {
            if next.is_some_and(|next| next <= request.from) {
                return;
            }
            let told = Item::new(Kind::Damage, positions.start, positions.end)
                .offsets(first.0, next.map_or(-1, |next| next.0));
            frame.item(told, &mark, &reason);
        }
        SegmentItem::Zeros { positions } => {
            let told = Item::new(Kind::Zeros, positions.start, positions.end);
            frame.item(told, &mark, "");
        }
    }
}

fn put_records(
    frame: &mut FrameWriter,
    batch: &RecordBatch,
    from: Offset,
) -> Result<(), comlog_record::DecodeError> {
    for record in &batch.records(&FILE_LIMITS)? {
        let record = record?;
        if record.offset >= from {
            frame.record(&record);
        }
    }
    Ok(())
}
