//! A server on a port of its own, and bytes to and from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use comlog_log::ManualClock;
use comlog_proto::v1::{AppendRequest, Record};
use comlog_record::Timestamp;
use comlog_server::{Drain, Server, ServerConfig};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Drain>,
}

impl Running {
    pub(crate) async fn start(change: impl FnOnce(&mut ServerConfig)) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ServerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: dir.path().join("data"),
            ..ServerConfig::default()
        };
        change(&mut config);
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
        let server = Server::start(config, clock).await.unwrap();
        let (address, (stop, stopped)) = (server.address(), oneshot::channel::<()>());
        let task = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            server.run(shutdown).await
        });
        Running {
            address,
            dir,
            stop: Some(stop),
            task,
        }
    }

    pub(crate) async fn stop(mut self) {
        self.begin_stop();
        assert_eq!(self.ended().await, Drain::Complete);
    }

    /// Asks it to stop, and does not wait.
    pub(crate) fn begin_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// How its drain ended.
    pub(crate) async fn ended(self) -> Drain {
        timeout(PATIENCE, self.task).await.unwrap().unwrap()
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    /// Sends bytes, and reads until the server closes.
    pub(crate) async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let all = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        all.expect("the connection ends").unwrap();
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        String::from_utf8(self.raw(request.as_bytes()).await).unwrap()
    }

    /// A gRPC-web call as a browser makes it over HTTP/1.1; headers of the answer, and its bytes.
    pub(crate) async fn grpc_web(
        &self,
        method: &str,
        message: &impl Message,
        headers: &str,
    ) -> (String, Vec<u8>) {
        split(&self.raw(&grpc_web_request(method, message, headers)).await)
    }

    /// Begins such a call and reads of its answer's body until `enough`.
    pub(crate) async fn grpc_web_stream(
        &self,
        method: &str,
        message: &impl Message,
        headers: &str,
        enough: impl Fn(&[u8]) -> bool,
    ) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = grpc_web_request(method, message, headers);
        stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        let reading = async {
            while !has_head(&answer) || !enough(&split(&answer).1) {
                assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{answer:?}");
            }
        };
        timeout(PATIENCE, reading)
            .await
            .expect("enough comes in time");
    }
}

/// The bytes of a gRPC-web call.
pub(crate) fn grpc_web_request(method: &str, message: &impl Message, headers: &str) -> Vec<u8> {
    let mut body = vec![0];
    body.put_u32(message.encoded_len() as u32);
    message.encode(&mut body).unwrap();
    let head = format!(
        "POST /comlog.v1.{method} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

fn has_head(answer: &[u8]) -> bool {
    answer.windows(4).any(|window| window == b"\r\n\r\n")
}

pub(crate) fn split(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("an HTTP answer");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let body = answer[end + 4..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        return (head, dechunk(&body));
    }
    (head, body)
}

fn dechunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if len == 0 || body.len() < end + 2 + len {
            break;
        }
        out.extend_from_slice(&body[end + 2..end + 2 + len]);
        body = &body[(end + 2 + len + 2).min(body.len())..];
    }
    out
}

/// The frames of a gRPC-web body: flag and content.
pub(crate) fn frames(mut body: &[u8]) -> Vec<(u8, Bytes)> {
    let mut found = Vec::new();
    while body.len() >= 5 {
        let len = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        if body.len() < 5 + len {
            break;
        }
        found.push((body[0], Bytes::copy_from_slice(&body[5..5 + len])));
        body = &body[5 + len..];
    }
    found
}

pub(crate) fn append(value: &'static [u8]) -> AppendRequest {
    let record = Record {
        value: Some(Bytes::from_static(value)),
        ..Record::default()
    };
    AppendRequest {
        topic: "web".to_owned(),
        records: vec![record],
        ..AppendRequest::default()
    }
}
