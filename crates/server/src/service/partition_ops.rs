//! Trim, Sync, Fence, InitProducerId.

use comlog_proto::v1;

use crate::broker::Shared;
use crate::fetch::check_offset;
use crate::status::ServiceError;
use crate::topic_name;

pub(crate) async fn trim(
    shared: &Shared,
    request: v1::TrimRequest,
) -> Result<v1::TrimResponse, ServiceError> {
    shared.check_open()?;
    let start = check_offset(request.offset)?;
    topic_name::check_writable(&request.topic)?;
    let partition = shared.topics.partition(&request.topic, request.partition)?;
    let start = partition.trim(start).await?;
    Ok(v1::TrimResponse {
        log_start_offset: start.0,
    })
}

pub(crate) async fn sync(
    shared: &Shared,
    request: v1::SyncRequest,
) -> Result<v1::SyncResponse, ServiceError> {
    shared.check_open()?;
    let partition = shared.topics.partition(&request.topic, request.partition)?;
    let durable = partition.sync().await?;
    Ok(v1::SyncResponse {
        durable_offset: durable.0,
    })
}

pub(crate) async fn fence(
    shared: &Shared,
    request: v1::FenceRequest,
) -> Result<v1::FenceResponse, ServiceError> {
    shared.check_open()?;
    topic_name::check_writable(&request.topic)?;
    let partition = shared.topics.partition(&request.topic, request.partition)?;
    let end = partition.fence(request.token).await?;
    Ok(v1::FenceResponse {
        log_end_offset: end.0,
    })
}

pub(crate) async fn init_producer_id(
    shared: &Shared,
    request: v1::InitProducerIdRequest,
) -> Result<v1::InitProducerIdResponse, ServiceError> {
    shared.check_open()?;
    let (producer_id, epoch) = match (request.producer_id, request.producer_epoch) {
        (None, None) => shared.producer_ids.allocate().await?,
        (Some(id), Some(epoch)) => shared.producer_ids.raise(id, epoch).await?,
        _ => {
            return Err(ServiceError::invalid(
                "producer_id and producer_epoch are given together or not at all",
            ));
        }
    };
    Ok(v1::InitProducerIdResponse {
        producer_id,
        producer_epoch: i32::from(epoch),
    })
}
