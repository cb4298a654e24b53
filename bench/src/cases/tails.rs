//! How long after its acknowledgement a record reaches those who follow the partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use comlog_client::{Consumer, ConsumerConfig, Producer, ProducerConfig, ProducerRecord, StartAt};
use tokio::task::JoinSet;

use super::Context;
use crate::Result;
use crate::measure::percentile;
use crate::report::{Figure, Goal};

const TAILS: usize = 8;
const PER_SECOND: u64 = 50_000;
const TICK: Duration = Duration::from_millis(1);
const POLL: Duration = Duration::from_secs(30);
const DELIVERY_MAX_US: f64 = 1_000.0;

/// When each record was acknowledged, in nanoseconds since the start; 0 means not yet.
type Times = Arc<Vec<AtomicU64>>;

pub(super) async fn run(context: &Context) -> Result<Vec<Figure>> {
    let server = context.server().await?;
    server.create_topic("t", 1).await?;
    let count = context.scaled(250_000);
    let acknowledged: Times = Arc::new((0..count).map(|_| AtomicU64::new(0)).collect());
    let started = Instant::now();
    let mut tails = JoinSet::new();
    for _ in 0..TAILS {
        let mut consumer = Consumer::new(&server.client()?, ConsumerConfig::new())?;
        consumer.assign("t", 0, StartAt::Earliest);
        tails.spawn(follow(consumer, count, started));
    }
    let producer = Producer::new(&server.client()?, ProducerConfig::new())?;
    pace(&producer, count, started, &acknowledged).await?;
    let mut micros = Vec::new();
    while let Some(received) = tails.join_next().await {
        for (received, acknowledged) in received??.iter().zip(acknowledged.iter()) {
            let delay = received.saturating_sub(acknowledged.load(Ordering::Acquire));
            micros.push(delay as f64 / 1e3);
        }
    }
    server.stop().await?;
    let p99 = Figure::new(
        "delivery after acknowledgement, p99",
        "us",
        percentile(&mut micros, 0.99),
    );
    Ok(vec![
        Figure::new(
            "delivery after acknowledgement, p50",
            "us",
            percentile(&mut micros, 0.5),
        ),
        p99.goal(Goal::AtMost(DELIVERY_MAX_US)),
    ])
}

/// Sends records at their rate, and notes when each is acknowledged.
async fn pace(producer: &Producer, count: u64, started: Instant, times: &Times) -> Result<()> {
    let mut tick = tokio::time::interval(TICK);
    let begun = Instant::now();
    let mut number = 0;
    while number < count {
        tick.tick().await;
        let due = (begun.elapsed().as_secs_f64() * PER_SECOND as f64) as u64;
        while number < due.min(count) {
            let times = times.clone();
            let value = [b'x'; 100];
            let record = ProducerRecord::new("t", &value).partition(0);
            producer
                .send_with(record, move |delivered| {
                    if delivered.is_ok() {
                        let now = started.elapsed().as_nanos() as u64;
                        times[number as usize].store(now, Ordering::Release);
                    }
                })
                .await?;
            number += 1;
        }
    }
    Ok(producer.close().await?)
}

/// When each of the first `count` records came.
async fn follow(mut consumer: Consumer, count: u64, started: Instant) -> Result<Vec<u64>> {
    let mut received = Vec::with_capacity(count as usize);
    while (received.len() as u64) < count {
        let batches = consumer.poll(POLL).await?;
        if batches.is_empty() {
            return Err(format!("only {} of {count} records came", received.len()).into());
        }
        let now = started.elapsed().as_nanos() as u64;
        let records: u64 = batches.iter().map(|batch| batch.offsets().len()).sum();
        received.extend((0..records).map(|_| now));
    }
    Ok(received)
}
