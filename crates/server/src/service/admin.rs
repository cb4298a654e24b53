//! `comlog.v1.TopicService`.

use std::sync::Arc;

use comlog_proto::v1::{self, topic_service_server::TopicService};
use comlog_record::OffsetRange;
use futures_util::{StreamExt, stream};
use tonic::{Request, Response, Status};

use crate::broker::Shared;
use crate::partition::Partition;
use crate::status::ServiceError;
use crate::topic::Topic;
use crate::topic_config::TopicOverrides;
use crate::topic_name;

/// The service over one broker.
pub(crate) struct TopicApi(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl TopicService for TopicApi {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        self.0.check_open()?;
        let request = request.into_inner();
        topic_name::check_writable(&request.name)?;
        let config = TopicOverrides::from_proto(request.config)?;
        let (topics, exists_ok) = (&self.0.topics, request.if_not_exists);
        let topic = topics
            .create(&request.name, request.partitions, config, exists_ok)
            .await?;
        let topic = Some(to_message(&topic));
        Ok(Response::new(v1::CreateTopicResponse { topic }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        self.0.check_open()?;
        let internal = request.into_inner().include_internal;
        let all = self.0.topics.list();
        let shown = all
            .iter()
            .filter(|topic| internal || !topic_name::is_reserved(topic.name()));
        let topics = shown.map(|topic| to_message(topic)).collect();
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        self.0.check_open()?;
        let topic = self.0.topics.get(&request.into_inner().name)?;
        const DESCRIBE_PARALLEL: usize = 32;
        let partitions = stream::iter(topic.partitions())
            .map(|partition| async move { describe(&partition).await })
            .buffered(DESCRIBE_PARALLEL)
            .collect()
            .await;
        Ok(Response::new(v1::DescribeTopicResponse {
            topic: Some(to_message(&topic)),
            effective: Some(self.0.topics.effective(&topic).to_proto()),
            partitions,
        }))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        self.0.check_open()?;
        let request = request.into_inner();
        let changes = TopicOverrides::from_proto(request.config)?;
        let topics = &self.0.topics;
        let (topic, warnings) = topics
            .alter(request.name, changes, request.reset, request.partitions)
            .await?;
        let topic = Some(to_message(&topic));
        Ok(Response::new(v1::AlterTopicResponse { topic, warnings }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        self.0.check_open()?;
        let topic = self.0.topics.delete(request.into_inner().name).await?;
        self.0.forget_commits(topic.id()).await;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }
}

fn to_message(topic: &Topic) -> v1::Topic {
    let meta = topic.meta();
    v1::Topic {
        name: meta.name.clone(),
        id: meta.id.clone(),
        partitions: meta.partitions,
        config: Some(meta.config.to_proto()),
        created_ms: meta.created_ms,
    }
}

/// Where a partition stands; for one that could not be opened only why.
async fn describe(partition: &Partition) -> v1::PartitionInfo {
    match try_describe(partition).await {
        Ok(info) => info,
        Err(error) => v1::PartitionInfo {
            partition: partition.key().partition,
            failure: error.message,
            ..v1::PartitionInfo::default()
        },
    }
}

async fn try_describe(partition: &Partition) -> Result<v1::PartitionInfo, ServiceError> {
    let reader = partition.reader()?;
    let owner = partition.describe().await?;
    let positions = reader.positions();
    let damaged = reader.known_damage(OffsetRange::new(positions.start, positions.end));
    Ok(v1::PartitionInfo {
        partition: partition.key().partition,
        log_start_offset: positions.start.0,
        high_watermark: positions.high_watermark.0,
        durable_offset: positions.durable.0,
        log_end_offset: positions.end.0,
        leader_epoch: positions.leader_epoch.0,
        size_bytes: reader.size_bytes(),
        segments: u32::try_from(reader.segments().len()).unwrap_or(u32::MAX),
        fencing_token: owner.fencing_token,
        failure: owner.failure.map_or_else(String::new, |e| e.to_string()),
        damaged: damaged.iter().map(|d| range_message(d.offsets)).collect(),
    })
}

fn range_message(range: OffsetRange) -> v1::OffsetRange {
    v1::OffsetRange {
        start: range.start.0,
        end: range.end.0,
    }
}
