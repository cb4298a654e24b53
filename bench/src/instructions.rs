//! Instructions of the hot paths, as callgrind counts them: a change of code shows in them when time
//! on a shared machine does not. Kept in a file, so that a change of theirs shows in review.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;

/// Debian's package, and its program.
pub(crate) const PACKAGE: &str = "valgrind";

/// From the top of the checkout, where `cargo xtask` runs everything.
const FILE: &str = "bench/instructions.toml";
const HEAD: &str = "\
# Instructions (callgrind's Ir) that one turn of a hot path takes, written by
# `cargo xtask bench --instructions --update`; bench/README.md says how to read them.
";
/// More than this over what the file says is a failure.
const GROWTH_MAX: f64 = 0.03;

/// What is run (see src/bin/hot_paths.rs), and what one turn of it is.
const PATHS: [(&str, &str); 3] = [
    ("encode", "1,000 records of 100 B into a batch"),
    ("append", "that batch checked and appended in memory"),
    ("read", "that batch found and handed out"),
];
/// Both runs set up the same, so their difference is what these turns more cost.
const TURNS: [u64; 2] = [100, 600];

type Counts = BTreeMap<String, u64>;

/// Counts all paths and compares them with the file, or writes it.
pub(crate) fn run(update: bool) -> Result<()> {
    let kept = if Path::new(FILE).exists() {
        toml::from_str(&std::fs::read_to_string(FILE)?)?
    } else if update {
        Counts::new()
    } else {
        return Err(format!("there is no {FILE} here").into());
    };
    let mut counted = Counts::new();
    for (path, _) in PATHS {
        counted.insert(path.to_owned(), count(path)?);
    }
    let grown = compare(&kept, &counted);
    if update {
        let lines = counted
            .iter()
            .map(|(path, count)| format!("{path} = {count}\n"));
        std::fs::write(FILE, HEAD.to_owned() + &lines.collect::<String>())?;
        return Ok(());
    }
    if grown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "more than {:.0} % over {FILE}: {}; if that is worth it, write them down with --update",
        GROWTH_MAX * 100.0,
        grown.join(", ")
    )
    .into())
}

/// Prints each path beside what was kept; returns those that have grown, or are new.
fn compare(kept: &Counts, counted: &Counts) -> Vec<&'static str> {
    let mut grown = Vec::new();
    println!("{:<8}{:>12}{:>12}{:>9}", "path", "kept", "now", "change");
    for (path, about) in PATHS {
        let now = counted.get(path).copied().unwrap_or_default();
        let kept = kept.get(path).copied();
        let change = kept.map(|kept| now as f64 / kept as f64 - 1.0);
        if change.is_none_or(|change| change > GROWTH_MAX) {
            grown.push(path);
        }
        let percent = change.map_or("new".to_owned(), |change| {
            format!("{:+.2} %", change * 100.0)
        });
        let kept = kept.map_or("-".to_owned(), |kept| kept.to_string());
        println!("{path:<8}{kept:>12}{now:>12}{percent:>9}  {about}");
    }
    grown
}

/// Instructions of one turn.
fn count(path: &str) -> Result<u64> {
    let [few, many] = TURNS;
    let difference = total(path, many)?.checked_sub(total(path, few)?);
    let difference = difference.ok_or("more turns took fewer instructions")?;
    Ok(difference / (many - few))
}

/// Instructions of a whole run.
fn total(path: &str, turns: u64) -> Result<u64> {
    let program = std::env::current_exe()?.with_file_name("hot-paths");
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("callgrind.out");
    let output = Command::new(PACKAGE)
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(&program)
        .args([path, &turns.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start {PACKAGE}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{PACKAGE} failed ({}):\n{said}", output.status).into());
    }
    let counts = std::fs::read_to_string(out)?;
    let total = counts
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    let total = total.ok_or("callgrind wrote no totals")?;
    Ok(total.trim().parse()?)
}
