//! Other logs under the loads that comlog is put under: the servers that a package brings, through
//! the Rust clients that most of their users take.
//!
//! Each keeps as many records under way as a comlog producer: [`IN_FLIGHT`] batches of
//! [`BATCH_RECORDS`].

mod nats;
mod process;
mod redis;

use std::future::Future;
use std::time::Instant;

use crate::Result;
use crate::cases::{Case, Context, When};
use crate::measure::{Usage, percentile};
use crate::report::Figure;
use nats::Nats;
use redis::{Redis, Sync};

/// The Debian packages that bring the servers; each brings a program of its own name.
pub(crate) const PACKAGES: [&str; 2] = [redis::PROGRAM, nats::PROGRAM];

const BATCH_RECORDS: usize = 1_000;
const IN_FLIGHT: usize = 5;

/// Sizes of a record, and how many of them go in and out.
const LOADS: [(usize, u64); 2] = [(100, 1_000_000), (1024, 300_000)];
const CALLS: u64 = 5_000;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "redis-always",
        about: "Redis Streams, appendfsync always: an acknowledged record is synced",
        when: When::Peers,
        run: |context| Box::pin(redis(context, Sync::Always)),
    },
    Case {
        name: "redis-everysec",
        about: "Redis Streams, appendfsync everysec: acknowledged before it is synced",
        when: When::Peers,
        run: |context| Box::pin(redis(context, Sync::EverySecond)),
    },
    Case {
        name: "nats-no-sync",
        about: "NATS JetStream on files at its defaults: acknowledged without a sync",
        when: When::Peers,
        run: |context| Box::pin(nats(context)),
    },
];

/// A log in a server of its own.
trait Peer {
    /// What its process has used so far, with all threads.
    fn usage(&self) -> Usage;

    /// Makes an empty log of this name.
    fn create(&self, log: &str) -> impl Future<Output = Result<()>> + Send;

    /// Appends `records` values of `record_bytes` each; on return all are acknowledged.
    fn produce(
        &self,
        log: &str,
        record_bytes: usize,
        records: u64,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Appends one value; on return it is acknowledged.
    fn append(&self, log: &str, value: &[u8]) -> impl Future<Output = Result<()>> + Send;

    /// Reads `records` records from the start and returns the bytes of their values.
    fn consume(&self, log: &str, records: u64) -> impl Future<Output = Result<u64>> + Send;
}

/// The program and the version of each peer, for the report.
pub(crate) fn versions() -> Result<Vec<String>> {
    PACKAGES.into_iter().map(process::version).collect()
}

async fn redis(context: &Context, sync: Sync) -> Result<Vec<Figure>> {
    let peer = Redis::start(&context.dir, sync).await?;
    let figures = measure(context, &peer).await?;
    peer.stop().await?;
    Ok(figures)
}

async fn nats(context: &Context) -> Result<Vec<Figure>> {
    let peer = Nats::start(&context.dir).await?;
    let figures = measure(context, &peer).await?;
    peer.stop().await?;
    Ok(figures)
}

async fn measure(context: &Context, peer: &impl Peer) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (record_bytes, records) in LOADS {
        let log = format!("log-{record_bytes}");
        let records = context.scaled(records);
        peer.create(&log).await?;
        figures.extend(produce(context, peer, &log, record_bytes, records).await?);
        figures.extend(consume(peer, &log, record_bytes, records).await?);
        figures.extend(latency(context, peer, record_bytes).await?);
    }
    Ok(figures)
}

async fn produce(
    context: &Context,
    peer: &impl Peer,
    log: &str,
    record_bytes: usize,
    records: u64,
) -> Result<Vec<Figure>> {
    let (before, started) = (peer.usage(), Instant::now());
    peer.produce(log, record_bytes, records).await?;
    let rate = records as f64 / started.elapsed().as_secs_f64();
    let name = format!("{record_bytes} B produce");
    let disk = context.baselines.disk / record_bytes as f64;
    let cpu = server_cpu(peer, before, records, &name);
    let rate = Figure::new(name, "rec/s", rate).beside("1 MiB + fdatasync", disk);
    Ok(vec![rate, cpu])
}

async fn consume(
    peer: &impl Peer,
    log: &str,
    record_bytes: usize,
    records: u64,
) -> Result<Vec<Figure>> {
    let (before, started) = (peer.usage(), Instant::now());
    let bytes = peer.consume(log, records).await?;
    let rate = records as f64 / started.elapsed().as_secs_f64();
    if bytes != records * record_bytes as u64 {
        return Err(format!("{bytes} bytes came of {records} records").into());
    }
    let name = format!("{record_bytes} B consume");
    let cpu = server_cpu(peer, before, records, &name);
    Ok(vec![Figure::new(name, "rec/s", rate), cpu])
}

async fn latency(context: &Context, peer: &impl Peer, record_bytes: usize) -> Result<Vec<Figure>> {
    let log = format!("calls-{record_bytes}");
    peer.create(&log).await?;
    let value = vec![b'x'; record_bytes];
    let mut micros = Vec::new();
    for _ in 0..context.scaled(CALLS) {
        let started = Instant::now();
        peer.append(&log, &value).await?;
        micros.push(started.elapsed().as_secs_f64() * 1e6);
    }
    let (p50, p99) = context.baselines.append_allowed();
    let mut figure = |name, share, beside| {
        let value = percentile(&mut micros, share);
        Figure::new(format!("{record_bytes} B {name}"), "us", value).beside("allowed", beside)
    };
    Ok(vec![figure("p50", 0.5, p50), figure("p99", 0.99, p99)])
}

fn server_cpu(peer: &impl Peer, before: Usage, records: u64, name: &str) -> Figure {
    let seconds = peer.usage().since(before).cpu.as_secs_f64();
    let name = format!("{name}, server CPU");
    Figure::new(name, "s/M", seconds / (records as f64 / 1e6))
}
