//! One step of a task, and how steps are run, counted and summed up.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::tools;
use crate::watchdog::Watchdog;

/// So many of the slowest steps are named.
const SLOWEST: usize = 10;

/// What goes wrong in here is told to a person, so it is text.
pub(crate) type Result<T, E = String> = std::result::Result<T, E>;

/// One step: a name and what it runs.
pub(crate) struct Step {
    /// Shown in the summary, and what `cargo xtask test NAME` selects by.
    pub(crate) name: &'static str,
    /// What must be there first, besides a Rust toolchain and a C compiler.
    pub(crate) needs: &'static [fn() -> Result<()>],
    /// What to run.
    pub(crate) run: Run,
    /// Tests that it must report at least; 0 for a check, which reports none.
    pub(crate) least: u64,
    /// Minutes after which a command line is taken to hang, and is ended. Far above what it takes on
    /// a slow machine from nothing: how long it goes on by choice stands in its arguments.
    pub(crate) minutes: u64,
}

impl Step {
    /// A check: it passes or it does not, and counts nothing.
    pub(crate) const fn check(
        name: &'static str,
        needs: &'static [fn() -> Result<()>],
        run: Run,
    ) -> Step {
        Step::test(name, needs, run, 0, 20)
    }

    /// A step that reports its tests.
    pub(crate) const fn test(
        name: &'static str,
        needs: &'static [fn() -> Result<()>],
        run: Run,
        least: u64,
        minutes: u64,
    ) -> Step {
        Step {
            name,
            needs,
            run,
            least,
            minutes,
        }
    }
}

/// What a step runs.
pub(crate) enum Run {
    /// A command line, split at spaces; words in front that contain `=` are environment variables.
    Line(&'static str),
    /// A function of this program.
    Call(fn() -> Result<()>),
}

/// How many tests a step reported.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
}

struct Outcome {
    name: &'static str,
    counts: Counts,
    error: Option<String>,
    took: Duration,
}

/// Runs every step, whatever became of those before it, and prints a summary whose last line is
/// `N passed, M failed`. A step that fails without having counted a failed test counts as one.
pub(crate) fn run_all(steps: impl Iterator<Item = &'static Step>) -> Result<bool> {
    let outcomes: Vec<Outcome> = steps.map(run_one).collect();
    if outcomes.is_empty() {
        return Err("no step has such a name, see `cargo xtask test --list`".to_owned());
    }
    println!("\n{:<24} {:>8}  {:>6}  result", "step", "seconds", "tests");
    let mut total = Counts::default();
    for outcome in &outcomes {
        let seconds = outcome.took.as_secs_f64();
        let tests = outcome.counts.passed + outcome.counts.failed;
        let result = outcome.error.as_deref().unwrap_or("ok");
        println!("{:<24} {seconds:>8.1}  {tests:>6}  {result}", outcome.name);
        total.passed += outcome.counts.passed;
        total.failed += outcome.counts.failed;
    }
    print_slowest(&outcomes);
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

/// Where the time went.
fn print_slowest(outcomes: &[Outcome]) {
    let mut slowest: Vec<&Outcome> = outcomes.iter().collect();
    slowest.sort_by_key(|outcome| std::cmp::Reverse(outcome.took));
    let minutes = |took: Duration| format!("{:.1} min", took.as_secs_f64() / 60.0);
    let named: Vec<String> = slowest
        .iter()
        .take(SLOWEST)
        .map(|outcome| format!("{} {}", outcome.name, minutes(outcome.took)))
        .collect();
    let total = outcomes.iter().map(|outcome| outcome.took).sum();
    println!("{} in all; slowest: {}", minutes(total), named.join(", "));
}

fn run_one(step: &'static Step) -> Outcome {
    println!("\n== {}", step.name);
    let started = Instant::now();
    let mut counts = Counts::default();
    let ready = step.needs.iter().try_for_each(|need| need());
    let result = ready.and_then(|()| match step.run {
        Run::Line(line) => run_line(line, step.minutes, &mut counts),
        Run::Call(call) => call(),
    });
    let result = result.and_then(|()| enough(counts, step.least));
    if let Err(error) = &result {
        println!("{}: {error}", step.name);
        counts.failed = counts.failed.max(1);
    }
    Outcome {
        name: step.name,
        counts,
        error: result.err(),
        took: started.elapsed(),
    }
}

/// A step that ran nearly nothing proves nothing.
fn enough(counts: Counts, least: u64) -> Result<()> {
    let ran = counts.passed + counts.failed;
    if ran >= least {
        Ok(())
    } else {
        Err(format!(
            "reported {ran} tests where at least {least} belong"
        ))
    }
}

/// Runs a command line, passing its output on and counting the tests it reports.
fn run_line(line: &str, minutes: u64, counts: &mut Counts) -> Result<()> {
    let mut child = command(&line.split_whitespace().collect::<Vec<_>>())?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start `{line}`: {error}"))?;
    let watchdog = Watchdog::start(child.id(), Duration::from_secs(60 * minutes));
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout)
            .split(b'\n')
            .map_while(|line| line.ok())
        {
            let found = count(&String::from_utf8_lossy(&line));
            counts.passed += found.passed;
            counts.failed += found.failed;
            let mut out = std::io::stdout().lock();
            // The output is for people: if nobody reads it any more, the tests still run.
            let _ = out.write_all(&line).and_then(|()| out.write_all(b"\n"));
        }
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if watchdog.ended_it() {
        Err(format!("ended after {minutes} minutes: it hangs"))
    } else if status.success() {
        Ok(())
    } else {
        Err(format!("failed ({status})"))
    }
}

/// The command of a line of words; our own tools come first in its `PATH`, and `COMLOG_BIN` names
/// the binary for those that run it.
pub(crate) fn command(words: &[&str]) -> Result<Command> {
    let first = words
        .iter()
        .position(|word| !word.contains('='))
        .ok_or("an empty command")?;
    let mut command = Command::new(words[first]);
    command
        .args(&words[first + 1..])
        .env("PATH", tools::path())
        .env("COMLOG_BIN", tools::debug_binary()?);
    for (name, value) in words[..first]
        .iter()
        .filter_map(|word| word.split_once('='))
    {
        command.env(name, value);
    }
    Ok(command)
}

/// Reads `test result: ok. 3 passed; 0 failed; ...` (libtest) and `3 passed, 0 failed` (ours).
fn count(line: &str) -> Counts {
    let line = line.trim();
    let plain = line.ends_with(" failed") && line.starts_with(|first: char| first.is_ascii_digit());
    if !plain && !line.starts_with("test result:") {
        return Counts::default();
    }
    let words: Vec<&str> = line
        .split([' ', ',', ';', '.'])
        .filter(|word| !word.is_empty())
        .collect();
    let before = |what| {
        let pair = words.windows(2).find(|pair| pair[1] == what);
        pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
    };
    Counts {
        passed: before("passed"),
        failed: before("failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted_and_others_are_not() {
        let libtest =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; finished in 0.1s";
        assert_eq!(
            count(libtest),
            Counts {
                passed: 12,
                failed: 3
            }
        );
        assert_eq!(
            count("7 passed, 0 failed"),
            Counts {
                passed: 7,
                failed: 0
            }
        );
        for line in [
            "test a::b ... ok",
            "3 of 4 failed to start, 2 passed",
            "passed, failed",
            "",
        ] {
            assert_eq!(count(line), Counts::default(), "{line}");
        }
    }

    #[test]
    fn a_step_that_reports_too_little_fails() {
        let counts = Counts {
            passed: 2,
            failed: 1,
        };
        assert_eq!(enough(counts, 3), Ok(()));
        assert!(enough(counts, 4).is_err());
    }

    #[test]
    fn words_with_an_equals_sign_in_front_are_environment() {
        let command = command(&["A=b c", "cargo", "--config=x"]).expect("a program is named");
        assert_eq!(command.get_program(), "cargo");
        assert_eq!(command.get_args().count(), 1);
        assert!(
            command
                .get_envs()
                .any(|(name, value)| name == "A" && value == Some("b c".as_ref()))
        );
    }
}
