//! The partitions a consumer follows: where it stands, where it wants to be, and what its tail
//! must be told so that the two agree.
//!
//! Pure: no task, no socket.

use std::collections::HashMap;
use std::sync::Arc;

use comlog_proto::v1;
use comlog_proto::v1::tail_change::{Change, Remove};
use comlog_record::Offset;

use crate::reading::Reading;
use crate::{Error, StartAt};

/// So often is a partition sent elsewhere, in a row, before the server is not believed any more.
const RESETS_MAX: u32 = 10;

/// A topic and one of its partitions.
pub(crate) type Key = (Arc<str>, u32);

/// One partition that the consumer follows.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    /// Where to start, until the tail has said which offset that is.
    pub(crate) start: Option<StartAt>,
    /// The next record to hand out, once known.
    pub(crate) position: Option<Offset>,
    pub(crate) high_watermark: Option<Offset>,
    pub(crate) paused: bool,
    /// Failed: rests until it is sought.
    pub(crate) parked: bool,
    /// What is to be told to the application.
    pub(crate) error: Option<Error>,
    /// What was fetched and is not handed out yet: it comes before what the tail sends next.
    pub(crate) reading: Option<Reading>,
    /// How often it was sent elsewhere since something was read.
    pub(crate) resets: u32,
    /// The tail it belongs to.
    tail: usize,
    /// Whether the tail follows it, or was told to.
    in_tail: bool,
    /// The tail has to be told where to go.
    moved: bool,
    /// Messages of other generations are dropped; `None` until the tail has named it.
    generation: Option<u64>,
}

impl Followed {
    pub(crate) fn wanted(&self) -> bool {
        !self.paused && !self.parked && self.target().is_some()
    }

    /// Where the tail shall start, as the protocol says it.
    fn target(&self) -> Option<v1::StartAt> {
        match (self.start, self.position) {
            (Some(start), _) => start.to_message(),
            (None, Some(offset)) => StartAt::Offset(offset).to_message(),
            (None, None) => None,
        }
    }

    pub(crate) fn seek(&mut self, start: StartAt) {
        self.position = match start {
            StartAt::Offset(offset) => Some(offset),
            _ => None,
        };
        self.start = Some(start);
        self.parked = false;
        self.error = None;
        self.moved = true;
        self.forget();
    }

    /// What the tail sent, and is still to send, counts no more: it is read again from the position.
    fn forget(&mut self) {
        self.generation = None;
        self.reading = None;
    }

    pub(crate) fn park(&mut self, error: Error) {
        self.parked = true;
        self.reading = None;
        self.error = Some(error);
    }

    /// Sends it where there is something, as the configuration says; `false` when that was done
    /// often and never helped.
    pub(crate) fn reset(&mut self, start: StartAt) -> bool {
        if self.resets >= RESETS_MAX {
            return false;
        }
        self.resets += 1;
        self.seek(start);
        true
    }

    /// Whether the tail does otherwise than is wanted.
    fn is_untold(&self) -> bool {
        self.wanted() != self.in_tail || (self.wanted() && self.moved)
    }

    /// Whether the tail owes an answer where it stands.
    fn is_open(&self) -> bool {
        self.in_tail && !self.moved && self.generation.is_none()
    }

    /// What the tail must be told; noted as told.
    fn tell(&mut self) -> Option<v1::TailChange> {
        if !self.wanted() {
            self.in_tail = false;
            self.forget();
            return Some(self.change(Change::Remove(Remove {})));
        }
        let target = self.target()?;
        let change = if self.in_tail {
            Change::Seek(target)
        } else {
            Change::Add(target)
        };
        self.told();
        Some(self.change(change))
    }

    /// Where the tail says that it stands. What was sought meanwhile is told by the next change;
    /// what runs already knows more.
    fn confirmed(&mut self, at: &v1::TailPosition) -> Result<(), Error> {
        if !self.is_open() {
            return Ok(());
        }
        let elsewhere = self
            .position
            .is_some_and(|position| position.0 != at.offset);
        if at.offset < 0 || elsewhere {
            return Err(Error::protocol(format!(
                "the tail begins {:?} {} at offset {}",
                self.topic, self.partition, at.offset
            )));
        }
        self.generation = Some(at.generation);
        self.position = Some(Offset(at.offset));
        self.start = None;
        Ok(())
    }

    fn told(&mut self) {
        self.in_tail = true;
        self.moved = false;
        self.forget();
    }

    fn change(&self, change: Change) -> v1::TailChange {
        v1::TailChange {
            topic: self.topic.to_string(),
            partition: self.partition,
            change: Some(change),
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Follow {
    all: Vec<Followed>,
    index: HashMap<Arc<str>, HashMap<u32, usize>>,
    /// No longer wanted, but their tail does not know yet.
    removed: Vec<(Key, usize)>,
    /// Partitions that each tail is there for.
    tails: Vec<usize>,
    /// Most partitions of one tail, and most changes told to it at once.
    tail_partitions_max: usize,
}

impl Follow {
    pub(crate) fn new(tail_partitions_max: usize) -> Follow {
        Follow {
            all: Vec::new(),
            index: HashMap::new(),
            removed: Vec::new(),
            tails: Vec::new(),
            tail_partitions_max,
        }
    }

    fn find(&self, topic: &str, partition: u32) -> Option<usize> {
        self.index.get(topic)?.get(&partition).copied()
    }

    pub(crate) fn get(&self, topic: &str, partition: u32) -> Option<&Followed> {
        self.all.get(self.find(topic, partition)?)
    }

    pub(crate) fn get_mut(&mut self, topic: &str, partition: u32) -> Option<&mut Followed> {
        let index = self.find(topic, partition)?;
        self.all.get_mut(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Followed> {
        self.all.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Followed> {
        self.all.iter_mut()
    }

    /// Follows a partition from `start`; one that is followed already goes there.
    pub(crate) fn add(&mut self, topic: &Arc<str>, partition: u32, start: StartAt) {
        if let Some(followed) = self.get_mut(topic, partition) {
            return followed.seek(start);
        }
        let is = |removed: &(Key, usize)| removed.0.0 == *topic && removed.0.1 == partition;
        let in_tail = self.removed.iter().position(is);
        let tail = match in_tail {
            Some(index) => self.removed.swap_remove(index).1,
            None => self.tail_with_room(),
        };
        self.tails[tail] += 1;
        let of_topic = self.index.entry(topic.clone()).or_default();
        of_topic.insert(partition, self.all.len());
        let mut followed = Followed {
            topic: topic.clone(),
            partition,
            start: None,
            position: None,
            high_watermark: None,
            paused: false,
            parked: false,
            error: None,
            reading: None,
            resets: 0,
            tail,
            in_tail: in_tail.is_some(),
            moved: false,
            generation: None,
        };
        followed.seek(start);
        self.all.push(followed);
    }

    fn tail_with_room(&mut self) -> usize {
        let max = self.tail_partitions_max;
        let with_room = self.tails.iter().position(|&partitions| partitions < max);
        with_room.unwrap_or_else(|| {
            self.tails.push(0);
            self.tails.len() - 1
        })
    }

    pub(crate) fn remove(&mut self, topic: &str, partition: u32) {
        let Some(of_topic) = self.index.get_mut(topic) else {
            return;
        };
        let Some(index) = of_topic.remove(&partition) else {
            return;
        };
        let removed = self.all.swap_remove(index);
        if let Some(moved) = self.all.get(index)
            && let Some(of_topic) = self.index.get_mut(&moved.topic)
        {
            of_topic.insert(moved.partition, index);
        }
        self.tails[removed.tail] -= 1;
        if removed.in_tail {
            self.removed
                .push(((removed.topic, partition), removed.tail));
        }
    }

    /// A tail that is to be opened, or told something.
    pub(crate) fn tail_to_tell(&self) -> Option<usize> {
        let of_removed = self.removed.first().map(|(_, tail)| *tail);
        let untold = || self.all.iter().find(|followed| followed.is_untold());
        of_removed.or_else(|| untold().map(|followed| followed.tail))
    }

    /// What a new tail shall follow; noted as told.
    pub(crate) fn starts(&mut self, tail: usize) -> Vec<v1::TailStart> {
        self.lost_tail(tail);
        let wanted = |followed: &&mut Followed| followed.tail == tail && followed.wanted();
        let wanted = self.all.iter_mut().filter(wanted);
        wanted
            .map(|followed| {
                followed.told();
                v1::TailStart {
                    topic: followed.topic.to_string(),
                    partition: followed.partition,
                    at: followed.target(),
                }
            })
            .collect()
    }

    /// What a running tail must be told, what it follows no longer first; noted as told. The rest
    /// of what is too much for one call is for the next.
    pub(crate) fn changes(&mut self, tail: usize) -> Vec<v1::TailChange> {
        let max = self.tail_partitions_max;
        let of_tail = |removed: &mut (Key, usize)| removed.1 == tail;
        let removed = self.removed.extract_if(.., of_tail).take(max);
        let mut changes: Vec<v1::TailChange> = removed
            .map(|((topic, partition), _)| v1::TailChange {
                topic: topic.to_string(),
                partition,
                change: Some(Change::Remove(Remove {})),
            })
            .collect();
        // First those that make room.
        for wanted in [false, true] {
            let untold = |followed: &&mut Followed| {
                followed.tail == tail && followed.wanted() == wanted && followed.is_untold()
            };
            let left = max - changes.len();
            let untold = self.all.iter_mut().filter(untold).take(left);
            changes.extend(untold.filter_map(Followed::tell));
        }
        changes
    }

    /// Where a tail says that it stands.
    ///
    /// # Errors
    /// [`Error::Protocol`]: it stands elsewhere than it was told, or does not name a partition.
    pub(crate) fn confirmed(
        &mut self,
        tail: usize,
        positions: Vec<v1::TailPosition>,
    ) -> Result<(), Error> {
        for position in positions {
            let followed = self.get_mut(&position.topic, position.partition);
            if let Some(followed) = followed.filter(|followed| followed.tail == tail) {
                followed.confirmed(&position)?;
            }
        }
        match self.all.iter().find(|f| f.tail == tail && f.is_open()) {
            None => Ok(()),
            Some(open) => Err(Error::protocol(format!(
                "the tail does not say where it stands in {:?} {}",
                open.topic, open.partition
            ))),
        }
    }

    /// There is no such tail any more.
    pub(crate) fn lost_tail(&mut self, tail: usize) {
        self.removed.retain(|(_, removed)| *removed != tail);
        for followed in self.all.iter_mut().filter(|f| f.tail == tail) {
            followed.in_tail = false;
            followed.forget();
        }
    }

    /// The partition that a message of the tail is for, unless it is outdated.
    pub(crate) fn current(
        &mut self,
        topic: &str,
        partition: u32,
        generation: u64,
    ) -> Option<&mut Followed> {
        let followed = self.get_mut(topic, partition)?;
        let current = followed.wanted() && followed.generation == Some(generation);
        current.then_some(followed)
    }
}
