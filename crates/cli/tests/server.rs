//! The commands against a real server, all through the real binary.

#[allow(dead_code, reason = "the other tests use more of it")]
mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use harness::{Server, signal};
use serde_json::Value;

/// Commands run to wait for something: far more than it takes.
const ATTEMPTS_MAX: u32 = 500;

fn lines(output: &[u8]) -> Vec<&str> {
    std::str::from_utf8(output).expect("text").lines().collect()
}

#[test]
fn lines_come_out_as_they_went_in_with_every_codec() {
    let server = Server::start();
    let mut input = Vec::new();
    for number in 0..20_000 {
        input.extend(format!("line {number} {}", "x".repeat(number % 97)).bytes());
        input.extend([0xff, 0xfe, b'\n', b'\n']);
    }
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let output = server.run(&["produce", codec, "--compression", codec], &input);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stdout.is_empty());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            said.trim_end(),
            format!("40000 records, {codec}/0 offsets [0, 40000)")
        );
        assert!(server.ok(&["consume", codec], b"") == input, "{codec}");
    }
}

#[test]
fn any_bytes_come_back_exactly() {
    let server = Server::start();
    for (topic, input) in [
        ("a", &b"no newline at the end"[..]),
        ("b", b"\n\n"),
        ("c", b"x\ny"),
        ("d", b""),
    ] {
        server.ok(&["produce", topic, "--framing", "keep-newlines"], input);
        if !input.is_empty() {
            assert_eq!(
                server.ok(&["consume", topic, "--framing", "none"], b""),
                input
            );
        }
    }
    let frames = b"\0\0\0\x03a\nb\xff\xff\xff\xff\0\0\0\0";
    server.ok(&["produce", "frames", "--framing", "length"], frames);
    assert_eq!(
        server.ok(&["consume", "frames", "--framing", "length"], b""),
        frames
    );
    let values: Vec<Value> = server
        .json(&["consume", "frames"])
        .iter()
        .map(|line| line["value"].clone())
        .collect();
    assert_eq!(values, ["a\nb".into(), Value::Null, "".into()]);
}

#[test]
fn keys_headers_and_partitions() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "4"], b"");
    let input = b"alice:1\nbob:2\nalice:3\ncarol:4:5\n";
    let args = [
        "produce",
        "orders",
        "-k",
        ":",
        "-H",
        "source=test",
        "-H",
        "n=1",
        "-o",
        "json",
    ];
    let summary: Value = serde_json::from_slice(&server.ok(&args, input)).expect("JSON");
    assert_eq!(summary["records"], 4);

    let records = server.json(&["consume", "orders"]);
    assert_eq!(records.len(), 4);
    let of = |key: &str| -> Vec<&Value> {
        records
            .iter()
            .filter(|record| record["key"] == key)
            .collect()
    };
    assert_eq!(of("alice")[0]["partition"], of("alice")[1]["partition"]);
    assert_eq!(
        (&of("alice")[0]["value"], &of("alice")[1]["value"]),
        (&"1".into(), &"3".into())
    );
    assert_eq!(of("carol")[0]["value"], "4:5");
    assert_eq!(
        records[0]["headers"][1],
        serde_json::json!({"name": "n", "value": "1"})
    );

    server.ok(&["produce", "orders", "--partition", "3"], b"here\n");
    let text = server.ok(
        &[
            "consume",
            "orders",
            "-p",
            "3",
            "--format",
            r"%T %p %k=%v %h\n",
        ],
        b"",
    );
    assert!(lines(&text).contains(&"orders 3 =here "), "{text:?}");

    let output = server.run(&["produce", "orders", "-k", ":"], b"a:1\nno key\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("record 2"),
        "{output:?}"
    );
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("1 record,"),
        "{output:?}"
    );
    assert_eq!(
        server
            .fails(&["produce", "orders", "-p", "4", "Cargo.toml"])
            .0,
        3
    );
}

#[test]
fn a_killed_server_has_everything_it_acknowledged() {
    let mut server = Server::start();
    let input: Vec<u8> = (0..1_000)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect();
    server.ok(&["produce", "t"], &input);
    server.kill_and_restart();
    assert!(server.ok(&["consume", "t"], b"") == input);
    server.ok(&["produce", "t"], b"after\n");
    assert_eq!(
        server.ok(&["consume", "t", "--from", "1000"], b""),
        b"after\n"
    );
    server.stop();
    let dir = server.data_dir();
    let dir = dir.to_str().expect("text");
    let checked = server.json(&["verify", dir]);
    let records = checked
        .iter()
        .filter(|line| line["kind"] == "partition" && line["records"] == 1001);
    assert_eq!(records.count(), 1, "{checked:?}");
}

#[test]
fn a_server_killed_under_a_producer_loses_and_doubles_nothing() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "t"], b"");
    let mut produce = server
        .command(&["produce", "t", "--batch-bytes", "4KiB"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built for this test");
    let mut stdin = produce.stdin.take().expect("it is piped");
    let mut input = Vec::new();
    for round in 0..4 {
        let piece: Vec<u8> = (0..20_000)
            .flat_map(|number| format!("{round} {number}\n").into_bytes())
            .collect();
        stdin.write_all(&piece).expect("produce reads");
        input.extend(piece);
        if round < 3 {
            server.kill_and_restart();
        }
    }
    drop(stdin);
    let output = produce.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(server.ok(&["consume", "t"], b"") == input);
}

#[test]
fn from_until_and_count_cut_the_output() {
    let server = Server::start();
    // Long enough for several batches of the smallest size.
    let input: Vec<u8> = (0..100)
        .flat_map(|number| format!("{number:060}\n").into_bytes())
        .collect();
    server.ok(&["produce", "t", "--batch-bytes", "1KiB"], &input);
    let consume = |args: &[&str]| {
        let output = server.ok(&[&["consume", "t"], args].concat(), b"");
        lines(&output)
            .iter()
            .map(|line| line.parse().expect("a number"))
            .collect::<Vec<u32>>()
    };
    assert_eq!(consume(&["--from", "97"]), [97, 98, 99]);
    assert_eq!(consume(&["--until", "3"]), [0, 1, 2]);
    assert_eq!(consume(&["--from", "40", "--count", "2"]), [40, 41]);
    assert_eq!(
        consume(&["--from", "5", "--until", "7", "--follow"]),
        [5, 6]
    );
    assert!(consume(&["--count", "0"]).is_empty());
    assert!(consume(&["--from", "latest"]).is_empty());
    assert!(consume(&["--from", "100"]).is_empty());
    assert!(consume(&["--from", "@-1h", "--until", "@-30m"]).is_empty());
    assert_eq!(consume(&["--from", "@-1h"]).len(), 100);
    let (code, message) = server.fails(&["consume", "t", "--from", "101"]);
    assert_eq!(code, 5, "{message}");
    assert_eq!(server.fails(&["consume", "no-such-topic"]).0, 3);
    assert_eq!(server.fails(&["consume", "t", "-p", "1"]).0, 3);
}

#[test]
fn times_find_offsets() {
    let server = Server::start();
    server.ok(&["produce", "t"], b"early\n");
    let first = server.json(&["consume", "t"])[0]["timestamp_ms"]
        .as_i64()
        .expect("a number");
    // The clock must move before the second record is made.
    std::thread::sleep(std::time::Duration::from_millis(5));
    server.ok(&["produce", "t"], b"late\n");
    let between = format!("@{}", first + 1);
    assert_eq!(
        server.ok(&["consume", "t", "--from", &between], b""),
        b"late\n"
    );
    assert_eq!(
        server.ok(&["consume", "t", "--until", &between], b""),
        b"early\n"
    );
    let found = server.json(&["offsets", "t", "--at", &between]);
    assert_eq!(
        (&found[0]["offset"], &found[0]["high_watermark"]),
        (&1.into(), &2.into())
    );
}

#[test]
fn follow_prints_what_is_appended_and_survives_a_restart() {
    let mut server = Server::start();
    server.ok(&["produce", "t"], b"before\n");
    let mut follow = server
        .command(&[
            "consume", "t", "--follow", "--from", "latest", "--count", "2",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary was built for this test");
    let mut stdout = BufReader::new(follow.stdout.take().expect("it is piped"));
    let first = std::thread::spawn(move || {
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it can be read");
        (line, stdout)
    });
    // Whether it stands at the end yet shows only when it prints: append until it does.
    for _ in 0..ATTEMPTS_MAX {
        if first.is_finished() {
            break;
        }
        server.ok(&["produce", "t"], b"during\n");
    }
    assert!(first.is_finished());
    let (line, mut stdout) = first.join().expect("the reader does not panic");
    assert_eq!(line, "during\n");
    server.kill_and_restart();
    server.ok(&["produce", "t"], b"during\n");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("it can be read");
    assert_eq!(rest, "during\n");
    assert_eq!(follow.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_closed_pipe_ends_consume_without_an_error() {
    let server = Server::start();
    server.ok(&["produce", "t"], &b"0123456789\n".repeat(100_000));
    let mut consume = server
        .command(&["consume", "t"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built for this test");
    let mut some = [0; 11];
    consume
        .stdout
        .take()
        .expect("it is piped")
        .read_exact(&mut some)
        .expect("there is more");
    let output = consume.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn an_interrupted_producer_says_what_was_acknowledged() {
    let server = Server::start();
    let mut produce = server
        .command(&["produce", "t"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built for this test");
    let mut stdin = produce.stdin.take().expect("it is piped");
    stdin.write_all(b"one\ntwo\nthr").expect("produce reads");
    // Both lines are in the log before the signal comes.
    let mut attempts = 0..ATTEMPTS_MAX;
    assert!(attempts.any(|_| server.run(&["consume", "t"], b"").stdout == b"one\ntwo\n"));
    signal(&produce, "INT");
    let output = produce.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("2 records, t/0 offsets [0, 2)"), "{said}");
    drop(stdin);
}

#[test]
fn topics_are_created_shown_altered_and_deleted() {
    let server = Server::start();
    let create = [
        "topic",
        "create",
        "t",
        "-p",
        "2",
        "--segment-bytes",
        "2MiB",
        "--durability",
        "memory",
    ];
    assert_eq!(server.ok(&create, b""), b"created t (2 partitions)\n");
    let (code, message) = server.fails(&create);
    assert_eq!(code, 1, "{message}");
    server.ok(&["topic", "create", "t", "--if-not-exists"], b"");
    assert_eq!(server.fails(&["topic", "create", "../x"]).0, 2);

    let described = &server.json(&["topic", "describe", "t"])[0];
    assert_eq!(
        described["config"],
        serde_json::json!({"segment_bytes": 2 << 20, "durability": "memory"})
    );
    assert_eq!(described["effective"]["durability"], "memory");
    assert_eq!(described["effective"]["retention_ms"], -1);
    assert_eq!(described["partition_infos"][1]["log_end_offset"], 0);
    let text = String::from_utf8(server.ok(&["topic", "describe", "t"], b"")).expect("text");
    assert!(text.contains("segment_bytes = 2097152 (set)"), "{text}");

    let alter = [
        "topic",
        "alter",
        "t",
        "-p",
        "3",
        "--retention-time",
        "7d",
        "--reset",
        "durability",
    ];
    let output = server.run(&alter, b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("warning"),
        "{output:?}"
    );
    let described = &server.json(&["topic", "describe", "t"])[0];
    assert_eq!(described["config"]["retention_ms"], 604_800_000);
    assert_eq!(described["effective"]["durability"], "durable");
    assert_eq!(described["partitions"], 3);

    let names = |server: &Server| -> Vec<Value> {
        server
            .json(&["topic", "list"])
            .iter()
            .map(|topic| topic["name"].clone())
            .collect()
    };
    assert!(names(&server).contains(&"t".into()));
    assert_eq!(server.fails(&["topic", "delete", "t"]).0, 2);
    server.ok(&["topic", "delete", "t", "--yes"], b"");
    assert!(!names(&server).contains(&"t".into()));
    assert_eq!(server.fails(&["topic", "describe", "t"]).0, 3);
}

#[test]
fn bench_measures_all_three() {
    let server = Server::start();
    let args = [
        "bench",
        "--records",
        "2000",
        "--record-bytes",
        "50",
        "--latency-records",
        "20",
    ];
    let found = server.json(&args);
    let names: Vec<&Value> = found.iter().map(|line| &line["name"]).collect();
    assert_eq!(names, ["produce", "consume", "latency"]);
    assert_eq!(found[0]["records"], 2000);
    assert_eq!(found[1]["records"], 2000);
    assert!(
        found
            .iter()
            .all(|line| line["records_per_second"].as_f64() > Some(0.0)),
        "{found:?}"
    );
    assert!(
        found[2]["p99_ms"].as_f64() >= found[2]["p50_ms"].as_f64(),
        "{found:?}"
    );
    let text = server.ok(&args, b"");
    assert_eq!(lines(&text).len(), 4, "{text:?}");
}

#[test]
fn groups_are_shown_and_deleted() {
    let server = Server::start();
    assert!(server.json(&["group", "list"]).is_empty());
    assert_eq!(server.fails(&["group", "describe", "none"]).0, 3);
    assert_eq!(server.fails(&["group", "delete", "none", "--yes"]).0, 3);

    server.ok(&["produce", "t"], b"one\ntwo\nthree\n");
    commit(&server, "g", "t", 1);
    assert_eq!(server.ok(&["group", "list"], b""), b"g\n");
    let described = server.json(&["group", "describe", "g"]);
    assert_eq!(described.len(), 1);
    assert_eq!(
        (&described[0]["offset"], &described[0]["lag"]),
        (&1.into(), &2.into())
    );
    assert_eq!(server.fails(&["group", "delete", "g"]).0, 2);
    server.ok(&["group", "delete", "g", "--yes"], b"");
    assert!(server.json(&["group", "list"]).is_empty());
}

#[test]
fn a_groups_lag_counts_what_is_there_to_read() {
    let server = Server::start();
    server.ok(&["produce", "t"], &b"record\n".repeat(100));
    commit(&server, "g", "t", 5);
    let describe = || server.json(&["group", "describe", "g"]).remove(0);
    let before = describe();
    assert_eq!(
        (&before["lag"], &before["past_end"]),
        (&95.into(), &false.into())
    );
    assert_eq!(before["log_start_offset"], 0);

    trim(&server, "t", 98);
    assert_eq!(describe()["lag"], 2);
    trim(&server, "t", 100);
    let trimmed = describe();
    assert_eq!(
        (&trimmed["lag"], &trimmed["past_end"]),
        (&0.into(), &false.into())
    );
    assert_eq!(trimmed["log_start_offset"], 100);

    commit(&server, "g", "t", 100);
    assert_eq!(describe()["past_end"], false);
    let text = server.ok(&["group", "describe", "g"], b"");
    assert!(!String::from_utf8_lossy(&text).contains("past the end"));

    commit(&server, "g", "t", 101);
    let past = describe();
    assert_eq!((&past["lag"], &past["past_end"]), (&0.into(), &true.into()));
    let text = server.ok(&["group", "describe", "g"], b"");
    assert!(String::from_utf8_lossy(&text).contains("past the end"));
}

/// Trims a topic's first partition.
fn trim(server: &Server, topic: &str, before: i64) {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let config = comlog_client::ClientConfig::new(&server.url);
        let client = comlog_client::Client::new(config).expect("a valid configuration");
        let trimmed = client.trim(topic, 0, comlog_record::Offset(before));
        assert_eq!(trimmed.await.expect("trims").0, before);
    });
}

/// Commits an offset as a consumer would.
fn commit(server: &Server, group: &str, topic: &str, offset: i64) {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let config = comlog_client::ClientConfig::new(&server.url);
        let client = comlog_client::Client::new(config).expect("a valid configuration");
        let offset = comlog_client::v1::CommittedOffset {
            topic: topic.to_owned(),
            offset,
            ..comlog_client::v1::CommittedOffset::default()
        };
        client
            .commit_offsets(group, vec![offset])
            .await
            .expect("the server takes it");
    });
}
