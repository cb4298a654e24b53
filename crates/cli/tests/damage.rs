//! Segment files damaged under a running server: an error for that range, and everything else goes on.

#[allow(dead_code, reason = "the other tests use more of it")]
mod harness;

use std::fs;
use std::path::PathBuf;

use harness::Server;

/// Exit code for damage.
const CORRUPT: i32 = 6;
const RECORDS: usize = 50_000;

fn line(number: usize) -> String {
    format!("record {number:06} {}", "x".repeat(80))
}

/// A topic of several sealed segments.
fn filled() -> Server {
    let server = Server::start();
    server.ok(&["topic", "create", "t", "--segment-bytes", "1MiB"], b"");
    let input: String = (0..RECORDS).map(|number| line(number) + "\n").collect();
    server.ok(
        &["produce", "t", "--batch-bytes", "64KiB"],
        input.as_bytes(),
    );
    assert_eq!(server.ok(&["consume", "t"], b""), input.as_bytes());
    server
}

/// The segment files of the topic, oldest first.
fn segments(server: &Server) -> Vec<PathBuf> {
    let described = server.json(&["topic", "describe", "t"]);
    let id = described[0]["id"].as_str().expect("topics have an id");
    let partition = server.data_dir().join("topics").join(id).join("0");
    let files = fs::read_dir(partition).expect("its directory");
    let mut logs: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    logs
}

/// The damaged range that a message names, as `[start, end)`.
fn range_in(message: &str) -> (usize, usize) {
    let (_, rest) = message.split_once('[').expect("a range");
    let (range, _) = rest.split_once(')').expect("its end");
    let (start, end) = range.split_once(", ").expect("two offsets");
    (
        start.parse().expect("a number"),
        end.parse().expect("a number"),
    )
}

/// Reads everything, going on behind each damaged range that is reported: it must be one stretch.
fn check_fenced(server: &Server) {
    let mut damaged: Vec<(usize, usize)> = Vec::new();
    let mut from = 0;
    loop {
        let output = server.run(&["consume", "t", "--from", &from.to_string()], b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let (end, next) = match output.status.code() {
            Some(0) => (RECORDS, None),
            Some(CORRUPT) => {
                let (start, end) = range_in(&said);
                damaged.push((start, end));
                (start, Some(end))
            }
            _ => panic!("{said}"),
        };
        let expected: String = (from..end).map(|number| line(number) + "\n").collect();
        assert!(output.stdout == expected.as_bytes(), "{from} to {end}");
        let Some(next) = next else { break };
        from = next;
    }
    // A reader meets the batch at the cut by its checksum, and then the bytes that are missing.
    assert!((1..=2).contains(&damaged.len()), "{damaged:?}");
    assert!(
        damaged.windows(2).all(|pair| pair[0].1 == pair[1].0),
        "{damaged:?}"
    );
    server.ok(&["produce", "t"], b"still alive\n");
}

#[test]
fn a_file_cut_short_under_its_readers_costs_that_range_and_nothing_else() {
    let server = filled();
    let files = segments(&server);
    assert!(files.len() > 3, "{files:?}");
    // The server has it mapped, since it was just read to the end.
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&files[1])
        .expect("a segment");
    file.set_len(300_000).expect("it can be cut");
    check_fenced(&server);
}

#[test]
fn a_cut_file_is_fenced_after_a_restart_too() {
    let mut server = filled();
    let files = segments(&server);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&files[2])
        .expect("a segment");
    file.set_len(123_456).expect("it can be cut");
    server.kill_and_restart();
    check_fenced(&server);
}

#[test]
fn a_flipped_bit_is_found_by_its_reader_and_by_verify() {
    let mut server = filled();
    let files = segments(&server);
    let mut content = fs::read(&files[1]).expect("a segment");
    content[500_000] ^= 0x10;
    fs::write(&files[1], content).expect("it can be written");
    let output = server.run(&["consume", "t"], b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(CORRUPT), "{said}");
    let (_, end) = range_in(&said);
    let rest = server.ok(
        &["consume", "t", "--from", &end.to_string(), "--count", "1"],
        b"",
    );
    assert_eq!(String::from_utf8_lossy(&rest), line(end) + "\n");
    server.stop();
    let data_dir = server.data_dir();
    let (code, said) = server.fails(&["verify", data_dir.to_str().expect("UTF-8")]);
    assert_eq!(code, CORRUPT, "{said}");
}
