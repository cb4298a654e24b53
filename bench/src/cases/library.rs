//! The log without a server: its own example measures it, in a process of its own.

use std::process::Stdio;

use tokio::process::Command;

use super::{Context, Scale};
use crate::Result;
use crate::report::{Figure, Goal};

/// The example's name for a case, and what it may take in nanoseconds.
const GOALS: [(&str, f64); 5] = [
    ("append-10", 20.0),
    ("append-50", 35.0),
    ("append-200", 80.0),
    ("read", 300.0),
    ("append-and-read-back", 600.0),
];

/// One in so many turns.
const SMOKE_SHARE: &str = "1000";

/// Parts of the names of its cases that are run: together, all of the above.
const RUNS: [&str; 2] = ["append-", "read"];

pub(super) async fn run(context: &Context) -> Result<Vec<Figure>> {
    let mut text = String::new();
    for part in RUNS {
        text += &example(context, part).await?;
    }
    GOALS
        .iter()
        .map(|&(name, goal)| figure(&text, name, goal))
        .collect()
}

/// What the example prints about some of its cases.
async fn example(context: &Context, part: &str) -> Result<String> {
    // cargo xtask bench has built it beside the binary.
    let example = context.binary.with_file_name("examples").join("speed");
    let mut command = Command::new(&example);
    command.arg(&context.dir).arg(part);
    if context.scale == Scale::Smoke {
        command.arg(SMOKE_SHARE);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .await
        .map_err(|error| format!("cannot start {}: {error}", example.display()))?;
    if !output.status.success() {
        return Err(format!("{} failed ({})", example.display(), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Finds `name  12.3 ns (...)`.
fn figure(text: &str, name: &str, goal: f64) -> Result<Figure> {
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name));
    let nanos = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    let nanos = nanos.ok_or_else(|| format!("the example says nothing of {name}"))?;
    Ok(Figure::new(name, "ns", nanos).goal(Goal::AtMost(goal)))
}
