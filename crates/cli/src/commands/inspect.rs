//! `comlog inspect FILE`: what a segment, an index or a checkpoint holds.

use std::path::PathBuf;

use clap::Args;
use comlog_log::SegmentItem;
use comlog_record::{Limits, Offset, RecordBatch};
use comlog_storage::parse_segment_name;
use serde_json::{Map, Value, json};

use crate::blob;
use crate::error::{CliError, Result};
use crate::json::put_record;
use crate::output::{Out, bytes};
use crate::segment_file::{FILE_LIMITS, SegmentFile};
use crate::time;

/// Bytes of a key or value shown in text; `-o json` shows all.
const SHOWN_BYTES_MAX: usize = 60;

/// Prints the batches and records of a segment file, or what an index or checkpoint says
///
/// Only the file is read, no server is needed. Damage in a segment is shown where it stands, and the
/// batches behind it too; the exit code is then 6.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  comlog inspect comlog-data/topics/ID/0/00000000000000000000.log
  comlog inspect --batches 00000000000000000000.log
  comlog inspect 00000000000000000000.timeindex
  comlog inspect -o json 00000000000000000000.log | jq .records[].value")]
pub(crate) struct InspectArgs {
    /// A segment (.log), an index (.index, .timeindex) or a checkpoint, or metadata
    file: PathBuf,
    /// Only the batches, not their records
    #[arg(long)]
    batches: bool,
}

/// Runs the command.
pub(crate) fn run(args: &InspectArgs, out: &mut Out) -> Result<()> {
    if blob::is_blob(&args.file)? {
        return blob::print(&args.file, out);
    }
    let file = SegmentFile::open(&args.file)?;
    let name = &args.file;
    let named = name
        .file_name()
        .and_then(|name| parse_segment_name(name.to_str()?));
    // A file that was renamed says by itself where it begins.
    let start = named.map_or_else(|| file.claimed_start(), Ok)?;
    let mut damaged = 0_u64;
    file.scan(start, Offset(i64::MAX), |item| {
        match &item {
            SegmentItem::Batch { position, batch } => {
                let good = if out.is_json() {
                    print_json(out, *position, batch, !args.batches)?
                } else {
                    print_text(out, *position, batch, !args.batches)?
                };
                damaged += u64::from(!good);
            }
            SegmentItem::Damage {
                positions, reason, ..
            } => {
                damaged += 1;
                print_gap(out, "damage", positions, reason)?;
            }
            SegmentItem::Zeros { positions } => {
                print_gap(out, "zeros", positions, "allocated ahead, never written")?;
            }
        }
        Ok(())
    })?;
    out.flush()?;
    match damaged {
        0 => Ok(()),
        count => Err(CliError::Corrupt(format!(
            "{}: {count} damaged place(s), shown above",
            name.display()
        ))),
    }
}

fn print_gap(
    out: &mut Out,
    kind: &str,
    positions: &std::ops::Range<u64>,
    reason: &str,
) -> Result<()> {
    let (start, end) = (positions.start, positions.end);
    if out.is_json() {
        return out.json(
            &json!({"kind": kind, "position": start, "end_position": end, "reason": reason}),
        );
    }
    out.line(format_args!(
        "{kind} position={start} bytes={} reason={reason}",
        end - start
    ))
}

/// Prints a batch; `false` when its records cannot be read.
fn print_text(
    out: &mut Out,
    position: u64,
    batch: &RecordBatch,
    with_records: bool,
) -> Result<bool> {
    let header = batch.header();
    out.line(format_args!(
        "batch position={position} bytes={} offsets={} records={} epoch={} codec={} time={} max={}{}{}",
        batch.total_len(),
        header.offsets(),
        header.record_count,
        header.leader_epoch,
        header.compression(),
        time::format(header.base_timestamp.0),
        time::format(header.max_timestamp.0),
        producer_text(batch),
        if header.is_control() { " control" } else { "" },
    ))?;
    if !with_records {
        return Ok(true);
    }
    let records = match batch.records(&FILE_LIMITS) {
        Ok(records) => records,
        Err(error) => {
            return out
                .line(format_args!("  damage reason={error}"))
                .map(|()| false);
        }
    };
    for record in &records {
        match record {
            Ok(record) => {
                let headers: Vec<String> = record
                    .headers
                    .map(|(name, value)| format!("{}={}", shown(Some(name)), shown(value)))
                    .collect();
                out.line(format_args!(
                    "  {} {} key={} value={}{}{}",
                    record.offset,
                    time::format(record.timestamp.0),
                    shown(record.key),
                    shown(record.value),
                    if headers.is_empty() { "" } else { " headers=" },
                    headers.join(","),
                ))?;
            }
            Err(error) => {
                return out
                    .line(format_args!("  damage reason={error}"))
                    .map(|()| false);
            }
        }
    }
    Ok(true)
}

fn producer_text(batch: &RecordBatch) -> String {
    let header = batch.header();
    if header.producer_id < 0 {
        return String::new();
    }
    format!(
        " producer={} producer_epoch={} sequence={}",
        header.producer_id, header.producer_epoch, header.base_sequence
    )
}

/// Bytes as quoted text, cut when long; `-` when absent.
fn shown(content: Option<&[u8]>) -> String {
    let Some(content) = content else {
        return "-".to_owned();
    };
    if content.len() <= SHOWN_BYTES_MAX {
        return format!("\"{}\"", content.escape_ascii());
    }
    let head = content[..SHOWN_BYTES_MAX].escape_ascii();
    format!("\"{head}\"... ({})", bytes(content.len() as u64))
}

/// Prints a batch; `false` when its records cannot be read.
fn print_json(
    out: &mut Out,
    position: u64,
    batch: &RecordBatch,
    with_records: bool,
) -> Result<bool> {
    let header = batch.header();
    let mut object = json!({
        "kind": "batch",
        "position": position,
        "bytes": batch.total_len(),
        "base_offset": header.base_offset.0,
        "next_offset": header.next_offset().0,
        "record_count": header.record_count,
        "leader_epoch": header.leader_epoch.0,
        "crc": header.crc,
        "compression": header.compression().name(),
        "control": header.is_control(),
        "base_timestamp_ms": header.base_timestamp.0,
        "max_timestamp_ms": header.max_timestamp.0,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
    });
    let mut error = None;
    if with_records {
        match records_json(batch, &FILE_LIMITS) {
            Ok(records) => object["records"] = records,
            Err(reason) => error = Some(reason.to_string()),
        }
    }
    let good = error.is_none();
    if let Some(error) = error {
        object["error"] = json!(error);
    }
    out.json(&object)?;
    Ok(good)
}

fn records_json(batch: &RecordBatch, limits: &Limits) -> Result<Value, comlog_record::DecodeError> {
    let records = batch.records(limits)?;
    let values = records.iter().map(|record| {
        let mut object = Map::new();
        put_record(&mut object, &record?);
        Ok(Value::Object(object))
    });
    values.collect()
}
