//! The gRPC services: decode, call, encode.

mod admin;
mod append;
mod append_stream;
mod archive;
mod by_size;
mod groups;
mod legacy;
mod log;
mod metered;
mod partition_ops;
mod read;
mod refusals;
mod tail;

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use axum::middleware::{Next, from_fn};
use comlog_proto::api::com_log_rpc_server::ComLogRpcServer;
use comlog_proto::v1::archive_service_server::ArchiveServiceServer;
use comlog_proto::v1::group_service_server::GroupServiceServer;
use comlog_proto::v1::log_service_server::LogServiceServer;
use comlog_proto::v1::topic_service_server::TopicServiceServer;
use futures_util::{Stream, StreamExt, stream};
use tonic::Status;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use self::by_size::{BySize, MESSAGE_BYTES_MAX};
use crate::broker::Shared;

/// The answers of a streaming call.
pub(crate) type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How a stream of answers ends when not well; set before its last sender is dropped.
pub(crate) type Ending = Arc<OnceLock<Status>>;

/// `items`, then the ending if one was set.
fn with_ending<T: Send + 'static>(
    items: impl Stream<Item = T> + Send + 'static,
    ending: Ending,
) -> BoxStream<T> {
    let last = stream::iter(std::iter::once_with(move || ending.get().cloned()))
        .filter_map(|status| async move { status.map(Err) });
    Box::pin(items.map(Ok).chain(last))
}

/// Every service of the broker, grpc.health.v1 and reflection.
pub(crate) fn routes(shared: &Arc<Shared>, health: HealthServer<HealthService>) -> Routes {
    let request_bytes_max = shared.config.append.request_bytes_max as usize;
    let log = LogServiceServer::new(log::LogApi(shared.clone()));
    let legacy = ComLogRpcServer::new(legacy::LegacyApi(shared.clone()));
    let log = BySize {
        appends: log.clone().max_decoding_message_size(request_bytes_max),
        others: log.max_decoding_message_size(MESSAGE_BYTES_MAX),
    };
    let legacy = BySize {
        appends: legacy.clone().max_decoding_message_size(request_bytes_max),
        others: legacy.max_decoding_message_size(MESSAGE_BYTES_MAX),
    };
    let routes = Routes::new(log)
        .add_service(TopicServiceServer::new(admin::TopicApi(shared.clone())))
        .add_service(GroupServiceServer::new(groups::GroupApi(shared.clone())))
        .add_service(ArchiveServiceServer::new(archive::ArchiveApi(
            shared.clone(),
        )))
        .add_service(legacy)
        .add_service(health)
        .add_service(reflection().build_v1().expect(COMPILED_IN))
        .add_service(reflection().build_v1alpha().expect(COMPILED_IN));
    let shared = shared.clone();
    let metered = from_fn(move |request, next: Next| metered::call(shared.clone(), request, next));
    routes.into_axum_router().layer(metered).into()
}

const COMPILED_IN: &str = "the descriptors are compiled in, and a test reads them";

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(comlog_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Says of every service whether it takes work.
pub(crate) async fn set_health(health: &HealthReporter, serving: bool) {
    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    let names = [
        "", // the server as a whole
        <LogServiceServer<log::LogApi> as NamedService>::NAME,
        <TopicServiceServer<admin::TopicApi> as NamedService>::NAME,
        <GroupServiceServer<groups::GroupApi> as NamedService>::NAME,
        <ArchiveServiceServer<archive::ArchiveApi> as NamedService>::NAME,
        <ComLogRpcServer<legacy::LegacyApi> as NamedService>::NAME,
    ];
    for name in names {
        health.set_service_status(name, status).await;
    }
}
