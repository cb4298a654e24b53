//! What the micro-benchmarks and the instruction counts measure on: the same batches, the same log.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use comlog_log::{AppendRequest, Durability, Log, LogConfig, ManualClock};
use comlog_record::{
    BatchBuilder, Compression, EncodeError, Limits, Offset, RecordBatch, Timestamp,
};
use comlog_storage::Storage;

/// What goes wrong here ends the run.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// The time of the first record, and of the log's clock.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Values of one length, that compress about as well as lines of a log do.
pub struct Values {
    text: Vec<u8>,
    value_bytes: usize,
}

impl Values {
    /// `count` values of `value_bytes` bytes each, the same ones in every run.
    #[must_use]
    pub fn new(count: usize, value_bytes: usize) -> Values {
        let mut text = Vec::new();
        let mut state = 42_u64;
        while text.len() < count * value_bytes {
            // A linear congruential generator: what it throws need not be good.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (user, took) = (state >> 48, (state >> 33) % 1_000);
            let line = format!("level=info user={user} path=/orders/{took} took={took}us ok\n");
            text.extend_from_slice(line.as_bytes());
        }
        text.truncate(count * value_bytes);
        Values { text, value_bytes }
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.text.chunks_exact(self.value_bytes)
    }

    /// What an application does to get a batch that can be sent: records without keys and headers,
    /// ten in each millisecond from `start` on.
    ///
    /// # Errors
    /// When they do not fit into one batch.
    pub fn encode(&self, start: Timestamp, compression: Compression) -> Result<Bytes, EncodeError> {
        let records = self.text.len() / self.value_bytes;
        let room = 64 + records * (self.value_bytes + 12);
        let mut builder = BatchBuilder::with_capacity(Limits::DEFAULT, room);
        for (at, value) in self.iter().enumerate() {
            let time = Timestamp(start.0 + at as i64 / 10);
            builder.push(time, None, Some(value), std::iter::empty())?;
        }
        builder.encode(compression, None)
    }
}

/// Opens a log that acknowledges what is written, without a sync.
///
/// # Errors
/// The storage's.
pub async fn open(storage: Arc<dyn Storage>, config: LogConfig) -> Result<Log> {
    let config = LogConfig {
        durability: Durability::Memory,
        ..config
    };
    let (log, _) = Log::open(storage, config, Arc::new(ManualClock::new(NOW))).await?;
    Ok(log)
}

/// What a server does with a batch that was sent: checks it, and appends it.
///
/// # Errors
/// When it is no batch, or the log refuses it.
pub async fn append(log: &mut Log, mut sent: Bytes) -> Result<Offset> {
    let batch = RecordBatch::decode(&mut sent, &Limits::DEFAULT)?;
    let answers = log.append(vec![AppendRequest::new(batch)]).await;
    let appended = answers.into_iter().next().ok_or("no answer")??;
    Ok(appended.offsets.start)
}
