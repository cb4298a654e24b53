//! Small appends: how long one takes, and how many at once.

use std::time::Instant;

use bytes::Bytes;
use comlog_client::{Producer, ProducerConfig, ProducerRecord};
use comlog_proto::v1::{self, log_service_client::LogServiceClient};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::Context;
use crate::Result;
use crate::measure::percentile;
use crate::report::{Figure, Goal};
use crate::server::Server;

const CALLERS: u64 = 64;

pub(super) async fn latency(context: &Context) -> Result<Vec<Figure>> {
    let server = context.server().await?;
    server.create_topic("t", 1).await?;
    let producer = Producer::new(&server.client()?, ProducerConfig::new())?;
    let value = [b'x'; 100];
    let mut micros = Vec::new();
    for _ in 0..context.scaled(5_000) {
        let started = Instant::now();
        producer.append(ProducerRecord::new("t", &value)).await?;
        micros.push(started.elapsed().as_secs_f64() * 1e6);
    }
    server.stop().await?;
    let (p50, p99) = context.baselines.append_allowed();
    let figure = |name, share, beside| {
        let value = percentile(&mut micros.clone(), share);
        Figure::new(name, "us", value)
            .beside("allowed", beside)
            .goal(Goal::RatioAtMost(1.0))
    };
    Ok(vec![figure("p50", 0.5, p50), figure("p99", 0.99, p99)])
}

pub(super) async fn unary(context: &Context) -> Result<Vec<Figure>> {
    let server = context.server().await?;
    let rate = append_all(&server, "t", 1, context.scaled(100_000)).await?;
    server.stop().await?;
    let figure =
        Figure::new("calls", "1/s", rate).beside("tonic echo", context.baselines.echo_rate);
    Ok(vec![figure.goal(Goal::RatioAtLeast(0.6))])
}

pub(super) async fn partitions(context: &Context) -> Result<Vec<Figure>> {
    let server = context.server().await?;
    let calls = context.scaled(100_000);
    let one = append_all(&server, "1 partition", 1, calls).await?;
    let mut figures = vec![Figure::new("1 partition", "1/s", one)];
    for (name, partitions, goal) in [
        ("10 partitions", 10, None),
        ("100 partitions", 100, Some(Goal::RatioAtLeast(0.7))),
        ("1,000 partitions", 1_000, Some(Goal::RatioAtLeast(0.4))),
    ] {
        let partitions = context.unless_smoke(partitions) as u32;
        let rate = append_all(&server, name, partitions, calls).await?;
        let mut figure = Figure::new(name, "1/s", rate).beside("1 partition", one);
        figure.goal = goal;
        figures.push(figure);
    }
    server.stop().await?;
    Ok(figures)
}

/// Calls a second of many callers on one connection, each call one record for the next partition.
async fn append_all(server: &Server, name: &str, partitions: u32, calls: u64) -> Result<f64> {
    let topic = name.replace([' ', ','], "-");
    server.create_topic(&topic, partitions).await?;
    let channel = Endpoint::from_shared(server.url.clone())?
        .tcp_nodelay(true)
        .connect()
        .await?;
    let share = calls / CALLERS;
    append_share(
        channel.clone(),
        topic.clone(),
        0,
        partitions,
        u64::from(partitions),
    )
    .await?;
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(append_share(
            channel.clone(),
            topic.clone(),
            caller,
            partitions,
            share,
        ));
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok((share * CALLERS) as f64 / started.elapsed().as_secs_f64())
}

async fn append_share(
    channel: Channel,
    topic: String,
    caller: u64,
    partitions: u32,
    calls: u64,
) -> Result<()> {
    let mut client = LogServiceClient::new(channel);
    for call in 0..calls {
        let record = v1::Record {
            value: Some(Bytes::from_static(&[b'x'; 100])),
            ..v1::Record::default()
        };
        let request = v1::AppendRequest {
            topic: topic.clone(),
            partition: ((caller + call) % u64::from(partitions)) as u32,
            records: vec![record],
            ..v1::AppendRequest::default()
        };
        client.append(request).await?;
    }
    Ok(())
}
