//! The binary `comlog`: the server, its clients, and tools for its files.

mod commands;
mod error;
mod json;
mod output;
mod scan;
mod time;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{completions, inspect};
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
    #[command(flatten)]
    global: GlobalArgs,
}

/// What every command understands.
#[derive(Debug, clap::Args)]
struct GlobalArgs {
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
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::InspectArgs),
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::ClosedPipe) {
                eprintln!("comlog: {error}");
            }
            error.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let mut out = Out::new(cli.global.output);
    match cli.command {
        Command::Inspect(args) => inspect::run(&args, &mut out),
        Command::Completions(args) => completions::run(&args, Cli::command(), &mut out),
    }
}
