//! comlog's speed, as ratios to what the machine allows in the same run. See README.md beside this.

mod baseline;
mod cases;
mod echo;
mod instructions;
mod measure;
mod peers;
mod report;
mod server;
mod versus;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::baseline::Baselines;
use crate::cases::{CASES, Case, Context, Scale, When};
use crate::report::Report;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Rounds of a run, and of a quick one.
const ROUNDS: usize = 5;
const ROUNDS_QUICK: usize = 3;

/// Measures comlog against what the machine allows
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// Fewer rounds with fewer records: for a first look, not for the record
    #[arg(long)]
    quick: bool,
    /// Also the cases that take long: 10 GiB through one server
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Also measure Redis Streams and NATS JetStream; so it is unless with --quick or --smoke
    #[arg(long, conflicts_with = "no_peers")]
    peers: bool,
    /// Measure comlog only
    #[arg(long)]
    no_peers: bool,
    /// One round with next to no records: whether every case works, with figures that mean nothing
    #[arg(long, conflicts_with_all = ["quick", "full"])]
    smoke: bool,
    /// Only cases whose name contains this; may repeat
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Print the cases and stop
    #[arg(long)]
    list: bool,
    /// Instead: count the instructions of the hot paths and compare them with those kept
    #[arg(long, conflicts_with_all = ["quick", "smoke", "full", "cases", "json"])]
    instructions: bool,
    /// Keep the instructions counted now
    #[arg(long, requires = "instructions")]
    update: bool,
    /// How to print the result
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Also write the result to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to keep data while measuring
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The binary to measure
    #[arg(
        long,
        env = "COMLOG_BIN",
        value_name = "FILE",
        default_value = "target/release/comlog"
    )]
    binary: PathBuf,
    /// For the bench itself: be the bare gRPC server that calls are compared with
    #[arg(long, hide = true)]
    echo_server: bool,
    /// For `cargo xtask bench`: print what this run needs, and stop
    #[arg(long, hide = true)]
    needs: bool,
}

impl Args {
    fn with_peers(&self) -> bool {
        self.peers || self.scale() == Scale::Whole && !self.no_peers
    }

    fn scale(&self) -> Scale {
        match (self.quick, self.smoke) {
            (_, true) => Scale::Smoke,
            (true, false) => Scale::Quick,
            (false, false) => Scale::Whole,
        }
    }

    fn rounds(&self) -> usize {
        match self.scale() {
            Scale::Whole => ROUNDS,
            Scale::Quick => ROUNDS_QUICK,
            Scale::Smoke => 1,
        }
    }

    fn wants(&self, case: &Case) -> bool {
        let part = match case.when {
            When::Always => true,
            When::Full => self.full || self.smoke,
            When::Peers => self.with_peers(),
        };
        let named = |name: &String| case.name.contains(name.as_str());
        part && (self.cases.is_empty() || self.cases.iter().any(named))
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Markdown,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    if args.echo_server {
        return echo::serve().await;
    }
    let all = || CASES.iter().chain(peers::CASES);
    if args.list {
        for case in all() {
            println!("{:<16} {}", case.name, case.about);
        }
        return Ok(());
    }
    let wanted: Vec<&Case> = all().filter(|case| args.wants(case)).collect();
    let with_peers = wanted.iter().any(|case| case.when == When::Peers);
    if args.needs {
        print_needs(&args, with_peers);
        return Ok(());
    }
    if args.instructions {
        return instructions::run(args.update);
    }
    if wanted.is_empty() {
        return Err("no such case, see --list; some need --full or --peers".into());
    }
    let versions = if with_peers {
        peers::versions()?
    } else {
        Vec::new()
    };
    let report = measure_all(&args, &wanted, versions).await?;
    match args.output {
        Output::Table => print!("{}", report.to_table()),
        Output::Markdown => print!("{}", report.to_markdown()),
        Output::Json => println!("{}", report.to_json()),
    }
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{}\n", report.to_json()))?;
    }
    Ok(())
}

/// Debian's packages, and the arguments of `cargo build --release`.
fn print_needs(args: &Args, with_peers: bool) {
    if args.instructions {
        println!("needs package {}", instructions::PACKAGE);
        return;
    }
    println!("needs build -p comlog-cli");
    println!("needs build -p comlog-log --example speed");
    if with_peers {
        for package in peers::PACKAGES {
            println!("needs package {package}");
        }
    }
}

/// Baselines and cases in turn, round by round.
async fn measure_all(args: &Args, wanted: &[&Case], peers: Vec<String>) -> Result<Report> {
    let (rounds, scale) = (args.rounds(), args.scale());
    let mut report = Report::new(rounds, peers);
    for round in 1..=rounds {
        for case in wanted {
            let dir = tempfile::tempdir_in(&args.dir)?;
            eprintln!("round {round} of {rounds}: baselines, {}", case.name);
            let baselines = Baselines::measure(dir.path(), scale).await?;
            report.add_baselines(&baselines);
            let context = Context {
                binary: args.binary.clone(),
                dir: dir.path().to_owned(),
                scale,
                baselines,
            };
            let figures = (case.run)(&context).await?;
            report.add(case.name, figures);
        }
    }
    Ok(report)
}
