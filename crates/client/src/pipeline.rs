//! The batches of one partition between gathered and acknowledged, in order.
//!
//! Pure: what to send is asked for, what came back is told, time is passed in.
//!
//! Every partition has a producer id of its own, so that raising its epoch touches no other. At
//! most sixteen batches are under way, as many as the server remembers, so that each of them is
//! recognised when it is sent again. A batch whose outcome is open keeps its sequence until the
//! server either acknowledges it or answers OUT_OF_ORDER_SEQUENCE: only the latter proves that it
//! and all behind it are not in the log, and only then they are numbered anew, from 0 under a
//! raised epoch, which also shuts out any late copy of what failed before.
//!
//! A batch that is larger than the topic allows is split. The pieces take its place and its
//! sequence numbers: should the whole be in the log after all, they are answered as duplicates.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use comlog_proto::v1;
use comlog_record::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, Compression, Offset, ProducerIds, Timestamp,
};

use crate::accumulator::{Gathered, Ready};
use crate::delivery::{Completer, Delivered};
use crate::retry::{BatchVerdict, judge_batch};
use crate::split::{Piece, split};
use crate::{Error, Result, ServerError, answer};

/// Sequences count from 0 to 2^31 - 1 and start again.
const SEQUENCES: i64 = 1 << 31;
/// With so many batches under way only full ones are added: what is not full gathers on.
const IN_FLIGHT_OPEN_MAX: usize = 5;
/// With so many bytes under way, and [`IN_FLIGHT_OPEN_MAX`] batches, none is added.
const IN_FLIGHT_BYTES_MAX: usize = 4 << 20;

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    /// The gathered batch that is finished with this one, and what that counts towards the
    /// producer's buffer; none for a piece that is not the last.
    pub(crate) finishes: Option<(u64, usize)>,
    pub(crate) records: u32,
    pub(crate) completer: Completer,
    pub(crate) created: Instant,
    encoded: Bytes,
    expected_offset: Option<i64>,
    /// Id of the request that carries it, and when that was made.
    sent: Option<(u64, Instant)>,
    /// A connection was lost while it was on the stream: it may be in the log.
    doubtful: bool,
}

/// What every pipeline of a producer keeps to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) idempotent: bool,
    /// Most batches on the stream.
    pub(crate) in_flight_max: usize,
    /// Whether to wait for a failed partition.
    pub(crate) retry_failed: bool,
}

impl Outgoing {
    /// The same records in smaller batches, which are together what this was.
    fn cut(mut self, pieces: Vec<Piece>) -> Vec<Outgoing> {
        let mut cut = Vec::with_capacity(pieces.len());
        let finishes = self.finishes.take();
        for piece in pieces {
            let rest = self.completer.split_off(piece.records);
            let landing = self.expected_offset;
            cut.push(Outgoing {
                topic: self.topic.clone(),
                finishes: None,
                records: piece.records,
                completer: std::mem::replace(&mut self.completer, rest),
                encoded: piece.encoded,
                expected_offset: landing,
                sent: None,
                doubtful: false,
                ..self
            });
            let behind = |offset: i64| offset.saturating_add(i64::from(piece.records));
            self.expected_offset = landing.map(behind);
        }
        if let Some(last) = cut.last_mut() {
            last.finishes = finishes;
        }
        cut
    }

    /// Whether it is on the stream.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent.is_some()
    }
}

/// Who a partition's batches come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The producer is not idempotent.
    None,
    /// To be asked for; with the id and epoch to raise, if any.
    Wanted(Option<(i64, i16)>),
    /// Asked for.
    Requested(Option<(i64, i16)>),
    /// Given.
    Known(i64, i16),
}

/// A batch is done with.
pub(crate) type Finished = (Outgoing, Result<Delivered>);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Pipeline {
    topic: Arc<str>,
    partition: u32,
    rules: Rules,
    pub(crate) identity: Identity,
    pub(crate) fencing_token: Option<u64>,
    /// The largest batch that the topic takes, as far as is known.
    pub(crate) batch_bytes_max: usize,
    next_sequence: i32,
    unacked: VecDeque<Outgoing>,
    /// How many of them, from the front, are on the stream.
    sent: usize,
    /// The next request must end the suspension of this partition.
    resume: bool,
    /// Failures in a row, and what the last one was.
    failures: u32,
    last_error: Option<Error>,
    retry_at: Option<Instant>,
    /// The front was numbered anew since the last acknowledgement.
    renumbered: bool,
}

impl Pipeline {
    pub(crate) fn new(topic: Arc<str>, partition: u32, rules: Rules) -> Pipeline {
        Pipeline {
            topic,
            partition,
            rules,
            batch_bytes_max: usize::MAX,
            identity: if rules.idempotent {
                Identity::Wanted(None)
            } else {
                Identity::None
            },
            fencing_token: None,
            next_sequence: 0,
            unacked: VecDeque::new(),
            sent: 0,
            resume: false,
            failures: 0,
            last_error: None,
            retry_at: None,
            renumbered: false,
        }
    }

    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unacked.is_empty()
    }

    /// Which gathered batch may join those under way; `None` when there is no room.
    pub(crate) fn room(&self) -> Option<Ready> {
        let in_flight_max = self.rules.in_flight_max;
        let bytes = || self.unacked.iter().map(|outgoing| outgoing.encoded.len());
        match self.unacked.len() {
            under_way if under_way >= in_flight_max => None,
            0 => Some(Ready::Any),
            under_way if under_way < IN_FLIGHT_OPEN_MAX => Some(Ready::Due),
            _ if bytes().sum::<usize>() < IN_FLIGHT_BYTES_MAX => Some(Ready::Full),
            _ => None,
        }
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    /// Whether batches can be encoded: the producer id is known, or none is needed.
    pub(crate) fn can_encode(&self) -> bool {
        matches!(self.identity, Identity::None | Identity::Known(..))
    }

    /// Encodes a batch behind the others.
    ///
    /// # Errors
    /// The codec failed: the batch, finished.
    pub(crate) fn encode(
        &mut self,
        gathered: Gathered,
        compression: Compression,
    ) -> Result<(), Box<Finished>> {
        let producer = match self.identity {
            Identity::Known(producer_id, producer_epoch) => Some(ProducerIds {
                producer_id,
                producer_epoch,
                base_sequence: self.next_sequence,
            }),
            _ => None,
        };
        let (mut outgoing, builder) = self.split(gathered);
        match builder.encode(compression, producer) {
            Ok(encoded) => {
                outgoing.encoded = encoded;
                self.next_sequence = advance(self.next_sequence, outgoing.records);
                self.unacked.push_back(outgoing);
                Ok(())
            }
            Err(error) => Err(Box::new((outgoing, Err(Error::Encode(error))))),
        }
    }

    /// A batch that will not be sent, so that it can be finished.
    pub(crate) fn unencoded(&self, gathered: Gathered) -> Outgoing {
        self.split(gathered).0
    }

    fn split(&self, gathered: Gathered) -> (Outgoing, BatchBuilder) {
        let outgoing = Outgoing {
            topic: self.topic.clone(),
            partition: self.partition,
            finishes: Some((gathered.number, gathered.bytes())),
            records: gathered.builder.len() as u32,
            completer: gathered.completer,
            created: gathered.created,
            encoded: Bytes::new(),
            expected_offset: gathered.expected_offset,
            sent: None,
            doubtful: false,
        };
        (outgoing, gathered.builder)
    }

    /// The next request to put on the stream, under `id`; `None` when everything is, or nothing
    /// may be yet.
    pub(crate) fn next_request(
        &mut self,
        id: u64,
        now: Instant,
        durability: v1::Durability,
    ) -> Option<v1::AppendStreamRequest> {
        if !self.can_encode() || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        // Pieces may be more than are remembered on the other side.
        if self.sent >= self.rules.in_flight_max {
            return None;
        }
        self.split_large();
        let outgoing = self.unacked.get_mut(self.sent)?;
        outgoing.sent = Some((id, now));
        self.sent += 1;
        self.retry_at = None;
        Some(v1::AppendStreamRequest {
            id,
            topic: self.topic.to_string(),
            partition: self.partition,
            batch: outgoing.encoded.clone(),
            durability: durability as i32,
            expected_offset: outgoing.expected_offset,
            fencing_token: self.fencing_token,
            resume: std::mem::take(&mut self.resume),
        })
    }

    /// When the oldest request was made that has no answer.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        let (_, at) = self.unacked.front()?.sent?;
        Some(at)
    }

    /// When what has failed may be sent again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.sent < self.unacked.len())
    }

    /// When the oldest batch was begun.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.unacked.front().map(|outgoing| outgoing.created)
    }

    /// Takes in an answer. One to a request that does not count any more changes nothing.
    /// `retry_at` is for when to try again, should that be the verdict.
    pub(crate) fn answer(
        &mut self,
        id: u64,
        result: Result<v1::Appended, Error>,
        retry_at: Instant,
    ) -> Option<Finished> {
        let front = self.unacked.front()?;
        if front.sent.is_none_or(|(sent, _)| sent != id) {
            return None;
        }
        match result {
            Ok(appended) => {
                self.failures = 0;
                self.last_error = None;
                self.renumbered = false;
                let records = front.records;
                let delivered = answer::appended(records, &appended);
                let delivered = delivered.map(|()| self.delivered(&appended));
                self.pop().map(|outgoing| (outgoing, delivered))
            }
            Err(error) => self.refused(error, retry_at),
        }
    }

    fn delivered(&self, appended: &v1::Appended) -> Delivered {
        Delivered {
            partition: self.partition,
            offset: Some(Offset(appended.base_offset)),
            append_time: appended.append_time_ms.map(Timestamp),
            durable: appended.durable,
        }
    }

    fn refused(&mut self, error: Error, retry_at: Instant) -> Option<Finished> {
        let verdict = self.judge(&error);
        let finished = match verdict {
            BatchVerdict::Again => {
                self.rewind();
                self.retry_at = Some(retry_at);
                self.failures = self.failures.saturating_add(1);
                self.last_error = Some(error);
                None
            }
            BatchVerdict::Renumber if !self.renumbered => {
                self.renumbered = true;
                self.last_error = Some(error);
                self.want_raised_epoch();
                None
            }
            BatchVerdict::InLog => {
                let delivered = Delivered {
                    offset: None,
                    ..self.delivered(&v1::Appended::default())
                };
                self.pop().map(|outgoing| (outgoing, Ok(delivered)))
            }
            BatchVerdict::Split => {
                self.last_error = Some(error);
                None
            }
            BatchVerdict::Renumber | BatchVerdict::Fail => {
                if error.reason() == v1::Reason::ProducerFenced {
                    self.identity = Identity::Wanted(None);
                }
                self.renumbered = false;
                self.pop().map(|outgoing| (outgoing, Err(error)))
            }
        };
        // The server answers whatever else is under way with SUSPENDED.
        self.rewind();
        self.resume = true;
        finished
    }

    /// What to do with the first batch, which was refused; a split has happened.
    fn judge(&mut self, error: &Error) -> BatchVerdict {
        let Some(refusal) = error.server_error() else {
            return BatchVerdict::Fail;
        };
        match judge_batch(refusal, self.rules.idempotent) {
            BatchVerdict::Split if !self.split_at(0) => BatchVerdict::Fail,
            BatchVerdict::Fail if self.waits_for_restart(refusal) => BatchVerdict::Again,
            verdict => verdict,
        }
    }

    fn waits_for_restart(&self, refusal: &ServerError) -> bool {
        let waits = self.rules.retry_failed && self.rules.idempotent;
        waits && refusal.reason == v1::Reason::PartitionFailed
    }

    /// Splits what would be sent next, if that is known to be too large. What may be in the log
    /// goes as it is, so that it is recognised.
    fn split_large(&mut self) {
        let next = self.unacked.get(self.sent);
        let too_large = next.is_some_and(|next| {
            next.records > 1 && !next.doubtful && next.encoded.len() > self.batch_bytes_max
        });
        if too_large {
            self.split_at(self.sent);
        }
    }

    /// Puts the pieces of a batch in its place; `false` when it cannot be split.
    fn split_at(&mut self, index: usize) -> bool {
        let Some(whole) = self.unacked.get(index).filter(|whole| whole.records > 1) else {
            return false;
        };
        let pieces = match split(&whole.encoded, self.batch_bytes_max) {
            Ok(pieces) => pieces,
            Err(error) => {
                tracing::error!(%error, "cannot split a batch");
                return false;
            }
        };
        let Some(whole) = self.unacked.remove(index) else {
            return false;
        };
        for (piece, at) in whole.cut(pieces).into_iter().zip(index..) {
            self.unacked.insert(at, piece);
        }
        true
    }

    fn want_raised_epoch(&mut self) {
        if let Identity::Known(id, epoch) = self.identity {
            self.identity = Identity::Wanted(Some((id, epoch)));
        }
    }

    /// The producer id asked for: everything not acknowledged is numbered from 0 under it.
    pub(crate) fn identify(&mut self, id: i64, epoch: i16) {
        self.identity = Identity::Known(id, epoch);
        let mut sequence = 0;
        for outgoing in &mut self.unacked {
            outgoing.encoded = renumber(&outgoing.encoded, id, epoch, sequence);
            outgoing.doubtful = false;
            sequence = advance(sequence, outgoing.records);
        }
        self.next_sequence = sequence;
    }

    /// The stream has ended: everything not acknowledged goes to the next one.
    pub(crate) fn disconnected(&mut self, error: &Error) {
        if self.sent > 0 {
            self.last_error = Some(error.clone());
        }
        for outgoing in self.unacked.iter_mut().take(self.sent) {
            outgoing.doubtful = true;
        }
        self.rewind();
        self.resume = false;
    }

    /// Takes what was begun at or before `created`: it has waited too long.
    pub(crate) fn take_expired(&mut self, created: Instant) -> Vec<Finished> {
        let mut expired = Vec::new();
        while self.oldest().is_some_and(|begun| begun <= created) {
            let error = Error::DeliveryTimeout(self.last_error.clone().map(Box::new));
            expired.extend(self.pop().map(|outgoing| (outgoing, Err(error))));
        }
        expired
    }

    /// Takes everything, because of `error`.
    pub(crate) fn take_all(&mut self, error: &Error) -> Vec<Finished> {
        self.sent = 0;
        let all = self.unacked.drain(..);
        all.map(|outgoing| (outgoing, Err(error.clone()))).collect()
    }

    fn pop(&mut self) -> Option<Outgoing> {
        let outgoing = self.unacked.pop_front()?;
        self.sent = self.sent.saturating_sub(1);
        Some(outgoing)
    }

    fn rewind(&mut self) {
        self.sent = 0;
        for outgoing in &mut self.unacked {
            outgoing.sent = None;
        }
    }
}

/// The same batch from another producer id or epoch.
fn renumber(encoded: &Bytes, id: i64, epoch: i16, sequence: i32) -> Bytes {
    let Ok(mut header) = BatchHeader::decode(encoded) else {
        return encoded.clone();
    };
    let body = encoded.slice(BATCH_HEADER_LEN..);
    header.producer_id = id;
    header.producer_epoch = epoch;
    header.base_sequence = sequence;
    header.crc = header.compute_crc(std::slice::from_ref(&body));
    let mut out = BytesMut::with_capacity(encoded.len());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&body);
    out.freeze()
}

pub(crate) fn advance(sequence: i32, records: u32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) % SEQUENCES) as i32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::accumulator::{Accumulator, Bounds, RecordParts};

    fn gathered(value_bytes: usize) -> Gathered {
        let mut accumulator = Accumulator::new(Bounds {
            batch_bytes: 1,
            batch_records_max: 1,
            linger: Duration::ZERO,
            buffer_bytes_max: 8 << 20,
            record_bytes_max: 2 << 20,
        });
        let queue = accumulator.add_queue();
        let now = Instant::now();
        let value = vec![b'x'; value_bytes];
        let parts = RecordParts {
            timestamp: Timestamp(0),
            key: None,
            value: Some(&value),
            headers: &[],
        };
        accumulator.push(queue, || now, None, &parts).unwrap();
        accumulator.take(queue, now, Ready::Any).unwrap()
    }

    /// What there is room for with each number of batches of `value_bytes` under way, from 0 on.
    fn rooms(value_bytes: usize, in_flight_max: usize) -> Vec<Ready> {
        let rules = Rules {
            idempotent: false,
            in_flight_max,
            retry_failed: false,
        };
        let mut pipeline = Pipeline::new(Arc::from("t"), 0, rules);
        let mut rooms = Vec::new();
        while let Some(ready) = pipeline.room() {
            rooms.push(ready);
            let batch = gathered(value_bytes);
            assert!(pipeline.encode(batch, Compression::None).is_ok());
        }
        rooms
    }

    #[test]
    fn small_full_batches_go_deep_and_large_ones_do_not() {
        let shallow = [Ready::Any, Ready::Due, Ready::Due, Ready::Due, Ready::Due];
        assert_eq!(rooms(1 << 20, 16), shallow, "5 MiB are more than 4");
        assert_eq!(rooms(10, 3), shallow[..3]);
        let deep = rooms(10, 16);
        assert_eq!(deep[..5], shallow);
        assert_eq!(deep[5..], [Ready::Full; 11]);
    }
}
