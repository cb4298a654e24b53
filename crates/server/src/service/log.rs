//! `comlog.v1.LogService`.

use std::sync::Arc;

use comlog_proto::v1::{self, log_service_server::LogService};
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::metered::Call;
use super::{BoxStream, append, append_stream, partition_ops, read, tail};
use crate::broker::Shared;

/// The service over one broker.
pub(crate) struct LogApi(pub(crate) Arc<Shared>);

impl LogApi {
    /// What the call has taken from the budgets.
    fn call(&self, extensions: &Extensions) -> Call {
        let call = extensions.get::<Call>().cloned();
        call.unwrap_or_else(|| Call::new(&self.0, None))
    }
}

#[tonic::async_trait]
impl LogService for LogApi {
    type AppendStreamStream = BoxStream<v1::AppendStreamResponse>;
    type TailStream = BoxStream<v1::TailResponse>;

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let call = self.call(request.extensions());
        let answer = append::append(&self.0, call.request.claim(), request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn append_batches(
        &self,
        request: Request<v1::AppendBatchesRequest>,
    ) -> Result<Response<v1::AppendBatchesResponse>, Status> {
        let call = self.call(request.extensions());
        let answer =
            append::append_batches(&self.0, call.request.claim(), request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendStreamRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let call = self.call(request.extensions());
        let incoming = request.into_inner();
        let answers = append_stream::append_stream(self.0.clone(), call.request, incoming)?;
        Ok(Response::new(answers))
    }

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<v1::ReadResponse>, Status> {
        let call = self.call(request.extensions());
        let answer = read::read(&self.0, &call.answer, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn tail(
        &self,
        request: Request<v1::TailRequest>,
    ) -> Result<Response<Self::TailStream>, Status> {
        let call = self.call(request.extensions());
        let messages = tail::tail(self.0.clone(), call.answer, request.into_inner()).await?;
        Ok(Response::new(messages))
    }

    async fn update_tail(
        &self,
        request: Request<v1::UpdateTailRequest>,
    ) -> Result<Response<v1::UpdateTailResponse>, Status> {
        let answer = tail::update_tail(&self.0, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let answer = read::list_offsets(&self.0, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn trim(
        &self,
        request: Request<v1::TrimRequest>,
    ) -> Result<Response<v1::TrimResponse>, Status> {
        let answer = partition_ops::trim(&self.0, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn sync(
        &self,
        request: Request<v1::SyncRequest>,
    ) -> Result<Response<v1::SyncResponse>, Status> {
        let answer = partition_ops::sync(&self.0, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn init_producer_id(
        &self,
        request: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        let answer = partition_ops::init_producer_id(&self.0, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn fence(
        &self,
        request: Request<v1::FenceRequest>,
    ) -> Result<Response<v1::FenceResponse>, Status> {
        let answer = partition_ops::fence(&self.0, request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}
