//! One record: key, value, headers, timestamp, borrowed from its batch.

use crate::{DecodeError, Offset, Timestamp, varint};

/// What is wrong with the bytes of a record. Small and without a destructor, which keeps the
/// reading of records fast; it becomes a [`DecodeError::Invalid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl From<Malformed> for DecodeError {
    fn from(what: Malformed) -> DecodeError {
        DecodeError::Invalid(what.0)
    }
}

/// One record, borrowed from the bytes of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record<'a> {
    /// Where it stands in its partition. Ignored when a batch is built.
    pub offset: Offset,
    /// Unix milliseconds; the append time on batches stamped by the log.
    pub timestamp: Timestamp,
    /// What partitioning and compaction go by; absent is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// The payload; absent (a tombstone) is not the same as empty.
    pub value: Option<&'a [u8]>,
    /// Pairs of name and value, in order; names may repeat.
    pub headers: Headers<'a>,
}

/// The headers of a record: an iterator over `(name, value)`; a value may be absent.
///
/// Names are UTF-8 by convention only, so they are bytes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: usize,
    encoded: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many headers are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes `count` headers from the front of `input`, checking every one.
    #[inline]
    fn take(input: &mut &'a [u8]) -> Result<Headers<'a>, Malformed> {
        let count = varint::take_i32(input)?;
        // A header takes at least two bytes.
        let count = usize::try_from(count)
            .ok()
            .filter(|&count| count <= input.len() / 2)
            .ok_or(Malformed("header count does not fit the record"))?;
        let encoded = *input;
        for _ in 0..count {
            take_header(input)?;
        }
        Ok(Headers {
            count,
            encoded: &encoded[..encoded.len() - input.len()],
        })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        // Checked when the record was decoded, so this cannot fail.
        take_header(&mut self.encoded).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

fn take_header<'a>(input: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), Malformed> {
    let name = take_bytes(input)?.ok_or(Malformed("header without a name"))?;
    Ok((name, take_bytes(input)?))
}

#[inline]
fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let length = varint::take_i32(input)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| Malformed("negative length"))?;
    let (taken, rest) = input
        .split_at_checked(length)
        .ok_or(Malformed("length does not fit the record"))?;
    *input = rest;
    Ok(Some(taken))
}

/// A record as it stands in a batch: deltas not yet added to the batch's bases.
pub(crate) struct RawRecord<'a> {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
}

impl<'a> RawRecord<'a> {
    /// Takes one record from the front of `input` without looking into it.
    #[inline]
    pub(crate) fn skip(input: &mut &'a [u8]) -> Result<(), Malformed> {
        match take_bytes(input)? {
            Some(_) => Ok(()),
            None => Err(Malformed("record with a negative length")),
        }
    }

    /// Takes the head of a record from the front of `input`, up to the offset delta, and gives that.
    pub(crate) fn take_offset_delta(input: &mut &'a [u8]) -> Result<i32, Malformed> {
        varint::take_i32(input)?;
        let (_attributes, rest) = input
            .split_first()
            .ok_or(Malformed("record without attributes"))?;
        *input = rest;
        varint::take(input)?;
        varint::take_i32(input)
    }

    /// Takes one record from the front of `input`.
    #[inline]
    pub(crate) fn take(input: &mut &'a [u8]) -> Result<RawRecord<'a>, Malformed> {
        let mut body = take_bytes(input)?.ok_or(Malformed("record with a negative length"))?;
        let (_attributes, rest) = body
            .split_first()
            .ok_or(Malformed("record without attributes"))?;
        body = rest;
        let record = RawRecord {
            timestamp_delta: varint::take(&mut body)?,
            offset_delta: varint::take_i32(&mut body)?,
            key: take_bytes(&mut body)?,
            value: take_bytes(&mut body)?,
            headers: Headers::take(&mut body)?,
        };
        if !body.is_empty() {
            return Err(Malformed("record is longer than its fields"));
        }
        Ok(record)
    }
}
