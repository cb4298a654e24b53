//! A way to one server, shared by producers, consumers and administration.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use comlog_proto::v1::archive_service_client::ArchiveServiceClient;
use comlog_proto::v1::group_service_client::GroupServiceClient;
use comlog_proto::v1::log_service_client::LogServiceClient;
use comlog_proto::v1::topic_service_client::TopicServiceClient;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::retry::may_retry_call;
use crate::{ClientConfig, Error, Result};

/// A way to one server. Cloning is cheap and shares the connection.
///
/// It connects with the first call and again after the connection broke, so neither making one
/// nor a restart of the server needs care. Must be made in a tokio runtime.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    metadata: MetadataMap,
    channel: Channel,
}

impl Client {
    /// A client that connects when it is first used.
    ///
    /// # Errors
    /// [`Error::Config`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(config: ClientConfig) -> Result<Client> {
        config.validate()?;
        let inner = Inner {
            metadata: config.metadata()?,
            channel: config.channel()?,
            config,
        };
        Ok(Client {
            inner: Arc::new(inner),
        })
    }

    /// The options it was made with.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// The server's URL.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.inner.config.server
    }

    pub(crate) fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.inner.channel.clone())
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.inner.channel.clone())
    }

    pub(crate) fn archive(&self) -> ArchiveServiceClient<Channel> {
        ArchiveServiceClient::new(self.inner.channel.clone())
    }

    pub(crate) fn logs(&self) -> LogServiceClient<Channel> {
        self.logs_over(self.inner.channel.clone())
    }

    /// The log service over another connection than the shared one.
    pub(crate) fn logs_over(&self, channel: Channel) -> LogServiceClient<Channel> {
        LogServiceClient::new(channel)
            .max_decoding_message_size(self.inner.config.message_bytes_max)
            .max_encoding_message_size(usize::MAX)
    }

    /// A request with the configured headers and no deadline.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.inner.metadata.clone();
        request
    }

    pub(crate) fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.inner.config.server)
    }

    /// Makes a unary call, again and again while that can help and the call's time is not over.
    ///
    /// # Errors
    /// The failure of the last attempt.
    pub(crate) async fn call<M, T, F>(
        &self,
        message: M,
        mut attempt: impl FnMut(Request<M>) -> F,
    ) -> Result<T>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let policy = self.inner.config.retry;
        let until = Instant::now() + self.inner.config.call_timeout;
        let mut failures = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let error = match self.call_within(left, message.clone(), &mut attempt).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failures += 1;
            let again = Instant::now() + policy.backoff(failures, rand::random());
            if failures >= policy.attempts_max || !may_retry_call(&error) || again >= until {
                return Err(error);
            }
            tracing::debug!(%error, failures, "call failed, trying again");
            tokio::time::sleep_until(again).await;
        }
    }

    /// Makes a unary call once.
    pub(crate) async fn call_once<M, T, F>(
        &self,
        message: M,
        attempt: impl FnOnce(Request<M>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_within(self.inner.config.call_timeout, message, attempt)
            .await
    }

    /// One attempt, in the time for one and the time that is `left`.
    async fn call_within<M, T, F>(
        &self,
        left: Duration,
        message: M,
        attempt: impl FnOnce(Request<M>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let timeout = self.inner.config.request_timeout.min(left);
        match tokio::time::timeout(timeout, attempt(self.request(message))).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(Error::Timeout(Arc::from(format!(
                "{} did not answer for {timeout:?}",
                self.server()
            )))),
        }
    }
}
