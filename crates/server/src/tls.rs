//! TLS by rustls: certificates from files, or one made for development.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::TlsAcceptor;

use crate::clock::since_1970;
use crate::config::TlsConfig;

/// Where the certificate for development is kept, in the data directory.
pub const SELF_SIGNED_CERT: &str = "tls-self-signed/cert.pem";
const SELF_SIGNED_KEY: &str = "key.pem";

/// How to make a certificate that every client takes.
const MAKE_CERTIFICATE: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
    -nodes -days 365 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem";

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: no usable {what} in PEM form: {reason}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// Certificate or private key.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The certificate and the key do not go together, or cannot be used.
    #[error("certificate and key cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    /// The certificate for development could not be made.
    #[error("cannot make a self-signed certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// What accepts TLS connections with HTTP/2 and HTTP/1.1; `None` when TLS is off. Blocks.
pub(crate) fn acceptor(
    config: &TlsConfig,
    data_dir: &Path,
) -> Result<Option<TlsAcceptor>, TlsError> {
    if !config.is_on() {
        return Ok(None);
    }
    let (cert, key) = if config.self_signed {
        self_signed(data_dir)?
    } else {
        (config.cert.clone(), config.key.clone())
    };
    let chain = certificates(&cert)?;
    if is_of_authority(&chain) {
        tracing::warn!(
            certificate = %cert.display(),
            "this is the certificate of an authority, which strict clients refuse for a server \
             (CaUsedAsEndEntity), comlog's own among them; make another: {MAKE_CERTIFICATE}"
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private_key(&key)?)?;
    server.time_provider = Arc::new(SystemTime);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

/// Whether clients will refuse the first certificate of `chain` for what it is, whoever signed it.
fn is_of_authority(chain: &[CertificateDer<'static>]) -> bool {
    let Some((certificate, others)) = chain.split_first() else {
        return false;
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(chain.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let Ok((verifier, name)) =
        verifier.map(|verifier| (verifier, ServerName::try_from("localhost")))
    else {
        return false;
    };
    let Ok(name) = name else { return false };
    let now = UnixTime::since_unix_epoch(since_1970().unwrap_or_default());
    let verified = verifier.verify_server_cert(certificate, others, &name, &[], now);
    verified.is_err_and(|error| error.to_string().contains("CaUsedAsEndEntity"))
}

/// rustls's own panics when the clock shows a time before 1970.
#[derive(Debug)]
struct SystemTime;

impl TimeProvider for SystemTime {
    fn current_time(&self) -> Option<UnixTime> {
        since_1970().map(UnixTime::since_unix_epoch)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |reason: String| TlsError::Pem {
        path: path.to_owned(),
        what: "certificate",
        reason,
    };
    let content = fs::read(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        return Err(bad("there is none".to_owned()));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let content = fs::read(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })?;
    PrivateKeyDer::from_pem_slice(&content).map_err(|error| TlsError::Pem {
        path: path.to_owned(),
        what: "private key",
        reason: error.to_string(),
    })
}

/// The files of the certificate for development, made at the first call.
fn self_signed(data_dir: &Path) -> Result<(PathBuf, PathBuf), TlsError> {
    let cert = data_dir.join(SELF_SIGNED_CERT);
    let key = cert.with_file_name(SELF_SIGNED_KEY);
    if !cert.exists() || !key.exists() {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { path, source }
        };
        let dir = cert.parent().unwrap_or(data_dir);
        fs::create_dir_all(dir).map_err(failed(dir))?;
        write_private(&key, made.signing_key.serialize_pem().as_bytes()).map_err(failed(&key))?;
        fs::write(&cert, made.cert.pem()).map_err(failed(&cert))?;
    }
    let sha256 = fingerprint(certificates(&cert)?.first());
    tracing::warn!(certificate = %cert.display(), %sha256, "self-signed certificate, for development only; give it to clients with --ca-cert");
    Ok((cert, key))
}

/// What a person compares with what a browser or `openssl x509 -fingerprint -sha256` shows.
fn fingerprint(certificate: Option<&CertificateDer<'_>>) -> String {
    let der = certificate.map_or(&[][..], |certificate| certificate.as_ref());
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let bytes = digest.as_ref().iter().map(|byte| format!("{byte:02X}"));
    bytes.collect::<Vec<_>>().join(":")
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)
}
