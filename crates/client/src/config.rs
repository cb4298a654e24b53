//! How the client reaches a server: one struct, validated once.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{Error, Result, RetryPolicy};

/// Most bytes of answers that wait unread on a connection for calls and uploads. Not adaptive: that
/// begins with 64 KiB, and HTTP/2 gives a connection up when more small answers wait than half of
/// the window allows for.
const WINDOW_BYTES: u32 = 4 << 20;
/// Most bytes of one HTTP/2 frame. Larger than the default 16 KiB, since frames cost more than bytes.
const FRAME_BYTES_MAX: u32 = 64 << 10;

/// The longest span of time of any option: early enough to be added to every clock.
pub(crate) const SPAN_MAX: Duration = Duration::from_secs(10_000 * 24 * 3_600);

/// # Errors
/// [`Error::Config`] naming the option, unless it is above 0 and at most [`SPAN_MAX`].
pub(crate) fn check_span(name: &str, span: Duration) -> Result<()> {
    if span.is_zero() || span > SPAN_MAX {
        let message = format!("{name} must be above 0 and at most 10,000 days");
        return Err(Error::config(message));
    }
    Ok(())
}

/// # Errors
/// [`Error::Config`] unless there is a certificate in `pem`, and each can be trusted.
fn check_authorities(pem: &[u8]) -> Result<()> {
    let wrong = |why: String| Error::config(format!("ca_certificate: {why}"));
    let mut trusted = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        let added = trusted.add(certificate);
        added.map_err(|error| wrong(format!("not a certificate: {error}")))?;
    }
    if trusted.is_empty() {
        return Err(wrong(
            "there is no certificate in PEM form in it".to_owned(),
        ));
    }
    Ok(())
}

/// Where the server is and how to talk to it.
///
/// ```
/// use std::time::Duration;
/// use comlog_client::ClientConfig;
///
/// let config = ClientConfig::new("http://127.0.0.1:50052")
///     .request_timeout(Duration::from_secs(5))
///     .header("authorization", "Bearer abc");
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub(crate) server: Arc<str>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) call_timeout: Duration,
    pub(crate) keepalive_interval: Option<Duration>,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) message_bytes_max: usize,
    pub(crate) retry: RetryPolicy,
    headers: Vec<(String, String)>,
    ca_certificate: Option<Vec<u8>>,
    client_identity: Option<(Vec<u8>, Vec<u8>)>,
    tls_domain: Option<String>,
}

impl ClientConfig {
    /// The defaults named at each option, for the server at `url` (`http://` or `https://`).
    #[must_use]
    pub fn new(url: impl AsRef<str>) -> ClientConfig {
        ClientConfig {
            server: Arc::from(url.as_ref()),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(60),
            keepalive_interval: Some(Duration::from_secs(10)),
            keepalive_timeout: Duration::from_secs(10),
            message_bytes_max: 64 << 20,
            retry: RetryPolicy::default(),
            headers: Vec::new(),
            ca_certificate: None,
            client_identity: None,
            tls_domain: None,
        }
    }

    /// How long connecting may take (default 5 s).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientConfig {
        self.connect_timeout = timeout;
        self
    }

    /// How long one attempt of a unary call, or a batch on the append stream, may go without an
    /// answer before it is tried again (default 30 s).
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> ClientConfig {
        self.request_timeout = timeout;
        self
    }

    /// How long a unary call may take in all, with every attempt and the waits between them
    /// (default 60 s).
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> ClientConfig {
        self.call_timeout = timeout;
        self
    }

    /// How often an idle connection is probed by an HTTP/2 ping; `None` never (default 10 s).
    /// Without it a server that vanished without a word is noticed only by timeouts.
    #[must_use]
    pub fn keepalive_interval(mut self, interval: Option<Duration>) -> ClientConfig {
        self.keepalive_interval = interval;
        self
    }

    /// How long an answer to such a ping may take (default 10 s).
    #[must_use]
    pub fn keepalive_timeout(mut self, timeout: Duration) -> ClientConfig {
        self.keepalive_timeout = timeout;
        self
    }

    /// The largest message accepted from the server, in bytes (default 64 MiB).
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> ClientConfig {
        self.message_bytes_max = bytes;
        self
    }

    /// When failed attempts are repeated.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> ClientConfig {
        self.retry = policy;
        self
    }

    /// Sends this header with every call, for instance `authorization`. Both are ASCII.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> ClientConfig {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Trusts the authority (or the self-signed certificate) in this PEM, and no other; default:
    /// those that the system trusts.
    #[must_use]
    pub fn ca_certificate(mut self, pem: impl AsRef<[u8]>) -> ClientConfig {
        self.ca_certificate = Some(pem.as_ref().to_vec());
        self
    }

    /// Presents this certificate (PEM) with its key (PEM) to servers that ask for one.
    #[must_use]
    pub fn client_identity(
        mut self,
        certificate: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> ClientConfig {
        self.client_identity = Some((certificate.as_ref().to_vec(), key.as_ref().to_vec()));
        self
    }

    /// The name expected in the server's certificate (default: the host of the URL).
    #[must_use]
    pub fn tls_domain(mut self, domain: impl Into<String>) -> ClientConfig {
        self.tls_domain = Some(domain.into());
        self
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first that is wrong.
    pub fn validate(&self) -> Result<()> {
        self.retry.check()?;
        check_span("connect_timeout", self.connect_timeout)?;
        check_span("request_timeout", self.request_timeout)?;
        check_span("call_timeout", self.call_timeout)?;
        check_span("keepalive_timeout", self.keepalive_timeout)?;
        let interval = self.keepalive_interval.unwrap_or(SPAN_MAX);
        check_span("keepalive_interval", interval)?;
        if self.message_bytes_max < 1 << 16 {
            return Err(Error::config("message_bytes_max must be at least 64 KiB"));
        }
        if let Some(pem) = &self.ca_certificate {
            check_authorities(pem)?;
        }
        self.metadata()?;
        self.endpoint().map(drop)
    }

    pub(crate) fn metadata(&self) -> Result<MetadataMap> {
        let mut metadata = MetadataMap::new();
        for (name, value) in &self.headers {
            let key = MetadataKey::<Ascii>::from_str(name)
                .map_err(|error| Error::config(format!("header {name:?}: {error}")))?;
            let value = MetadataValue::try_from(value)
                .map_err(|error| Error::config(format!("value of header {name:?}: {error}")))?;
            metadata.append(key, value);
        }
        Ok(metadata)
    }

    fn endpoint(&self) -> Result<Endpoint> {
        let invalid = |error| Error::config(format!("server {:?}: {error}", self.server));
        let mut endpoint = Endpoint::from_shared(self.server.to_string())
            .map_err(|error| invalid(error.to_string()))?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .keep_alive_timeout(self.keepalive_timeout)
            .keep_alive_while_idle(true);
        if let Some(interval) = self.keepalive_interval {
            endpoint = endpoint.http2_keep_alive_interval(interval);
        }
        match endpoint.uri().scheme_str() {
            Some("http") => Ok(endpoint),
            Some("https") => endpoint
                .tls_config(self.tls())
                .map_err(|error| invalid(error.to_string())),
            _ => Err(invalid("must begin with http:// or https://".to_owned())),
        }
    }

    fn tls(&self) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new();
        let mut tls = match &self.ca_certificate {
            Some(ca) => tls.ca_certificate(Certificate::from_pem(ca)),
            None => tls.with_native_roots(),
        };
        if let Some((certificate, key)) = &self.client_identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        if let Some(domain) = &self.tls_domain {
            tls = tls.domain_name(domain);
        }
        tls
    }

    /// A connection for unary calls and uploads.
    pub(crate) fn channel(&self) -> Result<Channel> {
        self.download_channel(WINDOW_BYTES)
    }

    /// A connection on which at most `window_bytes` wait unread.
    pub(crate) fn download_channel(&self, window_bytes: u32) -> Result<Channel> {
        let endpoint = self
            .endpoint()?
            .initial_stream_window_size(window_bytes)
            .initial_connection_window_size(window_bytes)
            .max_frame_size(FRAME_BYTES_MAX);
        Ok(endpoint.connect_lazy())
    }
}
