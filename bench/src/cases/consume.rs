//! A topic from its start to its end.

use std::time::{Duration, Instant};

use comlog_client::{Consumer, ConsumerConfig, StartAt};

use super::{Context, produce};
use crate::Result;
use crate::measure::Usage;
use crate::report::{Figure, Goal};
use crate::server::Server;

const POLL: Duration = Duration::from_secs(30);

pub(super) async fn small(context: &Context) -> Result<Vec<Figure>> {
    let mut figures = measure(context, 100, context.scaled(10_000_000)).await?;
    figures[0].goal = Some(Goal::AtLeast(5e6));
    figures[2].goal = Some(Goal::AtMost(0.05));
    Ok(figures)
}

pub(super) async fn large(context: &Context) -> Result<Vec<Figure>> {
    let mut figures = measure(context, 1024, context.scaled(2_000_000)).await?;
    figures[1].goal = Some(Goal::AtLeast(1_500.0));
    figures[2].goal = Some(Goal::AtMost(0.45));
    Ok(figures)
}

async fn measure(context: &Context, record_bytes: usize, records: u64) -> Result<Vec<Figure>> {
    let server = context.server().await?;
    server.create_topic("t", 1).await?;
    let producer = produce::producer(&server, record_bytes)?;
    produce::send(producer, "t".to_owned(), 0, record_bytes, records).await?;
    let (server_before, own_before) = (server.usage(), Usage::own());
    let started = Instant::now();
    let bytes = read(&server, records).await?;
    let seconds = started.elapsed().as_secs_f64();
    if bytes != records * record_bytes as u64 {
        return Err(format!("{bytes} bytes came of {records} records").into());
    }
    let (used, own) = (
        server.usage().since(server_before),
        Usage::own().since(own_before),
    );
    server.stop().await?;
    let millions = records as f64 / 1e6;
    let download = context.baselines.echo_download / 1e6;
    Ok(vec![
        Figure::new("records", "rec/s", records as f64 / seconds),
        Figure::new("values", "MB/s", bytes as f64 / 1e6 / seconds)
            .beside("tonic download", download),
        Figure::new("server CPU", "s/M", used.cpu.as_secs_f64() / millions),
        Figure::new("client CPU", "s/M", own.cpu.as_secs_f64() / millions),
    ])
}

/// Reads `records` records of topic `t` and returns the bytes of their values.
pub(super) async fn read(server: &Server, records: u64) -> Result<u64> {
    let mut consumer = Consumer::new(&server.client()?, ConsumerConfig::new())?;
    consumer.assign("t", 0, StartAt::Earliest);
    let (mut count, mut bytes) = (0, 0);
    while count < records {
        let batches = consumer.poll(POLL).await?;
        if batches.is_empty() {
            return Err(format!("only {count} of {records} records came").into());
        }
        for record in batches.iter().flat_map(|batch| batch.iter()) {
            bytes += record?.value.map_or(0, <[u8]>::len) as u64;
            count += 1;
        }
    }
    Ok(bytes)
}
