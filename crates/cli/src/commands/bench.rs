//! `comlog bench`: what this server does on this machine.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use comlog_client::{Client, FetchedBatch, Producer, ProducerRecord};
use comlog_proto::v1;
use comlog_record::Offset;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::commands::offsets;
use crate::commands::produce::{BatchingArgs, Codec};
use crate::commands::topic::Durability;
use crate::connect::ServerArgs;
use crate::error::{CliError, Result};
use crate::output::Out;
use crate::position::Position;
use crate::reader::{Reach, Reader};
use crate::{time, units};

/// Values are cut from this many random bytes.
const NOISE_BYTES: usize = 1 << 20;

/// Measures producing, consuming and latency against a running server
///
/// Uses a topic of its own, which is deleted at the end. Records are durable when they are
/// acknowledged, unless --durability says otherwise. Every number includes both ends: on one
/// machine the client takes its share of the processors.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  comlog bench
  comlog bench --only produce --record-bytes 1KiB --connections 4 --partitions 4
  comlog bench --only latency --durability memory -o json")]
pub(crate) struct BenchArgs {
    /// Only this measurement; may repeat
    #[arg(long, value_enum)]
    only: Vec<Measurement>,
    /// Records to produce and consume, in all
    #[arg(short = 'n', long, default_value_t = 1_000_000)]
    records: u64,
    /// Bytes of each record's value
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = units::parse_u32)]
    record_bytes: u32,
    /// Records appended one after the other to measure latency
    #[arg(long, value_name = "RECORDS", default_value_t = 2_000)]
    latency_records: u64,
    /// Connections that produce at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Partitions of the topic
    #[arg(short, long, default_value_t = 1)]
    partitions: u32,
    /// How batches are compressed
    #[arg(short, long, value_enum, default_value_t)]
    compression: Codec,
    /// What an acknowledgement promises
    #[arg(long, value_enum, default_value = "durable")]
    durability: Durability,
    #[command(flatten)]
    batching: BatchingArgs,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// As many records as possible, batched
    Produce,
    /// Reading and decoding what was produced
    Consume,
    /// One record at a time, each acknowledged before the next
    Latency,
}

/// One measurement's result.
#[derive(Debug)]
struct Measured {
    name: &'static str,
    records: u64,
    bytes: u64,
    took: Duration,
    /// Ascending; empty unless each record was timed.
    latencies: Vec<Duration>,
}

impl Measured {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency that `share` of the records do not exceed, in milliseconds.
    fn percentile_ms(&self, share: f64) -> Option<f64> {
        let last = self.latencies.len().checked_sub(1)?;
        let latency = self.latencies[(last as f64 * share).round() as usize];
        Some(latency.as_secs_f64() * 1000.0)
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "records": self.records,
            "value_bytes": self.bytes,
            "seconds": self.took.as_secs_f64(),
            "records_per_second": self.per_second(self.records),
            "value_bytes_per_second": self.per_second(self.bytes),
            "p50_ms": self.percentile_ms(0.5),
            "p90_ms": self.percentile_ms(0.9),
            "p99_ms": self.percentile_ms(0.99),
            "max_ms": self.percentile_ms(1.0),
        })
    }

    fn to_row(&self) -> Vec<String> {
        let ms = |share| {
            self.percentile_ms(share)
                .map_or("-".to_owned(), |ms| format!("{ms:.3}"))
        };
        vec![
            self.name.to_owned(),
            self.records.to_string(),
            format!("{:.2}", self.took.as_secs_f64()),
            format!("{:.0}", self.per_second(self.records)),
            format!("{:.2}", self.per_second(self.bytes) / 1e6),
            ms(0.5),
            ms(0.9),
            ms(0.99),
            ms(1.0),
        ]
    }
}

/// Runs the command.
pub(crate) async fn run(args: &BenchArgs, server: &ServerArgs, out: &mut Out) -> Result<()> {
    let client = server.client()?;
    let bench = Bench {
        args,
        server,
        topic: format!("bench-{}-{}", std::process::id(), time::now_ms()),
        noise: noise(NOISE_BYTES.max(args.record_bytes as usize)),
    };
    bench.create_topic(&client).await?;
    let measured = bench.measure(&client).await;
    let deleted = client.delete_topic(&bench.topic).await;
    let measured = measured?;
    deleted?;
    if out.is_json() {
        measured
            .iter()
            .try_for_each(|measured| out.json(&measured.to_json()))?;
    } else {
        let head = [
            "",
            "RECORDS",
            "SECONDS",
            "RECORDS/S",
            "MB/S",
            "P50 MS",
            "P90 MS",
            "P99 MS",
            "MAX MS",
        ];
        let rows: Vec<_> = measured.iter().map(Measured::to_row).collect();
        out.table(&head, &rows)?;
    }
    out.flush()
}

/// One run against a topic of its own.
struct Bench<'a> {
    args: &'a BenchArgs,
    server: &'a ServerArgs,
    topic: String,
    noise: Bytes,
}

impl Bench<'_> {
    async fn create_topic(&self, client: &Client) -> Result<()> {
        let config = v1::TopicConfig {
            durability: self.args.durability.to_proto() as i32,
            ..v1::TopicConfig::default()
        };
        client
            .create_topic(&self.topic, self.args.partitions, config)
            .await?;
        Ok(())
    }

    /// What was asked for. Consuming needs records, so they are produced in any case.
    async fn measure(&self, client: &Client) -> Result<Vec<Measured>> {
        let wanted = |what| self.args.only.is_empty() || self.args.only.contains(&what);
        let mut measured = Vec::new();
        if wanted(Measurement::Produce) || wanted(Measurement::Consume) {
            let produced = self.produce().await?;
            measured.extend(wanted(Measurement::Produce).then_some(produced));
        }
        if wanted(Measurement::Consume) {
            measured.push(self.consume(client).await?);
        }
        if wanted(Measurement::Latency) {
            measured.push(self.latency().await?);
        }
        Ok(measured)
    }

    async fn produce(&self) -> Result<Measured> {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        let connections = u64::from(self.args.connections);
        for number in 0..connections {
            let producer = self.producer()?;
            let share = self.args.records / connections
                + u64::from(number < self.args.records % connections);
            tasks.spawn(produce(
                producer,
                self.topic.clone(),
                self.noise.clone(),
                self.args.record_bytes,
                share,
            ));
        }
        while let Some(result) = tasks.join_next().await {
            result.map_err(|error| CliError::Failed(error.to_string()))??;
        }
        Ok(self.measured("produce", self.args.records, started.elapsed(), Vec::new()))
    }

    async fn consume(&self, client: &Client) -> Result<Measured> {
        let partitions: Vec<u32> = (0..self.args.partitions).collect();
        let ends = offsets::list(client, &self.topic, &partitions, Position::Latest).await?;
        let reach = |found: &v1::OffsetFound| Reach {
            partition: found.partition,
            start: Offset(found.log_start_offset),
            end: Some(Offset(found.high_watermark)),
        };
        let reaches = ends.iter().map(reach).collect();
        let started = Instant::now();
        let mut reader = Reader::new(client, &self.topic, reaches, self.server.timeout, None)?;
        let mut records = 0;
        while let Some(batches) = reader.next().await? {
            for record in batches.iter().flat_map(FetchedBatch::iter) {
                record?;
                records += 1;
            }
        }
        Ok(self.measured("consume", records, started.elapsed(), Vec::new()))
    }

    async fn latency(&self) -> Result<Measured> {
        let producer = self.producer()?;
        let mut latencies = Vec::new();
        let started = Instant::now();
        for number in 0..self.args.latency_records {
            let sent = Instant::now();
            let value = value(&self.noise, self.args.record_bytes, number);
            producer
                .append(ProducerRecord::new(&self.topic, &value))
                .await?;
            latencies.push(sent.elapsed());
        }
        let took = started.elapsed();
        latencies.sort_unstable();
        Ok(self.measured("latency", self.args.latency_records, took, latencies))
    }

    /// A producer on a connection of its own.
    fn producer(&self) -> Result<Producer> {
        let config = self
            .args
            .batching
            .config()
            .compression(self.args.compression.to_record());
        Ok(Producer::new(&self.server.client()?, config)?)
    }

    fn measured(
        &self,
        name: &'static str,
        records: u64,
        took: Duration,
        latencies: Vec<Duration>,
    ) -> Measured {
        let bytes = records * u64::from(self.args.record_bytes);
        Measured {
            name,
            records,
            bytes,
            took,
            latencies,
        }
    }
}

/// Produces `count` records and waits until all are acknowledged.
async fn produce(
    producer: Producer,
    topic: String,
    noise: Bytes,
    length: u32,
    count: u64,
) -> Result<()> {
    for number in 0..count {
        let value = value(&noise, length, number);
        // What became of it shows when the producer is closed.
        drop(producer.send(ProducerRecord::new(&topic, &value)).await?);
    }
    Ok(producer.close().await?)
}

/// Letters that compress about as well as text does: half of them are drawn, each of those is doubled.
fn noise(count: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(count + 2);
    while out.len() < count {
        // xorshift64: any generator will do, and this one needs no dependency.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let letter = b'a' + (state % 26) as u8;
        out.extend([letter, letter]);
    }
    out.truncate(count);
    out.into()
}

/// The value of record `number`: a piece of the noise.
fn value(noise: &Bytes, length: u32, number: u64) -> Bytes {
    let length = length as usize;
    let places = (noise.len() - length + 1) as u64;
    let start = (number.wrapping_mul(7919) % places) as usize;
    noise.slice(start..start + length)
}
