//! Every case runs to its end and reports every figure. What the figures are is judged by people.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Each case, and how many figures it reports.
const CASES: [(&str, usize); 13] = [
    ("baseline", 13),
    ("produce-100", 6),
    ("produce-1024", 8),
    ("latency", 2),
    ("unary-64", 1),
    ("partitions", 4),
    ("consume-100", 4),
    ("consume-1024", 4),
    ("tails", 2),
    ("start", 2),
    ("archive", 4),
    ("library", 5),
    ("memory", 1),
];

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_comlog-bench"))
}

/// The server, which building the workspace's tests has put beside the bench.
fn comlog() -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_comlog-bench")).with_file_name("comlog");
    let missing = "run it with the workspace: cargo test --workspace --all-features --test smoke";
    assert!(
        binary.is_file(),
        "{} is not there; {missing}",
        binary.display()
    );
    binary
}

#[test]
fn every_case_reports_every_figure_as_json() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the disk has room");
    let kept = dir.path().join("kept.json");
    let output = bench()
        .args(["--smoke", "-o", "json", "--dir"])
        .arg(dir.path())
        .arg("--json")
        .arg(&kept)
        .arg("--binary")
        .arg(comlog())
        .output()
        .expect("the bench starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{said}", output.status);
    let printed: Value = serde_json::from_slice(&output.stdout).expect("what it prints is JSON");
    let kept = std::fs::read(kept).expect("it wrote a file");
    let kept: Value = serde_json::from_slice(&kept).expect("what it writes is JSON");
    assert_eq!(printed, kept);
    assert_eq!(printed["rounds"], 1);
    let rows = printed["rows"].as_array().expect("there are rows");
    for row in rows {
        let finite = row["median"].as_f64().is_some_and(|median| median >= 0.0);
        assert!(finite, "not a figure: {row}");
        assert_eq!(row["beside"].is_null(), row["ratio"].is_null(), "{row}");
        assert_eq!(row["goal"].is_null(), row["reached"].is_null(), "{row}");
    }
    for (case, figures) in CASES {
        let found = rows.iter().filter(|row| row["case"] == case).count();
        assert_eq!(found, figures, "figures of {case}");
    }
    let expected: usize = CASES.iter().map(|(_, figures)| figures).sum();
    assert_eq!(rows.len(), expected, "cases that this test does not know");
}

#[test]
fn the_list_names_the_cases_and_the_peers() {
    let output = bench().arg("--list").output().expect("the bench starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let cases = CASES.iter().map(|&(name, _)| name);
    let peers = ["redis-always", "redis-everysec", "nats-no-sync"];
    for name in cases.filter(|&name| name != "baseline").chain(peers) {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
}

#[test]
fn a_run_tells_what_it_needs() {
    for (args, needs) in [
        (
            &["--needs"][..],
            &["-p comlog-cli", "redis-server", "nats-server"][..],
        ),
        (&["--needs", "--no-peers"], &["-p comlog-cli"]),
        (&["--needs", "--instructions"], &["valgrind"]),
    ] {
        let output = bench().args(args).output().expect("the bench starts");
        let text = String::from_utf8_lossy(&output.stdout);
        for word in ["-p comlog-cli", "redis-server", "nats-server", "valgrind"] {
            assert_eq!(
                text.contains(word),
                needs.contains(&word),
                "{args:?}: {text}"
            );
        }
    }
}
