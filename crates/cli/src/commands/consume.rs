//! `comlog consume TOPIC`.

use clap::Args;
use comlog_record::{BatchStream, DecodeError, Limits, Record, RecordBatch};
use serde_json::{Map, Value, json};

use crate::commands::offsets;
use crate::connect::{Connection, ServerArgs};
use crate::error::{CliError, Result};
use crate::follow::{Follower, Reach, check_start, damaged};
use crate::format::{FIELDS_HELP, Format, Located};
use crate::framing::OutputFraming;
use crate::json::put_record;
use crate::output::Out;
use crate::position::Position;

/// What is decoded here was checked by the server, so these only bound memory.
const LIMITS: Limits = Limits {
    batch_bytes_max: 128 << 20,
    batch_records_max: u32::MAX,
    decompressed_bytes_max: 256 << 20,
};

/// Prints the records of a topic: each value on a line, up to the end of the log
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  comlog consume orders
  comlog consume orders --follow --from latest
  comlog consume orders --from @-1h --format '%p/%o %k %v\\n'
  comlog consume orders --partition 2 --from 1000 --count 10 -o json
  comlog consume photos --framing none > photo.jpg

The partitions are read at once: each in its order, their records interleaved.")]
pub(crate) struct ConsumeArgs {
    /// The topic
    topic: String,
    /// Only this partition; may repeat
    #[arg(short, long)]
    partition: Vec<u32>,
    /// Where to begin: earliest, latest, an offset, or @TIME (@2026-11-23T10:00:00Z, @-15m)
    #[arg(long, value_name = "POSITION", default_value = "earliest", value_parser = Position::parse)]
    from: Position,
    /// Where to stop: before this offset, or before the first record of @TIME or later
    #[arg(long, value_name = "POSITION", value_parser = Position::parse)]
    until: Option<Position>,
    /// Stop after so many records
    #[arg(short = 'n', long, value_name = "RECORDS")]
    count: Option<u64>,
    /// Wait for more at the end of the log
    #[arg(short, long)]
    follow: bool,
    /// How values are told apart
    #[arg(long, value_enum, default_value_t, conflicts_with = "format")]
    framing: OutputFraming,
    /// Print this for each record
    #[arg(long, value_parser = Format::parse, long_help = format!("Print this for each record, with these fields: {FIELDS_HELP}"))]
    format: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(args: &ConsumeArgs, server: &ServerArgs, out: &mut Out) -> Result<()> {
    let connection = Connection::new(server)?;
    let reaches = reaches(args, &connection).await?;
    let patience = (!args.follow).then_some(server.timeout);
    let mut follower = Follower::new(connection, args.topic.clone(), reaches, patience);
    let mut printer = Printer {
        args,
        left: args.count.unwrap_or(u64::MAX),
    };
    while printer.left > 0 {
        let Some((reach, fetched)) = follower.next().await? else {
            break;
        };
        let partition = reach.partition;
        let done = printer.print(reach, fetched.chunks, out)?;
        follower.advance(partition, fetched.next_offset, done);
        out.flush()?;
    }
    out.flush()
}

/// Where each partition is read from and to.
async fn reaches(args: &ConsumeArgs, connection: &Connection) -> Result<Vec<Reach>> {
    let partitions = offsets::partitions(connection, &args.topic, &args.partition).await?;
    let starts = offsets::list(connection, &args.topic, &partitions, args.from).await?;
    let mut reaches = Vec::with_capacity(starts.len());
    for found in &starts {
        let next = match args.from {
            Position::Offset(offset) => offset,
            _ => found.offset,
        };
        check_start(found, next)?;
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
            next,
            end,
        });
    }
    Ok(reaches)
}

/// Prints records until enough of them are printed.
struct Printer<'a> {
    args: &'a ConsumeArgs,
    left: u64,
}

impl Printer<'_> {
    /// Prints what is wanted of a piece of a partition; `true` when no more of it is wanted.
    fn print(&mut self, reach: Reach, chunks: Vec<bytes::Bytes>, out: &mut Out) -> Result<bool> {
        let mut batches = BatchStream::new(chunks);
        while !batches.is_empty() {
            let (offset, next) = batches
                .peek_header()
                .map_or((reach.next, reach.next + 1), |header| {
                    (header.base_offset.0, header.next_offset().0)
                });
            let damage = |error: DecodeError| damaged(reach.partition, offset, next, error);
            let Some(batch) = batches.next_batch(&LIMITS).map_err(damage)? else {
                break;
            };
            if batch.header().is_control() {
                continue;
            }
            if self.print_batch(reach, &batch, out, damage)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn print_batch(
        &mut self,
        reach: Reach,
        batch: &RecordBatch,
        out: &mut Out,
        damage: impl Fn(DecodeError) -> CliError,
    ) -> Result<bool> {
        let records = batch.records(&LIMITS).map_err(&damage)?;
        for record in &records {
            let record = record.map_err(&damage)?;
            if record.offset.0 < reach.next {
                continue;
            }
            if self.left == 0 || self.is_behind_end(reach, &record) {
                return Ok(true);
            }
            self.print_record(reach.partition, record, out)?;
            self.left -= 1;
        }
        Ok(false)
    }

    fn is_behind_end(&self, reach: Reach, record: &Record<'_>) -> bool {
        let late = matches!(self.args.until, Some(Position::Time(ms)) if record.timestamp.0 >= ms);
        late || reach.end.is_some_and(|end| record.offset.0 >= end)
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
