//! `comlog archive flush|status|verify`.

use std::time::Duration;

use clap::{Args, Subcommand};
use comlog_archive::{
    ArchiveError, ArchiveStore, ArchivedPartition, StoreOptions, Survey, Verified, verify_partition,
};
use comlog_proto::v1;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::connect::ServerArgs;
use crate::error::{CliError, Result};
use crate::output::{self, Out};

/// Shows, completes and checks what is in the archive
#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    #[command(subcommand)]
    command: ArchiveCommand,
}

#[derive(Debug, Subcommand)]
enum ArchiveCommand {
    /// Brings everything appended so far to the archive, and waits until it is there
    #[command(after_help = "\
Examples:
  comlog archive flush
  comlog archive flush orders --timeout 10m")]
    Flush {
        /// The topics; all, with the committed offsets of groups, when none is named
        topics: Vec<String>,
    },
    /// Shows which records are where, and what a lost disk would cost
    Status {
        /// The topics; all when none is named
        topics: Vec<String>,
    },
    /// Reads a whole archive and checks every checksum, without a server; exit code 6 on damage
    #[command(after_help = "\
Examples:
  AWS_ENDPOINT=http://127.0.0.1:3900 AWS_ALLOW_HTTP=true comlog archive verify --from s3://comlog
  comlog archive verify --from file:///mnt/archive -o json")]
    Verify {
        /// Where the archive is: s3://, gs://, az:// or file://
        #[arg(long, value_name = "URL")]
        from: String,
    },
}

/// Runs the command.
pub(crate) async fn run(args: &ArchiveArgs, server: &ServerArgs, out: &mut Out) -> Result<()> {
    match &args.command {
        ArchiveCommand::Flush { topics } => {
            let flushed = server.client()?.flush_archive(topics.clone()).await?;
            print_partitions(&flushed, out)?;
        }
        ArchiveCommand::Status { topics } => {
            let status = server.client()?.archive_status(topics.clone()).await?;
            print_status(&status, out)?;
        }
        ArchiveCommand::Verify { from } => return verify(from, out).await,
    }
    out.flush()
}

fn print_status(status: &v1::ArchiveStatusResponse, out: &mut Out) -> Result<()> {
    if out.is_json() {
        out.json(&json!({
            "kind": "archive",
            "url": status.url,
            "stopped": status.stopped,
            "roll_interval_ms": status.roll_interval_ms,
        }))?;
    } else if status.url.is_empty() {
        out.line("this server has no archive; start it with --archive URL")?;
    } else {
        let interval = u64::try_from(status.roll_interval_ms).unwrap_or(0);
        let interval = Duration::from_millis(interval);
        out.line(format_args!("archive {}", status.url))?;
        out.line(format_args!(
            "a lost disk costs what was appended in the last {interval:?}, and the backlog"
        ))?;
        if !status.stopped.is_empty() {
            out.line(format_args!("NOTHING IS ARCHIVED: {}", status.stopped))?;
        }
    }
    print_partitions(&status.partitions, out)
}

fn print_partitions(partitions: &[v1::ArchivedPartition], out: &mut Out) -> Result<()> {
    if out.is_json() {
        for partition in partitions {
            out.json(&partition_json(partition))?;
        }
        return Ok(());
    }
    let rows: Vec<_> = partitions.iter().map(row).collect();
    let head = [
        "PARTITION",
        "START",
        "ARCHIVED",
        "LOCAL FROM",
        "END",
        "SEGMENTS",
        "SIZE",
        "BACKLOG",
        "ERROR",
    ];
    out.table(&head, &rows)
}

fn row(partition: &v1::ArchivedPartition) -> Vec<String> {
    let archived = match (partition.enabled, partition.writer_epoch) {
        (false, _) => "off".to_owned(),
        (true, 0) => "-".to_owned(),
        (true, _) => format!("to {}", partition.archived_end_offset),
    };
    vec![
        format!("{}/{}", partition.topic, partition.partition),
        partition.log_start_offset.to_string(),
        archived,
        partition.local_start_offset.to_string(),
        partition.log_end_offset.to_string(),
        partition.archived_segments.to_string(),
        output::bytes(partition.archived_bytes),
        output::bytes(partition.backlog_bytes),
        partition.error.clone(),
    ]
}

fn partition_json(partition: &v1::ArchivedPartition) -> Value {
    json!({
        "kind": "partition",
        "topic": partition.topic,
        "partition": partition.partition,
        "enabled": partition.enabled,
        "log_start_offset": partition.log_start_offset,
        "log_end_offset": partition.log_end_offset,
        "archived_end_offset": partition.archived_end_offset,
        "archived_segments": partition.archived_segments,
        "archived_bytes": partition.archived_bytes,
        "local_start_offset": partition.local_start_offset,
        "backlog_segments": partition.backlog_segments,
        "backlog_bytes": partition.backlog_bytes,
        "writer_epoch": partition.writer_epoch,
        "error": partition.error,
    })
}

/// Opens the archive at `url`.
pub(crate) fn open(url: &str) -> Result<ArchiveStore> {
    ArchiveStore::open(url, StoreOptions::default()).map_err(explain)
}

/// What went wrong, by what it means for whoever typed the command.
pub(crate) fn explain(error: ArchiveError) -> CliError {
    let message = error.to_string();
    match error {
        ArchiveError::Config(_) => CliError::Usage(message),
        ArchiveError::Unavailable { .. } => CliError::Unavailable(message),
        ArchiveError::Damaged { .. } => CliError::Corrupt(message),
        _ => CliError::Failed(message),
    }
}

/// A bar over bytes, on standard error when a person looks at it.
pub(crate) fn progress_bar(total: u64) -> ProgressBar {
    const TEMPLATE: &str = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(TEMPLATE);
    let bar = ProgressBar::new(total);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

async fn verify(url: &str, out: &mut Out) -> Result<()> {
    let store = open(url)?;
    let survey = Survey::take(&store).await.map_err(explain)?;
    let survey = survey.ok_or_else(|| CliError::NotFound(format!("{url}: there is no archive")))?;
    let partitions = || survey.topics.iter().flat_map(|topic| &topic.partitions);
    let total = partitions()
        .filter_map(|partition| partition.manifest.as_ref().ok())
        .map(|manifest| manifest.bytes())
        .sum();
    let progress = progress_bar(total);
    let (mut damaged, mut removed) = (0, 0);
    let mut rows = Vec::new();
    for topic in &survey.topics {
        let faults = comlog_server::audit_topic(&store, topic).await;
        for fault in faults.map_err(explain)? {
            damaged += 1;
            print_damage(&topic.id, &fault.to_string(), out)?;
        }
    }
    for partition in partitions() {
        let mut count = |bytes| progress.inc(bytes);
        let verified = verify_partition(&store, partition, &mut count).await;
        let verified = verified.map_err(explain)?;
        damaged += verified.damage.len();
        removed += verified.removed;
        for error in &verified.damage {
            print_damage(partition.keys.dir().as_ref(), &error.to_string(), out)?;
        }
        if out.is_json() {
            out.json(&verified_json(partition, &verified))?;
        } else {
            rows.push(verified_row(partition, &verified));
        }
    }
    progress.finish_and_clear();
    let (orphans, orphan_bytes) = survey.orphans;
    if out.is_json() {
        out.json(
            &json!({"kind": "archive", "id": survey.identity.id, "damaged": damaged,
            "orphans": orphans, "orphan_bytes": orphan_bytes}),
        )?;
    } else {
        out.table(
            &[
                "TOPIC",
                "PARTITION",
                "SEGMENTS",
                "SIZE",
                "OFFSETS",
                "DAMAGE",
            ],
            &rows,
        )?;
        if removed > 0 {
            out.line(format_args!(
                "note {removed} segments were removed by the server meanwhile"
            ))?;
        }
        if orphans > 0 {
            let bytes = output::bytes(orphan_bytes);
            out.line(format_args!(
                "note {orphans} objects ({bytes}) are named by no manifest; the server removes them"
            ))?;
        }
    }
    out.flush()?;
    match damaged {
        0 => Ok(()),
        count => Err(CliError::Corrupt(format!(
            "{count} damaged place(s), listed above; nothing was changed"
        ))),
    }
}

fn print_damage(place: &str, reason: &str, out: &mut Out) -> Result<()> {
    if out.is_json() {
        out.json(&json!({"kind": "damage", "place": place, "reason": reason}))
    } else {
        out.line(format_args!("damage {place} reason={reason}"))
    }
}

fn verified_row(partition: &ArchivedPartition, verified: &Verified) -> Vec<String> {
    let damage = match verified.damage.len() {
        0 => "none".to_owned(),
        count => count.to_string(),
    };
    match &partition.manifest {
        Ok(manifest) => vec![
            manifest.topic.clone(),
            partition.partition.to_string(),
            manifest.segments.len().to_string(),
            output::bytes(manifest.bytes()),
            format!("[{}, {})", manifest.log_start_offset, manifest.end_offset()),
            damage,
        ],
        Err(_) => [
            "?",
            &partition.partition.to_string(),
            "?",
            "?",
            "?",
            &damage,
        ]
        .map(str::to_owned)
        .to_vec(),
    }
}

fn verified_json(partition: &ArchivedPartition, verified: &Verified) -> Value {
    let manifest = partition.manifest.as_ref().ok();
    json!({
        "kind": "partition",
        "topic": manifest.map(|manifest| &manifest.topic),
        "topic_id": manifest.map(|manifest| &manifest.topic_id),
        "partition": partition.partition,
        "segments": manifest.map(|manifest| manifest.segments.len()),
        "bytes": manifest.map(|manifest| manifest.bytes()),
        "start_offset": manifest.map(|manifest| manifest.log_start_offset),
        "end_offset": manifest.map(|manifest| manifest.end_offset().0),
        "writer_epoch": manifest.map(|manifest| manifest.writer_epoch),
        "removed": verified.removed,
        "damaged": verified.damage.len(),
    })
}
