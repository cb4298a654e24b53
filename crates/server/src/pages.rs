//! What is not gRPC: the status page, `/healthz`, `/metrics`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use comlog_proto::v1::topic_service_client::TopicServiceClient;
use comlog_proto::v1::{DescribeTopicRequest, ListTopicsRequest};
use tonic::service::Routes;

use crate::metrics::Metrics;

/// Topics on the status page at most.
const TOPICS_SHOWN: usize = 200;
/// The page takes nothing from elsewhere and runs no script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const PAGE: &str = include_str!("pages/status.html");
const STYLE: &str = include_str!("pages/status.css");

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
        .route("/", get(status_page))
        .route("/status.css", get(style))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .layer(middleware::map_response(with_security_headers))
        .with_state(pages)
}

async fn with_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CACHE_CONTROL, "no-store");
    response
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

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

async fn not_found() -> Response {
    let text = "not found; the status page is at /\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn status_page(State(pages): State<Pages>) -> Html<String> {
    let uptime = pages.metrics.started.elapsed();
    let rows = topic_rows(pages.routes).await;
    Html(
        PAGE.replace("{version}", env!("CARGO_PKG_VERSION"))
            .replace("{uptime}", &for_people(uptime))
            .replace("{topics}", &rows),
    )
}

/// The rows of the table of topics, or one that says why there are none.
async fn topic_rows(routes: Routes) -> String {
    let mut client = TopicServiceClient::new(routes);
    let note = |text: &str| {
        format!(
            "<tr><td colspan=\"6\" class=\"note\">{}</td></tr>",
            escape(text)
        )
    };
    let topics = match client
        .list_topics(ListTopicsRequest {
            include_internal: false,
        })
        .await
    {
        Ok(answer) => answer.into_inner().topics,
        Err(status) => return note(status.message()),
    };
    if topics.is_empty() {
        return note("No topics yet: the first append makes one.");
    }
    let mut rows = String::new();
    for topic in topics.iter().take(TOPICS_SHOWN) {
        let Ok(answer) = client
            .describe_topic(DescribeTopicRequest {
                name: topic.name.clone(),
            })
            .await
        else {
            continue; // deleted meanwhile
        };
        let partitions = answer.into_inner().partitions;
        let records: i64 = partitions
            .iter()
            .map(|p| p.high_watermark - p.log_start_offset)
            .sum();
        let bytes: u64 = partitions.iter().map(|p| p.size_bytes).sum();
        let troubled = partitions
            .iter()
            .filter(|p| !p.failure.is_empty() || !p.damaged.is_empty())
            .count();
        let state = if troubled == 0 {
            "ok".to_owned()
        } else {
            format!("{troubled} damaged or failed")
        };
        let class = if troubled == 0 { "ok" } else { "bad" };
        let segments: u32 = partitions.iter().map(|p| p.segments).sum();
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{records}</td><td>{segments}</td><td>{}</td><td class=\"{class}\">{state}</td></tr>",
            escape(&topic.name),
            partitions.len(),
            size(bytes),
        );
    }
    if topics.len() > TOPICS_SHOWN {
        rows += &note(&format!("and {} more", topics.len() - TOPICS_SHOWN));
    }
    rows
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..1_048_576 => (1_u64 << 10, "KiB"),
        1_048_576..1_073_741_824 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    format!("{:.1} {name}", bytes as f64 / unit as f64)
}

fn for_people(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
