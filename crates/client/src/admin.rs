//! Everything but producing and consuming: topics, offsets, trimming, groups.
//!
//! What only asks, or may be done twice, is tried again as the [`RetryPolicy`](crate::RetryPolicy)
//! says. What would answer differently the second time is not.

use std::future::Future;

use comlog_proto::v1;
use comlog_record::Offset;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use comlog_proto::v1::archive_service_client::ArchiveServiceClient;
use comlog_proto::v1::group_service_client::GroupServiceClient;
use comlog_proto::v1::log_service_client::LogServiceClient;
use comlog_proto::v1::topic_service_client::TopicServiceClient;

use crate::{Client, Error, Result, StartAt, answer};

/// Most queries of one call that finds offsets.
const QUERIES_MAX: usize = 1_000;

type Logs = LogServiceClient<Channel>;
type Topics = TopicServiceClient<Channel>;
type Archive = ArchiveServiceClient<Channel>;
type Groups = GroupServiceClient<Channel>;

/// Topics.
impl Client {
    /// Creates a topic; 0 partitions means the server's default. Durable on return. Not repeated.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists), and failures of the call.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        config: v1::TopicConfig,
    ) -> Result<v1::Topic> {
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            partitions,
            config: Some(config),
            if_not_exists: false,
        };
        let mut topics = self.topics();
        let call = async |request| topics.create_topic(request).await;
        let created = self.call_once(request, call).await?;
        Ok(created.topic.unwrap_or_default())
    }

    /// Every topic, by name; those that comlog keeps for itself only if asked for.
    ///
    /// # Errors
    /// Failures of the call.
    pub async fn list_topics(&self, include_internal: bool) -> Result<Vec<v1::Topic>> {
        let request = v1::ListTopicsRequest { include_internal };
        let call = |mut topics: Topics, request| async move { topics.list_topics(request).await };
        Ok(self.repeat(Client::topics, request, call).await?.topics)
    }

    /// One topic, its configuration in force, and where its partitions stand.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), and failures of the call.
    pub async fn describe_topic(&self, name: &str) -> Result<v1::DescribeTopicResponse> {
        let request = v1::DescribeTopicRequest {
            name: name.to_owned(),
        };
        let call =
            |mut topics: Topics, request| async move { topics.describe_topic(request).await };
        let answer = self.repeat(Client::topics, request, call).await?;
        answer::described(name, &answer)?;
        Ok(answer)
    }

    /// Changes a topic's configuration or adds partitions; answers with warnings too.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), and failures of the call.
    pub async fn alter_topic(
        &self,
        request: v1::AlterTopicRequest,
    ) -> Result<v1::AlterTopicResponse> {
        let call = |mut topics: Topics, request| async move { topics.alter_topic(request).await };
        self.repeat(Client::topics, request, call).await
    }

    /// Deletes a topic with its records. Not repeated.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), and failures of the call.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let request = v1::DeleteTopicRequest {
            name: name.to_owned(),
        };
        let mut topics = self.topics();
        let call = async |request| topics.delete_topic(request).await;
        self.call_once(request, call).await.map(drop)
    }
}

/// Partitions.
impl Client {
    /// Finds offsets, one for each query.
    ///
    /// # Errors
    /// [`Error::InvalidState`] for [`StartAt::Committed`], which is a group's affair; failures of
    /// the call.
    pub async fn list_offsets(
        &self,
        queries: impl IntoIterator<Item = (&str, u32, StartAt)>,
    ) -> Result<Vec<v1::OffsetFound>> {
        let query = |(topic, partition, at): (&str, u32, StartAt)| {
            let at = at.to_message();
            let missing = Error::InvalidState("a committed offset belongs to a group");
            Ok(v1::OffsetQuery {
                topic: topic.to_owned(),
                partition,
                at: Some(at.ok_or(missing)?),
            })
        };
        let queries = queries.into_iter().map(query).collect::<Result<Vec<_>>>()?;
        let mut offsets = Vec::with_capacity(queries.len());
        for queries in queries.chunks(QUERIES_MAX) {
            let request = v1::ListOffsetsRequest {
                queries: queries.to_vec(),
            };
            let call = |mut logs: Logs, request| async move { logs.list_offsets(request).await };
            let found = self.repeat(Client::logs, request, call).await?.offsets;
            answer::offsets_found(queries, &found)?;
            offsets.extend(found);
        }
        Ok(offsets)
    }

    /// Reads once from an offset, waiting if asked to.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`](crate::ErrorKind::OutOfRange),
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), and failures of the call.
    pub async fn read(&self, request: v1::ReadRequest) -> Result<v1::Fetched> {
        let call = |mut logs: Logs, request| async move { logs.read(request).await };
        let read = self.repeat(Client::logs, request, call).await?;
        Ok(read.fetched.unwrap_or_default())
    }

    /// Raises the log start offset and returns it; what is below is gone. Durable on return.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`](crate::ErrorKind::OutOfRange), and failures of the call.
    pub async fn trim(&self, topic: &str, partition: u32, offset: Offset) -> Result<Offset> {
        let request = v1::TrimRequest {
            topic: topic.to_owned(),
            partition,
            offset: offset.0,
        };
        let call = |mut logs: Logs, request| async move { logs.trim(request).await };
        let trimmed = self.repeat(Client::logs, request, call).await?;
        Ok(Offset(trimmed.log_start_offset))
    }

    /// Makes everything written so far durable; everything below the offset returned is.
    ///
    /// # Errors
    /// Failures of the call.
    pub async fn sync(&self, topic: &str, partition: u32) -> Result<Offset> {
        let request = v1::SyncRequest {
            topic: topic.to_owned(),
            partition,
        };
        let call = |mut logs: Logs, request| async move { logs.sync(request).await };
        let synced = self.repeat(Client::logs, request, call).await?;
        Ok(Offset(synced.durable_offset))
    }

    /// Sets the fencing token of a partition: no append with an older one, or none, lands at or
    /// behind the offset returned. Durable on return. Not repeated.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) unless `token` is above the current
    /// one, and failures of the call.
    pub async fn fence(&self, topic: &str, partition: u32, token: u64) -> Result<Offset> {
        let request = v1::FenceRequest {
            topic: topic.to_owned(),
            partition,
            token,
        };
        let mut logs = self.logs();
        let call = async |request| logs.fence(request).await;
        let fenced = self.call_once(request, call).await?;
        Ok(Offset(fenced.log_end_offset))
    }

    pub(crate) async fn init_producer_id(
        &self,
        request: v1::InitProducerIdRequest,
    ) -> Result<v1::InitProducerIdResponse> {
        let call = |mut logs: Logs, request| async move { logs.init_producer_id(request).await };
        self.repeat(Client::logs, request, call).await
    }
}

/// Groups.
impl Client {
    /// Every group that has committed something, by name.
    ///
    /// # Errors
    /// Failures of the call.
    pub async fn list_groups(&self) -> Result<Vec<String>> {
        let request = v1::ListGroupsRequest {};
        let call = |mut groups: Groups, request| async move { groups.list_groups(request).await };
        Ok(self.repeat(Client::groups, request, call).await?.groups)
    }

    /// What a group has committed: for these partitions, or for all when there are none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), and failures of the call.
    pub async fn committed_offsets(
        &self,
        group: &str,
        partitions: Vec<v1::TopicPartition>,
    ) -> Result<Vec<v1::CommittedOffset>> {
        let request = v1::FetchOffsetsRequest {
            group: group.to_owned(),
            partitions: partitions.clone(),
        };
        let call = |mut groups: Groups, request| async move { groups.fetch_offsets(request).await };
        let offsets = self.repeat(Client::groups, request, call).await?.offsets;
        answer::committed(&partitions, &offsets)?;
        Ok(offsets)
    }

    /// Commits offsets for a group, all or none; durable on return.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), and failures of the call.
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: Vec<v1::CommittedOffset>,
    ) -> Result<()> {
        let request = v1::CommitOffsetsRequest {
            group: group.to_owned(),
            offsets,
        };
        let call =
            |mut groups: Groups, request| async move { groups.commit_offsets(request).await };
        self.repeat(Client::groups, request, call).await.map(drop)
    }

    /// Forgets what a group has committed. Not repeated.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), and failures of the call.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let request = v1::DeleteGroupRequest {
            group: group.to_owned(),
        };
        let mut groups = self.groups();
        let call = async |request| groups.delete_group(request).await;
        self.call_once(request, call).await.map(drop)
    }

    /// Brings everything appended so far to these topics (all when there are none) to the archive, and
    /// says where their partitions stand. Waits as long as the request timeout allows.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when the server archives nothing, and
    /// failures of the call.
    pub async fn flush_archive(&self, topics: Vec<String>) -> Result<Vec<v1::ArchivedPartition>> {
        let request = v1::FlushArchiveRequest { topics };
        let call = |mut archive: Archive, request| async move { archive.flush(request).await };
        let flushed = self.repeat(Client::archive, request, call).await?;
        Ok(flushed.partitions)
    }

    /// What of these topics (all when there are none) is in the archive.
    ///
    /// # Errors
    /// Failures of the call.
    pub async fn archive_status(&self, topics: Vec<String>) -> Result<v1::ArchiveStatusResponse> {
        let request = v1::ArchiveStatusRequest { topics };
        let call = |mut archive: Archive, request| async move { archive.status(request).await };
        self.repeat(Client::archive, request, call).await
    }

    /// Makes a call that may be made again, each time with a service of its own.
    async fn repeat<S, M, T, F>(
        &self,
        service: impl Fn(&Client) -> S,
        message: M,
        call: impl Fn(S, Request<M>) -> F,
    ) -> Result<T>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(message, |request| call(service(self), request))
            .await
    }
}
