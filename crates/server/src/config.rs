//! The configuration of the whole server: one struct per component, and their `Default`s are the
//! one table of defaults. How the layers are put together is in `layers`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::http::HeaderValue;
use comlog_storage::DiskOptions;
use serde::{Deserialize, Serialize};

use crate::archive::ArchiveConfig;
use crate::broker_config::{AppendConfig, BrokerConfig, FetchConfig, GroupsConfig, TopicsConfig};
use crate::layers::{ConfigError, Layers, to_table};
use crate::topic_config::TopicDefaults;

/// The smallest buffer HTTP/1.1 can be parsed in.
const HEADER_BYTES_MIN: u32 = 8 << 10;
/// The origin that stands for all.
pub(crate) const ANY_ORIGIN: &str = "*";

/// Everything `comlog serve` is configured by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where to listen (default `127.0.0.1:50052`); port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the data lies (default `./comlog-data`).
    pub data_dir: PathBuf,
    /// Threads that run the server; 0 (the default) means one for each processor.
    pub worker_threads: usize,
    /// After a signal the server still serves this long, while `/healthz` and grpc.health.v1 say
    /// that it is leaving, so that load balancers notice (default 0).
    pub drain_delay_ms: u64,
    /// How long a drain may take before what is left is cut off (default 30,000 ms).
    pub drain_timeout_ms: u64,
    /// How long a clock must stand by a jump ahead of more than a minute before records are removed
    /// by it (default 1 day; 0: believe it at once).
    pub clock_jump_wait_ms: u64,
    /// What is written to stderr.
    pub log: LoggingConfig,
    /// Bounds of connections.
    pub http: HttpConfig,
    /// Encryption.
    pub tls: TlsConfig,
    /// The local disk.
    pub disk: DiskConfig,
    /// What topics there may be.
    pub topics: TopicsConfig,
    /// What topics follow unless they say otherwise.
    pub topic_defaults: TopicDefaults,
    /// Appends.
    pub append: AppendConfig,
    /// Reads and tails.
    pub fetch: FetchConfig,
    /// Committed offsets of consumer groups.
    pub groups: GroupsConfig,
    /// The second home of the records: sealed segments on an object store.
    pub archive: ArchiveConfig,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50052)),
            data_dir: PathBuf::from("./comlog-data"),
            worker_threads: 0,
            drain_delay_ms: 0,
            drain_timeout_ms: 30_000,
            clock_jump_wait_ms: 86_400_000,
            log: LoggingConfig::default(),
            http: HttpConfig::default(),
            tls: TlsConfig::default(),
            disk: DiskConfig::default(),
            topics: TopicsConfig::default(),
            topic_defaults: TopicDefaults::default(),
            append: AppendConfig::default(),
            fetch: FetchConfig::default(),
            groups: GroupsConfig::default(),
            archive: ArchiveConfig::default(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is written to stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingConfig {
    /// `text` (default) or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info` (default), `debug`, `trace`, or a list such as `warn,comlog_server=debug`.
    pub level: String,
}

impl Default for LoggingConfig {
    fn default() -> LoggingConfig {
        LoggingConfig {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

/// Bounds of connections; over one of them the connection or the stream is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Most connections at once (default 4,096).
    pub connections_max: usize,
    /// Most requests and streams under way at once, all connections together (default 32,768).
    pub requests_max: usize,
    /// Most streams of one HTTP/2 connection at once (default 128).
    pub streams_per_connection_max: u32,
    /// Most bytes of one HTTP/2 stream, and of all of a connection, that wait to be read
    /// (default 2 MiB and 4 MiB; at least 64 KiB).
    pub stream_window_bytes: u32,
    /// See `stream_window_bytes`.
    pub connection_window_bytes: u32,
    /// Most bytes of the headers of one request (default 16 KiB; at least 8 KiB).
    pub header_bytes_max: u32,
    /// A connection must have sent its first request (after a TLS handshake) before this, and an
    /// HTTP/1.1 connection each further one (default 10,000 ms).
    pub handshake_timeout_ms: u64,
    /// A connection without a request under way is closed after this (default 600,000 ms).
    pub idle_timeout_ms: u64,
    /// A ping (HTTP/2) and a TCP probe is sent on a silent connection this often (default 20,000 ms) ...
    pub keepalive_interval_ms: u64,
    /// ... and the ping must be answered within this (default 20,000 ms).
    pub keepalive_timeout_ms: u64,
    /// Origins (`https://example.org`, or `*` for all) whose pages may call this server; none by
    /// default.
    pub cors_origins: Vec<String>,
    /// Partitions that `/metrics` tells of one by one, at most (default 1,000).
    pub metrics_partitions_max: usize,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            connections_max: 4_096,
            requests_max: 32_768,
            streams_per_connection_max: 128,
            stream_window_bytes: 2 << 20,
            connection_window_bytes: 4 << 20,
            header_bytes_max: 16 << 10,
            handshake_timeout_ms: 10_000,
            idle_timeout_ms: 600_000,
            keepalive_interval_ms: 20_000,
            keepalive_timeout_ms: 20_000,
            cors_origins: Vec::new(),
            metrics_partitions_max: 1_000,
        }
    }
}

/// Encryption; off by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file with the certificate chain; empty means none.
    pub cert: PathBuf,
    /// A PEM file with its private key.
    pub key: PathBuf,
    /// For development: a certificate for localhost, made at the first start and kept in the data directory.
    pub self_signed: bool,
}

impl TlsConfig {
    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.self_signed || !self.cert.as_os_str().is_empty()
    }
}

/// Bounds of the local disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// Most writes and syncs under way at once (default 16).
    pub syncs_in_flight_max: usize,
    /// Most bytes of recent appends kept in memory for readers (default 32 MiB).
    pub tail_bytes_max: usize,
    /// Most sealed segments mapped at once (default 4,096).
    pub maps_max: usize,
    /// Most bytes allocated ahead of a segment's end (default 32 MiB).
    pub preallocate_bytes_max: u64,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        let options = DiskOptions::default();
        DiskConfig {
            syncs_in_flight_max: options.syncs_in_flight_max,
            tail_bytes_max: options.tail_bytes_max,
            maps_max: options.maps_max,
            preallocate_bytes_max: options.preallocate_bytes_max,
        }
    }
}

impl From<&DiskConfig> for DiskOptions {
    fn from(config: &DiskConfig) -> DiskOptions {
        DiskOptions {
            syncs_in_flight_max: config.syncs_in_flight_max,
            tail_bytes_max: config.tail_bytes_max,
            maps_max: config.maps_max,
            preallocate_bytes_max: config.preallocate_bytes_max,
            // A disk that stalls must stop the appends to it, not the threads that serve everybody.
            inline_bytes_max: 0,
        }
    }
}

/// The configuration, and what was strange about where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Checked.
    pub config: ServerConfig,
    /// One sentence for each.
    pub warnings: Vec<String>,
}

impl ServerConfig {
    /// Puts the configuration together: `flags` (key and value) over `env` over the file over the
    /// defaults. Blocks on the file.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key in it or in a flag, a value out of range. An
    /// unknown variable in the environment is only a warning.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Loaded, ConfigError> {
        let env = env.into_iter().collect();
        let (config, warnings) = Layers { file, env, flags }.load::<ServerConfig>()?;
        config.validate()?;
        Ok(Loaded { config, warnings })
    }

    /// The part of it that is the broker's.
    #[must_use]
    pub fn broker(&self) -> BrokerConfig {
        BrokerConfig {
            topics: self.topics.clone(),
            topic_defaults: self.topic_defaults.clone(),
            append: self.append.clone(),
            fetch: self.fetch.clone(),
            groups: self.groups.clone(),
            archive: self.archive.clone(),
        }
    }

    /// The configuration as a file that [`ServerConfig::load`] reads; it names files of secrets,
    /// but holds none.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(&to_table(self)?).map_err(|error| ConfigError(error.to_string()))
    }

    /// Checks every range.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let tls = &self.tls;
        if tls.cert.as_os_str().is_empty() != tls.key.as_os_str().is_empty() {
            return refuse("tls.cert and tls.key go together: give both, or neither");
        }
        if tls.self_signed && !tls.cert.as_os_str().is_empty() {
            return refuse("tls.self_signed excludes tls.cert and tls.key");
        }
        self.http.validate()?;
        at_least_one(&[
            ("drain_timeout_ms", self.drain_timeout_ms),
            (
                "disk.syncs_in_flight_max",
                self.disk.syncs_in_flight_max as u64,
            ),
            ("disk.maps_max", self.disk.maps_max as u64),
        ])?;
        self.broker().validate().map_err(ConfigError)
    }
}

/// HTTP/2's own bounds of a window.
const WINDOW_BYTES_MIN: u32 = 1 << 16;
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

impl HttpConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        if self.header_bytes_max < HEADER_BYTES_MIN {
            return refuse("http.header_bytes_max: must be at least 8KiB");
        }
        let windows = [
            ("http.stream_window_bytes", self.stream_window_bytes),
            ("http.connection_window_bytes", self.connection_window_bytes),
        ];
        for (key, bytes) in windows {
            if !(WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX).contains(&bytes) {
                return Err(ConfigError(format!("{key}: must be 64KiB to 2GiB - 1")));
            }
        }
        let is_origin = |origin: &&String| {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            let plain = !host.is_empty() && !host.contains('/');
            *origin == ANY_ORIGIN || (plain && HeaderValue::from_str(origin).is_ok())
        };
        if let Some(bad) = self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(ConfigError(format!(
                "http.cors_origins: {bad:?} is no origin; write https://example.org, without a path"
            )));
        }
        at_least_one(&[
            ("http.connections_max", self.connections_max as u64),
            ("http.requests_max", self.requests_max as u64),
            (
                "http.streams_per_connection_max",
                self.streams_per_connection_max.into(),
            ),
            ("http.handshake_timeout_ms", self.handshake_timeout_ms),
            ("http.idle_timeout_ms", self.idle_timeout_ms),
            ("http.keepalive_interval_ms", self.keepalive_interval_ms),
            ("http.keepalive_timeout_ms", self.keepalive_timeout_ms),
        ])
    }
}

fn at_least_one(values: &[(&str, u64)]) -> Result<(), ConfigError> {
    match values.iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => Err(ConfigError(format!("{key}: must be at least 1"))),
        None => Ok(()),
    }
}

fn refuse(message: &str) -> Result<(), ConfigError> {
    Err(ConfigError(message.to_owned()))
}
