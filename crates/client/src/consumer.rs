//! The consumer's public face: follows partitions, hands out batches, commits positions.

use std::sync::Arc;
use std::time::Duration;

use comlog_proto::v1::tail_response::Kind;
use comlog_proto::v1::{self, Reason};
use comlog_record::{Offset, OffsetRange};
use futures_core::Stream;
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::commit::Committer;
use crate::follow::{Follow, Followed};
use crate::retry::may_retry_call;
use crate::tail::{Done, Work};
use crate::tails::Tails;
use crate::{Client, ConsumerConfig, Error, ErrorKind, FetchedBatch, Result, StartAt};

/// Later than any timeout, early enough to be added to a clock.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);

/// Reads partitions in order, from one connection, without losing or doubling a record.
///
/// [`assign`](Consumer::assign), [`seek`](Consumer::seek), [`pause`](Consumer::pause) and the like
/// only note what is wanted; the next [`poll`](Consumer::poll) makes it so. After a lost connection
/// it goes on from its positions.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    follow: Follow,
    tails: Tails,
    work: Option<Work>,
    subscribed: Vec<Subscription>,
    /// When to look for partitions of subscribed topics; none before the first look.
    refresh_at: Option<Instant>,
    committer: Committer,
    /// Attempts to reach the server that failed in a row, and since when.
    failures: u32,
    failing_since: Option<Instant>,
    retry_at: Option<Instant>,
    /// What is to be told to the application.
    error: Option<Error>,
}

/// A topic whose partitions are all followed, those to come too.
#[derive(Debug)]
struct Subscription {
    topic: Arc<str>,
    /// Partitions that it had when last looked at; what is added comes behind them.
    seen: Option<u32>,
}

impl Consumer {
    /// A consumer over `client`, on a connection of its own. It follows nothing yet.
    ///
    /// # Errors
    /// [`Error::Config`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(client: &Client, config: ConsumerConfig) -> Result<Consumer> {
        config.validate()?;
        Ok(Consumer {
            client: client.clone(),
            tails: Tails::new(client, config.prefetch_bytes)?,
            committer: Committer::new(client.clone(), config.group.clone(), config.auto_commit),
            follow: Follow::new(config.tail_partitions_max as usize),
            config,
            work: None,
            subscribed: Vec::new(),
            refresh_at: None,
            failures: 0,
            failing_since: None,
            retry_at: None,
            error: None,
        })
    }

    /// Follows a partition from `start`; one that is followed already goes there.
    pub fn assign(&mut self, topic: &str, partition: u32, start: StartAt) {
        self.follow.add(&Arc::from(topic), partition, start);
    }

    /// Follows a partition no longer.
    pub fn unassign(&mut self, topic: &str, partition: u32) {
        self.follow.remove(topic, partition);
    }

    /// Follows every partition of these topics, besides what is assigned: from where the group has
    /// committed, else as [`ConsumerConfig::offset_reset`] says. Partitions added later are
    /// followed from their beginning.
    pub fn subscribe<'a>(&mut self, topics: impl IntoIterator<Item = &'a str>) {
        for topic in topics {
            self.subscribe_behind(topic, None);
        }
    }

    /// Follows the partitions that `topic` gets besides the first `partitions`, from their
    /// beginning: for a caller that [assigns](Consumer::assign) those itself.
    pub fn follow_added(&mut self, topic: &str, partitions: u32) {
        self.subscribe_behind(topic, Some(partitions));
    }

    fn subscribe_behind(&mut self, topic: &str, seen: Option<u32>) {
        if !self.subscribed.iter().any(|known| &*known.topic == topic) {
            let topic = Arc::from(topic);
            self.subscribed.push(Subscription { topic, seen });
        }
        self.refresh_at = None;
    }

    /// What is followed.
    #[must_use]
    pub fn assignment(&self) -> Vec<(Arc<str>, u32)> {
        let all = self.follow.iter();
        all.map(|followed| (followed.topic.clone(), followed.partition))
            .collect()
    }

    /// Goes on reading a partition from `start`. Also ends what an error began: after
    /// [`Error::Corrupt`] seek to the end of its range.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when the partition is not followed.
    pub fn seek(&mut self, topic: &str, partition: u32, start: StartAt) -> Result<()> {
        self.followed(topic, partition)?.seek(start);
        Ok(())
    }

    /// Hands out nothing of a partition until [`resume`](Consumer::resume); its position stays.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when the partition is not followed.
    pub fn pause(&mut self, topic: &str, partition: u32) -> Result<()> {
        self.followed(topic, partition)?.paused = true;
        Ok(())
    }

    /// Goes on handing out what was [paused](Consumer::pause).
    ///
    /// # Errors
    /// [`Error::InvalidState`] when the partition is not followed.
    pub fn resume(&mut self, topic: &str, partition: u32) -> Result<()> {
        self.followed(topic, partition)?.paused = false;
        Ok(())
    }

    /// The next offset that a poll will hand out; `None` while that is not known, because the
    /// start is a time or an end of the log and no poll has found out yet.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<Offset> {
        self.follow.get(topic, partition)?.position
    }

    /// Where the partition ended (exclusive) when something was last read from it.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: u32) -> Option<Offset> {
        self.follow.get(topic, partition)?.high_watermark
    }

    fn followed(&mut self, topic: &str, partition: u32) -> Result<&mut Followed> {
        let missing = Error::InvalidState("the partition is not assigned");
        self.follow.get_mut(topic, partition).ok_or(missing)
    }

    /// Waits at most `timeout` for records and returns what is there: nothing when the time is
    /// over. Positions move behind what is returned.
    ///
    /// Cancel safe: a poll that is dropped has handed out nothing.
    ///
    /// # Errors
    /// Errors of one partition ([`Error::Corrupt`], [`Error::OutOfRange`],
    /// [`ErrorKind::NotFound`]) are told once; that partition then rests until it is sought, and
    /// polling goes on with the others. [`Error::Unavailable`] when the server was unreachable
    /// for [`ConsumerConfig::unavailable_timeout`]; polling again tries on.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<FetchedBatch>> {
        match tokio::time::timeout(timeout.min(FOREVER), self.next_batches()).await {
            Ok(batches) => batches,
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The batches as they come, without end: [`poll`](Consumer::poll) as a stream. Errors do not
    /// end it. Dropping it leaves the consumer where it stands; batches already taken off the
    /// connection but not yet yielded are lost to it, so keep one stream.
    pub fn stream(&mut self) -> impl Stream<Item = Result<FetchedBatch>> + Send + use<'_> {
        let waiting = Vec::new().into_iter();
        futures_util::stream::unfold((self, waiting), |(consumer, mut waiting)| async move {
            loop {
                if let Some(batch) = waiting.next() {
                    return Some((Ok(batch), (consumer, waiting)));
                }
                match consumer.next_batches().await {
                    Ok(batches) => waiting = batches.into_iter(),
                    Err(error) => return Some((Err(error), (consumer, waiting))),
                }
            }
        })
    }

    /// Commits the positions of everything followed; durable on return.
    ///
    /// # Errors
    /// [`Error::InvalidState`] without a group, and failures of the call.
    pub async fn commit(&mut self) -> Result<()> {
        let offsets = self.positions();
        self.committer.commit(offsets).await
    }

    /// Commits the positions in the background, in order with other commits, and calls back.
    ///
    /// # Errors
    /// [`Error::InvalidState`] without a group.
    pub fn commit_async(
        &mut self,
        callback: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<()> {
        let offsets = self.positions();
        self.committer.commit_async(offsets, callback)
    }

    /// Commits if that was to happen by itself, and ends.
    ///
    /// # Errors
    /// As [`commit`](Consumer::commit).
    pub async fn close(mut self) -> Result<()> {
        let offsets = self.positions();
        self.committer.close(offsets).await
    }

    fn positions(&self) -> Vec<v1::CommittedOffset> {
        let known = self.follow.iter().filter_map(|followed| {
            Some(v1::CommittedOffset {
                topic: followed.topic.to_string(),
                partition: followed.partition,
                offset: followed.position?.0,
                ..v1::CommittedOffset::default()
            })
        });
        known.collect()
    }

    /// Waits for records; at least one batch.
    async fn next_batches(&mut self) -> Result<Vec<FetchedBatch>> {
        if self.committer.is_due() {
            let offsets = self.positions();
            self.committer.commit_in_background(offsets);
        }
        loop {
            self.tell_error()?;
            if let Some(work) = &mut self.work {
                let done = work.await;
                self.work = None;
                self.take_in(done);
                continue;
            }
            // What goes well goes on meanwhile.
            let waits = self.retry_at.is_some_and(|at| at > Instant::now());
            if !waits {
                self.retry_at = None;
                self.work = self.next_work();
            }
            if self.work.is_none() {
                let batches = self.receive().await?;
                if !batches.is_empty() {
                    return Ok(batches);
                }
            }
        }
    }

    /// What an earlier step found out.
    fn tell_error(&mut self) -> Result<()> {
        let mut followed = self.follow.iter_mut();
        let error = self.error.take();
        let error = error.or_else(|| followed.find_map(|followed| followed.error.take()));
        error.map_or(Ok(()), Err)
    }

    /// The call that brings the consumer nearer to what is wanted.
    fn next_work(&mut self) -> Option<Work> {
        let client = self.client.clone();
        let refresh = self.refresh_at.is_none_or(|at| at <= Instant::now());
        if refresh && !self.subscribed.is_empty() {
            let topics = self.subscribed.iter().map(|known| known.topic.clone());
            return Some(Work::describe(client, topics.collect()));
        }
        let uncommitted = self.uncommitted();
        if !uncommitted.is_empty() {
            let group = self.config.group.clone()?;
            return Some(Work::committed(client, group, uncommitted));
        }
        let number = self.follow.tail_to_tell()?;
        let Some(tail) = self.tails.get(number) else {
            return self.open_tail(number);
        };
        let request = v1::UpdateTailRequest {
            tail_id: tail.id.clone(),
            changes: self.follow.changes(number),
        };
        Some(Work::update(client, number, request))
    }

    fn open_tail(&mut self, number: usize) -> Option<Work> {
        let channel = match self.tails.channel(number) {
            Ok(channel) => channel,
            Err(error) => {
                self.failed(error);
                return None;
            }
        };
        let request = v1::TailRequest {
            partitions: self.follow.starts(number),
            form: v1::Form::Batches as i32,
            max_bytes: self.config.fetch_bytes_max,
        };
        Some(Work::open(self.client.clone(), number, channel, request))
    }

    /// Partitions that start where the group has committed. Without a group they are reset.
    fn uncommitted(&mut self) -> Vec<v1::TopicPartition> {
        let mut wanted = Vec::new();
        for followed in self.follow.iter_mut() {
            if followed.start != Some(StartAt::Committed) || followed.parked {
                continue;
            }
            if self.config.group.is_some() {
                wanted.push(v1::TopicPartition {
                    topic: followed.topic.to_string(),
                    partition: followed.partition,
                });
            } else {
                reset(followed, &self.config, "no group is set");
            }
        }
        wanted
    }

    fn take_in(&mut self, done: Done) {
        match done {
            Done::Opened(number, Ok(mut tail)) => {
                let positions = std::mem::take(&mut tail.positions);
                self.tails.put(number, *tail);
                self.confirmed(number, positions);
            }
            Done::Updated(number, Ok(positions)) => self.confirmed(number, positions),
            Done::Committed(Ok(offsets)) => self.start_at(offsets),
            Done::Described(topics) => self.follow_topics(topics),
            Done::Updated(number, Err(error)) if error.reason() == Reason::TailNotFound => {
                self.drop_tail(number);
            }
            Done::Opened(number, Err(error)) | Done::Updated(number, Err(error)) => {
                self.disconnected(number, error);
            }
            Done::Committed(Err(error)) => self.failed(error),
            Done::Ended => self.failed(Error::Closed),
        }
    }

    fn confirmed(&mut self, number: usize, positions: Vec<v1::TailPosition>) {
        match self.follow.confirmed(number, positions) {
            Ok(()) => self.reached(),
            Err(error) => self.disconnected(number, error),
        }
    }

    fn start_at(&mut self, offsets: Vec<v1::CommittedOffset>) {
        for committed in offsets {
            let followed = self.follow.get_mut(&committed.topic, committed.partition);
            if let Some(followed) = followed.filter(|f| f.start == Some(StartAt::Committed)) {
                followed.seek(StartAt::Offset(Offset(committed.offset)));
            }
        }
        for followed in self.follow.iter_mut() {
            if followed.start == Some(StartAt::Committed) && !followed.parked {
                reset(followed, &self.config, "the group has committed nothing");
            }
        }
    }

    fn follow_topics(&mut self, topics: Vec<(Arc<str>, Result<u32>)>) {
        self.refresh_at = Some(Instant::now() + self.config.metadata_age_max);
        for (topic, partitions) in topics {
            let known = self.subscribed.iter_mut().find(|s| s.topic == topic);
            let Some(known) = known else { continue };
            match partitions {
                Ok(partitions) => {
                    let seen = known.seen.replace(partitions);
                    self.follow_behind(&topic, seen, partitions);
                }
                // An old look at a topic will do while reading goes on.
                Err(error) if known.seen.is_some() => {
                    tracing::debug!(%error, %topic, "cannot look for added partitions");
                }
                Err(error) => {
                    self.refresh_at = None;
                    self.failed(error);
                }
            }
        }
    }

    /// Follows the partitions behind those that were `seen`: whatever was added since the last
    /// look is read from its beginning.
    fn follow_behind(&mut self, topic: &Arc<str>, seen: Option<u32>, partitions: u32) {
        let start = match seen {
            Some(_) => StartAt::Earliest,
            None => StartAt::Committed,
        };
        for partition in seen.unwrap_or(0)..partitions {
            if self.follow.get(topic, partition).is_none() {
                self.follow.add(topic, partition, start);
            }
        }
    }

    /// When there is work that no message announces.
    fn next_due(&self) -> Instant {
        let refresh = self.refresh_at.filter(|_| !self.subscribed.is_empty());
        let due = self.retry_at.into_iter().chain(refresh);
        due.min().unwrap_or_else(|| Instant::now() + FOREVER)
    }

    /// More of a message that one poll could not return.
    fn read_on(&mut self) -> Option<Vec<FetchedBatch>> {
        let mut followed = self.follow.iter_mut();
        let unread = followed.find(|f| f.reading.is_some() && f.wanted())?;
        let mut batches = Vec::new();
        unread.read_on(
            &self.config.limits,
            self.config.poll_bytes_max,
            &mut batches,
        );
        Some(batches)
    }

    /// Waits for the tails, or until there is other work.
    async fn receive(&mut self) -> Result<Vec<FetchedBatch>> {
        if let Some(batches) = self.read_on() {
            return Ok(batches);
        }
        let due = self.next_due();
        let received = tokio::select! {
            received = self.tails.next() => received,
            () = tokio::time::sleep_until(due) => return Ok(Vec::new()),
        };
        let mut batches = Vec::new();
        let mut bytes = 0;
        let mut received = Some(received);
        // No await from here on: what is decoded is handed out.
        while let Some((number, result)) = received.take() {
            let taken = batches.len();
            match result {
                Ok(Some(message)) => {
                    let bytes_max = self.config.poll_bytes_max.saturating_sub(bytes);
                    self.take_message(number, message, bytes_max, &mut batches);
                }
                Ok(None) => self.disconnected(number, self.tail_ended()),
                Err(status) => self.disconnected(number, self.client.error(&status)),
            }
            let new = batches.get(taken..).unwrap_or_default();
            bytes += new.iter().map(FetchedBatch::bytes).sum::<usize>();
            if !batches.is_empty() && bytes < self.config.poll_bytes_max {
                received = self.tails.next().now_or_never();
            }
        }
        Ok(batches)
    }

    fn take_message(
        &mut self,
        number: usize,
        message: v1::TailResponse,
        bytes_max: usize,
        batches: &mut Vec<FetchedBatch>,
    ) {
        match message.kind {
            Some(Kind::Fetched(message)) => {
                let (topic, generation) = (message.topic.as_str(), message.generation);
                let followed = self.follow.current(topic, message.partition, generation);
                if let (Some(followed), Some(fetched)) = (followed, message.fetched) {
                    followed.take(fetched);
                    followed.read_on(&self.config.limits, bytes_max, batches);
                }
            }
            Some(Kind::Failed(message)) => {
                let (topic, generation) = (message.topic.as_str(), message.generation);
                let followed = self.follow.current(topic, message.partition, generation);
                let error = Error::from_message(message.error.unwrap_or_default());
                match followed {
                    Some(_) if may_retry_call(&error) => self.disconnected(number, error),
                    Some(followed) => partition_failed(followed, error, &self.config),
                    None => {}
                }
            }
            Some(Kind::Opened(_) | Kind::Idle(_)) | None => {}
        }
    }

    fn tail_ended(&self) -> Error {
        Error::Unavailable {
            connected: true,
            server: self.client.config().server.clone(),
            message: Arc::from("the server ended the tail"),
        }
    }

    fn reached(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.retry_at = None;
    }

    fn drop_tail(&mut self, number: usize) {
        self.tails.drop(number);
        self.follow.lost_tail(number);
    }

    /// A tail cannot be opened, changed or read: another is opened later, without the partitions
    /// that are not there.
    fn disconnected(&mut self, number: usize, error: Error) {
        self.drop_tail(number);
        if error.kind() != ErrorKind::NotFound {
            return self.failed(error);
        }
        let server_error = error.server_error();
        let topic = server_error.and_then(|error| error.topic.as_deref());
        let partition = server_error.and_then(|error| error.partition);
        let mut found = false;
        for followed in self.follow.iter_mut() {
            let named = topic == Some(&*followed.topic)
                && partition.is_none_or(|partition| partition == followed.partition);
            if named && !followed.parked {
                found = true;
                followed.park(error.clone());
            }
        }
        if !found {
            self.failed(error);
        }
    }

    /// Waits before the next attempt; says so when that does not help or takes too long.
    fn failed(&mut self, error: Error) {
        let now = Instant::now();
        self.failures = self.failures.saturating_add(1);
        let policy = self.client.config().retry;
        self.retry_at = Some(now + policy.backoff(self.failures, rand::random()));
        let since = *self.failing_since.get_or_insert(now);
        tracing::debug!(%error, failures = self.failures, "consumer cannot go on");
        if !may_retry_call(&error) || now - since >= self.config.unavailable_timeout {
            self.failing_since = None;
            self.error = Some(error);
        }
    }
}

/// The range that is damaged from `position` on: never empty, whatever a server says of its end.
fn damaged(position: Offset, end: Option<Offset>) -> OffsetRange {
    let end = end.filter(|&end| end > position);
    OffsetRange::new(position, end.unwrap_or(position.next()))
}

/// Sends a partition without a position where the configuration says, or parks it.
fn reset(followed: &mut Followed, config: &ConsumerConfig, why: &'static str) {
    match config.offset_reset.start() {
        Some(start) => followed.seek(start),
        None => followed.park(Error::InvalidState(why)),
    }
}

/// The tail cannot follow one partition further.
fn partition_failed(followed: &mut Followed, error: Error, config: &ConsumerConfig) {
    let position = followed.position.unwrap_or_default();
    let topic = followed.topic.clone();
    let partition = followed.partition;
    let offset = error.server_error().and_then(|error| error.offset);
    let error = match error.kind() {
        ErrorKind::OutOfRange => {
            let start = config.offset_reset.start();
            if start.is_some_and(|start| followed.reset(start)) {
                return;
            }
            Error::OutOfRange {
                topic,
                partition,
                offset: position,
                message: Arc::from(error.to_string()),
            }
        }
        ErrorKind::Corrupt => Error::Corrupt {
            topic,
            partition,
            offsets: damaged(position, offset),
            reason: Arc::from(error.to_string()),
        },
        _ => error,
    };
    followed.park(error);
}
