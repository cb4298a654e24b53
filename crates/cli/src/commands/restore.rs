//! `comlog restore --from URL --to DIR`.

use std::path::PathBuf;

use clap::Args;
use comlog_server::{RestoreError, RestoreProgress};
use serde_json::json;

use crate::commands::archive;
use crate::error::{CliError, Result};
use crate::output::{self, Out};

/// Makes a data directory from an archive alone
///
/// The same topics, records, offsets and committed offsets as were archived, in a new leader epoch;
/// every segment is checked on the way. What was appended after the last `comlog archive flush`, or
/// within the server's archive.roll_interval_ms, is not in the archive. The directory appears when it is
/// whole. Do not let the old server go on: the one that is started on DIR takes the archive over.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  comlog restore --from s3://bucket/comlog --to /var/lib/comlog
  comlog serve --data-dir /var/lib/comlog --archive s3://bucket/comlog")]
pub(crate) struct RestoreArgs {
    /// Where the archive is: s3://, gs://, az:// or file://; credentials come from the environment
    #[arg(long, value_name = "URL")]
    from: String,
    /// The directory to make; must be absent or empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Runs the command.
pub(crate) async fn run(args: &RestoreArgs, out: &mut Out) -> Result<()> {
    let store = archive::open(&args.from)?;
    let bar = archive::progress_bar(0);
    let mut progress = |now: RestoreProgress| {
        bar.set_length(now.bytes_total);
        bar.set_position(now.bytes);
    };
    let restored = comlog_server::restore(&store, &args.to, &mut progress).await;
    bar.finish_and_clear();
    let restored = restored.map_err(explain)?;
    if out.is_json() {
        out.json(&json!({
            "topics": restored.topics,
            "partitions": restored.partitions,
            "segments": restored.segments,
            "bytes": restored.bytes,
        }))?;
    } else {
        out.line(format_args!(
            "restored {} topics, {} partitions, {} segments, {} to {}",
            restored.topics,
            restored.partitions,
            restored.segments,
            output::bytes(restored.bytes),
            args.to.display()
        ))?;
    }
    out.flush()
}

fn explain(error: RestoreError) -> CliError {
    let message = error.to_string();
    match error {
        RestoreError::Archive(error) => archive::explain(error),
        RestoreError::NoArchive(_) => CliError::NotFound(message),
        RestoreError::NotEmpty { .. } => CliError::Usage(message),
        _ => CliError::Failed(message),
    }
}
