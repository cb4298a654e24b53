//! `comlog verify DIR`: an offline check of everything in a data directory.

use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;
use comlog_log::{Inspected, InspectedCheckpoint};
use comlog_record::{Offset, OffsetRange, RecordBatch};
use comlog_storage::parse_segment_name;
use serde_json::json;

use crate::blob;
use crate::error::{CliError, Result};
use crate::output::{self, Out};
use crate::scan::{FILE_LIMITS, Found, SegmentScan};

/// Deeper folders than comlog makes are not looked into.
const DEPTH_MAX: usize = 8;

/// Checks a data directory, or one partition's, without a server
///
/// Reads every batch of every segment, checks checksums, records and that offsets go on without
/// gaps, and lists damage by file, position and offsets; the exit code is then 6. Changes nothing.
/// Stop the server first, or what it writes meanwhile may look torn.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  comlog verify comlog-data
  comlog verify comlog-data -o json | jq 'select(.kind == \"damage\")'")]
pub(crate) struct VerifyArgs {
    /// A data directory, or any folder below it
    dir: PathBuf,
}

/// What was found in one folder of segments.
#[derive(Debug, Default)]
struct Partition {
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    /// From the first segment's name to the last batch.
    offsets: Option<OffsetRange>,
    /// Bytes behind the last batch of the last segment that a start would cut.
    torn_bytes: u64,
    damage: Vec<Damage>,
    /// Indexes and checkpoints that cannot be used, and why; a start rebuilds them.
    unusable: Vec<String>,
}

#[derive(Debug)]
struct Damage {
    file: PathBuf,
    position: u64,
    bytes: u64,
    /// The offsets that are missing or cannot be read; open at the end when nothing follows.
    start: Offset,
    end: Option<Offset>,
    reason: String,
}

impl Damage {
    /// Offsets for which there are no bytes.
    fn nothing(file: &Path, start: Offset, end: Offset, reason: &str) -> Damage {
        Damage {
            file: file.to_path_buf(),
            position: 0,
            bytes: 0,
            start,
            end: Some(end),
            reason: reason.to_owned(),
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs, out: &mut Out) -> Result<()> {
    let mut folders = Vec::new();
    find_partitions(&args.dir, DEPTH_MAX, &mut folders)?;
    if folders.is_empty() {
        return Err(CliError::NotFound(format!(
            "{}: no segments in it or below it",
            args.dir.display()
        )));
    }
    folders.sort();
    let mut rows = Vec::new();
    let mut damaged = 0;
    for folder in &folders {
        let partition = check_partition(folder)?;
        damaged += partition.damage.len();
        print_findings(&partition, out)?;
        if out.is_json() {
            print_json(folder, &partition, out)?;
        } else {
            rows.push(row(folder, &partition));
        }
    }
    if !out.is_json() {
        out.table(
            &[
                "PARTITION",
                "SEGMENTS",
                "BATCHES",
                "RECORDS",
                "SIZE",
                "OFFSETS",
                "TORN",
                "DAMAGE",
            ],
            &rows,
        )?;
    }
    out.flush()?;
    match damaged {
        0 => Ok(()),
        count => Err(CliError::Corrupt(format!(
            "{count} damaged place(s), listed above; nothing was changed"
        ))),
    }
}

/// Adds every folder at or below `dir` that holds segments.
fn find_partitions(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let error = |error| CliError::file(dir.display(), &error);
    let mut has_segments = false;
    for entry in std::fs::read_dir(dir).map_err(error)? {
        let entry = entry.map_err(error)?;
        if entry.file_type().map_err(error)?.is_dir() {
            if depth > 0 {
                find_partitions(&entry.path(), depth - 1, found)?;
            }
        } else {
            has_segments |= segment_base(&entry.path()).is_some();
        }
    }
    if has_segments {
        found.push(dir.to_path_buf());
    }
    Ok(())
}

fn segment_base(path: &Path) -> Option<Offset> {
    parse_segment_name(path.file_name()?.to_str()?)
}

fn check_partition(folder: &Path) -> Result<Partition> {
    let error = |error| CliError::file(folder.display(), &error);
    let mut partition = Partition::default();
    let mut checkpoint = None;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if let Some(base) = segment_base(&path) {
            files.push((base, path));
        } else if path.is_file() && blob::is_blob(&path)? {
            match blob::read(&path) {
                Ok(Inspected::Checkpoint(found)) => checkpoint = Some(found),
                Ok(_) => {}
                Err(error) => partition.unusable.push(error.to_string()),
            }
        }
    }
    files.sort();
    check_segments(&mut partition, &files, checkpoint.as_deref())?;
    Ok(partition)
}

fn check_segments(
    partition: &mut Partition,
    files: &[(Offset, PathBuf)],
    checkpoint: Option<&InspectedCheckpoint>,
) -> Result<()> {
    let Some((start, _)) = files.first() else {
        return Ok(());
    };
    let mut next = *start;
    for (index, (base, file)) in files.iter().enumerate() {
        if *base != next {
            let reason = if *base > next {
                "a segment is missing"
            } else {
                "the segment overlaps the one before"
            };
            let (start, end) = (next.min(*base), next.max(*base));
            partition
                .damage
                .push(Damage::nothing(file, start, end, reason));
        }
        let durable = durable_bytes(*base, index + 1 == files.len(), checkpoint);
        next = check_segment(partition, file, *base, durable)?;
    }
    let last = &files[files.len() - 1].1;
    let promised = checkpoint.map_or(Offset::ZERO, |checkpoint| checkpoint.recovery_offset);
    if next < promised && partition.damage.is_empty() {
        let reason = "the log ends before its checkpoint";
        partition
            .damage
            .push(Damage::nothing(last, next, promised, reason));
    }
    partition.offsets = Some(OffsetRange::new(*start, next));
    Ok(())
}

/// Bytes of a segment that no crash can have torn: only behind them does a start cut.
fn durable_bytes(base: Offset, is_last: bool, checkpoint: Option<&InspectedCheckpoint>) -> u64 {
    match checkpoint {
        _ if !is_last => u64::MAX,
        Some(checkpoint) if checkpoint.clean => u64::MAX,
        Some(checkpoint) if checkpoint.recovery_segment == base => checkpoint.recovery_position,
        _ => 0,
    }
}

/// Checks one segment and returns the offset behind its last batch.
fn check_segment(
    partition: &mut Partition,
    file: &Path,
    base: Offset,
    durable_bytes: u64,
) -> Result<Offset> {
    let error = |error| CliError::file(file.display(), &error);
    let mut scan = SegmentScan::open(file).map_err(error)?;
    let mut check = SegmentCheck {
        partition,
        file,
        next: base,
        unread: None,
    };
    while let Some(found) = scan.next_found().map_err(error)? {
        match found {
            Found::Batch { position, batch } => check.batch(position, &batch),
            Found::Damage { positions, reason } => {
                check.unread = Some(check.damage(positions, None, reason));
            }
            Found::Zeros { .. } => {}
        }
    }
    check.partition.segments += 1;
    match check.unread {
        // Nothing valid follows at the end of the log: the tear of a crash, cut at the next start.
        Some(tear) if tear.position >= durable_bytes => check.partition.torn_bytes = tear.bytes,
        other => check.partition.damage.extend(other),
    }
    Ok(check.next)
}

/// Where the check of one segment stands.
struct SegmentCheck<'a> {
    partition: &'a mut Partition,
    file: &'a Path,
    /// The offset behind the last batch.
    next: Offset,
    /// Damage whose last offset shows only when the next batch is found.
    unread: Option<Damage>,
}

impl SegmentCheck<'_> {
    fn batch(&mut self, position: u64, batch: &RecordBatch) {
        let header = batch.header();
        let base = header.base_offset;
        let positions = position..position + batch.total_len() as u64;
        match self.unread.take() {
            Some(unread) => self.partition.damage.push(Damage {
                end: Some(base),
                ..unread
            }),
            None if base != self.next => {
                let gap = self.damage(
                    position..position,
                    Some(base),
                    "offsets are missing".to_owned(),
                );
                self.partition.damage.push(gap);
            }
            None => {}
        }
        self.next = base;
        if let Err(reason) = batch.check_records(&FILE_LIMITS) {
            let whole = self.damage(
                positions.clone(),
                Some(header.next_offset()),
                reason.to_string(),
            );
            self.partition.damage.push(whole);
        }
        self.partition.batches += 1;
        self.partition.records += u64::try_from(header.record_count).unwrap_or(0);
        self.partition.bytes += positions.end - positions.start;
        self.next = header.next_offset();
    }

    /// Damage from the next offset on.
    fn damage(&self, positions: Range<u64>, end: Option<Offset>, reason: String) -> Damage {
        Damage {
            file: self.file.to_path_buf(),
            position: positions.start,
            bytes: positions.end - positions.start,
            start: self.next,
            end,
            reason,
        }
    }
}

fn print_findings(partition: &Partition, out: &mut Out) -> Result<()> {
    for damage in &partition.damage {
        let end = damage.end.map(|end| end.0);
        if out.is_json() {
            out.json(&json!({
                "kind": "damage",
                "file": damage.file.display().to_string(),
                "position": damage.position,
                "bytes": damage.bytes,
                "start_offset": damage.start.0,
                "end_offset": end,
                "reason": damage.reason,
            }))?;
        } else {
            let end = end.map_or("?".to_owned(), |end| end.to_string());
            let (file, start) = (damage.file.display(), damage.start);
            let (position, bytes, reason) = (damage.position, damage.bytes, &damage.reason);
            out.line(format_args!(
                "damage {file} position={position} bytes={bytes} offsets=[{start}, {end}) reason={reason}"
            ))?;
        }
    }
    if !out.is_json() {
        for reason in &partition.unusable {
            out.line(format_args!("note {reason}; the next start rebuilds it"))?;
        }
    }
    Ok(())
}

fn print_json(folder: &Path, partition: &Partition, out: &mut Out) -> Result<()> {
    out.json(&json!({
        "kind": "partition",
        "folder": folder.display().to_string(),
        "segments": partition.segments,
        "batches": partition.batches,
        "records": partition.records,
        "bytes": partition.bytes,
        "start_offset": partition.offsets.map(|offsets| offsets.start.0),
        "end_offset": partition.offsets.map(|offsets| offsets.end.0),
        "torn_bytes": partition.torn_bytes,
        "unusable": partition.unusable,
        "damaged": partition.damage.len(),
    }))
}

fn row(folder: &Path, partition: &Partition) -> Vec<String> {
    vec![
        folder.display().to_string(),
        partition.segments.to_string(),
        partition.batches.to_string(),
        partition.records.to_string(),
        output::bytes(partition.bytes),
        partition
            .offsets
            .map_or("-".to_owned(), |offsets| offsets.to_string()),
        output::bytes(partition.torn_bytes),
        if partition.damage.is_empty() {
            "none".to_owned()
        } else {
            partition.damage.len().to_string()
        },
    ]
}
