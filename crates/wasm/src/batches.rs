//! Record batches by themselves.

use bytes::Bytes;
use comlog_log::Clock;
use comlog_record::{
    BatchBuilder, BatchStream, Compression, Limits, Offset, ProducerIds, RecordBatch, Timestamp,
};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::failure::{Failure, Result};
use crate::frame::{FrameReader, FrameWriter, Item, Kind};
use crate::now::DateClock;
use crate::opened::{Opened, Stop, put_records};

/// What is decoded is in memory already, and a topic may have taken larger batches than the default.
const STORED: Limits = Limits {
    batch_bytes_max: i32::MAX as usize,
    ..Limits::DEFAULT
};

/// Bytes that one call to [`decode_batches`] gives back.
const DECODED_BYTES_MAX: usize = 256 << 20;

/// Builds the batch of records that came from JavaScript.
pub(crate) fn build(
    frame: &[u8],
    compression: &str,
    producer: Option<ProducerIds>,
    limits: Limits,
) -> Result<RecordBatch> {
    build_at(DateClock.now(), frame, compression, producer, limits)
}

/// As [`build`]; `now` stamps the records that have no time.
pub(crate) fn build_at(
    now: Timestamp,
    frame: &[u8],
    compression: &str,
    producer: Option<ProducerIds>,
    limits: Limits,
) -> Result<RecordBatch> {
    let compression: Compression = compression.parse()?;
    let mut reader = FrameReader::new(frame, now);
    let mut builder = BatchBuilder::with_capacity(limits, frame.len());
    while let Some(record) = reader.next_record()? {
        let headers = record.headers.iter().copied();
        builder.push(record.timestamp, record.key, record.value, headers)?;
    }
    Ok(builder.build(compression, producer)?)
}

/// Who sent a batch; a negative id says nobody.
pub(crate) fn producer(id: i64, epoch: i16, sequence: i32) -> Option<ProducerIds> {
    (id >= 0).then_some(ProducerIds {
        producer_id: id,
        producer_epoch: epoch,
        base_sequence: sequence,
    })
}

/// Encodes records (see `frame.rs`) as one batch.
///
/// # Errors
/// A JavaScript `Error` with a `code`.
#[wasm_bindgen(js_name = encodeBatch)]
pub fn encode_batch(
    frame: &[u8],
    compression: &str,
    base_offset: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
) -> Result<Vec<u8>, JsValue> {
    let producer = producer(producer_id, producer_epoch, base_sequence);
    let mut batch = build(frame, compression, producer, Limits::DEFAULT)?;
    let epoch = batch.header().leader_epoch;
    batch.assign(Offset(base_offset), epoch);
    Ok(batch.to_bytes().into())
}

/// Decodes whole batches back to back into a frame with an item for each.
///
/// # Errors
/// A JavaScript `Error` with a `code`: the first contradiction in the bytes.
#[wasm_bindgen(js_name = decodeBatches)]
pub fn decode_batches(bytes: Vec<u8>) -> Result<Vec<u8>, JsValue> {
    Ok(decode(bytes.into())?)
}

/// Decodes records of whole batches back to back from offset `from` on, about `max_bytes` of them: a
/// frame whose head says where to go on, or -1 behind the last batch.
///
/// # Errors
/// A JavaScript `Error` with a `code`: a contradiction in the bytes, or the record at `from` cannot be
/// given.
#[wasm_bindgen(js_name = decodeRecords)]
pub fn decode_records(bytes: Vec<u8>, from: i64, max_bytes: u32) -> Result<Vec<u8>, JsValue> {
    Ok(decode_some(bytes.into(), Offset(from), max_bytes as usize)?)
}

pub(crate) fn decode_some(bytes: Bytes, from: Offset, max_bytes: usize) -> Result<Vec<u8>> {
    let mut frame = FrameWriter::default();
    let mut batches = BatchStream::new([bytes]);
    let next = put_records(
        &mut frame,
        &mut batches,
        from,
        max_bytes,
        &STORED,
        &mut None,
    )?;
    Ok(frame.finish([next.map_or(-1, |next| next.0), 0, 0, 0]))
}

pub(crate) fn decode(bytes: Bytes) -> Result<Vec<u8>> {
    let len = bytes.len();
    let mut batches = BatchStream::new([bytes]);
    let mut frame = FrameWriter::default();
    let mut position = 0;
    while let Some(batch) = batches.next_batch(&STORED)? {
        let end = (len - batches.len()) as u64;
        let first = frame.records();
        let mut opened = Opened::new(&batch, &STORED);
        let stop = opened.put(&mut frame, Offset::ZERO, DECODED_BYTES_MAX);
        match stop {
            Stop::End if frame.size() <= DECODED_BYTES_MAX => {}
            Stop::Unread(unread) => return Err(unread.into()),
            Stop::End | Stop::Full => {
                let message = format!(
                    "the records take more than {DECODED_BYTES_MAX} bytes: use decodeRecords"
                );
                return Err(Failure::new("BATCH_TOO_LARGE", message));
            }
        }
        let item = Item::new(Kind::Batch, position, end).header(batch.header());
        frame.item(item, first, "");
        position = end;
    }
    Ok(frame.finish([0; 4]))
}
