//! `comlog restore --from URL --to DIR`.

use std::path::PathBuf;

use clap::Args;
use comlog_server::{ClampedOffset, RestoreError, RestoreProgress};
use serde_json::{Value, json};

use crate::commands::archive;
use crate::error::{CliError, Result};
use crate::output::{self, Out};

/// Makes a data directory from an archive alone
///
/// The same topics, records, offsets and committed offsets as were archived, in a new leader epoch;
/// every segment is checked on the way. What was appended after the last `comlog archive flush`, or
/// within the server's archive.roll_interval_ms, is not in the archive; where a group had committed
/// behind that, its offset is set back to the end, and a line says so. The directory appears when it is
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
            "clamped_offsets": restored.clamped_offsets.iter().map(clamped_json).collect::<Vec<_>>(),
        }))?;
    } else {
        for clamped in &restored.clamped_offsets {
            out.line(format_args!(
                "note group {} had committed {}/{} up to {}; what was archived ends at {}, which is \
                 committed now",
                clamped.group, clamped.topic, clamped.partition, clamped.committed, clamped.end
            ))?;
        }
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

fn clamped_json(clamped: &ClampedOffset) -> Value {
    json!({
        "group": clamped.group,
        "topic": clamped.topic,
        "partition": clamped.partition,
        "committed": clamped.committed.0,
        "end": clamped.end.0,
    })
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
