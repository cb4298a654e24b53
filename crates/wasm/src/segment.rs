//! A segment file that JavaScript has, whole or in ranges.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use comlog_log::{Inspected, SegmentPlace};
use comlog_record::Offset;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::failure::{Failure, Result};
use crate::ranged::RangedReader;
use crate::segment_op::{Keep, Places, ScanRequest, scan};

type Operation = Pin<Box<dyn Future<Output = Result<Vec<u8>>>>>;

/// A segment file. An operation is started, then polled; each time it lacks bytes it says which, and
/// goes on once they are handed in.
#[wasm_bindgen]
pub struct Segment {
    reader: Arc<RangedReader>,
    places: Arc<Places>,
    keep: Arc<Keep>,
    operation: Option<Operation>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").finish_non_exhaustive()
    }
}

#[wasm_bindgen]
impl Segment {
    /// A segment of `len` bytes, of which none is at hand.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`: the length is none.
    #[wasm_bindgen(constructor)]
    pub fn new(len: f64) -> Result<Segment, JsValue> {
        Ok(Segment {
            reader: Arc::new(RangedReader::new(position(len)?)),
            places: Arc::default(),
            keep: Arc::default(),
            operation: None,
        })
    }

    /// Takes the segment's `.index` file, so that offsets are found without reading what is before.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`: it is no such file, or another segment's.
    #[wasm_bindgen(js_name = useIndex)]
    pub fn use_index(&mut self, index: &[u8]) -> Result<(), JsValue> {
        Ok(self.add_places(index)?)
    }

    /// Starts a scan for what lies at or behind offset `from`, of whatever place that has.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`.
    pub fn find(
        &mut self,
        from: i64,
        base: Option<i64>,
        max_bytes: u32,
        with_records: bool,
    ) -> Result<(), JsValue> {
        self.start(ScanRequest {
            at: None,
            base: base.map(Offset),
            from: Offset(from),
            max_bytes: max_bytes as usize,
            with_records,
        });
        Ok(())
    }

    /// Starts a scan that goes on where another one ended.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`.
    #[wasm_bindgen(js_name = goOn)]
    pub fn go_on(
        &mut self,
        at: f64,
        offset: i64,
        from: i64,
        max_bytes: u32,
        with_records: bool,
    ) -> Result<(), JsValue> {
        let place = SegmentPlace {
            position: position(at)?,
            offset: Offset(offset),
        };
        self.start(ScanRequest {
            at: Some(place),
            base: None,
            from: Offset(from),
            max_bytes: max_bytes as usize,
            with_records,
        });
        Ok(())
    }

    /// The frame of the operation under way once it is done; nothing while it wants bytes.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`; the operation has then ended.
    pub fn poll(&mut self) -> Result<Option<Vec<u8>>, JsValue> {
        let Some(operation) = &mut self.operation else {
            return Err(Failure::new("INTERNAL", "no operation is under way").into());
        };
        let polled = operation
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Pending => Ok(None),
            Poll::Ready(done) => {
                self.operation = None;
                Ok(done.map(Some)?)
            }
        }
    }

    /// The bytes wanted: start and end (exclusive), or nothing.
    #[must_use]
    pub fn wanted(&self) -> Vec<f64> {
        let range = self.reader.wanted();
        range.map_or(Vec::new(), |range| {
            vec![range.start as f64, range.end as f64]
        })
    }

    /// Hands in the bytes wanted.
    ///
    /// # Errors
    /// A JavaScript `Error` with a `code`: they are not as many.
    #[wasm_bindgen(js_name = handIn)]
    pub fn hand_in(&mut self, bytes: &[u8]) -> Result<(), JsValue> {
        match self.reader.hand_in(bytes) {
            true => Ok(()),
            false => Err(Failure::invalid("not the number of bytes that was asked for").into()),
        }
    }

    /// Ends the operation under way.
    pub fn cancel(&mut self) {
        self.operation = None;
    }
}

impl Segment {
    fn start(&mut self, request: ScanRequest) {
        let (reader, places) = (Arc::clone(&self.reader), Arc::clone(&self.places));
        let keep = Arc::clone(&self.keep);
        self.operation = Some(Box::pin(scan(reader, places, keep, request)));
    }

    fn add_places(&mut self, index: &[u8]) -> Result<()> {
        let Inspected::OffsetIndex { segment, entries } = Inspected::decode(index)? else {
            return Err(Failure::invalid("this is no offset index (.index)"));
        };
        if segment.len != comlog_storage::SegmentReader::len(&*self.reader) {
            let message = format!("the index is of a segment of {} bytes", segment.len);
            return Err(Failure::invalid(message));
        }
        for (offset, position) in entries {
            self.places.add(SegmentPlace { position, offset });
        }
        Ok(())
    }
}

/// A number of JavaScript as a count of bytes.
fn position(number: f64) -> Result<u64> {
    const LARGEST: f64 = (1_u64 << 53) as f64;
    match number.fract() == 0.0 && (0.0..LARGEST).contains(&number) {
        true => Ok(number as u64),
        false => Err(Failure::invalid("not a position in a file")),
    }
}
