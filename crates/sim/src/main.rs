//! `comlog-sim`: many seeds, or one in detail.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use comlog_sim::{Options, Summary, run};

/// Runs the log on a faulty disk, from seeds, and holds it to its promises.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// Stop after so many seconds, though not before `--least` seeds
    #[arg(long)]
    seconds: Option<u64>,
    /// With `--seconds`: how many seeds to run all the same
    #[arg(long, default_value_t = 1)]
    least: u64,
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
    let started = Instant::now();
    let share = arguments.seconds.map(Duration::from_secs);
    let mut count = 0;
    let mut total = Summary::default();
    let mut failed = 0;
    for seed in seeds {
        if count >= arguments.least && share.is_some_and(|share| started.elapsed() >= share) {
            break;
        }
        count += 1;
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
