//! What groups have committed, as records of the internal topic and as the state that they give.

use std::collections::BTreeMap;

use bytes::Bytes;
use comlog_log::LogReader;
use comlog_proto::v1::{self, Reason};
use comlog_record::{
    BatchBuilder, Compression, EncodeError, Limits, Offset, OffsetRange, RecordBatch, Timestamp,
};
use prost::Message;

use crate::status::ServiceError;
use crate::topics::Topics;
use crate::unpack;

/// The format of keys and values; a newer one is refused.
pub(crate) const FORMAT: u32 = 1;
const REPLAY_BYTES: usize = 4 << 20;

/// The key of a record in the internal topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub(crate) struct OffsetKey {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    #[prost(string, tag = "2")]
    pub(crate) group: String,
    #[prost(string, tag = "3")]
    pub(crate) topic: String,
    /// A topic made anew under the same name does not meet the commits of the old one.
    #[prost(string, tag = "4")]
    pub(crate) topic_id: String,
    #[prost(uint32, tag = "5")]
    pub(crate) partition: u32,
}

/// The value of a record in the internal topic.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct OffsetValue {
    #[prost(int64, tag = "1")]
    pub(crate) offset: i64,
    #[prost(string, tag = "2")]
    pub(crate) metadata: String,
    #[prost(int64, tag = "3")]
    pub(crate) committed_ms: i64,
}

/// One change of the state; `None` forgets.
pub(crate) type Change = (OffsetKey, Option<OffsetValue>);

pub(crate) type GroupState = BTreeMap<OffsetKey, OffsetValue>;

/// What is committed, by group.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) groups: BTreeMap<String, GroupState>,
    pub(crate) offsets: usize,
    /// Offsets of the log that cannot be read: any group may have committed there.
    pub(crate) lost: Vec<OffsetRange>,
}

impl State {
    pub(crate) fn apply(&mut self, (key, value): Change) {
        let Some(value) = value else {
            if let Some(group) = self.groups.get_mut(&key.group) {
                self.offsets -= usize::from(group.remove(&key).is_some());
                if group.is_empty() {
                    self.groups.remove(&key.group);
                }
            }
            return;
        };
        let group = self.groups.entry(key.group.clone()).or_default();
        self.offsets += usize::from(group.insert(key, value).is_none());
    }
}

impl OffsetKey {
    /// Whether the topic is still the one that was meant.
    pub(crate) fn is_alive(&self, topics: &Topics) -> bool {
        let topic = topics.get(&self.topic);
        topic.is_ok_and(|topic| topic.id() == self.topic_id)
    }
}

/// The state that the log holds, as far as it can be read. A commit for a topic that is not there is
/// kept: its metadata may come back, and only a deletion may drop it.
///
/// # Errors
/// Those of reading, but for damage: that is passed over, and noted in [`State::lost`].
pub(crate) async fn replay(reader: &LogReader) -> Result<State, ServiceError> {
    let positions = reader.positions();
    let mut state = State::default();
    let mut at = positions.start;
    while at < positions.high_watermark {
        match replay_some(reader, at, &mut state).await {
            Ok(next) if next > at => at = next,
            Ok(_) => break,
            Err(error) if error.reason == Reason::Corrupt => {
                let next = error.offset.map(Offset).filter(|next| *next > at);
                let Some(next) = next else {
                    return Err(error);
                };
                tracing::error!(offsets = %OffsetRange::new(at, next), %error,
                    "committed offsets are damaged");
                state.lost.push(OffsetRange::new(at, next));
                at = next;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(state)
}

/// Applies what is read from `at` on, and returns where to go on.
async fn replay_some(
    reader: &LogReader,
    at: Offset,
    state: &mut State,
) -> Result<Offset, ServiceError> {
    let fetched = reader.read(at, REPLAY_BYTES).await?;
    let end = fetched.offsets.end;
    if fetched.chunks.is_empty() {
        return Ok(at);
    }
    let decoded = unpack::replay(fetched.chunks, at, REPLAY_BYTES).await?;
    for record in &decoded.records {
        match decode(record) {
            Ok(change) => state.apply(change),
            Err(error) => {
                tracing::error!(%error, "a committed offset is damaged");
                let offset = Offset(record.offset);
                state
                    .lost
                    .push(OffsetRange::new(offset, Offset(record.offset + 1)));
            }
        }
    }
    Ok(decoded.next_offset.unwrap_or(end))
}

/// One batch that makes these changes.
pub(crate) fn encode(
    changes: &[Change],
    limits: Limits,
    now: Timestamp,
) -> Result<RecordBatch, EncodeError> {
    let mut builder = BatchBuilder::new(limits);
    for (key, value) in changes {
        let value = value.as_ref().map(Message::encode_to_vec);
        let key = key.encode_to_vec();
        builder.push(now, Some(&key), value.as_deref(), std::iter::empty())?;
    }
    builder.build(Compression::None, None)
}

/// What a record changes.
pub(crate) fn decode(record: &v1::Record) -> Result<Change, ServiceError> {
    let corrupt = |what: &str| {
        let message = format!("committed offset at offset {}: {what}", record.offset);
        ServiceError::new(Reason::Corrupt, message)
    };
    let key: Bytes = record.key.clone().unwrap_or_default();
    let key = OffsetKey::decode(key).map_err(|error| corrupt(&error.to_string()))?;
    if key.format != FORMAT {
        return Err(corrupt(&format!("unknown format {}", key.format)));
    }
    let value = record.value.clone().map(OffsetValue::decode).transpose();
    let value = value.map_err(|error| corrupt(&error.to_string()))?;
    Ok((key, value))
}
