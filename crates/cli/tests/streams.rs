//! `produce` and `consume` where topics change under them, take little, or fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the other tests use more of it")]
mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use harness::{Server, signal};

/// Commands run to wait for something: far more than it takes.
const ATTEMPTS_MAX: u32 = 500;

fn lines(numbers: std::ops::Range<u32>) -> Vec<u8> {
    numbers
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn partitions_that_are_added_are_followed_from_their_beginning() {
    let server = Server::start();
    server.ok(&["topic", "create", "t"], b"");
    let follow = [
        "consume",
        "t",
        "--follow",
        "--from",
        "latest",
        "--count",
        "3",
        "--metadata-age",
        "50ms",
        "--format",
        r"%p/%o %v\n",
    ];
    let mut follow = server
        .command(&follow)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(follow.stdout.take().unwrap());
    server.ok(&["topic", "alter", "t", "-p", "3"], b"");
    server.ok(&["produce", "t", "-p", "2"], b"a\nb\n");
    let mut line = String::new();
    // That it looked before the partition was added does not matter, nor that it looked after.
    for expected in ["2/0 a\n", "2/1 b\n"] {
        line.clear();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }
    server.ok(&["produce", "t", "-p", "1"], b"c\n");
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "1/0 c\n");
    assert_eq!(follow.wait().unwrap().code(), Some(0));
}

#[test]
fn small_lines_fit_a_topic_of_small_batches() {
    let server = Server::start();
    for (topic, partition) in [("asked", &[][..]), ("named", &["-p", "0"])] {
        server.ok(
            &["topic", "create", topic, "--max-batch-bytes", "64KiB"],
            b"",
        );
        let line = "x".repeat(100);
        let input: Vec<u8> = (0..2_000)
            .flat_map(|number| format!("{number} {line}\n").into_bytes())
            .collect();
        let produced = server.run(&[&["produce", topic], partition].concat(), &input);
        assert_eq!(produced.status.code(), Some(0), "{produced:?}");
        let expected = format!("2000 records, {topic}/0 offsets [0, 2000)\n");
        assert_eq!(said(&produced), expected);
        assert!(server.ok(&["consume", topic], b"") == input);
    }
}

#[test]
fn what_is_too_large_for_its_topic_is_refused_alone_and_everything_is_counted() {
    let server = Server::start();
    server.ok(&["topic", "create", "t", "--max-batch-bytes", "64KiB"], b"");
    let (before, after) = (lines(0..2), lines(2..500));
    let large = [vec![b'x'; 100_000], b"\n".to_vec()].concat();
    for partition in [&[][..], &["-p", "0"]] {
        let input = [&before[..], &large, &after].concat();
        let args = [&["produce", "t", "-o", "json"], partition].concat();
        let output = server.run(&args, &input);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(said(&output).contains("record 3: "), "{output:?}");
        assert!(said(&output).contains(", 1 refused"), "{output:?}");
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (
                &summary["records"],
                &summary["refused"],
                &summary["in_doubt"]
            ),
            (&500.into(), &1.into(), &0.into())
        );
    }
    let all = [lines(0..500), lines(0..500)].concat();
    assert!(server.ok(&["consume", "t"], b"") == all);
}

#[test]
fn what_was_sent_before_a_mistake_is_counted_to_the_last() {
    let server = Server::start();
    let mut input: Vec<u8> = (0..5_000)
        .flat_map(|number| format!("k:{number}\n").into_bytes())
        .collect();
    input.extend(b"no key\nk:late\n");
    let output = server.run(
        &["produce", "t", "-k", ":", "--batch-bytes", "1KiB"],
        &input,
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        said(&output).contains("5000 records, t/0 offsets [0, 5000)"),
        "{output:?}"
    );
    assert_eq!(server.json(&["offsets", "t"])[0]["high_watermark"], 5_000);
}

#[test]
fn what_a_second_interrupt_cuts_off_is_in_doubt() {
    let server = Server::start();
    server.ok(&["topic", "create", "t"], b"");
    let mut produce = server
        .command(&["produce", "t", "--delivery-timeout", "1h"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = produce.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    let mut attempts = 0..ATTEMPTS_MAX;
    assert!(attempts.any(|_| server.run(&["consume", "t"], b"").stdout == b"one\n"));
    // A stopped server acknowledges nothing more. More than the pipe and what is read ahead hold.
    server.pause();
    stdin.write_all(&b"0123456789\n".repeat(400_000)).unwrap();
    for _ in 0..ATTEMPTS_MAX {
        signal(&produce, "INT");
        std::thread::sleep(Duration::from_millis(20));
        if produce.try_wait().unwrap().is_some() {
            break;
        }
    }
    server.resume();
    let output = produce.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = said(&output);
    assert!(text.contains("1 record, t/0 offsets [0, 1), "), "{text}");
    assert!(text.contains(" in doubt"), "{text}");
}

#[test]
fn separators_know_the_escapes_of_printf() {
    let server = Server::start();
    let (code, message) = server.fails(&["produce", "t", "-k", ""]);
    assert_eq!(code, 2);
    assert!(message.contains("--key-separator"), "{message}");
    assert_eq!(server.fails(&["produce", "t", "-k", r"\y"]).0, 2);
    server.ok(&["produce", "t", "-k", r"\t"], b"a\tb\n");
    server.ok(&["produce", "t", "-k", r"\x1f\0"], b"c\x1f\0d\n");
    let printed = server.ok(&["consume", "t", "--format", r"%k\x3d%v\n"], b"");
    assert_eq!(printed, b"a=b\nc=d\n");
}

#[test]
fn more_partitions_than_one_tail_follows() {
    let server = Server::start();
    server.ok(&["topic", "create", "t", "--partitions", "1500"], b"");
    let follow = ["consume", "t", "--follow", "--count", "2"];
    let mut follow = server
        .command(&follow)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    server.ok(&["produce", "t", "-p", "0"], b"first\n");
    server.ok(&["produce", "t", "-p", "1499"], b"last\n");
    let mut found = String::new();
    let mut stdout = follow.stdout.take().unwrap();
    stdout.read_to_string(&mut found).unwrap();
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["first", "last"]);
    assert_eq!(follow.wait().unwrap().code(), Some(0));
}

#[test]
fn following_up_to_a_time_ends_when_that_has_passed() {
    let server = Server::start();
    server.ok(&["topic", "create", "t", "--partitions", "3"], b"");
    server.ok(&["produce", "t", "-p", "1"], b"there\n");
    let until = ["consume", "t", "--follow", "--until", "@-1s"];
    assert_eq!(
        server.ok(&[&until[..], &["--from", "latest"]].concat(), b""),
        b""
    );
    // By then it is older than that, or it is not: only that it ends is certain.
    let printed = server.ok(&until, b"");
    assert!(printed == b"there\n" || printed.is_empty());
    let late = ["consume", "t", "--follow", "--until", "@2020-01-01"];
    assert_eq!(server.ok(&late, b""), b"");
}

fn openssl(dir: &Path, args: &[&str]) {
    let made = Command::new("openssl")
        .current_dir(dir)
        .args(args)
        .output()
        .expect("openssl is there");
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn an_authority_that_is_none_is_named_at_once() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHcHbQpzGKV9PBbBclGyZkXfTC+H68CZKrF3+6UduSwq\n-----END PRIVATE KEY-----\n";
    for (name, content) in [("empty.pem", ""), ("key.pem", key), ("text.pem", "hello")] {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        let path = path.to_str().unwrap();
        for url in ["https://127.0.0.1:1", &server.url] {
            let args = ["topic", "list", "--server", url, "--ca-cert", path];
            let (code, message) = server.fails(&args);
            assert_eq!(code, 2, "{message}");
            assert!(message.contains(path), "{message}");
        }
    }
}

#[test]
fn both_sides_say_what_is_wrong_with_tls() {
    let dir = tempfile::tempdir().unwrap();
    let subject = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ];
    let usual = [
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "k.pem", "-out", "c.pem",
    ];
    openssl(dir.path(), &[&usual[..], &subject].concat());
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut args = [
        "--tls-cert".to_owned(),
        file("c.pem"),
        "--tls-key".to_owned(),
        file("k.pem"),
    ];
    let secure = Server::start_with(&args);
    let (code, message) = secure.fails(&["topic", "list", "--ca-cert", &file("c.pem")]);
    assert_eq!(code, 4, "{message}");
    assert!(message.contains("CA:FALSE"), "{message}");
    assert!(!message.contains("comlog serve"), "{message}");
    assert!(secure.log().contains("CA:FALSE"), "{}", secure.log());
    // Each side speaks otherwise than the other.
    let plain_url = secure.url.replace("https:", "http:");
    let (code, message) = secure.fails(&["topic", "list", "--server", &plain_url]);
    assert_eq!(code, 4, "{message}");
    assert!(
        message.contains("https://") && !message.contains("comlog serve"),
        "{message}"
    );
    let plain = Server::start();
    let secure_url = plain.url.replace("http:", "https:");
    let (code, message) = plain.fails(&["topic", "list", "--server", &secure_url]);
    assert_eq!(code, 4, "{message}");
    assert!(
        message.contains("http://") && !message.contains("comlog serve"),
        "{message}"
    );
    // What the server advises is taken by both.
    let right = ["-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(dir.path(), &[&usual[..], &subject, &right].concat());
    args[1] = file("c.pem");
    let secure = Server::start_with(&args);
    secure.ok(&["topic", "list", "--ca-cert", &file("c.pem")], b"");
    assert!(!secure.log().contains("CA:FALSE"), "{}", secure.log());
}
