//! One connection: TLS, HTTP/1.1 or HTTP/2, its bounds in number and time, and its end.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::activity::{Activity, GuardedBody};
use crate::budget::ConnectionBudget;
use crate::clock::since_1970;
use crate::config::HttpConfig;
use crate::http_date;
use crate::metrics::{ListenerCounters, Raised};
use crate::router::{self, Kind};

/// Streams that the client reset before they were served, as in a rapid reset attack.
const PENDING_RESETS_MAX: usize = 64;

/// Most bytes of one HTTP/2 frame. Larger than the default 16 KiB, which halves what an upload
/// costs; not larger still, which delays small batches.
const FRAME_BYTES_MAX: u32 = 64 << 10;

/// What every connection needs.
pub(crate) struct Edge {
    pub(crate) http: HttpConfig,
    /// What the requests of one connection may have under way, in bytes ...
    pub(crate) request_bytes_max: u32,
    /// ... and its answers.
    pub(crate) answer_bytes_max: u32,
    pub(crate) tls: Option<TlsAcceptor>,
    /// For native gRPC: nothing between it and the services.
    pub(crate) grpc: Router,
    /// For everything else: gRPC-web and the pages.
    pub(crate) web: Router,
    pub(crate) counters: Arc<ListenerCounters>,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    /// Tells connections to finish what they do and go.
    pub(crate) drain: CancellationToken,
    /// Ends connections that have not gone in time.
    pub(crate) cut: CancellationToken,
}

/// Serves one connection to its end; `_permit` is its place among the connections.
pub(crate) async fn run(edge: Arc<Edge>, stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let (_open, _) = Raised::raise(&edge.counters, |counters| &counters.connections);
    let handshake = Duration::from_millis(edge.http.handshake_timeout_ms);
    let Some(acceptor) = &edge.tls else {
        return serve(&edge, stream).await;
    };
    let accepted = tokio::select! {
        accepted = timeout(handshake, acceptor.accept(stream)) => accepted,
        () = edge.drain.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => serve(&edge, stream).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => edge.counters.expire(),
    }
}

async fn serve<S>(edge: &Arc<Edge>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::new();
    let first = Duration::from_millis(edge.http.handshake_timeout_ms);
    let idle = Duration::from_millis(edge.http.idle_timeout_ms);
    let service = TowerToHyperService::new(service(edge, activity.clone()));
    let mut builder = builder(&edge.http);
    if since_1970().is_none() {
        // hyper's HTTP/1.1 reads the clock for a `Date` that is switched off, and panics.
        builder = builder.http2_only();
    }
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut expired = std::pin::pin!(activity.expired(first, idle));
    // Once it has been told to go; and when it must have gone, if it was for its silence.
    let mut leaving = false;
    let mut gone_by: Option<Instant> = None;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = edge.cut.cancelled() => return,
            () = edge.drain.cancelled(), if !leaving => leaving = true,
            () = expired.as_mut(), if !leaving => {
                edge.counters.expire();
                // HTTP/2 says goodbye first, so that a request on its way is not lost unnoticed.
                gone_by = Some(Instant::now() + first);
                leaving = true;
            }
            () = at(gone_by) => return,
        }
        connection.as_mut().graceful_shutdown();
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// The routers with what belongs to this connection.
fn service(
    edge: &Arc<Edge>,
    activity: Activity,
) -> impl tower::Service<
    Request<Incoming>,
    Response = Response<GuardedBody>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ use<> {
    let edge = edge.clone();
    let budget = ConnectionBudget::new(edge.request_bytes_max, edge.answer_bytes_max);
    tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(budget.clone());
        let (guard, mine) = activity.begin();
        let (under_way, requests) = Raised::raise(&edge.counters, |counters| &counters.requests);
        let kind = Kind::of(&request);
        // A connection has no more requests under way than there are places left: whoever comes
        // next always finds one.
        let free = (edge.http.requests_max as u64).checked_sub(requests);
        let room = free.is_some_and(|free| mine == 1 || mine <= free) || kind == Kind::Page;
        let router = match kind {
            Kind::Grpc => edge.grpc.clone(),
            Kind::GrpcWeb | Kind::Page => edge.web.clone(),
        };
        let counters = edge.counters.clone();
        async move {
            let response = if room {
                router.oneshot(request.map(Body::new)).await?
            } else {
                counters.overloaded.fetch_add(1, Ordering::Relaxed);
                router::overloaded(&request)
            };
            let mut response = response.map(|body| GuardedBody::new(body, (guard, under_way)));
            // Browsers and caches want it; gRPC has no use for it.
            if kind != Kind::Grpc
                && let Some(date) = http_date::now()
            {
                response.headers_mut().insert(header::DATE, date);
            }
            Ok(response)
        }
    })
}

fn builder(http: &HttpConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(Duration::from_millis(http.handshake_timeout_ms))
        .max_buf_size(http.header_bytes_max as usize);
    builder
        .http2()
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .initial_stream_window_size(http.stream_window_bytes)
        .initial_connection_window_size(http.connection_window_bytes)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(http.streams_per_connection_max)
        .max_header_list_size(http.header_bytes_max)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .keep_alive_interval(Duration::from_millis(http.keepalive_interval_ms))
        .keep_alive_timeout(Duration::from_millis(http.keepalive_timeout_ms));
    builder
}
