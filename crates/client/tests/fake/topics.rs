use super::*;

#[tonic::async_trait]
impl v1::topic_service_server::TopicService for Service {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let partitions = request.partitions.max(1);
        self.world().topics.insert(request.name.clone(), partitions);
        let topic = topic(request.name, partitions);
        Ok(Response::new(v1::CreateTopicResponse {
            topic: Some(topic),
        }))
    }

    async fn list_topics(
        &self,
        _: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let world = self.world();
        let topics = world.topics.iter();
        let topics = topics
            .map(|(name, &count)| topic(name.clone(), count))
            .collect();
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let name = request.into_inner().name;
        let mut world = self.world();
        let partitions = world.topics.get(&name).copied();
        let Some(partitions) = partitions else {
            return Err(status(Reason::TopicNotFound, &name));
        };
        let mut described = v1::DescribeTopicResponse {
            topic: Some(topic(name, partitions)),
            effective: Some(v1::TopicConfig {
                max_batch_bytes: world.batch_bytes_max,
                ..v1::TopicConfig::default()
            }),
            ..v1::DescribeTopicResponse::default()
        };
        apply(&mut world.twist_topic, &mut described);
        Ok(Response::new(described))
    }

    async fn alter_topic(
        &self,
        _: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn delete_topic(
        &self,
        _: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

fn topic(name: String, partitions: u32) -> v1::Topic {
    v1::Topic {
        name,
        partitions,
        ..v1::Topic::default()
    }
}
