//! The status page: small, without a script, for a server built without the web page and for
//! whoever wants no more.

use std::fmt::Write;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use comlog_proto::v1::topic_service_client::TopicServiceClient;
use comlog_proto::v1::{DescribeTopicRequest, ListTopicsRequest};
use tonic::service::Routes;

use super::Pages;

/// Topics on the status page at most.
const TOPICS_SHOWN: usize = 200;
const PAGE: &str = include_str!("status.html");
const STYLE: &str = include_str!("status.css");

pub(super) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

pub(super) async fn page(State(pages): State<Pages>) -> Html<String> {
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
