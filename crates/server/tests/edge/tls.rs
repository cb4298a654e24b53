//! TLS: both versions of HTTP, and certificates that cannot be used.

use std::path::Path;
use std::sync::Arc;

use comlog_log::ManualClock;
use comlog_proto::v1::ListTopicsRequest;
use comlog_proto::v1::topic_service_client::TopicServiceClient;
use comlog_server::{Server, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use crate::support::{PATIENCE, Running};

async fn self_signed() -> (Running, Vec<u8>) {
    let server = Running::start(|config| {
        config.tls.self_signed = true;
        config.http.handshake_timeout_ms = 2_000;
    })
    .await;
    let pem = server.dir.path().join("data/tls-self-signed/cert.pem");
    (server, std::fs::read(pem).unwrap())
}

async fn connect(server: &Running, pem: &[u8], alpn: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_speaks_both_versions_of_http() {
    let (server, pem) = self_signed().await;
    for alpn in [b"h2".as_slice(), b"http/1.1"] {
        let stream = connect(&server, &pem, alpn).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
    }
    let mut page = connect(&server, &pem, b"http/1.1").await;
    page.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem))
        .domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://{}", server.address)).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    let mut topics = TopicServiceClient::new(channel);
    topics
        .list_topics(ListTopicsRequest::default())
        .await
        .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_never_comes_is_not_waited_for() {
    let (server, _) = self_signed().await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut answer = Vec::new();
    let closed = timeout(PATIENCE, silent.read_to_end(&mut answer)).await;
    closed.expect("closed").unwrap();
    assert!(answer.is_empty());
    server.stop().await;
}

async fn start_with(dir: &Path, cert: &Path, key: &Path) -> String {
    let mut config = ServerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: dir.join("data"),
        ..ServerConfig::default()
    };
    config.tls.cert = cert.to_owned();
    config.tls.key = key.to_owned();
    let started = Server::start(config, Arc::new(ManualClock::default())).await;
    started.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(at("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(at("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(at("other.pem"), other.signing_key.serialize_pem()).unwrap();
    std::fs::write(at("empty.pem"), "nothing").unwrap();
    for (cert, key, word) in [
        ("missing.pem", "key.pem", "missing.pem"),
        ("empty.pem", "key.pem", "empty.pem"),
        ("cert.pem", "empty.pem", "empty.pem"),
        ("cert.pem", "other.pem", "certificate and key"),
    ] {
        let error = start_with(dir.path(), &at(cert), &at(key)).await;
        assert!(error.contains(word), "{cert} {key}: {error}");
    }
}
