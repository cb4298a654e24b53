//! The real server, as a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use comlog_client::{Client, ClientConfig, v1};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Result;
use crate::measure::Usage;

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    /// From the start of the process to the line that says it serves.
    pub(crate) started_in: Duration,
}

impl Server {
    /// Starts one on a free port with its data in `data`.
    pub(crate) async fn start(binary: &Path, data: &Path) -> Result<Server> {
        Server::start_with(binary, data, |_| {}).await
    }

    /// The same, with more arguments or another environment.
    pub(crate) async fn start_with(
        binary: &Path,
        data: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> Result<Server> {
        let started = Instant::now();
        let mut command = Command::new(binary);
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--log-level",
                "error",
                "--data-dir",
            ])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        configure(&mut command);
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", binary.display()))?;
        let stdout = child.stdout.take().ok_or("the server has no stdout")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        let started_in = started.elapsed();
        let line = line.ok_or("the server did not start")?;
        let url = line
            .strip_prefix("comlog ready ")
            .ok_or("not a ready line")?;
        let url = url.to_owned();
        Ok(Server {
            child,
            url,
            started_in,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    /// A client on a connection of its own.
    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::new(ClientConfig::new(&self.url))?)
    }

    pub(crate) async fn create_topic(&self, name: &str, partitions: u32) -> Result<()> {
        let config = v1::TopicConfig::default();
        self.client()?
            .create_topic(name, partitions, config)
            .await?;
        Ok(())
    }

    /// Bytes of the batches in a topic.
    pub(crate) async fn topic_bytes(&self, name: &str) -> Result<u64> {
        let described = self.client()?.describe_topic(name).await?;
        Ok(described
            .partitions
            .iter()
            .map(|partition| partition.size_bytes)
            .sum())
    }

    /// SIGTERM, and its end.
    pub(crate) async fn stop(mut self) -> Result<()> {
        terminate(&mut self.child).await
    }
}

/// Sends SIGTERM to a process and waits for its end.
pub(crate) async fn terminate(child: &mut Child) -> Result<()> {
    let pid = child.id().ok_or("it has ended")?;
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).ok_or("it has ended")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    child.wait().await?;
    Ok(())
}
