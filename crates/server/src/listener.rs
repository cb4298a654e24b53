//! The socket: accepts connections while there is room for them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::connection::{Edge, run};

/// How long accepting rests when the process has no file descriptor left: connections wait in the
/// backlog meanwhile, and the processor is free to end others.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What goes wrong with many connections is told this often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Accepts for ever; every connection runs in a task of its own. Cancel safe.
pub(crate) async fn accept(listener: &TcpListener, edge: &Arc<Edge>) {
    let mut failing = Occasionally::default();
    let mut refusing = Occasionally::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Gone before we came to it.
            Err(error) if is_of_the_connection(&error) => continue,
            Err(error) => {
                failing.tell(|| tracing::warn!(%error, "cannot accept connections, waiting"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = edge.connections.clone().try_acquire_owned() else {
            edge.counters.refused.fetch_add(1, Ordering::Relaxed);
            let max = edge.http.connections_max;
            refusing.tell(|| {
                tracing::warn!(%peer, max, "too many connections (http.connections_max), closing new ones");
            });
            continue;
        };
        prepare(&stream, edge, peer);
        edge.counters.accepted.fetch_add(1, Ordering::Relaxed);
        edge.tasks.spawn(run(edge.clone(), stream, permit));
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    let kinds = [
        ConnectionAborted,
        ConnectionRefused,
        ConnectionReset,
        Interrupted,
    ];
    kinds.contains(&error.kind())
}

/// Small answers must not wait for acknowledgements, and a peer that is gone must be noticed.
fn prepare(stream: &TcpStream, edge: &Edge, peer: SocketAddr) {
    let interval = Duration::from_millis(edge.http.keepalive_interval_ms);
    // The kernel counts in seconds.
    let interval = interval.max(Duration::from_secs(1));
    let probes = TcpKeepalive::new()
        .with_time(interval)
        .with_interval(interval);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(stream).set_tcp_keepalive(&probes));
    if let Err(error) = set {
        tracing::debug!(%peer, %error, "cannot set socket options");
    }
}

/// Tells of something that may happen thousands of times a second.
#[derive(Debug, Default)]
struct Occasionally {
    last: Option<Instant>,
}

impl Occasionally {
    fn tell(&mut self, tell: impl FnOnce()) {
        if self.last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            self.last = Some(Instant::now());
            tell();
        }
    }
}
