//! TLS, headers, and options that are wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::time::Duration;

use comlog_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, ErrorKind, Producer, ProducerConfig,
    ProducerRecord, Result, RetryPolicy, StartAt,
};
use fake::Fake;
use rcgen::CertifiedKey;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// A self-signed certificate for localhost and its key, as PEM.
fn certificate() -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

/// One record there and back.
async fn round_trip(config: ClientConfig) -> Result<()> {
    let retry = RetryPolicy {
        attempts_max: 2,
        ..RetryPolicy::default()
    };
    let client = Client::new(config.retry(retry))?;
    let config = ProducerConfig::new().delivery_timeout(Duration::from_secs(5));
    let producer = Producer::new(&client, config)?;
    producer.append(ProducerRecord::new("t", "v")).await?;
    let mut consumer = Consumer::new(&client, ConsumerConfig::new())?;
    consumer.assign("t", 0, StartAt::Earliest);
    let batches = consumer.poll(Duration::from_secs(10)).await?;
    assert_eq!(batches.len(), 1);
    Ok(())
}

#[tokio::test]
async fn tls_is_checked_on_both_sides() {
    let (server_cert, server_key) = certificate();
    let (client_cert, client_key) = certificate();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&server_cert, &server_key))
        .client_ca_root(Certificate::from_pem(&client_cert));
    let fake = Fake::start_with(Some(tls), None).await;
    fake.create("t", 1);
    let url = format!("https://{}", fake.address);
    let trusting = ClientConfig::new(&url)
        .ca_certificate(&server_cert)
        .tls_domain("localhost");
    let known = trusting.clone().client_identity(&client_cert, &client_key);
    round_trip(known).await.unwrap();
    let stranger = round_trip(trusting).await.unwrap_err();
    assert_eq!(stranger.kind(), ErrorKind::Retry, "{stranger}");
    let (other_cert, _) = certificate();
    let mistrusting = ClientConfig::new(&url)
        .ca_certificate(&other_cert)
        .tls_domain("localhost")
        .client_identity(&client_cert, &client_key);
    let error = round_trip(mistrusting).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
}

#[tokio::test]
async fn headers_go_with_every_call_and_their_lack_is_told_at_once() {
    let fake = Fake::start_with(None, Some("Bearer abc")).await;
    fake.create("t", 1);
    let config = || ClientConfig::new(fake.url());
    round_trip(config().header("authorization", "Bearer abc"))
        .await
        .unwrap();
    let client = Client::new(config()).unwrap();
    let producer = Producer::new(&client, ProducerConfig::new()).unwrap();
    let record = ProducerRecord::new("t", "v").partition(0);
    let error = producer.append(record).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let mut consumer = Consumer::new(&client, ConsumerConfig::new()).unwrap();
    consumer.assign("t", 0, StartAt::Earliest);
    let error = consumer.poll(Duration::from_secs(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn options_that_are_wrong_are_named() {
    let good = || ClientConfig::new("http://localhost:1");
    let wrong = [
        (ClientConfig::new("localhost:1"), "http"),
        (good().request_timeout(Duration::ZERO), "request_timeout"),
        (good().message_bytes_max(1), "message_bytes_max"),
        (good().header("über", "x"), "header"),
        (good().keepalive_interval(Some(Duration::ZERO)), "keepalive"),
    ];
    for (config, name) in wrong {
        let error = config.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(good().validate().is_ok());
    let producer = ProducerConfig::new;
    let wrong = [
        (producer().batch_bytes(1), "batch_bytes"),
        (producer().batch_records_max(0), "batch_records_max"),
        (producer().buffer_bytes_max(1_000), "buffer_bytes_max"),
        (producer().in_flight_max(17), "in_flight_max"),
        (
            producer().delivery_timeout(Duration::ZERO),
            "delivery_timeout",
        ),
    ];
    for (config, name) in wrong {
        let error = config.validate().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let consumer = ConsumerConfig::new;
    let wrong = [
        (consumer().group(""), "group"),
        (
            consumer().auto_commit(Duration::from_secs(1)),
            "auto_commit",
        ),
        (consumer().prefetch_bytes(1), "prefetch_bytes"),
    ];
    for (config, name) in wrong {
        let error = config.validate().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}
