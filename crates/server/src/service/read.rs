//! Read, ListOffsets.

use std::time::Duration;

use comlog_proto::v1;
use comlog_record::Offset;
use tokio::time::Instant;

use crate::broker::Shared;
use crate::budget::Charge;
use crate::fetch;
use crate::partition::Partition;
use crate::status::ServiceError;

pub(crate) async fn read(
    shared: &Shared,
    answer: &Charge,
    request: v1::ReadRequest,
) -> Result<v1::ReadResponse, ServiceError> {
    shared.check_open()?;
    let config = &shared.config.fetch;
    let from = fetch::check_offset(request.offset)?;
    let form = fetch::form(request.form)?;
    let partition = shared.topics.partition(&request.topic, request.partition)?;
    let room = answer.budgets().room();
    let bytes_max = fetch::clamp_bytes(request.max_bytes, config.fetch_bytes_max);
    let bytes_max = fetch::bytes_for(room, bytes_max);
    let bytes_min = (request.min_bytes as usize).clamp(1, bytes_max);
    let wait = Duration::from_millis(u64::from(request.max_wait_ms.min(config.wait_ms_max)));
    let deadline = Instant::now() + wait;
    let fetched = loop {
        let visible = partition.reader()?.positions().high_watermark;
        let fetched = fetch::batches(&partition, from, bytes_max).await?;
        // Where it stopped before the end (of a segment, say) there is more than it took.
        let enough = fetched.len >= bytes_min || fetched.offsets.end < visible;
        if enough || !wait_for_more(shared, &partition, fetched.offsets.end, deadline).await? {
            break fetched;
        }
    };
    let bounds = fetch::record_bounds(shared, request.max_bytes, bytes_max);
    let message = fetch::to_message(&partition, fetched, from, form, &bounds, shared).await?;
    let for_room = Duration::from_millis(config.inflight_wait_ms.into());
    let bytes = fetch::answer_bytes(&message);
    answer.put(answer.budgets().take(bytes, for_room).await?);
    Ok(v1::ReadResponse {
        fetched: Some(message),
    })
}

/// Waits until something at `end` is visible; `false` when the time is over first.
async fn wait_for_more(
    shared: &Shared,
    partition: &Partition,
    end: Offset,
    deadline: Instant,
) -> Result<bool, ServiceError> {
    if Instant::now() >= deadline {
        return Ok(false);
    }
    tokio::select! {
        visible = partition.reader()?.wait_visible(end) => {
            visible.map(|_| true).map_err(|error| partition.explain(error))
        }
        () = shared.closing.cancelled() => Err(ServiceError::shutting_down()),
        () = tokio::time::sleep_until(deadline) => Ok(false),
    }
}

pub(crate) async fn list_offsets(
    shared: &Shared,
    request: v1::ListOffsetsRequest,
) -> Result<v1::ListOffsetsResponse, ServiceError> {
    let mut offsets = Vec::with_capacity(request.queries.len());
    for query in request.queries {
        let partition = shared.topics.partition(&query.topic, query.partition)?;
        let (offset, timestamp) = fetch::resolve(&partition, query.at).await?;
        let positions = partition.reader()?.positions();
        offsets.push(v1::OffsetFound {
            topic: query.topic,
            partition: query.partition,
            offset: offset.0,
            timestamp_ms: timestamp.map(|timestamp| timestamp.0),
            log_start_offset: positions.start.0,
            high_watermark: positions.high_watermark.0,
        });
    }
    Ok(v1::ListOffsetsResponse { offsets })
}
