use super::*;

#[tonic::async_trait]
impl v1::group_service_server::GroupService for Service {
    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        let request = request.into_inner();
        let mut world = self.world();
        world.commits += 1;
        for offset in request.offsets {
            let key = (request.group.clone(), offset.topic, offset.partition);
            world.committed.insert(key, offset.offset);
        }
        Ok(Response::new(v1::CommitOffsetsResponse {}))
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        let request = request.into_inner();
        let mut world = self.world();
        let of_group = world
            .committed
            .iter()
            .filter(|((group, ..), _)| *group == request.group);
        let wanted = of_group.filter(|((_, topic, partition), _)| {
            request.partitions.is_empty()
                || request
                    .partitions
                    .iter()
                    .any(|asked| asked.topic == *topic && asked.partition == *partition)
        });
        let offsets = wanted
            .map(|((_, topic, partition), &offset)| v1::CommittedOffset {
                topic: topic.clone(),
                partition: *partition,
                offset,
                ..v1::CommittedOffset::default()
            })
            .collect();
        let mut fetched = v1::FetchOffsetsResponse { offsets };
        apply(&mut world.twist_committed, &mut fetched);
        Ok(Response::new(fetched))
    }

    async fn list_groups(
        &self,
        _: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let world = self.world();
        let groups: HashSet<String> = world.committed.keys().map(|key| key.0.clone()).collect();
        let groups = groups.into_iter().collect();
        Ok(Response::new(v1::ListGroupsResponse { groups }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let group = request.into_inner().group;
        self.world().committed.retain(|key, _| key.0 != group);
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }
}
