//! `comlog group list|describe|delete|repair`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use comlog_client::{Client, ErrorKind, StartAt};
use comlog_proto::v1;
use comlog_server::RepairError;
use serde_json::json;

use crate::connect::ServerArgs;
use crate::error::{CliError, Result};
use crate::output::Out;
use crate::{confirm, time};

/// Shows and deletes consumer groups
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Lists the groups that have committed offsets
    List,
    /// Shows what a group has committed and how far it lags behind
    ///
    /// The lag is how many offsets there are still to read: those trimmed away are not counted. An
    /// offset past the end of its partition is marked.
    Describe {
        /// The group
        group: String,
    },
    /// Forgets what a group has committed
    Delete {
        /// The group
        group: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Gives up what is damaged in the committed offsets of a data directory, without a server
    ///
    /// What can be read is written anew. A commit that was lost falls back to the one before it, so
    /// records may be read again; a group of which nothing is left has committed nothing. Changes
    /// nothing when all can be read. Stop the server first.
    Repair {
        /// The data directory
        data_dir: PathBuf,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Runs the command.
pub(crate) async fn run(args: GroupArgs, server: &ServerArgs, out: &mut Out) -> Result<()> {
    if let GroupCommand::Repair { data_dir, yes } = &args.command {
        return repair(data_dir, *yes, out).await;
    }
    let client = &server.client()?;
    match args.command {
        GroupCommand::Repair { .. } => {}
        GroupCommand::List => {
            for group in client.list_groups().await? {
                if out.is_json() {
                    out.json(&json!({"group": group}))?;
                } else {
                    out.line(group)?;
                }
            }
        }
        GroupCommand::Describe { group } => describe(&group, client, out).await?,
        GroupCommand::Delete { group, yes } => {
            confirm::ask(&format!("Forget what group {group} has committed?"), yes)?;
            client.delete_group(&group).await?;
            if out.is_json() {
                out.json(&json!({"deleted": group}))?;
            } else {
                out.line(format_args!("deleted {group}"))?;
            }
        }
    }
    out.flush()
}

async fn repair(data_dir: &Path, yes: bool, out: &mut Out) -> Result<()> {
    let shown = data_dir.display();
    if !data_dir.is_dir() {
        return Err(CliError::NotFound(format!("{shown}: no such directory")));
    }
    let question = format!("Give up what is damaged in the committed offsets of {shown}?");
    confirm::ask(&question, yes)?;
    let repaired = comlog_server::repair_groups(data_dir).await;
    let repaired = repaired.map_err(|error| match error {
        RepairError::NoGroups => CliError::NotFound(format!("{shown}: {error}")),
        error => CliError::Failed(format!("{shown}: {error}")),
    })?;
    let lost: Vec<String> = repaired.lost.iter().map(ToString::to_string).collect();
    if out.is_json() {
        out.json(&json!({
            "groups": repaired.groups,
            "offsets": repaired.offsets,
            "lost": repaired.lost.iter().map(|lost| json!({"start": lost.start.0, "end": lost.end.0})).collect::<Vec<_>>(),
            "made_anew": repaired.made_anew,
        }))?;
    } else {
        let (groups, offsets) = (repaired.groups, repaired.offsets);
        let fate = match (repaired.made_anew, lost.is_empty()) {
            (true, _) => "their log was gone and was made anew".to_owned(),
            (false, true) => "nothing was damaged".to_owned(),
            (false, false) => format!("given up: {}", lost.join(", ")),
        };
        out.line(format_args!(
            "{groups} groups, {offsets} committed offsets; {fate}"
        ))?;
    }
    out.flush()
}

async fn describe(group: &str, client: &Client, out: &mut Out) -> Result<()> {
    let committed = client.committed_offsets(group, Vec::new()).await?;
    if committed.is_empty() {
        return Err(CliError::NotFound(format!(
            "group {group} has committed nothing"
        )));
    }
    let mut rows = Vec::new();
    for offset in &committed {
        let there = what_is_there(offset, client).await?;
        if out.is_json() {
            out.json(&json!({
                "group": group,
                "topic": offset.topic,
                "partition": offset.partition,
                "offset": offset.offset,
                "log_start_offset": there.as_ref().map(|there| there.log_start_offset),
                "high_watermark": there.as_ref().map(|there| there.high_watermark),
                "lag": there.as_ref().map(|there| lag(offset, there)),
                "past_end": there.as_ref().map(|there| is_past_end(offset, there)),
                "metadata": offset.metadata,
                "committed_ms": offset.committed_ms,
            }))?;
        }
        let (end, lag) = match &there {
            None => ("-".to_owned(), "-".to_owned()),
            Some(there) if is_past_end(offset, there) => {
                (there.high_watermark.to_string(), "past the end".to_owned())
            }
            Some(there) => (
                there.high_watermark.to_string(),
                lag(offset, there).to_string(),
            ),
        };
        rows.push(vec![
            offset.topic.clone(),
            offset.partition.to_string(),
            offset.offset.to_string(),
            end,
            lag,
            time::format(offset.committed_ms),
        ]);
    }
    if out.is_json() {
        return Ok(());
    }
    out.table(
        &["TOPIC", "PARTITION", "OFFSET", "END", "LAG", "COMMITTED"],
        &rows,
    )
}

/// What the partition holds; `None` when it is gone.
async fn what_is_there(
    offset: &v1::CommittedOffset,
    client: &Client,
) -> Result<Option<v1::OffsetFound>> {
    let query = (offset.topic.as_str(), offset.partition, StartAt::Latest);
    match client.list_offsets([query]).await {
        Ok(found) => Ok(found.into_iter().next()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// How many offsets there are still to read: what was trimmed away is not among them.
fn lag(committed: &v1::CommittedOffset, there: &v1::OffsetFound) -> i64 {
    let next = committed.offset.max(there.log_start_offset);
    there.high_watermark.saturating_sub(next).max(0)
}

/// Whether it was committed for records that are not there, as after a partition lost its end.
fn is_past_end(committed: &v1::CommittedOffset, there: &v1::OffsetFound) -> bool {
    committed.offset > there.high_watermark
}
