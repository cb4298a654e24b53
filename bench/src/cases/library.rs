//! The log without a server: its own example measures it, in a process of its own.

use std::process::Stdio;

use tokio::process::Command;

use super::Context;
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

pub(super) async fn run(context: &Context) -> Result<Vec<Figure>> {
    // cargo xtask bench has built it beside the binary.
    let example = context.binary.with_file_name("examples").join("speed");
    let output = Command::new(&example)
        .arg(&context.dir)
        .stderr(Stdio::inherit())
        .output()
        .await
        .map_err(|error| format!("cannot start {}: {error}", example.display()))?;
    if !output.status.success() {
        return Err(format!("{} failed ({})", example.display(), output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    GOALS
        .iter()
        .map(|&(name, goal)| figure(&text, name, goal))
        .collect()
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
