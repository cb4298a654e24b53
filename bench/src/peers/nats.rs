//! NATS JetStream with file storage, at the server's defaults.

use std::collections::VecDeque;
use std::path::Path;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::Deserialize;
use tokio::process::Command;

use super::process::{LOOK_INTERVAL, LOOKS, Process};
use super::{BATCH_RECORDS, IN_FLIGHT, Peer};
use crate::Result;
use crate::measure::Usage;

pub(super) const PROGRAM: &str = "nats-server";

/// A server, and one connection to it.
pub(super) struct Nats {
    process: Process,
    context: jetstream::Context,
}

/// What the server writes down once it listens.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl Nats {
    pub(super) async fn start(dir: &Path) -> Result<Nats> {
        let mut command = Command::new(PROGRAM);
        command
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream"])
            .arg("--store_dir")
            .arg(dir)
            .arg("--ports_file_dir")
            .arg(dir);
        let mut process = Process::start(&mut command)?;
        let url = url(dir, &mut process).await?;
        let client = async_nats::connect(url).await?;
        let context = ContextBuilder::new()
            .max_ack_inflight(IN_FLIGHT * BATCH_RECORDS)
            .build(client);
        Ok(Nats { process, context })
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.process.stop().await
    }
}

/// Where the server listens, once it does.
async fn url(dir: &Path, process: &mut Process) -> Result<String> {
    let file = dir.join(format!("{PROGRAM}_{}.ports", process.pid()));
    for _ in 0..LOOKS {
        if process.has_ended()? {
            return Err(format!("{PROGRAM} ends as soon as it is started").into());
        }
        let text = std::fs::read(&file).unwrap_or_default();
        // Until it is there, and whole.
        let ports = serde_json::from_slice::<Ports>(&text).ok();
        if let Some(url) = ports.and_then(|ports| ports.nats.into_iter().next()) {
            return Ok(url);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Err(format!("{PROGRAM} does not become ready").into())
}

impl Peer for Nats {
    fn usage(&self) -> Usage {
        self.process.usage()
    }

    async fn create(&self, log: &str) -> Result<()> {
        let config = stream::Config {
            name: log.to_owned(),
            subjects: vec![log.to_owned()],
            storage: stream::StorageType::File,
            ..stream::Config::default()
        };
        self.context.create_stream(config).await?;
        Ok(())
    }

    async fn produce(&self, log: &str, record_bytes: usize, records: u64) -> Result<()> {
        let value = Bytes::from(vec![b'x'; record_bytes]);
        let mut under_way = VecDeque::new();
        for _ in 0..records {
            // The context lets no more be under way than this, so the first must be taken before.
            if under_way.len() == IN_FLIGHT * BATCH_RECORDS
                && let Some(first) = under_way.pop_front()
            {
                acknowledged(first).await?;
            }
            let publish = self.context.publish(log.to_owned(), value.clone());
            under_way.push_back(publish.await?);
        }
        for publish in under_way {
            acknowledged(publish).await?;
        }
        Ok(())
    }

    async fn append(&self, log: &str, value: &[u8]) -> Result<()> {
        let value = Bytes::copy_from_slice(value);
        acknowledged(self.context.publish(log.to_owned(), value).await?).await
    }

    async fn consume(&self, log: &str, records: u64) -> Result<u64> {
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = self.context.create_consumer_on_stream(config, log).await?;
        let batches = consumer.stream().max_messages_per_batch(BATCH_RECORDS);
        let mut messages = batches.messages().await?;
        let mut bytes = 0;
        for count in 0..records {
            let message = messages.try_next().await?;
            let message =
                message.ok_or_else(|| format!("only {count} of {records} records came"))?;
            bytes += message.payload.len() as u64;
        }
        Ok(bytes)
    }
}

/// Waits for the server's answer, and that it took the record.
async fn acknowledged(publish: jetstream::context::PublishAckFuture) -> Result<()> {
    publish.await?;
    Ok(())
}
