//! Cuts an encoded batch that the server finds too large into smaller ones.

use bytes::Bytes;
use comlog_record::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, DecodeError, EncodeError, HeaderRef, Limits,
    ProducerIds, Record, RecordBatch,
};

use crate::accumulator::{self, RecordParts};
use crate::pipeline::advance;

/// What this producer encoded itself needs no bound.
const OWN: Limits = Limits {
    batch_bytes_max: i32::MAX as usize,
    batch_records_max: i32::MAX as u32,
    decompressed_bytes_max: i32::MAX as usize,
    ..Limits::DEFAULT
};

/// One of the batches that another was cut into.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) encoded: Bytes,
    pub(crate) records: u32,
}

/// Cuts a batch of two or more records into at least two, each of at most `bytes_max` bytes
/// uncompressed or of one record, and of at most half of what it was. Together they hold the same
/// records in the same order, under the same sequence numbers.
///
/// # Errors
/// The batch cannot be decoded, which would be a defect.
pub(crate) fn split(encoded: &Bytes, bytes_max: usize) -> Result<Vec<Piece>, SplitError> {
    let batch = RecordBatch::decode(&mut encoded.clone(), &OWN)?;
    let records = batch.records(&OWN)?;
    let half = BATCH_HEADER_LEN + records.encoded().len() / 2;
    let mut cutter = Cutter {
        header: *batch.header(),
        bytes_max: half.min(bytes_max),
        pieces: Vec::new(),
        cut: 0,
    };
    let mut open = BatchBuilder::new(OWN);
    for record in &records {
        let record = record?;
        open = cutter.add(open, &record)?;
    }
    cutter.close(open)?;
    Ok(cutter.pieces)
}

/// Why a batch cannot be cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SplitError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

struct Cutter {
    header: BatchHeader,
    bytes_max: usize,
    pieces: Vec<Piece>,
    /// Records in `pieces`.
    cut: u32,
}

impl Cutter {
    /// Puts a record into the piece that is open, or into the next one.
    fn add(&mut self, open: BatchBuilder, record: &Record<'_>) -> Result<BatchBuilder, SplitError> {
        let mut open = open;
        let headers: Vec<HeaderRef<'_>> = record.headers.collect();
        let size = accumulator::size_max(&RecordParts {
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: &headers,
        });
        let fits = open.encoded_len() + size <= self.bytes_max;
        if !fits && !open.is_empty() {
            self.close(std::mem::replace(&mut open, BatchBuilder::new(OWN)))?;
        }
        open.push(
            record.timestamp,
            record.key,
            record.value,
            headers.into_iter(),
        )?;
        Ok(open)
    }

    fn close(&mut self, open: BatchBuilder) -> Result<(), SplitError> {
        let records = open.len() as u32;
        let header = &self.header;
        let producer = (header.producer_id >= 0).then(|| ProducerIds {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: advance(header.base_sequence, self.cut),
        });
        let encoded = open.encode(header.compression(), producer)?;
        self.pieces.push(Piece { encoded, records });
        self.cut += records;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use comlog_record::{Compression, Timestamp};

    use super::*;

    fn batch(sizes: &[usize], compression: Compression) -> Bytes {
        let mut builder = BatchBuilder::new(OWN);
        for (number, size) in sizes.iter().enumerate() {
            let value = vec![number as u8; *size];
            let headers: [(&[u8], Option<&[u8]>); 1] = [(b"h", Some(b"v"))];
            builder
                .push(
                    Timestamp(number as i64),
                    None,
                    Some(&value),
                    headers.into_iter(),
                )
                .unwrap();
        }
        let producer = ProducerIds {
            producer_id: 7,
            producer_epoch: 3,
            base_sequence: i32::MAX - 1,
        };
        builder.encode(compression, Some(producer)).unwrap()
    }

    #[test]
    fn the_pieces_hold_the_same_records_under_the_same_numbers() {
        let sizes = [10, 5_000, 10, 10, 300, 0, 9_000, 1];
        for compression in [Compression::None, Compression::Gzip] {
            for bytes_max in [1, 500, 6_000, usize::MAX] {
                let whole = batch(&sizes, compression);
                let pieces = split(&whole, bytes_max).unwrap();
                assert!(pieces.len() > 1);
                let (mut lengths, mut sequence) = (Vec::new(), i64::from(i32::MAX) - 1);
                for piece in pieces {
                    let piece = RecordBatch::decode(&mut piece.encoded.clone(), &OWN).unwrap();
                    let header = *piece.header();
                    assert_eq!(i64::from(header.base_sequence), sequence % (1 << 31));
                    assert_eq!((header.producer_id, header.producer_epoch), (7, 3));
                    assert!(header.record_count == 1 || header.total_len() <= bytes_max);
                    sequence += i64::from(header.record_count);
                    for record in &piece.records(&OWN).unwrap() {
                        let record = record.unwrap();
                        assert_eq!(record.timestamp, Timestamp(lengths.len() as i64));
                        assert_eq!(record.headers.count(), 1);
                        lengths.push(record.value.unwrap().len());
                    }
                }
                assert_eq!(lengths, sizes);
            }
        }
    }
}
