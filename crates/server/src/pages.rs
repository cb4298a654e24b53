//! What is not gRPC: the web page, the status page, `/healthz`, `/metrics`, `/version`.

mod assets;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::header::{self, Entry};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tonic::service::Routes;

use crate::metrics::Metrics;

/// Whatever does not say otherwise takes nothing from elsewhere and runs no script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the pages show.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    pub(crate) metrics: Metrics,
    /// The services, to ask about topics as any client would.
    pub(crate) routes: Routes,
    pub(crate) serving: Arc<AtomicBool>,
}

/// The router of the pages.
pub(crate) fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/status", get(status::page))
        .route("/status.css", get(status::style))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .fallback(asset)
        .layer(middleware::map_response(with_security_headers))
        .with_state(pages)
}

async fn with_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut set = |name, value| {
        if let Entry::Vacant(entry) = headers.entry(name) {
            entry.insert(HeaderValue::from_static(value));
        }
    };
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CACHE_CONTROL, "no-store");
    response
}

/// The web page, or the status page where the binary was built without it.
async fn home(pages: State<Pages>, headers: HeaderMap) -> Response {
    match assets::get(assets::INDEX, &headers) {
        Some(page) => page,
        None => status::page(pages).await.into_response(),
    }
}

async fn asset(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let readable = method == Method::GET || method == Method::HEAD;
    let path = uri.path().trim_start_matches('/');
    let found = readable.then(|| assets::get(path, &headers)).flatten();
    found.unwrap_or_else(|| {
        let text = "not found; the page is at /, a smaller one at /status\n";
        (StatusCode::NOT_FOUND, text).into_response()
    })
}

async fn healthz(State(pages): State<Pages>) -> Response {
    if pages.serving.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response()
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        pages.metrics.render(),
    )
        .into_response()
}

/// So that an open page sees that the server behind it is another one now.
async fn version() -> Response {
    let text = concat!(env!("CARGO_PKG_VERSION"), "\n");
    text.into_response()
}
