//! `comlog.v1.GroupService`.

use std::sync::Arc;

use comlog_proto::v1::{self, group_service_server::GroupService};
use tonic::{Request, Response, Status};

use crate::broker::Shared;

/// The service over one broker.
pub(crate) struct GroupApi(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl GroupService for GroupApi {
    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        self.0.check_open()?;
        let request = request.into_inner();
        let (groups, topics) = (&self.0.groups, &self.0.topics);
        groups
            .commit(topics, request.group, request.offsets)
            .await?;
        Ok(Response::new(v1::CommitOffsetsResponse {}))
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        self.0.check_open()?;
        let request = request.into_inner();
        let (groups, topics) = (&self.0.groups, &self.0.topics);
        let offsets = groups.fetch(topics, &request.group, &request.partitions)?;
        Ok(Response::new(v1::FetchOffsetsResponse { offsets }))
    }

    async fn list_groups(
        &self,
        _: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        self.0.check_open()?;
        let groups = self.0.groups.list()?;
        Ok(Response::new(v1::ListGroupsResponse { groups }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        self.0.check_open()?;
        self.0.groups.delete(request.into_inner().group).await?;
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }
}
