//! A bare tonic service in a process of its own: what gRPC costs without a log behind it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::Result;
use crate::measure::percentile;
use proto::echo_client::EchoClient;
use proto::echo_server::{Echo, EchoServer};
use proto::{DownloadRequest, Payload};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    tonic::include_proto!("bench");
}

const MESSAGE_BYTES_MAX: usize = 16 << 20;
const WINDOW_BYTES: u32 = 2 << 20;
const FRAME_BYTES_MAX: u32 = 64 << 10;

struct Service;

#[tonic::async_trait]
impl Echo for Service {
    type UploadStream = BoxStream<'static, Result<Payload, Status>>;
    type DownloadStream = BoxStream<'static, Result<Payload, Status>>;

    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn upload(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::UploadStream>, Status> {
        let answers = request
            .into_inner()
            .map(|message| message.map(|_| Payload::default()));
        Ok(Response::new(answers.boxed()))
    }

    async fn download(
        &self,
        request: Request<DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let DownloadRequest { size, count } = request.into_inner();
        let data = Bytes::from(vec![0x5a; (size as usize).min(MESSAGE_BYTES_MAX)]);
        let messages = stream::iter(0..count).map(move |_| Ok(Payload { data: data.clone() }));
        Ok(Response::new(messages.boxed()))
    }
}

/// Serves until it is killed; prints its address first.
pub(crate) async fn serve() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let service = EchoServer::new(Service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // As comlog sets them.
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

fn payload() -> Payload {
    Payload {
        data: Bytes::from_static(&[0x5a; 100]),
    }
}

/// The service as a child process, and a connection to it.
pub(crate) struct EchoProcess {
    child: Child,
    client: EchoClient<Channel>,
}

impl EchoProcess {
    /// Starts it.
    pub(crate) async fn start() -> Result<EchoProcess> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--echo-server")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the echo server has no stdout")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        let address: SocketAddr = line.ok_or("the echo server did not start")?.parse()?;
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .tcp_nodelay(true)
            .connect()
            .await?;
        let client = EchoClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(EchoProcess { child, client })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Microseconds of `count` calls with 100 bytes, one after the other: median and 99th percentile.
    pub(crate) async fn unary_latency(&self, count: usize) -> Result<(f64, f64)> {
        let mut client = self.client.clone();
        let mut micros = Vec::with_capacity(count);
        for _ in 0..count {
            let started = Instant::now();
            client.unary(payload()).await?;
            micros.push(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok((percentile(&mut micros, 0.5), percentile(&mut micros, 0.99)))
    }

    /// Calls per second with 100 bytes, `in_flight` at once on one connection.
    pub(crate) async fn unary_rate(&self, in_flight: usize, count: usize) -> Result<f64> {
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..in_flight {
            let mut client = self.client.clone();
            callers.spawn(async move {
                for _ in 0..count / in_flight {
                    client.unary(payload()).await?;
                }
                Ok::<_, Status>(())
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller??;
        }
        Ok(count as f64 / started.elapsed().as_secs_f64())
    }

    /// Bytes per second in messages of `size` to the server.
    pub(crate) async fn upload(&self, size: usize, count: usize) -> Result<f64> {
        let data = Bytes::from(vec![0x5a; size]);
        let started = Instant::now();
        let messages = stream::iter(0..count).map(move |_| Payload { data: data.clone() });
        let mut answers = self.client.clone().upload(messages).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok((size * count) as f64 / started.elapsed().as_secs_f64())
    }

    /// Bytes per second in messages of `size` from the server.
    pub(crate) async fn download(&self, size: u32, count: u32) -> Result<f64> {
        let started = Instant::now();
        let request = DownloadRequest { size, count };
        let mut messages = self.client.clone().download(request).await?.into_inner();
        while messages.message().await?.is_some() {}
        Ok(f64::from(size) * f64::from(count) / started.elapsed().as_secs_f64())
    }
}
