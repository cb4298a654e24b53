//! gRPC, gRPC-web and pages on one port: which requests go where, and through which layers.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, Version, header};
use tonic::Status;
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::config::ANY_ORIGIN;
use crate::status::ServiceError;

/// Answers below this are not worth compressing, in bytes.
const COMPRESS_FROM: u64 = 256;
/// How long a browser may remember what a preflight allowed.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(3600);
/// How a browser's page learns how a call ended.
const EXPOSED: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

const GRPC: &[u8] = b"application/grpc";
const GRPC_WEB: &[u8] = b"application/grpc-web";

/// What a request is, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Native gRPC.
    Grpc,
    /// A browser's gRPC.
    GrpcWeb,
    /// Anything else.
    Page,
}

impl Kind {
    /// Of this request.
    pub(crate) fn of<B>(request: &Request<B>) -> Kind {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        match content_type.map_or(&[][..], HeaderValue::as_bytes) {
            name if name.starts_with(GRPC_WEB) => Kind::GrpcWeb,
            name if name.starts_with(GRPC) && request.version() == Version::HTTP_2 => Kind::Grpc,
            _ => Kind::Page,
        }
    }
}

/// The services for native gRPC, and for everything else the services and the pages.
///
/// Nothing stands between native gRPC and the services: it has its own compression, batch by
/// batch. For the others only the services go through the gRPC-web layer, which answers 400 to
/// every other HTTP/1.1 request; their own fallback must go, or the two cannot be merged.
pub(crate) fn build(routes: Routes, pages: Router, cors_origins: &[String]) -> (Router, Router) {
    let grpc = routes.prepare().into_axum_router();
    let mut services = grpc.clone().reset_fallback().layer(GrpcWebLayer::new());
    if !cors_origins.is_empty() {
        services = services.layer(cors(cors_origins));
    }
    let compression = CompressionLayer::new()
        .gzip(true)
        .compress_when(SizeAbove::new(COMPRESS_FROM));
    (grpc, services.merge(pages).layer(compression))
}

/// What pages of other origins may do: call, and see how the call ended.
fn cors(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == ANY_ORIGIN) {
        AllowOrigin::any()
    } else {
        let values = origins.iter().map(|origin| HeaderValue::from_str(origin));
        AllowOrigin::list(values.filter_map(Result::ok))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(AllowMethods::list([Method::POST]))
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(PREFLIGHT_MAX_AGE)
}

/// The answer to a call when too many are under way.
pub(crate) fn overloaded<B>(request: &Request<B>) -> Response<Body> {
    let message = "too many requests are under way (http.requests_max); back off and retry";
    let status = Status::from(ServiceError::overloaded(message));
    let mut response = status.into_http::<Body>();
    // A status without an answer stands in the headers, in gRPC-web as in gRPC.
    if let Some(content_type) = request.headers().get(header::CONTENT_TYPE) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type.clone());
    }
    response
}
