//! `comlog group list|describe|delete`.

use clap::{Args, Subcommand};
use comlog_proto::v1;
use serde_json::json;

use crate::connect::Connection;
use crate::error::Result;
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
}

/// Runs the command.
pub(crate) async fn run(args: GroupArgs, connection: &Connection, out: &mut Out) -> Result<()> {
    match args.command {
        GroupCommand::List => {
            let response = connection
                .call(connection.groups().list_groups(v1::ListGroupsRequest {}))
                .await?;
            for group in response.groups {
                if out.is_json() {
                    out.json(&json!({"group": group}))?;
                } else {
                    out.line(group)?;
                }
            }
        }
        GroupCommand::Describe { group } => describe(&group, connection, out).await?,
        GroupCommand::Delete { group, yes } => {
            confirm::ask(&format!("Forget what group {group} has committed?"), yes)?;
            let request = v1::DeleteGroupRequest {
                group: group.clone(),
            };
            connection
                .call(connection.groups().delete_group(request))
                .await?;
            if out.is_json() {
                out.json(&json!({"deleted": group}))?;
            } else {
                out.line(format_args!("deleted {group}"))?;
            }
        }
    }
    out.flush()
}

async fn describe(group: &str, connection: &Connection, out: &mut Out) -> Result<()> {
    let request = v1::FetchOffsetsRequest {
        group: group.to_owned(),
        partitions: Vec::new(),
    };
    let committed = connection
        .call(connection.groups().fetch_offsets(request))
        .await?
        .offsets;
    let mut rows = Vec::new();
    for offset in &committed {
        let end = log_end(offset, connection).await?;
        let lag = end.map(|end| (end - offset.offset).max(0));
        if out.is_json() {
            out.json(&json!({
                "group": group,
                "topic": offset.topic,
                "partition": offset.partition,
                "offset": offset.offset,
                "high_watermark": end,
                "lag": lag,
                "metadata": offset.metadata,
                "committed_ms": offset.committed_ms,
            }))?;
        }
        let number = |value: Option<i64>| value.map_or("-".to_owned(), |value| value.to_string());
        rows.push(vec![
            offset.topic.clone(),
            offset.partition.to_string(),
            offset.offset.to_string(),
            number(end),
            number(lag),
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

/// Where the partition ends; `None` when it is gone.
async fn log_end(offset: &v1::CommittedOffset, connection: &Connection) -> Result<Option<i64>> {
    let query = v1::OffsetQuery {
        topic: offset.topic.clone(),
        partition: offset.partition,
        at: None,
    };
    let request = v1::ListOffsetsRequest {
        queries: vec![query],
    };
    match connection
        .call(connection.log().list_offsets(request))
        .await
    {
        Ok(response) => Ok(response.offsets.first().map(|found| found.high_watermark)),
        Err(crate::error::CliError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
