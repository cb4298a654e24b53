//! The small files beside the segments: indexes and checkpoints.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use comlog_log::{DamagedRange, Inspected, InspectedCheckpoint};
use comlog_record::{Offset, Timestamp};
use serde_json::{Value, json};

use crate::error::{CliError, Result};
use crate::output::{Out, escaped};
use crate::time;

/// What every such file begins with, and no segment.
const MAGIC: &[u8] = b"comlog";
/// Larger files are not what we know.
const BLOB_BYTES_MAX: u64 = 1 << 30;

/// Whether the file is one of these rather than a segment.
pub(crate) fn is_blob(path: &Path) -> Result<bool> {
    let error = |error| CliError::file(path.display(), &error);
    let mut head = Vec::new();
    let file = File::open(path).map_err(error)?;
    file.take(MAGIC.len() as u64)
        .read_to_end(&mut head)
        .map_err(error)?;
    Ok(head == MAGIC)
}

fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    let error = |error| CliError::file(path.display(), &error);
    let mut content = Vec::new();
    let file = File::open(path).map_err(error)?;
    file.take(BLOB_BYTES_MAX)
        .read_to_end(&mut content)
        .map_err(error)?;
    Ok(content)
}

/// Reads and decodes one.
pub(crate) fn read(path: &Path) -> Result<Inspected> {
    let content = bytes_of(path)?;
    Inspected::decode(&content)
        .map_err(|error| CliError::Corrupt(format!("{}: {error}", path.display())))
}

/// What a file of a data directory's metadata says; `None` when it is another.
fn read_meta(path: &Path) -> Result<Option<Value>> {
    let content = bytes_of(path)?;
    let meta = comlog_server::inspect_meta(&content).transpose();
    meta.map_err(|reason| CliError::Corrupt(format!("{}: {reason}", path.display())))
}

fn print_meta(meta: &Value, out: &mut Out) -> Result<()> {
    if out.is_json() {
        out.json(meta)?;
    } else {
        let shown = serde_json::to_string_pretty(meta).unwrap_or_default();
        out.line(shown)?;
    }
    out.flush()
}

/// Prints one.
pub(crate) fn print(path: &Path, out: &mut Out) -> Result<()> {
    if let Some(meta) = read_meta(path)? {
        return print_meta(&meta, out);
    }
    let inspected = read(path)?;
    if out.is_json() {
        out.json(&to_json(&inspected))?;
        return out.flush();
    }
    match &inspected {
        Inspected::OffsetIndex { segment, entries } => {
            let (base, end, len) = (segment.base, segment.end, segment.len);
            out.line(format_args!(
                "offset index of segment offsets=[{base}, {end}) bytes={len}"
            ))?;
            print_offsets(entries, out)?;
        }
        Inspected::TimeIndex {
            segment,
            entries,
            max,
        } => {
            let (base, end, len) = (segment.base, segment.end, segment.len);
            let max = max.map_or("-".to_owned(), |max| time::format(max.0));
            out.line(format_args!(
                "time index of segment offsets=[{base}, {end}) bytes={len} max={max}"
            ))?;
            let row = |(time, offset): &(Timestamp, Offset)| {
                vec![time::format(time.0), offset.to_string()]
            };
            out.table(
                &["TIME", "OFFSET"],
                &entries.iter().map(row).collect::<Vec<_>>(),
            )?;
        }
        Inspected::Checkpoint(checkpoint) => print_checkpoint(checkpoint, out)?,
        _ => out.line(format_args!("{inspected:?}"))?,
    }
    out.flush()
}

fn print_offsets(entries: &[(Offset, u64)], out: &mut Out) -> Result<()> {
    let row = |(offset, position): &(Offset, u64)| vec![offset.to_string(), position.to_string()];
    out.table(
        &["OFFSET", "POSITION"],
        &entries.iter().map(row).collect::<Vec<_>>(),
    )
}

fn print_checkpoint(found: &InspectedCheckpoint, out: &mut Out) -> Result<()> {
    out.line(format_args!(
        "checkpoint clean={} durability={} start={} fencing_token={} producers={} producer_id_max={}",
        found.clean,
        durability(found),
        found.log_start_offset,
        found.fencing_token,
        found.producers,
        found.producer_id_max,
    ))?;
    out.line(format_args!(
        "recovery point segment={} position={} offset={} group_bytes_max={}",
        found.recovery_segment,
        found.recovery_position,
        found.recovery_offset,
        found.group_bytes_max,
    ))?;
    for (epoch, start) in &found.leader_epochs {
        out.line(format_args!("leader epoch {epoch} from offset {start}"))?;
    }
    for range in &found.damaged {
        out.line(format_args!(
            "damaged segment={} positions=[{}, {}) offsets={} reason={}",
            range.segment,
            range.positions.start,
            range.positions.end,
            range.offsets,
            escaped(&range.reason),
        ))?;
    }
    print_offsets(&found.entries, out)
}

fn durability(found: &InspectedCheckpoint) -> &'static str {
    match found.durability {
        comlog_log::Durability::Memory => "memory",
        comlog_log::Durability::Durable => "durable",
    }
}

fn to_json(inspected: &Inspected) -> Value {
    match inspected {
        Inspected::OffsetIndex { segment, entries } => json!({
            "kind": "offset_index",
            "base_offset": segment.base.0,
            "end_offset": segment.end.0,
            "segment_bytes": segment.len,
            "entries": offsets_json(entries),
        }),
        Inspected::TimeIndex {
            segment,
            entries,
            max,
        } => {
            let entry = |(time, offset): &(Timestamp, Offset)| json!({"timestamp_ms": time.0, "offset": offset.0});
            json!({
                "kind": "time_index",
                "base_offset": segment.base.0,
                "end_offset": segment.end.0,
                "segment_bytes": segment.len,
                "max_timestamp_ms": max.map(|max| max.0),
                "entries": entries.iter().map(entry).collect::<Vec<_>>(),
            })
        }
        Inspected::Checkpoint(found) => checkpoint_json(found),
        _ => json!({"kind": "unknown", "content": format!("{inspected:?}")}),
    }
}

fn checkpoint_json(found: &InspectedCheckpoint) -> Value {
    let epoch = |(epoch, start): &(comlog_record::LeaderEpoch, Offset)| json!({"epoch": epoch.0, "start_offset": start.0});
    let damaged = |range: &DamagedRange| {
        json!({
            "segment": range.segment.0,
            "position": range.positions.start,
            "end_position": range.positions.end,
            "start_offset": range.offsets.start.0,
            "end_offset": range.offsets.end.0,
            "reason": range.reason,
        })
    };
    json!({
        "kind": "checkpoint",
        "clean": found.clean,
        "durability": durability(found),
        "group_bytes_max": found.group_bytes_max,
        "log_start_offset": found.log_start_offset.0,
        "fencing_token": found.fencing_token,
        "recovery_segment": found.recovery_segment.0,
        "recovery_position": found.recovery_position,
        "recovery_offset": found.recovery_offset.0,
        "active_since_ms": found.active_since.map(|since| since.0),
        "leader_epochs": found.leader_epochs.iter().map(epoch).collect::<Vec<_>>(),
        "damaged": found.damaged.iter().map(damaged).collect::<Vec<_>>(),
        "producers": found.producers,
        "producer_id_max": found.producer_id_max,
        "entries": offsets_json(&found.entries),
    })
}

fn offsets_json(entries: &[(Offset, u64)]) -> Vec<Value> {
    let entry =
        |(offset, position): &(Offset, u64)| json!({"offset": offset.0, "position": position});
    entries.iter().map(entry).collect()
}
