//! What a poll returns: batches whose records are borrowed, not copied.

use std::sync::Arc;

use bytes::Bytes;
use comlog_record::{DecodeError, Offset, OffsetRange, Record, Records, Timestamp};

use crate::{Error, Result};

/// Records of one partition that were fetched together, decoded as they are iterated.
#[derive(Debug, Clone)]
pub struct FetchedBatch {
    topic: Arc<str>,
    partition: u32,
    records: Records,
    /// Records before this were not asked for.
    from: Offset,
}

/// A record that owns its bytes: slices of its batch, which stays in memory as long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// Where it stands in the partition.
    pub offset: Offset,
    /// Unix milliseconds.
    pub timestamp: Timestamp,
    /// Absent is not the same as empty.
    pub key: Option<Bytes>,
    /// The payload; absent is a tombstone.
    pub value: Option<Bytes>,
    /// Names and values, in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl FetchedBatch {
    pub(crate) fn new(
        topic: Arc<str>,
        partition: u32,
        records: Records,
        from: Offset,
    ) -> FetchedBatch {
        FetchedBatch {
            topic,
            partition,
            records,
            from,
        }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The offsets it covers; a compacted batch need not hold a record for each.
    #[must_use]
    pub fn offsets(&self) -> OffsetRange {
        let all = self.records.offsets();
        OffsetRange::new(all.start.max(self.from), all.end)
    }

    /// The records in order, borrowed.
    ///
    /// A batch whose checksum is right but whose records contradict its header ends with
    /// [`Error::Corrupt`]; the consumer's position is behind it already.
    pub fn iter(&self) -> impl Iterator<Item = Result<Record<'_>>> {
        let from = self.from;
        self.records
            .iter()
            .filter(move |record| !matches!(record, Ok(record) if record.offset < from))
            .map(|record| record.map_err(|error| self.corrupt(&error)))
    }

    /// The records in order, each owning slices of the batch.
    pub fn owned(&self) -> impl Iterator<Item = Result<ConsumerRecord>> {
        self.iter().map(|record| Ok(self.own(&record?)))
    }

    fn own(&self, record: &Record<'_>) -> ConsumerRecord {
        let encoded = self.records.encoded();
        let own = |bytes: &[u8]| encoded.slice_ref(bytes);
        let headers = record.headers;
        ConsumerRecord {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(own),
            value: record.value.map(own),
            headers: headers
                .map(|(name, value)| (own(name), value.map(own)))
                .collect(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.records.encoded().len()
    }

    fn corrupt(&self, error: &DecodeError) -> Error {
        Error::corrupt(&self.topic, self.partition, self.offsets(), error)
    }
}
