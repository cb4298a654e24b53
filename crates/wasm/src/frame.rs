//! How records cross the border between JavaScript and WebAssembly: many in one buffer. All numbers
//! are little-endian.
//!
//! What goes to JavaScript comes in parts, each at a multiple of its own width, so that typed arrays
//! can be laid over them:
//!
//! ```text
//! head      8 x i64: records r, items i, lengths l, data bytes, then what the call says
//! items     18 x i64 each (see [`Item`])
//! times     r x i64     timestamps
//! offsets   r x i64
//! lengths   l x i32     for each record: key, value, number of headers, then name and value of each;
//!                       -1 is absent
//! data      the keys, values, names and header values, in the same order
//! ```
//!
//! What comes from JavaScript is written in one go, record by record: timestamp (i64; the least
//! means the time of the append), key, value, number of headers (i32), name and value of each. Bytes
//! stand behind their length (i32), -1 is absent.

use comlog_record::{BatchHeader, Offset, Record, Timestamp, TimestampType};

use crate::failure::{Failure, Result};

/// Numbers in the head of a frame.
const HEAD: usize = 8;
/// Numbers of an item.
const ITEM: usize = 18;
/// Bits of an item's attributes, beside those of a batch.
const MORE: i64 = 1 << 6;
const TOO_LARGE: i64 = 1 << 7;
/// A timestamp that the log is to fill in.
const NOW: i64 = i64::MIN;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Batch = 0,
    Damage = 1,
    Zeros = 2,
}

/// One item, for the numbers of a frame: kind, start, end (positions), base offset, next offset,
/// then of a batch: records in the frame, records by its header, attributes, leader epoch,
/// base and max timestamp, producer id, epoch and sequence, CRC; then the bytes of a text (why
/// something is damaged) that stands in the data after the item's records; last the offsets that
/// the text is about, and where reading can go on.
///
/// A batch whose records are more than a frame takes comes in several items, each with some of its
/// records. Attributes bit 6: more of its records follow in the next item; bit 7: the text is about
/// one record that is larger than what is read, and follows those of the item.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Item {
    numbers: [i64; ITEM],
}

impl Item {
    pub(crate) fn new(kind: Kind, start: u64, end: u64) -> Item {
        let mut numbers = [0; ITEM];
        numbers[0] = kind as i64;
        numbers[1] = start as i64;
        numbers[2] = end as i64;
        Item { numbers }
    }

    pub(crate) fn offsets(mut self, base: i64, next: i64) -> Item {
        self.numbers[3] = base;
        self.numbers[4] = next;
        self
    }

    /// More records of the batch follow in the next item.
    pub(crate) fn more(mut self) -> Item {
        self.numbers[7] |= MORE;
        self
    }

    /// What the text of a batch is about, and where reading can go on.
    pub(crate) fn unread(mut self, unread: &Unread) -> Item {
        if unread.is_too_large {
            self.numbers[7] |= TOO_LARGE;
        }
        self.numbers[16] = unread.first.0;
        self.numbers[17] = unread.next;
        self
    }

    pub(crate) fn header(self, header: &BatchHeader) -> Item {
        let stamped = header.timestamp_type() == TimestampType::LogAppendTime;
        let flags = header.compression() as i64
            | i64::from(stamped) << 3
            | i64::from(header.is_control()) << 5;
        let mut item = self.offsets(header.base_offset.0, header.next_offset().0);
        item.numbers[6..15].copy_from_slice(&[
            i64::from(header.record_count),
            flags,
            i64::from(header.leader_epoch.0),
            header.base_timestamp.0,
            header.max_timestamp.0,
            header.producer_id,
            i64::from(header.producer_epoch),
            i64::from(header.base_sequence),
            i64::from(header.crc),
        ]);
        item
    }
}

/// Records of a batch that are not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    /// One record beyond the bound; else what follows it in the batch cannot be read either.
    pub(crate) is_too_large: bool,
    pub(crate) first: Offset,
    /// Where reading can go on.
    pub(crate) next: i64,
    pub(crate) reason: String,
}

/// Collects what goes to JavaScript.
#[derive(Debug, Default)]
pub(crate) struct FrameWriter {
    items: Vec<i64>,
    times: Vec<i64>,
    offsets: Vec<i64>,
    lengths: Vec<i32>,
    data: Vec<u8>,
}

impl FrameWriter {
    /// Bytes of data so far, and what its records take beside them.
    pub(crate) fn size(&self) -> usize {
        self.data.len() + 16 * self.times.len() + 4 * self.lengths.len() + 8 * self.items.len()
    }

    pub(crate) fn record(&mut self, record: &Record<'_>) {
        self.times.push(record.timestamp.0);
        self.offsets.push(record.offset.0);
        self.bytes(record.key);
        self.bytes(record.value);
        self.lengths.push(record.headers.len() as i32);
        for (name, value) in record.headers {
            self.bytes(Some(name));
            self.bytes(value);
        }
    }

    fn bytes(&mut self, bytes: Option<&[u8]>) {
        // What is in a record is shorter than 2 GiB.
        self.lengths
            .push(bytes.map_or(-1, |bytes| bytes.len() as i32));
        self.data.extend_from_slice(bytes.unwrap_or_default());
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> usize {
        self.times.len()
    }

    /// Adds `item`, to which the records from number `first` on belong, and the text that comes with it.
    pub(crate) fn item(&mut self, mut item: Item, first: usize, text: &str) {
        item.numbers[5] = self.times.len().saturating_sub(first) as i64;
        item.numbers[15] = text.len() as i64;
        self.items.extend_from_slice(&item.numbers);
        self.data.extend_from_slice(text.as_bytes());
    }

    /// The frame; `says` are the last numbers of its head.
    pub(crate) fn finish(self, says: [i64; 4]) -> Vec<u8> {
        let counts = [
            self.times.len(),
            self.items.len() / ITEM,
            self.lengths.len(),
            self.data.len(),
        ];
        let numbers = HEAD + self.items.len() + self.times.len() + self.offsets.len();
        let mut out = Vec::with_capacity(8 * numbers + 4 * self.lengths.len() + self.data.len());
        for count in counts {
            out.extend_from_slice(&(count as i64).to_le_bytes());
        }
        for part in [&says[..], &self.items, &self.times, &self.offsets] {
            part.iter()
                .for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        }
        self.lengths
            .iter()
            .for_each(|length| out.extend_from_slice(&length.to_le_bytes()));
        out.extend_from_slice(&self.data);
        out
    }
}

/// A record that came from JavaScript.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FramedRecord<'a> {
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<comlog_record::HeaderRef<'a>>,
}

/// Reads what JavaScript wants to append. Nothing in it is trusted.
#[derive(Debug)]
pub(crate) struct FrameReader<'a> {
    rest: &'a [u8],
    now: Timestamp,
}

impl<'a> FrameReader<'a> {
    /// The records in `bytes`; `now` stamps those that have no time.
    pub(crate) fn new(bytes: &'a [u8], now: Timestamp) -> FrameReader<'a> {
        FrameReader { rest: bytes, now }
    }

    /// The next record, `None` behind the last.
    pub(crate) fn next_record(&mut self) -> Result<Option<FramedRecord<'a>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let timestamp = match i64::from_le_bytes(field(take(&mut self.rest, 8)?)) {
            NOW => self.now,
            timestamp => Timestamp(timestamp),
        };
        let key = self.bytes()?;
        let value = self.bytes()?;
        let count = usize::try_from(self.length()?).map_err(|_| malformed())?;
        if count > self.rest.len() / 8 {
            return Err(malformed());
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.bytes()?.ok_or_else(malformed)?;
            headers.push((name, self.bytes()?));
        }
        Ok(Some(FramedRecord {
            timestamp,
            key,
            value,
            headers,
        }))
    }

    fn length(&mut self) -> Result<i32> {
        take(&mut self.rest, 4).map(|length| i32::from_le_bytes(field(length)))
    }

    fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        match self.length()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| malformed())?;
                take(&mut self.rest, length).map(Some)
            }
        }
    }
}

fn take<'a>(from: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(count).ok_or_else(malformed)?;
    *from = rest;
    Ok(taken)
}

/// The first bytes of `from`, which has at least as many.
fn field<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&from[..N]);
    out
}

fn malformed() -> Failure {
    Failure::invalid("the frame contradicts itself")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes behind their length.
    fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
        let length = bytes.map_or(-1, |bytes| bytes.len() as i32);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(bytes.unwrap_or_default());
    }

    fn two_records() -> Vec<u8> {
        let mut out = NOW.to_le_bytes().to_vec();
        put(&mut out, None);
        put(&mut out, Some(b"ab"));
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&7_i64.to_le_bytes());
        put(&mut out, Some(b""));
        put(&mut out, None);
        out.extend_from_slice(&1_i32.to_le_bytes());
        put(&mut out, Some(b"n"));
        put(&mut out, None);
        out
    }

    fn count(bytes: &[u8]) -> Result<usize> {
        let mut reader = FrameReader::new(bytes, Timestamp(99));
        let mut count = 0;
        while reader.next_record()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn records_come_out_as_they_went_in() {
        let bytes = two_records();
        let mut reader = FrameReader::new(&bytes, Timestamp(99));
        let first = reader.next_record().unwrap().unwrap();
        assert_eq!((first.timestamp, first.key), (Timestamp(99), None));
        assert_eq!(first.value, Some(&b"ab"[..]));
        let second = reader.next_record().unwrap().unwrap();
        assert_eq!(
            (second.timestamp, second.key),
            (Timestamp(7), Some(&b""[..]))
        );
        assert_eq!(second.headers, [(&b"n"[..], None)]);
        assert_eq!(reader.next_record().unwrap(), None);
    }

    #[test]
    fn what_is_cut_anywhere_else_than_between_records_is_refused() {
        let bytes = two_records();
        let first = 8 + 4 + 6 + 4;
        for end in 0..=bytes.len() {
            let expected = match end {
                0 => Some(0),
                end if end == first => Some(1),
                end if end == bytes.len() => Some(2),
                _ => None,
            };
            assert_eq!(count(&bytes[..end]).ok(), expected, "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0..51_usize, value in any::<[u8; 4]>()) {
            let mut bytes = two_records();
            let at = at.min(bytes.len() - 4);
            bytes[at..at + 4].copy_from_slice(&value);
            let _ = count(&bytes);
        }
    }
}
