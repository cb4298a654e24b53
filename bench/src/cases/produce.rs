//! As many records as possible into one topic, in batches of 1,000, durable.

use std::time::Instant;

use comlog_client::{Producer, ProducerConfig, ProducerRecord};
use tokio::task::JoinSet;

use super::Context;
use crate::Result;
use crate::measure::Usage;
use crate::report::{Figure, Goal};
use crate::server::Server;

/// Records of a batch.
pub(super) const BATCH_RECORDS: u32 = 1_000;

pub(super) async fn small(context: &Context) -> Result<Vec<Figure>> {
    let mut figures = connections(context, 100, context.scaled(5_000_000)).await?;
    figures[0].goal = Some(Goal::AtLeast(3.5e6));
    figures[1].goal = Some(Goal::AtMost(0.12));
    Ok(figures)
}

pub(super) async fn large(context: &Context) -> Result<Vec<Figure>> {
    let disk = context.baselines.disk / 1024.0;
    let mut figures = connections(context, 1024, context.scaled(1_000_000)).await?;
    figures[0] = figures[0].clone().beside("1 MiB + fdatasync", disk);
    figures[0].goal = Some(Goal::RatioAtLeast(0.8));
    figures[1].goal = Some(Goal::AtMost(0.70));
    for name in ["4 connections, 1 partition", "4 connections, 4 partitions"] {
        let same = figures.iter().find(|figure| figure.name == name);
        let value = same.map_or(f64::NAN, |figure| figure.value);
        let figure = Figure::new(format!("{name}, of the disk"), "rec/s", value);
        figures.push(
            figure
                .beside("1 MiB + fdatasync", disk)
                .goal(Goal::RatioAtLeast(1.2)),
        );
    }
    Ok(figures)
}

async fn connections(context: &Context, record_bytes: usize, records: u64) -> Result<Vec<Figure>> {
    let server = context.server().await?;
    let mut figures = Vec::new();
    let one = run(&server, "one", 1, 1, record_bytes, records).await?;
    let millions = records as f64 / 1e6;
    figures.push(Figure::new("1 connection", "rec/s", one.rate));
    figures.push(Figure::new(
        "server CPU",
        "s/M",
        one.server.cpu.as_secs_f64() / millions,
    ));
    figures.push(Figure::new(
        "client CPU",
        "s/M",
        one.client.cpu.as_secs_f64() / millions,
    ));
    let written = one.server.written as f64 / one.encoded as f64;
    let figure = Figure::new("bytes written per encoded byte", "B/B", written);
    figures.push(figure.goal(Goal::AtMost(1.05)));
    for (name, partitions) in [
        ("4 connections, 1 partition", 1),
        ("4 connections, 4 partitions", 4),
    ] {
        let topic = format!("four-{partitions}");
        let four = run(&server, &topic, 4, partitions, record_bytes, records).await?;
        let figure = Figure::new(name, "rec/s", four.rate).beside("1 connection", one.rate);
        figures.push(figure.goal(Goal::RatioAtLeast(1.0)));
    }
    server.stop().await?;
    Ok(figures)
}

struct Produced {
    rate: f64,
    server: Usage,
    client: Usage,
    encoded: u64,
}

async fn run(
    server: &Server,
    topic: &str,
    connections: u32,
    partitions: u32,
    record_bytes: usize,
    records: u64,
) -> Result<Produced> {
    server.create_topic(topic, partitions).await?;
    let (server_before, own_before) = (server.usage(), Usage::own());
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        let producer = producer(server, record_bytes)?;
        let topic = topic.to_owned();
        let share = records / u64::from(connections);
        tasks.spawn(send(
            producer,
            topic,
            connection % partitions,
            record_bytes,
            share,
        ));
    }
    while let Some(sent) = tasks.join_next().await {
        sent??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let (used, own) = (
        server.usage().since(server_before),
        Usage::own().since(own_before),
    );
    Ok(Produced {
        rate: records as f64 / seconds,
        server: used,
        client: own,
        encoded: server.topic_bytes(topic).await?,
    })
}

/// A producer on a connection of its own.
pub(super) fn producer(server: &Server, record_bytes: usize) -> Result<Producer> {
    let config = ProducerConfig::new()
        .batch_records_max(BATCH_RECORDS)
        .batch_bytes((record_bytes + 64) * BATCH_RECORDS as usize);
    Ok(Producer::new(&server.client()?, config)?)
}

/// Sends `count` records and waits until all are acknowledged.
pub(super) async fn send(
    producer: Producer,
    topic: String,
    partition: u32,
    record_bytes: usize,
    count: u64,
) -> Result<()> {
    let value = vec![b'x'; record_bytes];
    for _ in 0..count {
        let record = ProducerRecord::new(&topic, &value).partition(partition);
        // What became of it shows when the producer is closed.
        drop(producer.send(record).await?);
    }
    Ok(producer.close().await?)
}
