//! One tail: a stream that follows many partitions and can be changed while it runs.
//!
//! A task takes the partitions that have something to read in turn, one message each, and waits
//! for room among the few messages that the reader has not taken yet: a slow reader costs bounded
//! memory and delays nobody else. Partitions that are read to their end wait in one set of
//! futures; nothing is polled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use comlog_log::ReadError;
use comlog_proto::v1::{self, Form, tail_change::Change, tail_response::Kind};
use comlog_record::Offset;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::broker::Shared;
use crate::budget::{Budgets, Permit};
use crate::fetch;
use crate::partition::Partition;
use crate::status::ServiceError;
use crate::tails::{Registered, Update};
use crate::unpack::Bounds;

/// A partition of a tail.
#[derive(Debug, Clone)]
struct Followed {
    partition: Arc<Partition>,
    /// Where to read on.
    offset: Offset,
    generation: u64,
    paused: bool,
    /// Seen, but the reader was not told yet.
    failing: Option<ServiceError>,
    /// The reader was told: nothing more until it seeks.
    failed: bool,
}

impl Followed {
    fn position(&self) -> v1::TailPosition {
        let key = self.partition.key();
        v1::TailPosition {
            topic: key.topic.to_string(),
            partition: key.partition,
            offset: self.offset.0,
            generation: self.generation,
            paused: self.paused,
        }
    }

    fn is(&self, topic: &str, partition: u32) -> bool {
        let key = self.partition.key();
        key.partition == partition && *key.topic == *topic
    }
}

/// The task behind one tail.
pub(crate) struct Tail {
    shared: Arc<Shared>,
    form: Form,
    bounds: Bounds,
    followed: Vec<Followed>,
    /// The generation given out last.
    generation: u64,
    /// Indexes of `followed` that may have something to read, in turn.
    ready: VecDeque<usize>,
    /// Bytes of the next answer that found no room; 0 otherwise.
    wants: usize,
    /// One for each partition that was read to its end.
    waits: FuturesUnordered<BoxFuture<'static, (usize, Result<(), ReadError>)>>,
}

impl Tail {
    /// A tail of the partitions asked for.
    ///
    /// # Errors
    /// A partition is not there or named twice, too many, or a value is unknown. Offsets outside
    /// a log are not an error here: that partition then fails alone.
    pub(crate) async fn new(
        shared: Arc<Shared>,
        request: v1::TailRequest,
    ) -> Result<Tail, ServiceError> {
        let form = fetch::form(request.form)?;
        let bytes_max = fetch::clamp_bytes(request.max_bytes, shared.config.fetch.tail_bytes_max);
        let mut tail = Tail {
            bounds: fetch::record_bounds(&shared, request.max_bytes, bytes_max),
            shared,
            form,
            followed: Vec::new(),
            generation: 1,
            ready: VecDeque::new(),
            wants: 0,
            waits: FuturesUnordered::new(),
        };
        let mut followed = Vec::with_capacity(request.partitions.len().min(1_024));
        for start in request.partitions {
            let (topic, partition) = (start.topic.as_str(), start.partition);
            follow(&tail.shared, &mut followed, topic, partition, start.at, 1).await?;
        }
        tail.replace(followed);
        Ok(tail)
    }

    pub(crate) fn positions(&self) -> Vec<v1::TailPosition> {
        self.followed.iter().map(Followed::position).collect()
    }

    /// Runs until the reader is gone, or the server closes (`Err`).
    pub(crate) async fn run(
        mut self,
        registered: Registered,
        mut updates: mpsc::Receiver<Update>,
        messages: mpsc::Sender<(v1::TailResponse, Permit)>,
        budgets: Budgets,
    ) -> Result<(), ServiceError> {
        let _registered = registered;
        let closing = self.shared.closing.clone();
        let idle = Duration::from_millis(self.shared.config.fetch.tail_idle_ms);
        let mut idle_at = Instant::now() + idle;
        loop {
            tokio::select! {
                biased; // what changes the order of things goes before the next message
                () = closing.cancelled() => return Err(ServiceError::shutting_down()),
                () = messages.closed() => return Ok(()),
                Some(update) = updates.recv() => self.update(update).await,
                Some((index, visible)) = self.waits.next(), if !self.waits.is_empty() => {
                    self.wake(index, visible);
                }
                () = budgets.room_for(self.wants), if self.wants > 0 => self.wants = 0,
                slot = messages.clone().reserve_owned(), if self.can_read() => {
                    let Ok(slot) = slot else { return Ok(()) };
                    if let Some((kind, permit)) = self.next_message(&budgets).await {
                        slot.send((v1::TailResponse { kind: Some(kind) }, permit));
                        idle_at = Instant::now() + idle;
                    }
                }
                () = tokio::time::sleep_until(idle_at), if self.ready.is_empty() => {
                    let kind = Some(Kind::Idle(v1::TailIdle {}));
                    // Without room the connection is not idle.
                    let message = v1::TailResponse { kind };
                    drop(messages.try_send((message, Permit::none(budgets.clone()))));
                    idle_at = Instant::now() + idle;
                }
            }
        }
    }

    fn wake(&mut self, index: usize, visible: Result<(), ReadError>) {
        if let Some(followed) = self.followed.get_mut(index) {
            followed.failing = visible.err().map(|error| followed.partition.explain(error));
            self.ready.push_back(index);
        }
    }

    /// Whether a partition may have something to say, and there is room for it.
    fn can_read(&self) -> bool {
        !self.ready.is_empty() && self.wants == 0
    }

    /// What the next partition in turn has to say, if anything, and what it took.
    async fn next_message(&mut self, budgets: &Budgets) -> Option<(Kind, Permit)> {
        let index = self.ready.pop_front()?;
        let followed = self.followed.get(index)?.clone();
        let fetched = match followed.failing {
            Some(error) => Err(error),
            None => {
                let mut bounds = self.bounds.clone();
                bounds.bytes_max = fetch::bytes_for(budgets.room(), bounds.bytes_max);
                fetch(
                    &self.shared,
                    &followed.partition,
                    followed.offset,
                    self.form,
                    &bounds,
                )
                .await
            }
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                let failed = self.fail(index, &error)?;
                return Some((failed, Permit::none(budgets.clone())));
            }
        };
        let bytes = fetch::answer_bytes(&fetched);
        let Ok(permit) = budgets.try_take(bytes) else {
            // Read again once there is room: until then nothing is held.
            self.wants = bytes;
            self.ready.push_front(index);
            return None;
        };
        let followed = self.followed.get_mut(index)?;
        followed.offset = Offset(fetched.next_offset);
        let position = followed.position();
        if fetched.next_offset < fetched.high_watermark {
            self.ready.push_back(index);
        } else {
            self.wait(index);
        }
        if fetched.chunks.is_empty() && fetched.records.is_empty() {
            return None;
        }
        let kind = Kind::Fetched(v1::TailFetched {
            topic: position.topic,
            partition: position.partition,
            generation: position.generation,
            fetched: Some(fetched),
        });
        Some((kind, permit))
    }

    fn fail(&mut self, index: usize, error: &ServiceError) -> Option<Kind> {
        let followed = self.followed.get_mut(index)?;
        followed.failed = true;
        followed.failing = None;
        let position = followed.position();
        Some(Kind::Failed(v1::TailFailed {
            topic: position.topic,
            partition: position.partition,
            generation: position.generation,
            error: Some(error.to_message()),
        }))
    }

    fn wait(&mut self, index: usize) {
        let Some(followed) = self.followed.get(index) else {
            return;
        };
        let Ok(reader) = followed.partition.reader().cloned() else {
            return;
        };
        let offset = followed.offset;
        self.waits.push(Box::pin(async move {
            (index, reader.wait_visible(offset).await.map(|_| ()))
        }));
    }

    async fn update(&mut self, update: Update) {
        let followed = self.followed.clone();
        let answer = match change(&self.shared, followed, self.generation, update.changes).await {
            Ok((followed, generation)) => {
                self.generation = generation;
                self.replace(followed);
                Ok(self.positions())
            }
            Err(error) => Err(error),
        };
        // The caller may be gone; the change holds all the same.
        drop(update.reply.send(answer));
    }

    /// Goes on with `followed`; indexes, and so all that waits by index, begin anew.
    fn replace(&mut self, followed: Vec<Followed>) {
        self.waits.clear();
        self.ready = followed
            .iter()
            .enumerate()
            .filter(|(_, followed)| !followed.paused && !followed.failed)
            .map(|(index, _)| index)
            .collect();
        self.followed = followed;
    }
}

async fn fetch(
    shared: &Shared,
    partition: &Partition,
    from: Offset,
    form: Form,
    bounds: &Bounds,
) -> Result<v1::Fetched, ServiceError> {
    let fetched = fetch::batches(partition, from, bounds.bytes_max).await?;
    fetch::to_message(partition, fetched, from, form, bounds, shared).await
}

/// What is followed after the changes, and the generation given out last.
async fn change(
    shared: &Shared,
    mut followed: Vec<Followed>,
    mut generation: u64,
    changes: Vec<v1::TailChange>,
) -> Result<(Vec<Followed>, u64), ServiceError> {
    let changes_max = shared.config.fetch.tail_partitions_max as usize;
    if changes.len() > changes_max {
        return Err(ServiceError::invalid(format!(
            "changes: at most {changes_max} at once (fetch.tail_partitions_max)"
        )));
    }
    for change in changes {
        let (topic, partition) = (change.topic.as_str(), change.partition);
        let index = followed.iter().position(|f| f.is(topic, partition));
        match (change.change, index) {
            (Some(Change::Add(at)), _) => {
                generation += 1;
                follow(
                    shared,
                    &mut followed,
                    topic,
                    partition,
                    Some(at),
                    generation,
                )
                .await?;
            }
            (Some(Change::Seek(at)), Some(index)) => {
                generation += 1;
                let paused = followed.remove(index).paused;
                follow(
                    shared,
                    &mut followed,
                    topic,
                    partition,
                    Some(at),
                    generation,
                )
                .await?;
                if let Some(sought) = followed.last_mut() {
                    sought.paused = paused;
                }
            }
            (Some(Change::Remove(_)), Some(index)) => drop(followed.remove(index)),
            (Some(Change::Pause(paused)), Some(index)) => followed[index].paused = paused,
            (Some(_), None) => {
                let message = format!("the tail does not follow {topic:?} {partition}");
                return Err(ServiceError::invalid(message));
            }
            (None, _) => return Err(ServiceError::invalid("changes: one without a change")),
        }
    }
    Ok((followed, generation))
}

/// Adds a partition behind those in `followed`.
async fn follow(
    shared: &Shared,
    followed: &mut Vec<Followed>,
    topic: &str,
    partition: u32,
    at: Option<v1::StartAt>,
    generation: u64,
) -> Result<(), ServiceError> {
    let partitions_max = shared.config.fetch.tail_partitions_max as usize;
    if followed.len() >= partitions_max {
        return Err(ServiceError::overloaded(format!(
            "a tail follows at most {partitions_max} partitions (fetch.tail_partitions_max)"
        )));
    }
    if followed.iter().any(|f| f.is(topic, partition)) {
        let message = format!("the tail follows {topic:?} {partition} already");
        return Err(ServiceError::invalid(message));
    }
    let partition = shared.topics.partition(topic, partition)?;
    // A partition that could not be opened fails alone; the others go on.
    let (offset, failing) = match partition.reader() {
        Ok(_) => (fetch::resolve(&partition, at).await?.0, None),
        Err(error) => (Offset::ZERO, Some(error)),
    };
    followed.push(Followed {
        partition,
        offset,
        generation,
        paused: false,
        failing,
        failed: false,
    });
    Ok(())
}
