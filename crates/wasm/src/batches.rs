//! Record batches by themselves.

use bytes::Bytes;
use comlog_log::Clock;
use comlog_record::{
    BatchBuilder, BatchStream, Compression, Limits, Offset, ProducerIds, RecordBatch,
};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::failure::{Failure, Result};
use crate::frame::{FrameReader, FrameWriter, Item, Kind};
use crate::now::DateClock;

/// Bytes that one call to [`decode_batches`] gives back.
const DECODED_BYTES_MAX: usize = 256 << 20;

/// Builds the batch of records that came from JavaScript.
pub(crate) fn build(
    frame: &[u8],
    compression: &str,
    producer: Option<ProducerIds>,
    limits: Limits,
) -> Result<RecordBatch> {
    let compression: Compression = compression.parse()?;
    let mut reader = FrameReader::new(frame, DateClock.now());
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

fn decode(bytes: Bytes) -> Result<Vec<u8>> {
    let len = bytes.len();
    let mut batches = BatchStream::new([bytes]);
    let mut frame = FrameWriter::default();
    let mut position = 0;
    while let Some(batch) = batches.next_batch(&Limits::DEFAULT)? {
        let end = (len - batches.len()) as u64;
        let mark = frame.mark();
        for record in &batch.records(&Limits::DEFAULT)? {
            frame.record(&record?);
        }
        let item = Item::new(Kind::Batch, position, end).header(batch.header());
        frame.item(item, &mark, "");
        position = end;
        if frame.size() > DECODED_BYTES_MAX {
            let message = format!("the records take more than {DECODED_BYTES_MAX} bytes");
            return Err(Failure::new("BATCH_TOO_LARGE", message));
        }
    }
    Ok(frame.finish([0; 4]))
}
