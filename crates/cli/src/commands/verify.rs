//! `comlog verify DIR`: an offline check of everything in a data directory.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use comlog_server::MetaFinding;
use serde_json::json;

use crate::check::{self, Partition};
use crate::error::{CliError, Result};
use crate::output::{self, Out, escaped};

/// Deeper folders than comlog makes are not looked into.
const DEPTH_MAX: usize = 8;
/// Directories on their way out.
const TRASH_PREFIX: &str = ".trash-";

const HEAD: [&str; 8] = [
    "PARTITION",
    "SEGMENTS",
    "BATCHES",
    "RECORDS",
    "SIZE",
    "OFFSETS",
    "TORN",
    "DAMAGE",
];

/// Checks a data directory, or one partition's, without a server
///
/// Reads every batch of every segment as the server does, checks checksums, records and that offsets
/// go on without gaps, and what a data directory needs beside them: checkpoints, indexes, metadata of
/// topics, the directory of each partition, producer ids. Lists damage by file, position and offsets;
/// the exit code is then 6. What the next start puts right by itself is only noted. Links are
/// followed. Changes nothing.
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

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs, out: &mut Out) -> Result<()> {
    let mut walk = Walk::default();
    walk.look_into(&args.dir, DEPTH_MAX)?;
    let meta = comlog_server::check_meta(&args.dir)
        .map_err(|error| CliError::file(args.dir.display(), &error))?;
    walk.findings.extend(meta);
    if walk.folders.is_empty() && walk.findings.is_empty() {
        return Err(CliError::NotFound(format!(
            "{}: no segments in it or below it",
            args.dir.display()
        )));
    }
    walk.folders.sort();
    let mut rows = Vec::new();
    let mut damaged = walk.findings.iter().filter(|found| found.is_lost).count();
    for found in &walk.findings {
        print_meta(found, out)?;
    }
    for folder in &walk.folders {
        let partition = check::partition(folder)?;
        damaged += partition.damage.len();
        print_findings(&partition, out)?;
        if out.is_json() {
            print_json(folder, &partition, out)?;
        } else {
            rows.push(row(folder, &partition));
        }
    }
    if !out.is_json() {
        out.table(&HEAD, &rows)?;
    }
    out.flush()?;
    match damaged {
        0 => Ok(()),
        count => Err(CliError::Corrupt(format!(
            "{count} damaged place(s), listed above; nothing was changed"
        ))),
    }
}

/// The folders to check.
#[derive(Debug, Default)]
struct Walk {
    folders: Vec<PathBuf>,
    /// Device and inode of those that were looked into: links may lead in a circle.
    seen: HashSet<(u64, u64)>,
    findings: Vec<MetaFinding>,
}

impl Walk {
    /// Adds every folder at or below `dir` that holds segments; follows links.
    fn look_into(&mut self, dir: &Path, depth: usize) -> Result<()> {
        let error = |error| CliError::file(dir.display(), &error);
        let own = std::fs::metadata(dir).map_err(error)?;
        if !self.seen.insert((own.dev(), own.ino())) {
            return Ok(());
        }
        let mut is_partition = false;
        for entry in std::fs::read_dir(dir).map_err(error)? {
            let path = entry.map_err(error)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match std::fs::metadata(&path) {
                Ok(found) if !found.is_dir() => is_partition |= check::is_of_partition(&name),
                Ok(_) if name.starts_with(TRASH_PREFIX) => {
                    self.note(&path, "being removed; the next start goes on with it");
                }
                Ok(_) if depth == 0 => {
                    self.note(&path, "not looked into: deeper than comlog makes folders");
                }
                Ok(_) => self.look_into(&path, depth - 1)?,
                Err(error) if entry_is_link(&path) => {
                    self.lost(&path, format!("a link that leads nowhere: {error}"));
                }
                // Removed since its name was read.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(CliError::file(path.display(), &error)),
            }
        }
        if is_partition {
            self.folders.push(dir.to_path_buf());
        }
        Ok(())
    }

    fn note(&mut self, path: &Path, reason: &str) {
        self.findings.push(MetaFinding {
            path: path.to_owned(),
            is_lost: false,
            reason: reason.to_owned(),
        });
    }

    fn lost(&mut self, path: &Path, reason: String) {
        self.findings.push(MetaFinding {
            path: path.to_owned(),
            is_lost: true,
            reason,
        });
    }
}

fn entry_is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

fn print_meta(found: &MetaFinding, out: &mut Out) -> Result<()> {
    let kind = if found.is_lost { "damage" } else { "note" };
    let file = found.path.display().to_string();
    if out.is_json() {
        return out.json(&json!({"kind": kind, "file": file, "reason": found.reason}));
    }
    let (file, reason) = (escaped(&file), escaped(&found.reason));
    out.line(format_args!("{kind} {file} reason={reason}"))
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
            let file = escaped(&damage.file.display().to_string());
            let reason = escaped(&damage.reason);
            let (start, position, bytes) = (damage.start, damage.position, damage.bytes);
            out.line(format_args!(
                "damage {file} position={position} bytes={bytes} offsets=[{start}, {end}) reason={reason}"
            ))?;
        }
    }
    if !out.is_json() {
        for reason in &partition.unusable {
            let reason = escaped(reason);
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
        escaped(&folder.display().to_string()),
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
