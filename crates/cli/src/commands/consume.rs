//! `comlog consume TOPIC`.

use std::time::Duration;

use clap::Args;
use comlog_client::{Client, FetchedBatch};
use comlog_proto::v1;
use comlog_record::{Offset, Record};
use serde_json::{Map, Value, json};

use crate::commands::offsets;
use crate::connect::ServerArgs;
use crate::error::{CliError, Result};
use crate::format::{FIELDS_HELP, Format, Located};
use crate::framing::OutputFraming;
use crate::json::put_record;
use crate::output::Out;
use crate::position::Position;
use crate::reader::{Following, Reach, Reader};
use crate::units;

/// Prints the records of a topic: each value on a line, up to the end of the log
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  comlog consume orders
  comlog consume orders --follow --from latest
  comlog consume orders --from @-1h --format '%p/%o %k %v\\n'
  comlog consume orders --partition 2 --from 1000 --count 10 -o json
  comlog consume photos --framing none > photo.jpg

The partitions are read at once: each in its order, their records interleaved. With --follow,
partitions that are added to the topic are read too, from their beginning.")]
pub(crate) struct ConsumeArgs {
    /// The topic
    topic: String,
    /// Only this partition; may repeat
    #[arg(short, long)]
    partition: Vec<u32>,
    /// Where to begin: earliest, latest, an offset, or @TIME (@2026-11-23T10:00:00Z, @-15m)
    #[arg(long, value_name = "POSITION", default_value = "earliest", value_parser = Position::parse)]
    from: Position,
    /// Where to stop: before this offset, or before the first record of @TIME or later; with --follow at the latest five seconds after @TIME
    #[arg(long, value_name = "POSITION", value_parser = Position::parse)]
    until: Option<Position>,
    /// Stop after so many records
    #[arg(short = 'n', long, value_name = "RECORDS")]
    count: Option<u64>,
    /// Wait for more at the end of the log
    #[arg(short, long)]
    follow: bool,
    /// With --follow, how often to look for partitions that were added
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = units::parse_duration)]
    metadata_age: Duration,
    /// How values are told apart
    #[arg(long, value_enum, default_value_t, conflicts_with = "format")]
    framing: OutputFraming,
    /// Print this for each record
    #[arg(long, value_parser = Format::parse, long_help = format!("Print this for each record, with these fields: {FIELDS_HELP}"))]
    format: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(args: &ConsumeArgs, server: &ServerArgs, out: &mut Out) -> Result<()> {
    let client = server.client()?;
    let reaches = reaches(args, &client).await?;
    let following = args.follow.then(|| following(args, &reaches));
    let mut reader = Reader::new(&client, &args.topic, reaches, server.timeout, following)?;
    let mut printer = Printer {
        args,
        left: args.count.unwrap_or(u64::MAX),
    };
    while printer.left > 0 {
        let Some(batches) = reader.next().await? else {
            break;
        };
        for batch in &batches {
            let Some(reach) = reader.wanted(batch.partition()) else {
                continue;
            };
            if printer.print_batch(batch, reach.end, out)? {
                reader.finish(reach.partition);
            }
        }
        out.flush()?;
    }
    out.flush()
}

/// How the end of the log is followed: what is added is read unless it lies behind the end.
fn following(args: &ConsumeArgs, reaches: &[Reach]) -> Following {
    let end = match args.until {
        None | Some(Position::Time(_)) => Some(None),
        Some(Position::Offset(offset)) => Some(Some(Offset(offset))),
        Some(Position::Earliest | Position::Latest) => None,
    };
    let all = args.partition.is_empty();
    let known = reaches.iter().map(|reach| reach.partition + 1).max();
    Following {
        added_behind: end.filter(|_| all).map(|end| (known.unwrap_or(0), end)),
        metadata_age: args.metadata_age,
        until_ms: match args.until {
            Some(Position::Time(ms)) => Some(ms),
            _ => None,
        },
    }
}

/// Where each partition is read from and to.
async fn reaches(args: &ConsumeArgs, client: &Client) -> Result<Vec<Reach>> {
    let partitions = offsets::partitions(client, &args.topic, &args.partition).await?;
    let starts = offsets::list(client, &args.topic, &partitions, args.from).await?;
    let mut reaches = Vec::with_capacity(starts.len());
    for found in &starts {
        let start = match args.from {
            Position::Offset(offset) => offset,
            _ => found.offset,
        };
        check_start(found, start)?;
        let log_end = (!args.follow).then_some(found.high_watermark);
        let until = match args.until {
            Some(Position::Offset(offset)) => Some(offset),
            Some(Position::Latest) => Some(found.high_watermark),
            Some(Position::Earliest) => Some(found.log_start_offset),
            Some(Position::Time(_)) | None => None,
        };
        let end = log_end.into_iter().chain(until).min();
        reaches.push(Reach {
            partition: found.partition,
            start: Offset(start),
            end: end.map(Offset),
        });
    }
    Ok(reaches)
}

/// An offset outside of a partition is an error at once, not after waiting for it.
fn check_start(found: &v1::OffsetFound, start: i64) -> Result<()> {
    let (first, end) = (found.log_start_offset, found.high_watermark);
    if (first..=end).contains(&start) {
        return Ok(());
    }
    let partition = found.partition;
    let message = format!("partition {partition} holds offsets [{first}, {end}), not {start}");
    Err(CliError::OutOfRange(message))
}

/// Prints records until enough of them are printed.
struct Printer<'a> {
    args: &'a ConsumeArgs,
    left: u64,
}

impl Printer<'_> {
    /// Prints what is wanted of a batch; `true` when no more of its partition is wanted.
    fn print_batch(
        &mut self,
        batch: &FetchedBatch,
        end: Option<Offset>,
        out: &mut Out,
    ) -> Result<bool> {
        for record in batch.iter() {
            let record = record?;
            let late =
                matches!(self.args.until, Some(Position::Time(ms)) if record.timestamp.0 >= ms);
            if self.left == 0 || late || end.is_some_and(|end| record.offset >= end) {
                return Ok(true);
            }
            self.print_record(batch.partition(), record, out)?;
            self.left -= 1;
        }
        Ok(false)
    }

    fn print_record(&self, partition: u32, record: Record<'_>, out: &mut Out) -> Result<()> {
        let topic = self.args.topic.as_str();
        if out.is_json() {
            let mut object = Map::new();
            object.insert("topic".to_owned(), json!(topic));
            object.insert("partition".to_owned(), json!(partition));
            put_record(&mut object, &record);
            return out.json(&Value::Object(object));
        }
        match &self.args.format {
            Some(format) => format.write(
                out,
                &Located {
                    topic,
                    partition,
                    record,
                },
            )?,
            None => self.args.framing.write(out, record.value)?,
        }
        Ok(())
    }
}
