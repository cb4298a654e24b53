//! `comlog offsets TOPIC`.

use clap::Args;
use comlog_client::Client;
use comlog_proto::v1;
use serde_json::json;

use crate::error::Result;
use crate::output::Out;
use crate::position::Position;

/// Shows where the partitions of a topic begin and end, or finds the offset of a time
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  comlog offsets orders
  comlog offsets orders --at @2026-11-23T10:00:00Z
  comlog offsets orders --at @-1h -o json")]
pub(crate) struct OffsetsArgs {
    /// The topic
    topic: String,
    /// Only this partition; may repeat
    #[arg(short, long)]
    partition: Vec<u32>,
    /// What to find: earliest, latest, or @TIME (the first record at or after it)
    #[arg(long, value_name = "POSITION", default_value = "latest", value_parser = Position::parse)]
    at: Position,
}

/// Runs the command.
pub(crate) async fn run(args: &OffsetsArgs, client: &Client, out: &mut Out) -> Result<()> {
    let partitions = partitions(client, &args.topic, &args.partition).await?;
    let found = list(client, &args.topic, &partitions, args.at).await?;
    if out.is_json() {
        for found in &found {
            out.json(&json!({
                "topic": found.topic,
                "partition": found.partition,
                "offset": found.offset,
                "timestamp_ms": found.timestamp_ms,
                "log_start_offset": found.log_start_offset,
                "high_watermark": found.high_watermark,
            }))?;
        }
        return out.flush();
    }
    let row = |found: &v1::OffsetFound| {
        [
            i64::from(found.partition),
            found.log_start_offset,
            found.high_watermark,
            found.offset,
        ]
        .map(|number| number.to_string())
        .to_vec()
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    out.table(&["PARTITION", "START", "END", "FOUND"], &rows)?;
    out.flush()
}

/// The partitions asked for, or all that the topic has.
pub(crate) async fn partitions(client: &Client, topic: &str, asked: &[u32]) -> Result<Vec<u32>> {
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let described = client.describe_topic(topic).await?;
    Ok((0..described.topic.unwrap_or_default().partitions).collect())
}

/// Finds an offset in each of `partitions`.
pub(crate) async fn list(
    client: &Client,
    topic: &str,
    partitions: &[u32],
    position: Position,
) -> Result<Vec<v1::OffsetFound>> {
    let start = position.start();
    let queries = partitions
        .iter()
        .map(|&partition| (topic, partition, start));
    Ok(client.list_offsets(queries).await?)
}
