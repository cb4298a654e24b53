//! What JavaScript calls, without JavaScript: for programs that hand it any bytes, to see that nothing
//! in them makes it panic. What goes in and out are frames (`frame.rs`).

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use comlog_record::{Limits, Offset, Timestamp};

use crate::batches::{build_at, decode, decode_some};
use crate::failure::Failure;
use crate::ranged::RangedReader;
use crate::segment_op::{Places, ScanRequest, scan};

/// Why something was refused.
pub type Result<T> = std::result::Result<T, String>;

/// The batch, encoded, of the records in a frame as JavaScript writes it.
///
/// # Errors
/// The frame contradicts itself, or its records make no batch.
pub fn encode_batch(frame: &[u8], compression: &str) -> Result<Bytes> {
    let batch = build_at(Timestamp(0), frame, compression, None, Limits::DEFAULT);
    batch.map(|batch| batch.to_bytes()).map_err(told)
}

/// The frame of whole batches back to back.
///
/// # Errors
/// The first contradiction in the bytes.
pub fn decode_batches(bytes: &[u8]) -> Result<Vec<u8>> {
    decode(Bytes::copy_from_slice(bytes)).map_err(told)
}

/// The frame of about `max_bytes` of records from offset `from` on, out of whole batches back to back.
///
/// # Errors
/// The first contradiction in the bytes, or the record at `from` cannot be given.
pub fn decode_records(bytes: &[u8], from: i64, max_bytes: usize) -> Result<Vec<u8>> {
    decode_some(Bytes::copy_from_slice(bytes), Offset(from), max_bytes).map_err(told)
}

/// The frames of a segment file scanned from offset `from` on, `max_bytes` at a time; `base` is the
/// offset in its name.
///
/// # Errors
/// What a scan fails with; damage in the bytes is no failure.
pub fn scan_segment(
    bytes: &[u8],
    from: i64,
    base: Option<i64>,
    max_bytes: usize,
) -> Result<Vec<Vec<u8>>> {
    let reader = Arc::new(RangedReader::new(bytes.len() as u64));
    let (places, keep) = (Arc::<Places>::default(), Arc::default());
    let mut request = ScanRequest {
        at: None,
        base: base.map(Offset),
        from: Offset(from),
        max_bytes,
        with_records: true,
    };
    let mut frames = Vec::new();
    loop {
        let (places, keep) = (Arc::clone(&places), Arc::clone(&keep));
        let scanning = scan(Arc::clone(&reader), places, keep, request);
        let frame = serve(&reader, bytes, scanning).map_err(told)?;
        let says = |at: usize| {
            let field = frame.get(8 * at..).and_then(|rest| rest.first_chunk::<8>());
            field.map_or(0, |field| i64::from_le_bytes(*field))
        };
        let place = comlog_log::SegmentPlace {
            position: says(4) as u64,
            offset: Offset(says(5)),
        };
        (request.at, request.from) = (Some(place), Offset(says(7)));
        let at_end = says(6) == 1;
        frames.push(frame);
        if at_end {
            return Ok(frames);
        }
    }
}

/// Runs an operation to its end, handing in the bytes that it wants.
fn serve<T>(
    reader: &RangedReader,
    bytes: &[u8],
    operation: impl Future<Output = std::result::Result<T, Failure>>,
) -> std::result::Result<T, Failure> {
    let mut operation = pin!(operation);
    loop {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(done) = operation.as_mut().poll(&mut context) {
            return done;
        }
        let wanted = reader.wanted().unwrap_or(0..0);
        let part = bytes.get(wanted.start as usize..wanted.end as usize);
        if !part.is_some_and(|part| reader.hand_in(part)) {
            return Err(Failure::invalid("an operation wants what is not there"));
        }
    }
}

fn told(failure: Failure) -> String {
    format!("{}: {}", failure.reason, failure.message)
}
