//! Reading a partition for a caller: find the start, take batches, hand them out in the form asked for.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use comlog_log::Fetched;
use comlog_proto::v1::{self, Form, start_at::At};
use comlog_record::{Offset, Timestamp};
use prost::Message;

use crate::broker::Shared;
use crate::partition::Partition;
use crate::status::ServiceError;
use crate::topic_config::unknown_value;
use crate::unpack::{self, Bounds};

/// However little room there is, answers are not cut smaller than this.
const ANSWER_BYTES_MIN: usize = 64 << 10;

/// What a record may take beside the bytes that `append.record_bytes_max` counts: its numbers, and
/// those of its headers.
pub(crate) const RECORD_OVERHEAD_MAX: u32 = 4 << 10;

/// Whole batches from the one that holds `from`; without waiting when they are at hand. Read on at
/// `offsets.end`, which is behind `from` even when only a gap lies before the high watermark.
pub(crate) async fn batches(
    partition: &Partition,
    from: Offset,
    bytes_max: usize,
) -> Result<Fetched, ServiceError> {
    let reader = partition.reader()?;
    let visible = reader.positions().high_watermark;
    let at_hand = reader.try_read(from, bytes_max);
    let fetched = match at_hand {
        Ok(Some(fetched)) => Ok(fetched),
        Ok(None) => reader.read(from, bytes_max).await,
        Err(error) => Err(error),
    };
    let mut fetched = fetched.map_err(|error| partition.explain(error))?;
    if fetched.chunks.is_empty() {
        fetched.offsets.end = visible.max(from);
    }
    if let Some(ahead) = reader.look_ahead(fetched.offsets.end) {
        tokio::spawn(ahead);
    }
    Ok(fetched)
}

/// What was read at `from`, as the caller wants it.
pub(crate) async fn to_message(
    partition: &Partition,
    fetched: Fetched,
    from: Offset,
    form: Form,
    bounds: &Bounds,
    shared: &Shared,
) -> Result<v1::Fetched, ServiceError> {
    shared
        .counters
        .fetched_bytes
        .fetch_add(fetched.len as u64, Ordering::Relaxed);
    let positions = partition.reader()?.positions();
    let mut message = v1::Fetched {
        chunks: Vec::new(),
        records: Vec::new(),
        next_offset: fetched.offsets.end.0,
        log_start_offset: positions.start.0,
        high_watermark: positions.high_watermark.0,
    };
    match form {
        Form::Batches => message.chunks = fetched.chunks,
        Form::Records => {
            let decoded = unpack::decode(fetched.chunks, from, bounds).await;
            let decoded = decoded.map_err(|error| partition.explain(error))?;
            message.records = decoded.records;
            if let Some(next_offset) = decoded.next_offset {
                message.next_offset = next_offset.0;
            }
        }
    }
    Ok(message)
}

/// What an answer weighs in memory until it is sent: batches as they are, records as they are encoded.
pub(crate) fn answer_bytes(message: &v1::Fetched) -> usize {
    if message.records.is_empty() {
        message.chunks.iter().map(Bytes::len).sum()
    } else {
        message.encoded_len()
    }
}

/// The bound of an answer as the room for it is now, so that many share what there is.
pub(crate) fn bytes_for(room: usize, bytes_max: usize) -> usize {
    room.max(ANSWER_BYTES_MIN).min(bytes_max)
}

pub(crate) fn form(value: i32) -> Result<Form, ServiceError> {
    Form::try_from(value).map_err(|_| unknown_value("form", value))
}

/// The offset to start at, and the timestamp of its record when it was found by one. An absent
/// start is the latest.
pub(crate) async fn resolve(
    partition: &Partition,
    at: Option<v1::StartAt>,
) -> Result<(Offset, Option<Timestamp>), ServiceError> {
    let reader = partition.reader()?;
    let positions = reader.positions();
    match at.and_then(|at| at.at) {
        None | Some(At::Latest(_)) => Ok((positions.high_watermark, None)),
        Some(At::Earliest(_)) => Ok((positions.start, None)),
        Some(At::Offset(offset)) => Ok((check_offset(offset)?, None)),
        Some(At::TimestampMs(timestamp)) => {
            let found = reader.offset_for_timestamp(Timestamp(timestamp)).await;
            match found.map_err(|error| partition.explain(error))? {
                Some(found) => Ok((found.offset, Some(found.timestamp))),
                None => Ok((reader.positions().high_watermark, None)),
            }
        }
    }
}

/// # Errors
/// The offset is negative.
pub(crate) fn check_offset(offset: i64) -> Result<Offset, ServiceError> {
    if offset < 0 {
        return Err(ServiceError::invalid(format!(
            "offset: {offset} is below 0"
        )));
    }
    Ok(Offset(offset))
}

/// The bound of the answer: what was asked for, but not above the server's.
pub(crate) fn clamp_bytes(asked: u32, bytes_max: u32) -> usize {
    match asked {
        0 => bytes_max as usize,
        asked => asked.min(bytes_max) as usize,
    }
}

/// What an answer in the form of records is held to. A record larger than what was asked for is
/// given alone if it could be appended today, or if nothing was asked for; never one beyond
/// `fetch.fetch_bytes_max`.
pub(crate) fn record_bounds(shared: &Shared, asked: u32, bytes_max: usize) -> Bounds {
    let one_max = shared.config.fetch.fetch_bytes_max;
    let record_bytes_max = match asked {
        0 => one_max,
        _ => one_max.min(
            shared
                .config
                .append
                .record_bytes_max
                .saturating_add(RECORD_OVERHEAD_MAX),
        ),
    };
    Bounds {
        bytes_max,
        record_bytes_max: record_bytes_max as usize,
        at_once: shared.decoding.clone(),
    }
}
