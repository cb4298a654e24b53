//! `comlog.v1.ArchiveService`.

use std::sync::Arc;

use comlog_proto::v1::{self, Reason, archive_service_server::ArchiveService};
use tonic::{Request, Response, Status};

use crate::archive::Archive;
use crate::broker::Shared;
use crate::status::ServiceError;

/// The service over one broker.
pub(crate) struct ArchiveApi(pub(crate) Arc<Shared>);

impl ArchiveApi {
    fn archive(&self) -> Result<&Arc<Archive>, ServiceError> {
        self.0.check_open()?;
        let none = || {
            let message = "this server has no archive; start it with --archive URL";
            ServiceError::new(Reason::ArchiveStopped, message)
        };
        self.0.archive.as_ref().ok_or_else(none)
    }
}

#[tonic::async_trait]
impl ArchiveService for ArchiveApi {
    async fn flush(
        &self,
        request: Request<v1::FlushArchiveRequest>,
    ) -> Result<Response<v1::FlushArchiveResponse>, Status> {
        let topics = request.into_inner().topics;
        let flush = self.archive()?.flush(&self.0.topics, &topics);
        let partitions = tokio::select! {
            flushed = flush => flushed?,
            () = self.0.closing.cancelled() => return Err(ServiceError::shutting_down().into()),
        };
        Ok(Response::new(v1::FlushArchiveResponse { partitions }))
    }

    async fn status(
        &self,
        request: Request<v1::ArchiveStatusRequest>,
    ) -> Result<Response<v1::ArchiveStatusResponse>, Status> {
        self.0.check_open()?;
        let topics = request.into_inner().topics;
        match &self.0.archive {
            Some(archive) => {
                let status = archive.status(&self.0.topics, &topics).await?;
                Ok(Response::new(status))
            }
            None => Ok(Response::new(v1::ArchiveStatusResponse::default())),
        }
    }
}
