//! The project's commands: `cargo xtask serve`, `test`, `verify`, `fix`, `sim`, `bench`, `drill`.
//!
//! What each of them runs is one table of [`step::Step`]s in [`steps`]; what a fresh machine lacks
//! is installed by [`tools`], outside the checkout.

mod portable;
mod step;
mod steps;
mod tools;
mod wasm;
mod watchdog;
mod web;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use crate::step::{Result, Step};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's commands")]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds the page and comlog (release) and starts its server; arguments go to `comlog serve`
    Serve {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs every check and every test; ends with "N passed, M failed"
    Test {
        /// Only the steps whose name contains one of these words
        steps: Vec<String>,
        /// Print the names of the steps and stop
        #[arg(long)]
        list: bool,
    },
    /// Checks formatting, lints, documentation, licences and the portable crates; writes nothing
    Verify {
        /// Also look for known vulnerabilities; needs the network
        #[arg(long)]
        advisories: bool,
    },
    /// Formats, and applies what clippy can fix
    Fix,
    /// Runs the simulator (release); arguments go to it
    Sim {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measures speed (release), as ratios to what the machine allows; arguments go to it
    Bench {
        /// The browser's table instead: the log in wasm and the client in a page, beside native ones
        #[arg(long)]
        browser: bool,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs one of ci/drills against the release binary; arguments go to it
    Drill {
        /// The name of a file in ci/drills
        name: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a task; `false` when it ran and something in it failed.
fn run(task: Task) -> Result<bool> {
    std::env::set_current_dir(tools::root()?)
        .map_err(|error| format!("cannot enter the checkout: {error}"))?;
    match task {
        Task::Serve { args } => serve(&args),
        Task::Test { list: true, .. } => {
            test_steps().for_each(|step| println!("{}", step.name));
            Ok(true)
        }
        Task::Test { steps, .. } => {
            let wanted = |step: &&Step| {
                steps.is_empty() || steps.iter().any(|word| step.name.contains(word.as_str()))
            };
            step::run_all(test_steps().filter(wanted))
        }
        Task::Verify { advisories } => {
            let extra = if advisories { steps::ADVISORIES } else { &[] };
            step::run_all(steps::VERIFY.iter().chain(extra))
        }
        Task::Fix => step::run_all(steps::FIX.iter()),
        Task::Sim { args } => exec(
            Command::new("cargo")
                .args(["run", "--release", "-p", "comlog-sim", "--"])
                .args(args),
        ),
        Task::Bench { browser: true, .. } => exec(&mut web::bench()?),
        Task::Bench { args, .. } => {
            let bench = tools::build_bench(&args)?;
            let binary = bench.with_file_name("comlog");
            exec(Command::new(bench).args(args).env("COMLOG_BIN", binary))
        }
        Task::Drill { name, args } => exec(
            Command::new(format!("ci/drills/{name}"))
                .args(args)
                .env("COMLOG_BIN", tools::build_release()?),
        ),
    }
}

fn test_steps() -> impl Iterator<Item = &'static Step> {
    steps::VERIFY.iter().chain(steps::TEST)
}

fn serve(args: &[String]) -> Result<bool> {
    tools::wasm_target()?;
    if web::has_npm() {
        web::page()?;
    } else {
        eprintln!("xtask: there is no npm, so the server shows its small status page only");
    }
    exec(
        Command::new(tools::build_release()?)
            .arg("serve")
            .args(args),
    )
}

/// Becomes `command`, so that signals and the exit code are its own.
fn exec(command: &mut Command) -> Result<bool> {
    let error = command.exec();
    Err(format!("cannot start {:?}: {error}", command.get_program()))
}
