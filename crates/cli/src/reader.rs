//! Reads partitions of one topic from somewhere to somewhere.

use std::sync::Arc;
use std::time::Duration;

use comlog_client::{Client, Consumer, ConsumerConfig, Error, FetchedBatch, OffsetReset, StartAt};
use comlog_record::Offset;

use crate::error::{CliError, Result};

/// How long one poll waits before it is looked whether the end was reached without a record.
const POLL: Duration = Duration::from_millis(100);

/// What is wanted of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// The partition.
    pub(crate) partition: u32,
    /// The first offset.
    pub(crate) start: Offset,
    /// The offset to stop before; `None` goes on for ever.
    pub(crate) end: Option<Offset>,
}

/// Reads what several [`Reach`]es want.
#[derive(Debug)]
pub(crate) struct Reader {
    consumer: Consumer,
    topic: Arc<str>,
    /// Those not done yet.
    reaches: Vec<Reach>,
    /// Whether to try for ever to reach a server that has gone.
    patient: bool,
}

impl Reader {
    /// Reads `reaches` of `topic`; a server that is away for `timeout` is an error, unless `patient`.
    pub(crate) fn new(
        client: &Client,
        topic: &str,
        reaches: Vec<Reach>,
        timeout: Duration,
        patient: bool,
    ) -> Result<Reader> {
        let config = ConsumerConfig::new()
            .offset_reset(OffsetReset::Error)
            .unavailable_timeout(timeout);
        let mut consumer = Consumer::new(client, config)?;
        for reach in &reaches {
            consumer.assign(topic, reach.partition, StartAt::Offset(reach.start));
        }
        Ok(Reader {
            consumer,
            topic: Arc::from(topic),
            reaches,
            patient,
        })
    }

    /// What comes next; `None` when everything wanted was read.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<FetchedBatch>>> {
        loop {
            self.finish_what_is_done();
            if self.reaches.is_empty() {
                return Ok(None);
            }
            match self.consumer.poll(POLL).await {
                Ok(batches) if batches.is_empty() => {}
                Ok(batches) => return Ok(Some(batches)),
                Err(Error::Unavailable { .. }) if self.patient => {}
                Err(error) => return Err(explain(error)),
            }
        }
    }

    /// What is still wanted of a partition.
    pub(crate) fn wanted(&self, partition: u32) -> Option<Reach> {
        let mut reaches = self.reaches.iter();
        reaches.find(|reach| reach.partition == partition).copied()
    }

    /// Reads no more of a partition.
    pub(crate) fn finish(&mut self, partition: u32) {
        self.reaches.retain(|reach| reach.partition != partition);
        self.consumer.unassign(&self.topic, partition);
    }

    fn finish_what_is_done(&mut self) {
        let position = |reach: &Reach| self.consumer.position(&self.topic, reach.partition);
        let is_done = |reach: &&Reach| {
            let position = position(reach).unwrap_or(reach.start);
            reach.end.is_some_and(|end| position >= end)
        };
        let done: Vec<u32> = self
            .reaches
            .iter()
            .filter(is_done)
            .map(|reach| reach.partition)
            .collect();
        done.into_iter()
            .for_each(|partition| self.finish(partition));
    }
}

/// The error, and after damage how to go on behind it.
fn explain(error: Error) -> CliError {
    let Error::Corrupt {
        partition, offsets, ..
    } = &error
    else {
        return error.into();
    };
    let behind = format!("--partition {partition} --from {}", offsets.end);
    CliError::Corrupt(format!("{error}; go on behind it with {behind}"))
}
