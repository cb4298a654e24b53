//! Group commit: many batches, one write, at most one sync.
//!
//! Batches of a group are admitted in order, each seeing those staged before it, and written
//! together. What was staged can be taken back until the write returned.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use comlog_record::{
    BATCH_HEADER_LEN, BatchHeader, DecodeError, Offset, OffsetRange, RecordBatch, Timestamp,
    TimestampType,
};
use comlog_storage::StorageError;

use crate::producer_state::{Sequenced, Undo};
use crate::{AppendError, AppendRequest, Appended, Durability, Log, Validation};

/// Bodies below this are copied into the group's buffer: they would pin a receive buffer many
/// times their size. Larger ones are written from where they are.
const COPIED_BODY_MAX: usize = 4 << 10;
/// The group's buffer is allocated in pieces of this many bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Batches that were admitted and not yet written.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    chunks: Vec<Bytes>,
    buffer: BytesMut,
    bytes: u64,
    headers: Vec<BatchHeader>,
    undo: Vec<Undo>,
    /// Whether any of them asks to be durable.
    sync: bool,
}

impl Staged {
    fn push(&mut self, batch: &RecordBatch) {
        let copied = match batch.body().len() {
            len if len < COPIED_BODY_MAX => len,
            _ => 0,
        };
        let room = BATCH_HEADER_LEN + copied;
        if self.buffer.capacity() - self.buffer.len() < room {
            self.close_buffer();
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES);
        }
        self.buffer.extend_from_slice(&batch.header().encode());
        if copied > 0 {
            self.buffer.extend_from_slice(batch.body());
        } else {
            self.close_buffer();
            self.chunks.push(batch.body().clone());
        }
        self.bytes += batch.total_len() as u64;
        self.headers.push(*batch.header());
    }

    fn close_buffer(&mut self) {
        if !self.buffer.is_empty() {
            self.chunks.push(self.buffer.split().freeze());
        }
    }

    fn clear(&mut self) {
        self.chunks.clear();
        self.buffer.clear();
        self.bytes = 0;
        self.headers.clear();
        self.undo.clear();
        self.sync = false;
    }
}

/// What becomes of a request at its turn.
enum Admission {
    Append,
    Duplicate(OffsetRange, Timestamp),
}

impl Log {
    /// Appends a group; see [`Log::append`].
    pub(crate) async fn append_group(
        &mut self,
        mut group: Vec<AppendRequest>,
    ) -> Vec<Result<Appended, AppendError>> {
        let mut answers = Vec::with_capacity(group.len());
        let bytes = group.iter().map(|request| request.batch.total_len() as u64);
        let mut outcome = self.ready_to_append(bytes.sum()).await;
        let now = self.clock.now();
        let mut refused_chains = Vec::new();
        for request in &mut group {
            if outcome.is_err() {
                break;
            }
            if request
                .chain
                .is_some_and(|chain| refused_chains.contains(&chain))
            {
                answers.push(Err(AppendError::Suspended));
                continue;
            }
            match self.admit(request) {
                Ok(Admission::Append) => {
                    outcome = self.make_room(request.batch.total_len() as u64).await;
                    if outcome.is_ok() {
                        answers.push(Ok(self.stage(request, now)));
                    }
                }
                Ok(Admission::Duplicate(offsets, timestamp)) => {
                    answers.push(Ok(self.duplicate(offsets, timestamp)));
                }
                Err(refused) => {
                    refused_chains.extend(request.chain);
                    answers.push(Err(refused));
                }
            }
        }
        if outcome.is_ok() {
            outcome = self.flush().await;
        }
        if let Err(error) = outcome {
            self.refuse_unwritten(&mut answers, group.len(), &error);
        }
        self.reach_levels(&group, &mut answers).await;
        answers
    }

    fn admit(&self, request: &AppendRequest) -> Result<Admission, AppendError> {
        let header = request.batch.header();
        header.check_from_client(&self.config.limits)?;
        self.check_token(request.fencing_token)?;
        let stamped = header.timestamp_type() == TimestampType::LogAppendTime;
        if stamped && self.config.timestamp_type == TimestampType::CreateTime {
            return Err(DecodeError::Invalid("clients may not stamp the append time").into());
        }
        if self.config.validation == Validation::Full {
            request.batch.check_from_client(&self.config.limits)?;
        } else {
            request.batch.check_record_lengths(&self.config.limits)?;
        }
        if header.producer_id >= 0
            && let Sequenced::Duplicate(offsets, timestamp) = self.state.producers.check(header)?
        {
            return Ok(Admission::Duplicate(offsets, timestamp));
        }
        if let Some(expected) = request.expected_offset
            && expected != self.next_offset
        {
            return Err(AppendError::UnexpectedOffset {
                expected,
                actual: self.next_offset,
            });
        }
        let count = header.record_count as u64;
        if self.next_offset.checked_add(count).is_none() {
            return Err(DecodeError::Invalid("offsets do not fit 63 bits").into());
        }
        Ok(Admission::Append)
    }

    fn check_token(&self, given: Option<u64>) -> Result<(), AppendError> {
        let current = self.state.fencing_token;
        let holds = match given {
            Some(given) => given == current,
            None => current == 0,
        };
        if holds {
            Ok(())
        } else {
            Err(AppendError::Fenced { given, current })
        }
    }

    /// Writes what is staged, or rolls, if another `len` bytes would not fit behind it.
    async fn make_room(&mut self, len: u64) -> Result<(), AppendError> {
        let segment_len = self.state.point.position + self.staged.bytes;
        if segment_len > 0 && segment_len + len > self.config.segment_bytes_max {
            self.flush().await?;
            return self.roll_segment().await;
        }
        if self.staged.bytes + len > self.config.group_bytes_limit() as u64 {
            self.flush().await?;
        }
        Ok(())
    }

    /// Gives the batch its offsets.
    fn stage(&mut self, request: &mut AppendRequest, now: Timestamp) -> Appended {
        let batch = &mut request.batch;
        batch.assign(self.next_offset, self.state.epochs.current());
        let append_time = self.stamps_append_time().then_some(now);
        if append_time.is_some() {
            batch.stamp_log_append_time(now);
        }
        let header = *batch.header();
        if header.producer_id >= 0 {
            self.staged
                .undo
                .push(self.state.producers.record(&header, now));
        }
        self.staged.push(batch);
        self.staged.sync |= self.level(request) == Durability::Durable;
        self.next_offset = header.next_offset();
        Appended {
            offsets: header.offsets(),
            append_time,
            duplicate: false,
            durable: false,
        }
    }

    fn duplicate(&self, offsets: OffsetRange, timestamp: Timestamp) -> Appended {
        Appended {
            offsets,
            append_time: self.stamps_append_time().then_some(timestamp),
            duplicate: true,
            durable: false,
        }
    }

    fn stamps_append_time(&self) -> bool {
        self.config.timestamp_type == TimestampType::LogAppendTime
    }

    fn level(&self, request: &AppendRequest) -> Durability {
        request.durability.max(self.config.durability)
    }

    /// Writes what is staged.
    async fn flush(&mut self) -> Result<(), AppendError> {
        if self.staged.headers.is_empty() {
            return Ok(());
        }
        self.staged.close_buffer();
        let position = self.state.point.position + self.staged.bytes;
        let reached = self.reached(position, self.next_offset, self.staged.sync);
        let Some(writer) = self.writer.as_mut() else {
            return Err(AppendError::Closed);
        };
        writer.mark_next(reached.slot(), reached.encode(self.config.owner));
        let written = if self.staged.sync {
            writer.append_and_sync(&self.staged.chunks).await
        } else {
            writer.append(&self.staged.chunks).await
        };
        match written {
            Ok(()) => {
                self.mark_number = reached.number;
                self.note_written();
                Ok(())
            }
            Err(StorageError::NoSpace { .. }) => {
                self.unstage();
                Err(AppendError::NoSpace)
            }
            Err(error) => {
                self.unstage();
                Err(AppendError::Failed(self.fail(error)))
            }
        }
    }

    fn note_written(&mut self) {
        let first = self.state.point.position;
        let interval = self.config.index_interval_bytes;
        self.active.note(&self.staged.headers, first, interval);
        if first == 0 {
            self.state.active_since = Some(self.clock.now());
        }
        self.state.point.position = first + self.staged.bytes;
        self.state.point.offset = self.next_offset;
        if self.staged.sync {
            self.durable = self.next_offset;
            self.durable_position = self.state.point.position;
        }
        self.since_checkpoint += self.staged.bytes;
        self.staged.clear();
        self.state.producers.bound(self.config.producers_max);
        self.publish();
    }

    /// Takes back what was staged.
    fn unstage(&mut self) {
        while let Some(undo) = self.staged.undo.pop() {
            self.state.producers.undo(undo);
        }
        self.next_offset = self.state.point.offset;
        self.staged.clear();
    }

    /// After a failure: answers for batches that were staged or never had their turn.
    fn refuse_unwritten(
        &mut self,
        answers: &mut Vec<Result<Appended, AppendError>>,
        requests: usize,
        error: &AppendError,
    ) {
        self.unstage();
        let written = self.state.point.offset;
        for answer in answers.iter_mut() {
            if matches!(answer, Ok(appended) if appended.offsets.end > written) {
                *answer = Err(error.clone());
            }
        }
        answers.resize(requests, Err(error.clone()));
    }

    /// Syncs if a batch that is already written (a retry's original, or one of a group that was
    /// split) is not yet as safe as was asked, and says how safe each one is.
    async fn reach_levels(
        &mut self,
        group: &[AppendRequest],
        answers: &mut [Result<Appended, AppendError>],
    ) {
        let wanted = |log: &Log, request: &AppendRequest, end: Offset| {
            log.level(request) == Durability::Durable && end > log.durable
        };
        let late = group.iter().zip(answers.iter()).any(
            |(request, answer)| matches!(answer, Ok(at) if wanted(self, request, at.offsets.end)),
        );
        let synced = if late {
            self.sync_written().await
        } else {
            Ok(())
        };
        for (request, answer) in group.iter().zip(answers) {
            let Ok(appended) = answer else { continue };
            appended.durable = appended.offsets.end <= self.durable;
            if let Err(error) = &synced
                && wanted(self, request, appended.offsets.end)
            {
                *answer = Err(AppendError::Failed(Arc::clone(error)));
            }
        }
    }
}
