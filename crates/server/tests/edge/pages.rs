//! The pages: status, health, metrics.

use comlog_proto::v1::log_service_client::LogServiceClient;
use comlog_proto::v1::topic_service_client::TopicServiceClient;
use comlog_proto::v1::{AppendRequest, ListTopicsRequest};

use crate::support::{Running, append};

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_native_calls_share_the_port() {
    let server = Running::start(|_| ()).await;
    let mut topics = TopicServiceClient::new(server.channel().await);
    topics
        .list_topics(ListTopicsRequest::default())
        .await
        .unwrap();
    let page = server.get("/").await;
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("comlog"),
        "{page}"
    );
    assert!(page.contains("content-security-policy: default-src 'none'"));
    assert!(server.get("/healthz").await.ends_with("ok\n"));
    let metrics = server.get("/metrics").await;
    assert!(
        metrics.contains("comlog_connections_accepted_total"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"));
    assert!(server.get("/nothing").await.starts_with("HTTP/1.1 404"));
    let version = concat!(env!("CARGO_PKG_VERSION"), "\n");
    assert!(server.get("/version").await.ends_with(version));
    server.stop().await;
}

/// Whether or not the web page was built into this binary.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_shows_topics_without_a_script() {
    let server = Running::start(|_| ()).await;
    let mut client = LogServiceClient::new(server.channel().await);
    client.append(append(b"small")).await.unwrap();
    let page = server.get("/status").await;
    assert!(page.contains("<th scope=\"row\">web</th>"), "{page}");
    assert!(page.contains("style-src 'self';") && !page.contains("script-src"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_appended_and_refused_is_counted() {
    let server = Running::start(|config| config.http.metrics_partitions_max = 1).await;
    let mut client = LogServiceClient::new(server.channel().await);
    client.append(append(b"small")).await.unwrap();
    let stale = AppendRequest {
        expected_offset: Some(7),
        ..append(b"small")
    };
    client.append(stale).await.unwrap_err();
    let metrics = server.get("/metrics").await;
    for line in [
        "comlog_appended_records_total 1",
        "comlog_group_batches_count 2",
        "comlog_commit_seconds_count 2",
        "comlog_refused_batches_total{reason=\"UNEXPECTED_OFFSET\"} 1",
        // Of this topic, the original API's, and the committed offsets'.
        "comlog_partitions 3",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let told = metrics.matches("comlog_partition_end_offset{").count();
    assert_eq!(told, 1, "not more partitions than the bound: {metrics}");
    server.stop().await;
}
