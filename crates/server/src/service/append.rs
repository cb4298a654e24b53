//! Append, AppendBatches.

use std::sync::Arc;

use bytes::Bytes;
use comlog_log::{AppendRequest, Appended, Durability};
use comlog_proto::v1;
use comlog_record::{BatchHeader, Offset, RecordBatch};
use tokio::sync::oneshot;

use crate::broker::Shared;
use crate::budget::Permit;
use crate::group_commit::suspended;
use crate::partition::{Append, AppendOutcome, Lane, Partition, Reply};
use crate::records;
use crate::status::ServiceError;
use crate::topic_config::{self, durability_from_proto};

/// The conditions of an append, decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conditions {
    pub(crate) durability: Durability,
    pub(crate) expected_offset: Option<Offset>,
    pub(crate) fencing_token: Option<u64>,
}

impl Conditions {
    pub(crate) fn decode(
        durability: i32,
        expected_offset: Option<i64>,
        fencing_token: Option<u64>,
    ) -> Result<Conditions, ServiceError> {
        if let Some(offset) = expected_offset.filter(|&offset| offset < 0) {
            let message = format!("expected_offset: {offset} is below 0");
            return Err(ServiceError::invalid(message));
        }
        let durability = match durability_from_proto(durability)? {
            Some(topic_config::Durability::Durable) => Durability::Durable,
            // The topic's own durability is the floor, so this asks for nothing more.
            Some(topic_config::Durability::Memory) | None => Durability::Memory,
        };
        Ok(Conditions {
            durability,
            expected_offset: expected_offset.map(Offset),
            fencing_token,
        })
    }

    pub(crate) fn request(self, batch: RecordBatch) -> AppendRequest {
        AppendRequest {
            batch,
            durability: self.durability,
            expected_offset: self.expected_offset,
            fencing_token: self.fencing_token,
            chain: None,
        }
    }
}

pub(crate) async fn append(
    shared: &Shared,
    permit: Permit,
    request: v1::AppendRequest,
) -> Result<v1::AppendResponse, ServiceError> {
    shared.check_open()?;
    let conditions = Conditions::decode(
        request.durability,
        request.expected_offset,
        request.fencing_token,
    )?;
    let compression = records::compression(request.compression)?;
    let producer = records::producer_ids(request.producer)?;
    check_records(&request.records, shared.config.append.record_bytes_max)?;
    let partition = shared
        .topics
        .partition_for_append(&request.topic, request.partition)
        .await?;
    let limits = partition.limits();
    let now = shared.clock.now();
    let batch = records::encode(request.records, now, limits, compression, producer)
        .await
        .map_err(|error| partition.explain(error))?;
    let appended = partition
        .append(conditions.request(batch), Some(permit))
        .await?;
    Ok(v1::AppendResponse {
        appended: Some(to_message(&appended)),
    })
}

/// Refuses none and too large ones.
fn check_records(records: &[v1::Record], bytes_max: u32) -> Result<(), ServiceError> {
    if records.is_empty() {
        return Err(ServiceError::invalid("records: at least one is needed"));
    }
    for (index, record) in records.iter().enumerate() {
        let bytes = record_bytes(record);
        if bytes > bytes_max as usize {
            return Err(ServiceError::new(
                v1::Reason::BatchTooLarge,
                format!(
                    "records[{index}]: {bytes} bytes, at most {bytes_max} are allowed (append.record_bytes_max)"
                ),
            ));
        }
    }
    Ok(())
}

fn record_bytes(record: &v1::Record) -> usize {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record
        .headers
        .iter()
        .map(|header| header.name.len() + len(&header.value));
    len(&record.key) + len(&record.value) + headers.sum::<usize>()
}

pub(crate) async fn append_batches(
    shared: &Shared,
    permit: Permit,
    request: v1::AppendBatchesRequest,
) -> Result<v1::AppendBatchesResponse, ServiceError> {
    shared.check_open()?;
    if request.batches.is_empty() {
        return Err(ServiceError::invalid("batches: at least one is needed"));
    }
    let conditions = Conditions::decode(
        request.durability,
        request.expected_offset,
        request.fencing_token,
    )?;
    check_count(&request.batches, shared.config.append.partition_queue_max)?;
    let partition = shared
        .topics
        .partition_for_append(&request.topic, request.partition)
        .await?;
    // Fails as a whole, not batch by batch, where no batch could be appended at all.
    partition.reader()?;
    let outcomes = append_in_order(&partition, request.batches, conditions, permit).await;
    Ok(v1::AppendBatchesResponse {
        results: outcomes.iter().map(result_message).collect(),
    })
}

/// No more batches than could wait for one partition: each has an answer of its own.
fn check_count(batches: &Bytes, count_max: u32) -> Result<(), ServiceError> {
    let mut rest = batches.clone();
    let mut count = 0;
    while skip_batch(&mut rest) {
        count += 1;
        if count > count_max {
            return Err(ServiceError::invalid(format!(
                "batches: at most {count_max} at once (append.partition_queue_max)"
            )));
        }
    }
    Ok(())
}

/// Appends batches that stand back to back; `conditions.expected_offset` is for the first. One
/// outcome each, in order: behind the first that is refused, all are suspended.
async fn append_in_order(
    partition: &Partition,
    mut batches: Bytes,
    mut conditions: Conditions,
    permit: Permit,
) -> Vec<AppendOutcome> {
    let lane = Arc::new(Lane::default());
    let limits = partition.limits();
    let mut permit = Some(permit);
    let mut answers = Vec::new();
    let mut refusal = None;
    while !batches.is_empty() {
        let batch = match RecordBatch::decode(&mut batches, &limits) {
            Ok(batch) => batch,
            Err(error) => {
                refusal = Some(partition.explain(error));
                skip_batch(&mut batches);
                break;
            }
        };
        let (reply, answer) = oneshot::channel();
        // The last batch brings the bytes of the whole request back.
        let budget = if batches.is_empty() {
            permit.take()
        } else {
            None
        };
        let sent = partition.try_send(Append {
            request: Ok(conditions.request(batch)),
            lane: Some(lane.clone()),
            resume: false,
            reply: Reply::Once(reply),
            budget,
        });
        if let Err(error) = sent {
            refusal = Some(error);
            break;
        }
        conditions.expected_offset = None;
        answers.push(answer);
    }
    let mut outcomes = Vec::with_capacity(answers.len());
    for answer in answers {
        let outcome = answer
            .await
            .unwrap_or_else(|_| Err(ServiceError::shutting_down()));
        outcomes.push(outcome.map_err(|error| partition.explain(error)));
    }
    if let Some(refusal) = refusal {
        push_refused(&mut outcomes, refusal, batches);
    }
    outcomes
}

/// The outcomes from the batch on that was refused before it was queued; `rest` is behind it.
fn push_refused(outcomes: &mut Vec<AppendOutcome>, refusal: ServiceError, mut rest: Bytes) {
    let earlier_failed = outcomes.iter().any(Result::is_err);
    outcomes.push(Err(if earlier_failed { suspended() } else { refusal }));
    while skip_batch(&mut rest) {
        outcomes.push(Err(suspended()));
    }
}

/// Goes over one batch by its declared length; `false` at the end. Where no length can be trusted
/// what is left counts as one batch.
fn skip_batch(rest: &mut Bytes) -> bool {
    let declared = BatchHeader::decode(rest).map_or(usize::MAX, |header| header.total_len());
    let skipped = rest.split_to(declared.min(rest.len()));
    !skipped.is_empty()
}

pub(crate) fn to_message(appended: &Appended) -> v1::Appended {
    v1::Appended {
        base_offset: appended.offsets.start.0,
        next_offset: appended.offsets.end.0,
        append_time_ms: appended.append_time.map(|time| time.0),
        duplicate: appended.duplicate,
        durable: appended.durable,
    }
}

pub(crate) fn result_message(outcome: &AppendOutcome) -> v1::AppendResult {
    use v1::append_result::Result as Either;
    let result = match outcome {
        Ok(appended) => Either::Appended(to_message(appended)),
        Err(error) => Either::Error(error.to_message()),
    };
    v1::AppendResult {
        result: Some(result),
    }
}
