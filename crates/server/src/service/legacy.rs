//! `api.ComLogRpc`: the original's API, onto partition 0 of the default topic.

use std::sync::Arc;

use bytes::Bytes;
use comlog_log::AppendRequest;
use comlog_proto::api::{self, batch_append_resp::RespWithOrder, com_log_rpc_server::ComLogRpc};
use comlog_proto::v1::{self, Reason};
use comlog_record::{BatchBuilder, Compression, EncodeError, Offset, OffsetRange, RecordBatch};
use futures_util::stream;
use tokio::sync::oneshot;
use tonic::{Extensions, Request, Response, Status};

use super::BoxStream;
use super::metered::Call;
use crate::broker::Shared;
use crate::budget::Permit;
use crate::fetch;
use crate::partition::{Append, Lane, Partition, Reply};
use crate::status::ServiceError;
use crate::unpack::{self, Bounds};

/// The partition of the default topic.
const PARTITION: u32 = 0;
/// Reads the newest record.
const NEWEST: i64 = -1;
/// What the original stored beside a record's bytes, counted in its answers.
const STORED_OVERHEAD: i64 = 8;

/// The service over one broker.
pub(crate) struct LegacyApi(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl ComLogRpc for LegacyApi {
    type StreamBatchAppendStream = BoxStream<api::StreamAppendRecordResp>;

    async fn append(
        &self,
        request: Request<api::Record>,
    ) -> Result<Response<api::AppendRecordResp>, Status> {
        let permit = self.permit(request.extensions());
        let values = vec![request.into_inner().data];
        let mut appended = self.append_values(permit, values).await?;
        let nothing = || ServiceError::internal("the append was not answered");
        Ok(Response::new(appended.pop().ok_or_else(nothing)??))
    }

    async fn batch_append(
        &self,
        request: Request<api::BatchRecords>,
    ) -> Result<Response<api::BatchAppendResp>, Status> {
        let permit = self.permit(request.extensions());
        let values = values(request.into_inner());
        let appended = self.append_values(permit, values).await?;
        let with_order = |(index, resp): (i64, Result<_, ServiceError>)| {
            Ok(RespWithOrder {
                resp: Some(resp?),
                index,
            })
        };
        let response = (0..).zip(appended).map(with_order);
        let response = response.collect::<Result<Vec<_>, ServiceError>>()?;
        Ok(Response::new(api::BatchAppendResp { response }))
    }

    async fn stream_batch_append(
        &self,
        request: Request<api::BatchRecords>,
    ) -> Result<Response<Self::StreamBatchAppendStream>, Status> {
        let permit = self.permit(request.extensions());
        let values = values(request.into_inner());
        let appended = self.append_values(permit, values).await?;
        let one = |(index, outcome): (i64, Result<_, ServiceError>)| {
            let (resp, error_msg) = match outcome {
                Ok(resp) => (Some(resp), String::new()),
                Err(error) => (None, error.message),
            };
            Ok(api::StreamAppendRecordResp {
                resp,
                index,
                error_msg,
            })
        };
        let answers = (0..).zip(appended).map(one);
        Ok(Response::new(Box::pin(stream::iter(answers))))
    }

    async fn read(
        &self,
        request: Request<api::Offset>,
    ) -> Result<Response<api::ReadRecordResp>, Status> {
        self.0.check_open()?;
        let partition = self.partition()?;
        let bounds = fetch::record_bounds(&self.0, 0, 1);
        let record = match request.into_inner().value {
            NEWEST => read_newest(&partition, &bounds).await?,
            offset => read_at(&partition, fetch::check_offset(offset)?, &bounds).await?,
        };
        let record = record.value.unwrap_or_default();
        let nbr_of_read_bytes = record_bytes(&record);
        Ok(Response::new(api::ReadRecordResp {
            record,
            nbr_of_read_bytes,
        }))
    }

    async fn flush(&self, _: Request<api::IndexFlushSyncType>) -> Result<Response<()>, Status> {
        self.0.check_open()?;
        self.partition()?.sync().await?;
        Ok(Response::new(()))
    }

    async fn get_meta_data(&self, _: Request<()>) -> Result<Response<api::LogMetaData>, Status> {
        self.0.check_open()?;
        let partition = self.partition()?;
        let reader = partition.reader()?;
        let positions = reader.positions();
        let unsigned = |offset: i64| u64::try_from(offset).unwrap_or(0);
        Ok(Response::new(api::LogMetaData {
            segments_size: i64::try_from(reader.size_bytes()).unwrap_or(i64::MAX),
            oldest_offset: unsigned(positions.start.0),
            last_offset: unsigned(positions.high_watermark.0 - 1),
        }))
    }

    async fn collect_segments(
        &self,
        request: Request<api::CollectOffset>,
    ) -> Result<Response<()>, Status> {
        self.0.check_open()?;
        let offset = i64::try_from(request.into_inner().value).unwrap_or(i64::MAX);
        let partition = self.partition()?;
        let segments = partition.reader()?.segments();
        // Whole segments only: up to the newest that begins at or before the offset.
        let bases = segments.iter().map(|segment| segment.base_offset);
        let start = bases.filter(|base| base.0 <= offset).max();
        let positions = partition.reader()?.positions();
        if let Some(start) = start.filter(|&start| start > positions.start) {
            partition.trim(start.min(positions.high_watermark)).await?;
        }
        Ok(Response::new(()))
    }
}

impl LegacyApi {
    /// What the request has taken from the budgets.
    fn permit(&self, extensions: &Extensions) -> Permit {
        let call = extensions.get::<Call>().cloned();
        let call = call.unwrap_or_else(|| Call::new(&self.0, None));
        call.request.claim()
    }

    fn partition(&self) -> Result<Arc<Partition>, ServiceError> {
        let topic = &self.0.config.topics.legacy_topic;
        self.0.topics.partition(topic, PARTITION)
    }

    /// Appends records in order, as few batches as hold them; one outcome each.
    async fn append_values(
        &self,
        permit: Permit,
        values: Vec<Bytes>,
    ) -> Result<Vec<Result<api::AppendRecordResp, ServiceError>>, ServiceError> {
        self.0.check_open()?;
        self.check_values(&values)?;
        let mut permit = Some(permit);
        let topic = &self.0.config.topics.legacy_topic;
        let topics = &self.0.topics;
        let partition = topics.partition_for_append(topic, PARTITION).await?;
        let batches = self.encode(&partition, &values)?;
        let lane = Arc::new(Lane::default());
        let mut answers = Vec::with_capacity(batches.len());
        let mut left = batches.len();
        for batch in batches {
            left -= 1;
            let (reply, answer) = oneshot::channel();
            answers.push((batch.header().record_count, answer));
            let append = Append {
                request: Ok(AppendRequest::new(batch)),
                lane: Some(lane.clone()),
                resume: false,
                reply: Reply::Once(reply),
                budget: if left == 0 { permit.take() } else { None },
            };
            partition.send(append).await;
        }
        let mut values = values.iter();
        let mut outcomes = Vec::with_capacity(values.len());
        for (count, answer) in answers {
            let outcome = answer
                .await
                .unwrap_or_else(|_| Err(ServiceError::shutting_down()))
                .map_err(|error| partition.explain(error));
            for (delta, value) in (0..count).zip(&mut values) {
                let appended = |base: Offset| api::AppendRecordResp {
                    offset: u64::try_from(base.0 + i64::from(delta)).unwrap_or(0),
                    nbr_of_stored_bytes: record_bytes(value),
                };
                let outcome = outcome.as_ref().map(|a| appended(a.offsets.start));
                outcomes.push(outcome.map_err(Clone::clone));
            }
        }
        Ok(outcomes)
    }

    fn check_values(&self, values: &[Bytes]) -> Result<(), ServiceError> {
        let bytes_max = self.0.config.append.record_bytes_max as usize;
        let too_large = values.iter().position(|value| value.len() > bytes_max);
        match too_large {
            None => Ok(()),
            Some(index) => Err(ServiceError::new(
                Reason::BatchTooLarge,
                format!("record {index} is larger than append.record_bytes_max, {bytes_max}"),
            )),
        }
    }

    fn encode(
        &self,
        partition: &Partition,
        values: &[Bytes],
    ) -> Result<Vec<RecordBatch>, ServiceError> {
        let limits = partition.limits();
        let now = self.0.clock.now();
        let mut batches = Vec::new();
        let mut builder = BatchBuilder::new(limits);
        for value in values {
            let push = |builder: &mut BatchBuilder| {
                builder.push(now, None, Some(value), std::iter::empty())
            };
            match push(&mut builder) {
                Err(EncodeError::TooLarge { .. }) if !builder.is_empty() => {
                    let full = std::mem::replace(&mut builder, BatchBuilder::new(limits));
                    batches.push(full.build(Compression::None, None)?);
                    push(&mut builder)?;
                }
                pushed => pushed?,
            }
        }
        if !builder.is_empty() {
            batches.push(builder.build(Compression::None, None)?);
        }
        Ok(batches)
    }
}

fn values(batch: api::BatchRecords) -> Vec<Bytes> {
    batch.batch.into_iter().map(|record| record.data).collect()
}

fn record_bytes(record: &Bytes) -> i64 {
    i64::try_from(record.len()).map_or(i64::MAX, |len| len + STORED_OVERHEAD)
}

/// The record at `offset`, which must be there.
async fn read_at(
    partition: &Partition,
    offset: Offset,
    bounds: &Bounds,
) -> Result<v1::Record, ServiceError> {
    let fetched = fetch::batches(partition, offset, 1).await?;
    let decoded = unpack::decode(fetched.chunks, offset, bounds).await;
    let decoded = decoded.map_err(|error| partition.explain(error))?;
    let found = decoded.records.into_iter().next();
    found
        .filter(|record| record.offset == offset.0)
        .ok_or_else(|| outside(partition, offset))
}

/// The last record; batches without records (control batches) are passed over backwards.
async fn read_newest(partition: &Partition, bounds: &Bounds) -> Result<v1::Record, ServiceError> {
    let positions = partition.reader()?.positions();
    let mut end = positions.high_watermark;
    while end > positions.start {
        let last = Offset(end.0 - 1);
        let fetched = fetch::batches(partition, last, 1).await?;
        let base = fetched.offsets.start;
        if !fetched.chunks.is_empty() {
            let newest = unpack::newest(fetched.chunks, bounds).await;
            if let Some(record) = newest.map_err(|error| partition.explain(error))? {
                return Ok(record);
            }
        }
        end = base.min(last);
    }
    Err(outside(partition, Offset(NEWEST)))
}

fn outside(partition: &Partition, offset: Offset) -> ServiceError {
    let log = match partition.reader() {
        Ok(reader) => {
            let positions = reader.positions();
            OffsetRange::new(positions.start, positions.high_watermark)
        }
        Err(error) => return error,
    };
    let requested = offset;
    partition.explain(comlog_log::ReadError::OutOfRange { requested, log })
}
