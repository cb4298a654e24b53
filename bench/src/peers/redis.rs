//! Redis Streams with an append-only file.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, cmd, pipe};
use tokio::process::Command;

use super::process::{LOOK_INTERVAL, LOOKS, Process};
use super::{BATCH_RECORDS, IN_FLIGHT, Peer};
use crate::Result;
use crate::measure::Usage;

pub(super) const PROGRAM: &str = "redis-server";
/// Another process may take the port before the server does.
const STARTS: usize = 3;
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const FIELD: &str = "v";

/// When the append-only file is synced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sync {
    /// Before the answers to the commands that came together.
    Always,
    EverySecond,
}

/// A server, and one connection to it.
pub(super) struct Redis {
    process: Process,
    connection: MultiplexedConnection,
}

/// One record as XRANGE answers it: its id, its fields and their values.
type Record = (String, Vec<(String, Bytes)>);

impl Redis {
    pub(super) async fn start(dir: &Path, sync: Sync) -> Result<Redis> {
        for _ in 0..STARTS {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut process = Process::start(&mut command(dir, sync, port))?;
            if let Some(connection) = connect(&mut process, port).await? {
                return Ok(Redis {
                    process,
                    connection,
                });
            }
        }
        Err(format!("{PROGRAM} ends as soon as it is started").into())
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.process.stop().await
    }
}

fn command(dir: &Path, sync: Sync, port: u16) -> Command {
    let appendfsync = match sync {
        Sync::Always => "always",
        Sync::EverySecond => "everysec",
    };
    let port = port.to_string();
    let mut command = Command::new(PROGRAM);
    command
        .args(["--bind", "127.0.0.1", "--port", &port, "--dir"])
        .arg(dir)
        .args(["--appendonly", "yes", "--appendfsync", appendfsync])
        // No snapshots and no second copy of the file meanwhile: they are not what is measured.
        .args(["--save", "", "--auto-aof-rewrite-percentage", "0"]);
    command
}

/// A connection to the server once it is ready; none when it has ended.
async fn connect(process: &mut Process, port: u16) -> Result<Option<MultiplexedConnection>> {
    let tcp = TcpSettings::default().set_nodelay(true);
    let info = format!("redis://127.0.0.1:{port}").into_connection_info()?;
    let client = Client::open(info.set_tcp_settings(tcp))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_WITHIN));
    for _ in 0..LOOKS {
        if process.has_ended()? {
            return Ok(None);
        }
        let connected = client.get_multiplexed_async_connection_with_config(&config);
        if let Ok(mut connection) = connected.await {
            let info: String = cmd("INFO")
                .arg("server")
                .query_async(&mut connection)
                .await?;
            let ours = format!("process_id:{}", process.pid());
            if info.lines().any(|line| line == ours) {
                return Ok(Some(connection));
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Err(format!("{PROGRAM} does not become ready").into())
}

impl Peer for Redis {
    fn usage(&self) -> Usage {
        self.process.usage()
    }

    async fn create(&self, _log: &str) -> Result<()> {
        Ok(()) // the first XADD does
    }

    async fn produce(&self, log: &str, record_bytes: usize, records: u64) -> Result<()> {
        let value = vec![b'x'; record_bytes];
        let batches = (0..records).step_by(BATCH_RECORDS).map(|first| {
            let count = (records - first).min(BATCH_RECORDS as u64);
            add(self.connection.clone(), log, &value, count)
        });
        let mut sent = stream::iter(batches).buffered(IN_FLIGHT);
        while sent.try_next().await?.is_some() {}
        Ok(())
    }

    async fn append(&self, log: &str, value: &[u8]) -> Result<()> {
        add(self.connection.clone(), log, value, 1).await
    }

    async fn consume(&self, log: &str, records: u64) -> Result<u64> {
        let mut connection = self.connection.clone();
        let (mut start, mut count, mut bytes) = ("-".to_owned(), 0, 0);
        while count < records {
            let mut range = cmd("XRANGE");
            range.arg(log).arg(&start).arg("+");
            range.arg("COUNT").arg(BATCH_RECORDS);
            let batch: Vec<Record> = range.query_async(&mut connection).await?;
            let (last, _) = batch
                .last()
                .ok_or_else(|| format!("only {count} of {records} records came"))?;
            start = format!("({last}"); // behind it
            count += batch.len() as u64;
            let values = batch.iter().flat_map(|(_, fields)| fields);
            bytes += values.map(|(_, value)| value.len() as u64).sum::<u64>();
        }
        Ok(bytes)
    }
}

/// Adds `value` `count` times in one pipeline.
async fn add(
    mut connection: MultiplexedConnection,
    log: &str,
    value: &[u8],
    count: u64,
) -> Result<()> {
    let mut pipeline = pipe();
    for _ in 0..count {
        let add = pipeline.cmd("XADD").arg(log).arg("*");
        add.arg(FIELD).arg(value).ignore();
    }
    Ok(pipeline.exec_async(&mut connection).await?)
}
