//! The binary `comlog`: the server, its clients, and tools for its files.

mod blob;
mod check;
mod commands;
mod confirm;
mod connect;
mod error;
mod escape;
mod format;
mod frame_reader;
mod framing;
mod json;
mod output;
mod position;
mod printable;
mod reader;
mod segment_file;
mod summary;
mod time;
mod units;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    archive, bench, completions, consume, group, inspect, offsets, produce, restore, serve, topic,
    verify,
};
use crate::connect::ServerArgs;
use crate::error::{CliError, Result};
use crate::output::{Out, OutputFormat};

const EXIT_CODES_HELP: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 unavailable or timed out, 5 offset out of range, 6 corrupt.";

/// A commit log: append records, keep them safe, read them back in order
#[derive(Debug, Parser)]
#[command(name = "comlog", version, propagate_version = true, after_help = EXIT_CODES_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How to print: text for people, json for programs
    #[arg(
        short,
        long,
        value_enum,
        default_value_t,
        global = true,
        value_name = "FORMAT"
    )]
    output: OutputFormat,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Produce(produce::ProduceArgs),
    Consume(consume::ConsumeArgs),
    Topic(topic::TopicArgs),
    Offsets(offsets::OffsetsArgs),
    Group(group::GroupArgs),
    Inspect(inspect::InspectArgs),
    Verify(verify::VerifyArgs),
    Archive(archive::ArchiveArgs),
    Restore(restore::RestoreArgs),
    Bench(bench::BenchArgs),
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::ClosedPipe) {
                let text = error.to_string();
                eprintln!("comlog: {}", printable::escape(text.as_bytes()));
            }
            error.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let mut out = Out::new(cli.output);
    // The server's configuration says how many threads it has.
    if let Command::Serve(args) = &cli.command {
        return serve::run(args, &mut out);
    }
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| CliError::Failed(format!("cannot start threads: {error}")))?;
    runtime.block_on(run_client(cli, &mut out))
}

async fn run_client(cli: Cli, out: &mut Out) -> Result<()> {
    let connect = || cli.server.client();
    match cli.command {
        Command::Serve(args) => serve::run(&args, out),
        Command::Produce(args) => produce::run(&args, &cli.server, out).await,
        Command::Consume(args) => consume::run(&args, &cli.server, out).await,
        Command::Topic(args) => topic::run(args, &connect()?, out).await,
        Command::Offsets(args) => offsets::run(&args, &connect()?, out).await,
        Command::Group(args) => group::run(args, &cli.server, out).await,
        Command::Inspect(args) => inspect::run(&args, out),
        Command::Verify(args) => verify::run(&args, out),
        Command::Archive(args) => archive::run(&args, &cli.server, out).await,
        Command::Restore(args) => restore::run(&args, out).await,
        Command::Bench(args) => bench::run(&args, &cli.server, out).await,
        Command::Completions(args) => completions::run(&args, Cli::command(), out),
    }
}
