//! Reads partitions of one topic from somewhere to somewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comlog_client::{Client, Consumer, ConsumerConfig, Error, FetchedBatch, OffsetReset, StartAt};
use comlog_record::Offset;

use crate::commands::offsets;
use crate::error::{CliError, Result};
use crate::position::Position;
use crate::time;

/// How long one poll waits before it is looked whether the end was reached without a record.
const POLL: Duration = Duration::from_millis(100);
/// How long after a time records from before it are waited for: they were on their way.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

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

/// How to read on at the end of the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Following {
    /// Partitions behind so many are read too, from their beginning, up to this offset.
    pub(crate) added_behind: Option<(u32, Option<Offset>)>,
    /// How often to look for those.
    pub(crate) metadata_age: Duration,
    /// Unix milliseconds: once they and [`GRACE`] have passed, what is in the log then is the end.
    pub(crate) until_ms: Option<i64>,
}

/// Reads what several [`Reach`]es want.
#[derive(Debug)]
pub(crate) struct Reader {
    client: Client,
    consumer: Consumer,
    topic: Arc<str>,
    /// Those not done yet, by partition.
    reaches: BTreeMap<u32, Reach>,
    /// How long a server may be away, or give nothing of what it has.
    timeout: Duration,
    /// With it the server is tried for ever.
    following: Option<Following>,
}

impl Reader {
    /// Reads `reaches` of `topic`. A server that is away for `timeout` is an error, unless it is
    /// followed.
    pub(crate) fn new(
        client: &Client,
        topic: &str,
        reaches: Vec<Reach>,
        timeout: Duration,
        following: Option<Following>,
    ) -> Result<Reader> {
        let mut config = ConsumerConfig::new()
            .offset_reset(OffsetReset::Error)
            .unavailable_timeout(timeout);
        if let Some(following) = &following {
            config = config.metadata_age_max(following.metadata_age);
        }
        let mut consumer = Consumer::new(client, config)?;
        for reach in &reaches {
            consumer.assign(topic, reach.partition, StartAt::Offset(reach.start));
        }
        if let Some((known, _)) = following.and_then(|following| following.added_behind) {
            consumer.follow_added(topic, known);
        }
        Ok(Reader {
            client: client.clone(),
            consumer,
            topic: Arc::from(topic),
            reaches: reaches.into_iter().map(|r| (r.partition, r)).collect(),
            timeout,
            following,
        })
    }

    /// What comes next; `None` when everything wanted was read.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<FetchedBatch>>> {
        let silent_since = Instant::now();
        loop {
            self.adopt_added();
            self.end_in_time().await?;
            self.finish_what_is_done();
            if self.reaches.is_empty() {
                return Ok(None);
            }
            match self.consumer.poll(POLL).await {
                Ok(batches) if batches.is_empty() => self.check_silence(silent_since)?,
                Ok(batches) => {
                    self.adopt_added();
                    return Ok(Some(batches));
                }
                Err(Error::Unavailable { .. }) if self.following.is_some() => {}
                Err(error) => return Err(explain(error)),
            }
        }
    }

    /// What is still wanted of a partition.
    pub(crate) fn wanted(&self, partition: u32) -> Option<Reach> {
        self.reaches.get(&partition).copied()
    }

    /// Reads no more of a partition.
    pub(crate) fn finish(&mut self, partition: u32) {
        self.reaches.remove(&partition);
        self.consumer.unassign(&self.topic, partition);
    }

    /// Notes the partitions that the consumer has found meanwhile.
    fn adopt_added(&mut self) {
        let Some(following) = &mut self.following else {
            return;
        };
        let Some((known, end)) = &mut following.added_behind else {
            return;
        };
        let mut behind = *known;
        for (_, partition) in self.consumer.assignment() {
            if partition >= *known {
                behind = behind.max(partition + 1);
                let reach = Reach {
                    partition,
                    start: Offset::ZERO,
                    end: *end,
                };
                self.reaches.insert(partition, reach);
            }
        }
        *known = behind;
    }

    /// Once the time to stop at has passed, nothing more is waited for than what is there.
    async fn end_in_time(&mut self) -> Result<()> {
        let Some(following) = &mut self.following else {
            return Ok(());
        };
        let grace = GRACE.as_millis() as i64;
        let passed = |ms: i64| time::now_ms() >= ms.saturating_add(grace);
        if !following.until_ms.is_some_and(passed) {
            return Ok(());
        }
        let added_behind = following.added_behind;
        match self.ends(added_behind.is_some()).await {
            Ok(ends) => self.end_at(&ends, added_behind),
            Err(CliError::Unavailable(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Where the partitions end now: those wanted, or `all` of the topic.
    async fn ends(&self, all: bool) -> Result<Vec<(u32, Offset)>> {
        let wanted: Vec<u32> = self.reaches.keys().copied().collect();
        let asked = if all { &[][..] } else { &wanted };
        let partitions = offsets::partitions(&self.client, &self.topic, asked).await?;
        let found = offsets::list(&self.client, &self.topic, &partitions, Position::Latest).await?;
        let end = |found: &comlog_proto::v1::OffsetFound| (found.partition, Offset(found.offset));
        Ok(found.iter().map(end).collect())
    }

    /// Stops at `ends`; partitions that were added unnoticed are read up to there too.
    fn end_at(&mut self, ends: &[(u32, Offset)], added_behind: Option<(u32, Option<Offset>)>) {
        let known = added_behind.map_or(u32::MAX, |(known, _)| known);
        for &(partition, log_end) in ends {
            if partition >= known {
                self.consumer
                    .assign(&self.topic, partition, StartAt::Earliest);
                let (start, end) = (Offset::ZERO, None);
                let reach = Reach {
                    partition,
                    start,
                    end,
                };
                self.reaches.insert(partition, reach);
            }
            if let Some(reach) = self.reaches.get_mut(&partition) {
                reach.end = Some(reach.end.map_or(log_end, |end| end.min(log_end)));
            }
        }
        if let Some(following) = &mut self.following {
            following.until_ms = None;
            following.added_behind = None;
        }
    }

    /// A server that has records and gives none is not waited for without end.
    fn check_silence(&self, since: Instant) -> Result<()> {
        let wanted = self.reaches.first_key_value();
        let end = wanted.and_then(|(partition, reach)| Some((partition, reach.end?)));
        match end {
            Some((partition, end))
                if since.elapsed() >= self.timeout && self.following.is_none() =>
            {
                Err(CliError::Unavailable(format!(
                    "nothing came for {:?}, though partition {partition} is said to end at {end}",
                    self.timeout
                )))
            }
            _ => Ok(()),
        }
    }

    fn finish_what_is_done(&mut self) {
        let is_done = |reach: &&Reach| {
            let position = || self.consumer.position(&self.topic, reach.partition);
            let reached = |end| position().unwrap_or(reach.start) >= end;
            reach.end.is_some_and(reached)
        };
        let done = self.reaches.values().filter(is_done);
        let done: Vec<u32> = done.map(|reach| reach.partition).collect();
        done.into_iter()
            .for_each(|partition| self.finish(partition));
    }
}

/// The error, and after damage how to go on behind it.
fn explain(error: Error) -> CliError {
    if let Error::RecordTooLarge {
        partition, offset, ..
    } = &error
    {
        let behind = format!("--partition {partition} --from {}", offset.next());
        return CliError::Failed(format!("{error}; go on behind it with {behind}"));
    }
    let Error::Corrupt {
        partition, offsets, ..
    } = &error
    else {
        return error.into();
    };
    let behind = format!("--partition {partition} --from {}", offsets.end);
    CliError::Corrupt(format!("{error}; go on behind it with {behind}"))
}
