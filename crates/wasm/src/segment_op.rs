//! Scans a part of a segment into a frame.

use std::sync::{Arc, Mutex, PoisonError};

use comlog_log::{SegmentItem, SegmentPlace, SegmentScan};
use comlog_record::{Limits, Offset};
use comlog_storage::SegmentReader;

use crate::failure::{Failure, Result};
use crate::frame::{FrameWriter, Item, Kind};
use crate::opened::{Opened, Stop};
use crate::ranged::RangedReader;

/// The bounds of batches in files, which may be older than any configuration.
const FILE_LIMITS: Limits = Limits {
    batch_bytes_max: 128 << 20,
    batch_records_max: u32::MAX,
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
    /// The frame is full at so many bytes, but takes one record at least.
    pub(crate) max_bytes: usize,
    /// Whether records are decoded, or only headers told.
    pub(crate) with_records: bool,
}

/// A batch of which records are left to be given.
#[derive(Debug)]
pub(crate) struct Kept {
    start: u64,
    /// Behind it.
    after: SegmentPlace,
    opened: Opened,
}

/// The batch in which the last scan ended, so that it need not be decompressed from its beginning
/// again.
pub(crate) type Keep = Mutex<Option<Box<Kept>>>;

/// Scans on; the head of the frame says position and offset to go on from, whether this is the end,
/// and what lies before which offset is to be left out then.
pub(crate) async fn scan(
    reader: Arc<RangedReader>,
    places: Arc<Places>,
    keep: Arc<Keep>,
    request: ScanRequest,
) -> Result<Vec<u8>> {
    let request = ScanRequest {
        max_bytes: request.max_bytes.max(1),
        ..request
    };
    let mut frame = FrameWriter::default();
    let kept = keep
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take_if(|kept| {
            let position = request.at.map(|at| at.position);
            position == Some(kept.start) && kept.opened.next() == request.from
        });
    let start = match (kept, request.at) {
        (Some(kept), _) => match put_kept(&mut frame, kept, &request) {
            Ok(after) => after,
            Err(kept) => return Ok(stop_inside(frame, &keep, kept)),
        },
        (None, Some(at)) => at,
        (None, None) => find_start(&reader, &places, &request).await?,
    };
    let mut scan = SegmentScan::new(&*reader, start, FILE_LIMITS);
    let mut noted = start.position;
    let mut at_end = false;
    while frame.size() < request.max_bytes {
        let item = scan.next_item().await;
        let Some(item) = item.map_err(|error| Failure::from(&error))? else {
            at_end = true;
            break;
        };
        let place = scan.place();
        if let Some(kept) = put(&mut frame, item, place, &request) {
            return Ok(stop_inside(frame, &keep, kept));
        }
        if place.position >= noted.saturating_add(PLACE_BYTES) && place.position < reader.len() {
            places.add(place);
            noted = place.position;
        }
    }
    let place = scan.place();
    Ok(frame.finish([
        place.position as i64,
        place.offset.0,
        i64::from(at_end),
        request.from.0,
    ]))
}

/// Ends a frame inside a batch, to go on there.
fn stop_inside(frame: FrameWriter, keep: &Keep, kept: Box<Kept>) -> Vec<u8> {
    let base = kept.opened.header().base_offset;
    let says = [kept.start as i64, base.0, 0, kept.opened.next().0];
    *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    frame.finish(says)
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

/// Puts an item; the batch that is left if the frame was full before its end. `after` is the place
/// behind it.
fn put(
    frame: &mut FrameWriter,
    item: SegmentItem,
    after: SegmentPlace,
    request: &ScanRequest,
) -> Option<Box<Kept>> {
    let first = frame.records();
    match item {
        SegmentItem::Batch { position, batch } => {
            if batch.header().next_offset() <= request.from {
                return None;
            }
            if request.with_records {
                let opened = Opened::new(&batch, &FILE_LIMITS);
                let kept = Box::new(Kept {
                    start: position,
                    after,
                    opened,
                });
                return put_kept(frame, kept, request).err();
            }
            let end = position + batch.total_len() as u64;
            let told = Item::new(Kind::Batch, position, end).header(batch.header());
            frame.item(told, first, "");
        }
        SegmentItem::Damage {
            positions,
            first: lost,
            next,
            reason,
        } => {
            if next.is_some_and(|next| next <= request.from) {
                return None;
            }
            let told = Item::new(Kind::Damage, positions.start, positions.end)
                .offsets(lost.0, next.map_or(-1, |next| next.0));
            frame.item(told, first, &reason);
        }
        SegmentItem::Zeros { positions } => {
            let told = Item::new(Kind::Zeros, positions.start, positions.end);
            frame.item(told, first, "");
        }
    }
    None
}

/// Puts records of a batch, in one item or (around what cannot be given) several. The place behind
/// it, or the batch again when the frame is full.
fn put_kept(
    frame: &mut FrameWriter,
    mut kept: Box<Kept>,
    request: &ScanRequest,
) -> Result<SegmentPlace, Box<Kept>> {
    let header = *kept.opened.header();
    let end = kept.start.saturating_add(header.total_len() as u64);
    let told = Item::new(Kind::Batch, kept.start, end).header(&header);
    loop {
        let first = frame.records();
        match kept.opened.put(frame, request.from, request.max_bytes) {
            Stop::End => {
                frame.item(told, first, "");
                return Ok(kept.after);
            }
            Stop::Full => {
                frame.item(told.more(), first, "");
                return Err(kept);
            }
            Stop::Unread(unread) if unread.is_too_large => {
                frame.item(told.more().unread(&unread), first, &unread.reason);
                if frame.size() >= request.max_bytes {
                    return Err(kept);
                }
            }
            Stop::Unread(unread) => {
                frame.item(told.unread(&unread), first, &unread.reason);
                return Ok(kept.after);
            }
        }
    }
}
