//! `comlog-sim`: many seeds, or one in detail.

use std::process::ExitCode;

use clap::Parser;
use comlog_sim::{Options, Summary, run};

/// Runs the log on a faulty disk, from seeds, and holds it to its promises.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Steps of each
    #[arg(long, default_value_t = Options::default().steps)]
    steps: u32,
    /// Run this seed only
    #[arg(long)]
    seed: Option<u64>,
    /// Name every seed that fails, instead of stopping at the first
    #[arg(long)]
    keep_going: bool,
    /// Print every step
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        steps: arguments.steps,
        verbose: arguments.verbose,
        ..Options::default()
    };
    let seeds = match arguments.seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => arguments.start..arguments.start.saturating_add(arguments.seeds),
    };
    let count = seeds.end - seeds.start;
    let mut total = Summary::default();
    let mut failed = 0;
    for seed in seeds {
        match run(seed, &options) {
            Ok(summary) => total = total.plus(summary),
            Err(failure) if arguments.keep_going => {
                eprintln!(
                    "seed {} step {}: {}",
                    failure.seed, failure.step, failure.broken
                );
                failed += 1;
            }
            Err(failure) => {
                eprintln!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    if failed > 0 {
        eprintln!("{failed} of {count} seeds failed");
        return ExitCode::FAILURE;
    }
    println!(
        "{count} seeds: {} batches, {} restarts, {} reads, trace {:016x}",
        total.batches, total.restarts, total.reads, total.hash
    );
    ExitCode::SUCCESS
}
