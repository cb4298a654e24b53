//! What grows with history: starting, and memory.

use std::path::Path;
use std::time::Duration;

use comlog_client::v1;

use super::{Context, consume, produce};
use crate::Result;
use crate::measure::rss_anon;
use crate::report::{Figure, Goal};
use crate::server::Server;

const SEGMENTS: u64 = 2_000;
/// What each sealed segment is stretched to; the rest of it is a hole that nobody may read.
const SEGMENT_BYTES: u64 = 16 << 20;
/// The smallest segments a topic may have, and records of which a batch fills one.
const SMALLEST_BYTES: u64 = 1 << 20;
const RECORD_BYTES: usize = 1_000;
const START_MAX_MS: f64 = 300.0;
const MEMORY_RECORDS: u64 = 10 << 20;
const MEMORY_MAX_MIB: f64 = 96.0;

pub(super) async fn start(context: &Context) -> Result<Vec<Figure>> {
    let few = started(context, "few", 2).await?;
    let many = started(context, "many", context.unless_smoke(SEGMENTS)).await?;
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let figure = Figure::new("2,000 sealed segments", "ms", ms(many)).beside("2", ms(few));
    Ok(vec![
        Figure::new("2 sealed segments", "ms", ms(few)),
        figure.goal(Goal::AtMost(START_MAX_MS)),
    ])
}

/// How long a server takes to start on a partition of at least so many sealed segments.
async fn started(context: &Context, name: &str, segments: u64) -> Result<Duration> {
    let data = context.dir.join(name);
    let server = Server::start(&context.binary, &data).await?;
    let config = v1::TopicConfig {
        segment_bytes: Some(SMALLEST_BYTES),
        ..v1::TopicConfig::default()
    };
    server.client()?.create_topic("t", 1, config).await?;
    let producer = produce::producer(&server, RECORD_BYTES)?;
    // A batch is longer than half a segment, so each has its own. One that lingered out on a busy
    // machine comes in two parts, which may make one segment more.
    let records = (segments + 1) * u64::from(produce::BATCH_RECORDS);
    produce::send(producer, "t".to_owned(), 0, RECORD_BYTES, records).await?;
    let described = server.client()?.describe_topic("t").await?;
    let there = described
        .partitions
        .first()
        .map_or(0, |partition| partition.segments);
    if u64::from(there) <= segments {
        return Err(format!("{there} segments, and not at least {}", segments + 1).into());
    }
    server.stop().await?;
    stretch(&data)?;
    let server = Server::start(&context.binary, &data).await?;
    let took = server.started_in;
    server.stop().await?;
    Ok(took)
}

/// Makes every sealed segment below `data` look as long as a real one.
fn stretch(data: &Path) -> Result<()> {
    for topic in std::fs::read_dir(data.join("topics"))? {
        let mut logs = Vec::new();
        for file in std::fs::read_dir(topic?.path().join("0"))? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                logs.push(path);
            }
        }
        logs.sort();
        logs.pop(); // the active one
        for path in logs {
            let file = std::fs::OpenOptions::new().write(true).open(path)?;
            file.set_len(SEGMENT_BYTES)?;
        }
    }
    Ok(())
}

pub(super) async fn memory(context: &Context) -> Result<Vec<Figure>> {
    let server = context.server().await?;
    server.create_topic("t", 1).await?;
    let records = context.unless_smoke(MEMORY_RECORDS);
    let producer = produce::producer(&server, 1024)?;
    produce::send(producer, "t".to_owned(), 0, 1024, records).await?;
    consume::read(&server, records).await?;
    let mib = rss_anon(server.pid()) as f64 / f64::from(1 << 20);
    server.stop().await?;
    let figure = Figure::new("RssAnon", "MiB", mib);
    Ok(vec![figure.goal(Goal::AtMost(MEMORY_MAX_MIB))])
}
