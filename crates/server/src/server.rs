//! The server: what it takes to start, to serve, and to stop without losing anything.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use comlog_log::Clock;
use comlog_storage::{DataDir, StorageError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, OpenError};
use crate::config::ServerConfig;
use crate::connection::Edge;
use crate::dirs::DiskDirs;
use crate::listener::accept;
use crate::metrics::{ListenerCounters, Metrics};
use crate::pages::{self, Pages};
use crate::router;
use crate::tls::{self, TlsError};

/// How long clients may take to read their last answers, once every log is closed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long what was cut off at the end of a drain may take to notice.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be opened.
    #[error("data directory {}: {source}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: StorageError,
    },
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What is in the data directory, or the configuration.
    #[error(transparent)]
    Broker(#[from] OpenError),
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Everything under way was answered, and every log closed. Clients that did not read their
    /// answers within two seconds, or never ended their requests, were cut.
    Complete,
    /// Time was up: logs are left to be recovered at the next start. Nothing acknowledged is lost
    /// by it.
    CutOff,
}

/// A server that listens; clients that connect wait until [`Server::run`] is called.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    edge: Arc<Edge>,
    serving: Arc<AtomicBool>,
    config: ServerConfig,
    broker: Broker,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the address and the data directory, and recovers what a crash left.
    ///
    /// # Errors
    /// [`StartError`]; the address and the data directory are free again then.
    pub async fn start(config: ServerConfig, clock: Arc<dyn Clock>) -> Result<Server, StartError> {
        let listener = bind(config.listen).await?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        let (config, data_dir, tls) = blocking(config).await?;
        let dirs = Arc::new(DiskDirs::new(data_dir));
        let broker = Broker::open(config.broker(), dirs, clock).await?;
        let routes = broker.routes();
        let serving = Arc::new(AtomicBool::new(true));
        let counters = Arc::new(ListenerCounters::default());
        let pages = Pages {
            metrics: Metrics {
                broker: broker.clone(),
                listener: counters.clone(),
                started: Instant::now(),
                partitions_max: config.http.metrics_partitions_max,
            },
            routes: routes.clone(),
            serving: serving.clone(),
        };
        let (grpc, web) = router::build(routes, pages::router(pages), &config.http.cors_origins);
        let edge = Edge {
            request_bytes_max: config.append.inflight_bytes_per_connection_max,
            answer_bytes_max: config.fetch.inflight_bytes_per_connection_max,
            tls,
            grpc,
            web,
            counters,
            connections: Arc::new(Semaphore::new(config.http.connections_max)),
            tasks: TaskTracker::new(),
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
            http: config.http.clone(),
        };
        Ok(Server {
            listener,
            address,
            edge: Arc::new(edge),
            serving,
            config,
            broker,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDR:PORT`, or `https://` with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.config.tls.is_on() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `shutdown` completes, then drains: no new work, pending appends answered, tails
    /// ended, logs closed; all of it within the drain timeout. A client that does not go once that
    /// is done holds nothing up for long, and is no reason to call the drain incomplete.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drain {
        self.serve(shutdown).await;
        let Server {
            listener,
            edge,
            config,
            broker,
            ..
        } = self;
        drop(listener);
        tracing::info!("draining");
        edge.drain.cancel();
        edge.tasks.close();
        let deadline = Instant::now() + Duration::from_millis(config.drain_timeout_ms);
        let closed = timeout_at(deadline.into(), broker.close()).await;
        if closed.is_err() {
            let connections = edge.tasks.len();
            tracing::warn!(
                connections,
                "logs not closed at the end of the drain (drain_timeout_ms), cut off"
            );
            cut(&edge).await;
            return Drain::CutOff;
        }
        let deadline = deadline.min(Instant::now() + LEAVE_TIMEOUT);
        let gone = timeout_at(deadline.into(), edge.tasks.wait()).await;
        if gone.is_err() {
            let connections = edge.tasks.len();
            tracing::info!(connections, "clients that do not go are cut");
            cut(&edge).await;
        }
        tracing::info!("closed");
        Drain::Complete
    }

    /// Accepts connections until `shutdown`, and a while longer if the configuration says so.
    async fn serve(&self, shutdown: impl Future<Output = ()>) {
        let mut accepting = std::pin::pin!(accept(&self.listener, &self.edge));
        tokio::select! {
            () = accepting.as_mut() => {}
            () = shutdown => {}
        }
        self.serving.store(false, Ordering::Relaxed);
        self.broker.announce_leaving().await;
        let delay = Duration::from_millis(self.config.drain_delay_ms);
        if !delay.is_zero() {
            tracing::info!(?delay, "leaving, still serving");
            drop(tokio::time::timeout(delay, accepting).await);
        }
    }
}

async fn cut(edge: &Edge) {
    edge.cut.cancel();
    // Whoever does not notice in time ends with the runtime.
    drop(tokio::time::timeout(CUT_TIMEOUT, edge.tasks.wait()).await);
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| StartError::Listen { address, source })
}

type Opened = (
    ServerConfig,
    Arc<DataDir>,
    Option<tokio_rustls::TlsAcceptor>,
);

/// What must be read from the disk before anything runs.
async fn blocking(config: ServerConfig) -> Result<Opened, StartError> {
    let path = config.data_dir.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let data_dir = DataDir::open(&config.data_dir, (&config.disk).into());
        let data_dir = data_dir.map_err(|source| StartError::DataDir {
            path: config.data_dir.clone(),
            source,
        })?;
        let tls = tls::acceptor(&config.tls, &config.data_dir)?;
        Ok((config, data_dir, tls))
    });
    opened.await.unwrap_or_else(|error| {
        Err(StartError::DataDir {
            path,
            source: StorageError::Io {
                what: "open".to_owned(),
                source: io::Error::other(error),
            },
        })
    })
}
