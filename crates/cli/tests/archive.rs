//! The archive through the binary: upload, read-through, restore. On `file://`, which needs no network.

#[allow(dead_code, reason = "the other tests use more of it")]
mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Output;

use comlog_client::{Client, ClientConfig};
use harness::Server;
use serde_json::Value;
use tempfile::TempDir;

const NOTHING_LOCAL: &str = "topic_defaults.local_retention_bytes=0";

/// A server that archives to a folder.
struct Archived {
    archive: TempDir,
    server: Server,
}

impl Archived {
    fn start(settings: &[&str]) -> Archived {
        let archive = tempfile::tempdir().expect("a temporary folder");
        let server = Server::start_with(&serve_args(archive.path(), settings));
        Archived { archive, server }
    }

    fn url(&self) -> String {
        url(self.archive.path())
    }

    /// Offline commands need no server, but the binary is the same.
    fn run(&self, args: &[&str]) -> Output {
        self.server.run(args, b"")
    }

    fn verify(&self) -> Output {
        self.run(&["archive", "verify", "--from", &self.url()])
    }

    fn status(&self, topic: &str) -> Value {
        let rows = self.server.json(&["archive", "status", topic]);
        rows.into_iter()
            .find(|row| row["kind"] == "partition")
            .expect("one partition")
    }
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn serve_args(archive: &Path, settings: &[&str]) -> Vec<String> {
    let mut args = vec![
        "--archive".to_owned(),
        url(archive),
        "--archive-single-writer".to_owned(),
        "--set=archive.interval_ms=20".to_owned(),
    ];
    args.extend(settings.iter().map(|setting| format!("--set={setting}")));
    args
}

/// `count` lines that differ, from `first` on.
fn lines(first: usize, count: usize) -> Vec<u8> {
    let line = |at: usize| format!("record {at} {}\n", "x".repeat(at % 97));
    (first..first + count)
        .flat_map(|at| line(at).into_bytes())
        .collect()
}

fn consume(server: &Server, topic: &str) -> Vec<u8> {
    server.ok(&["consume", topic], b"")
}

#[test]
fn what_is_archived_is_read_as_if_local() {
    let it = Archived::start(&[NOTHING_LOCAL]);
    let server = &it.server;
    let mut all = Vec::new();
    for round in 0..3 {
        let some = lines(round * 1_000, 1_000);
        server.ok(&["produce", "t"], &some);
        server.ok(&["archive", "flush", "t"], b"");
        all.extend(some);
    }
    wait_until(|| it.status("t")["local_start_offset"] == 3_000);
    let status = it.status("t");
    assert_eq!(status["archived_segments"], 3);
    assert_eq!(status["archived_end_offset"], 3_000);
    assert_eq!(status["log_start_offset"], 0);
    assert!(consume(server, "t") == all);
    let found = server.json(&["offsets", "t", "--at", "@2000-01-01T00:00:00Z"]);
    assert_eq!(found[0]["offset"], 0, "times are found in the archive too");
    assert_eq!(it.verify().status.code(), Some(0));
}

#[test]
fn what_is_archived_is_read_after_a_kill() {
    let mut it = Archived::start(&[NOTHING_LOCAL]);
    let some = lines(0, 2_000);
    it.server.ok(&["produce", "t"], &some);
    it.server.ok(&["archive", "flush"], b"");
    wait_until(|| it.status("t")["local_start_offset"] == 2_000);
    it.server.kill_and_restart();
    assert!(consume(&it.server, "t") == some);
    let more = lines(2_000, 10);
    it.server.ok(&["produce", "t"], &more);
    it.server.ok(&["archive", "flush"], b"");
    assert!(consume(&it.server, "t") == [some, more].concat());
    assert_eq!(it.verify().status.code(), Some(0));
}

#[test]
fn a_data_directory_is_rebuilt_from_the_archive_alone() {
    let mut it = Archived::start(&[]);
    it.server.ok(
        &[
            "topic",
            "create",
            "t",
            "--partitions",
            "3",
            "--retention-time",
            "30d",
        ],
        b"",
    );
    it.server
        .ok(&["produce", "t", "--partition", "0"], &lines(0, 1_000));
    it.server
        .ok(&["produce", "t", "--partition", "2"], &lines(1_000, 4_000));
    commit(&it.server, "readers", "t", 7);
    it.server.ok(&["archive", "flush"], b"");
    let all = ["consume", "t", "--format", "%p/%o %v\n"];
    let mut before = sorted(&it.server.ok(&all, b""));
    let committed = it.server.json(&["group", "describe", "readers"]);
    let described = it.server.json(&["topic", "describe", "t"]);
    it.server.stop();

    let folder = tempfile::tempdir().expect("a temporary folder");
    let to = folder.path().join("restored");
    let to_text = to.to_str().expect("a temporary path is text");
    let restored = it.run(&["restore", "--from", &it.url(), "--to", to_text]);
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    let again = it.run(&["restore", "--from", &it.url(), "--to", to_text]);
    assert_eq!(again.status.code(), Some(2), "not over what is there");

    let server = Server::start_in(&to, &serve_args(it.archive.path(), &[]));
    assert_eq!(sorted(&server.ok(&all, b"")), before);
    let offsets = |rows: Vec<Value>| -> Vec<Value> {
        rows.into_iter().map(|row| row["offset"].clone()).collect()
    };
    let now = server.json(&["group", "describe", "readers"]);
    assert_eq!(offsets(now), offsets(committed));
    let now = server.json(&["topic", "describe", "t"]);
    assert_eq!(now[0]["config"], described[0]["config"]);
    let epochs = |rows: &[Value]| -> Vec<i64> {
        let infos = rows[0]["partition_infos"].as_array().into_iter().flatten();
        infos
            .filter_map(|info| info["leader_epoch"].as_i64())
            .collect()
    };
    assert_eq!(epochs(&described), [0, 0, 0]);
    assert_eq!(epochs(&now), [1_000, 1_000, 1_000], "it rose");

    server.ok(&["produce", "t"], &lines(5_000, 100));
    server.ok(&["archive", "flush"], b"");
    let after = sorted(&server.ok(&all, b""));
    assert_eq!(after.len(), 5_100);
    before.retain(|line| !after.contains(line));
    assert!(before.is_empty(), "nothing was renumbered");
    assert_eq!(it.verify().status.code(), Some(0));
}

#[test]
#[cfg(unix)]
fn a_link_to_an_empty_directory_is_restored_into() {
    let mut it = Archived::start(&[]);
    it.server.ok(&["topic", "create", "t"], b"");
    it.server.ok(&["produce", "t"], b"one\ntwo\n");
    it.server.ok(&["archive", "flush"], b"");
    it.server.stop();

    let folder = tempfile::tempdir().expect("a temporary folder");
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    std::fs::create_dir(&real).expect("a directory");
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    let to_text = link.to_str().expect("a temporary path is text");
    let restored = it.run(&["restore", "--from", &it.url(), "--to", to_text]);
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    assert!(link.is_symlink() && real.join("topics").is_dir());
    let there = std::fs::read_dir(folder.path()).expect("lists").count();
    assert_eq!(there, 2, "nothing is left beside them");

    let server = Server::start_in(&link, &serve_args(it.archive.path(), &[]));
    assert_eq!(
        server.ok(&["consume", "t", "--format", "%v\n"], b""),
        b"one\ntwo\n"
    );
}

#[test]
fn committed_offsets_behind_the_restored_end_are_set_back_to_it() {
    let mut it = Archived::start(&[]);
    it.server.ok(&["produce", "t"], &lines(0, 100));
    it.server.ok(&["archive", "flush"], b"");
    it.server.ok(&["produce", "t"], &lines(100, 50));
    commit(&it.server, "ahead", "t", 150);
    commit(&it.server, "behind", "t", 7);
    // Only the commits reach the archive, not the records that they speak of.
    it.server
        .ok(&["archive", "flush", "__consumer_offsets"], b"");
    it.server.stop();

    let folder = tempfile::tempdir().expect("a temporary folder");
    let to = folder.path().join("restored");
    let to_text = to.to_str().expect("a temporary path is text");
    let restored = it.run(&["restore", "--from", &it.url(), "--to", to_text]);
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    let told = String::from_utf8_lossy(&restored.stdout);
    assert!(
        told.contains("group ahead had committed t/0 up to 150"),
        "{told}"
    );
    assert!(!told.contains("group behind"), "{told}");

    let mut server = Server::start_in(&to, &serve_args(it.archive.path(), &[]));
    let committed = |server: &Server, group| {
        let rows = server.json(&["group", "describe", group]);
        rows[0]["offset"].as_i64().expect("one offset")
    };
    assert_eq!(committed(&server, "ahead"), 100);
    assert_eq!(committed(&server, "behind"), 7);
    server.ok(&["produce", "t"], &lines(200, 10));
    server.ok(&["archive", "flush"], b"");
    server.kill_and_restart();
    assert_eq!(committed(&server, "ahead"), 100, "it is archived and kept");
    assert_eq!(it.verify().status.code(), Some(0));
}

#[test]
fn no_archived_partition_is_left_out_for_older_metadata() {
    let mut it = Archived::start(&[]);
    it.server.ok(&["produce", "t"], &lines(0, 10));
    it.server.ok(&["archive", "flush"], b"");
    let described = it.server.json(&["topic", "describe", "t"]);
    let id = described[0]["id"].as_str().expect("it has an id");
    let metadata = it.archive.path().join("topics").join(id).join("topic");
    let older = std::fs::read(&metadata).expect("the object is there");
    it.server
        .ok(&["topic", "alter", "t", "--partitions", "3"], b"");
    it.server
        .ok(&["produce", "t", "--partition", "2"], &lines(10, 10));
    it.server.ok(&["archive", "flush"], b"");
    it.server.stop();
    // As a store gives it back whose last write of that object was undone.
    std::fs::write(&metadata, older).expect("it can be written");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let to = folder.path().join("restored");
    let to_text = to.to_str().expect("a temporary path is text");
    let restored = it.run(&["restore", "--from", &it.url(), "--to", to_text]);
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    let server = Server::start_in(&to, &serve_args(it.archive.path(), &[]));
    let all = [lines(0, 10), lines(10, 10)].concat();
    assert_eq!(sorted(&consume(&server, "t")), sorted(&all));
}

#[test]
fn a_wrong_object_is_data_loss_for_that_range_only() {
    let it = Archived::start(&[NOTHING_LOCAL, "archive.cache_bytes_max=1"]);
    for round in 0..3 {
        it.server
            .ok(&["produce", "t"], &lines(round * 1_000, 1_000));
        it.server.ok(&["archive", "flush", "t"], b"");
    }
    wait_until(|| it.status("t")["local_start_offset"] == 3_000);
    let mut segments = Vec::new();
    find(
        it.archive.path(),
        "00000000000000001000-",
        ".log",
        &mut segments,
    );
    let mut content = std::fs::read(&segments[0]).expect("the object is there");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&segments[0], content).expect("it can be written");
    let verified = it.verify();
    assert_eq!(verified.status.code(), Some(6));
    let (code, message) = it.server.fails(&["consume", "t", "--from", "1000"]);
    assert_eq!(code, 6, "{message}");
    assert!(message.contains("00000000000000001000-"), "{message}");
    let behind = it.server.ok(&["consume", "t", "--from", "2000"], b"");
    assert!(behind == lines(2_000, 1_000));
}

#[test]
fn total_retention_removes_archived_segments_and_deleting_a_topic_its_archive() {
    let it = Archived::start(&[NOTHING_LOCAL, "append.maintain_interval_ms=50"]);
    for round in 0..3 {
        it.server
            .ok(&["produce", "t"], &lines(round * 1_000, 1_000));
        it.server.ok(&["archive", "flush", "t"], b"");
    }
    let described = it.server.json(&["topic", "describe", "t"]);
    let topic = described[0]["id"]
        .as_str()
        .expect("it has an id")
        .to_owned();
    // The newest segment stays: without it less than that byte would be left.
    it.server
        .ok(&["topic", "alter", "t", "--retention-bytes", "1"], b"");
    wait_until(|| it.status("t")["archived_segments"] == 1);
    assert_eq!(it.status("t")["log_start_offset"], 2_000);
    let logs = || {
        let mut found = Vec::new();
        find(it.archive.path(), "000000000000000", ".log", &mut found);
        found.retain(|path| {
            path.components()
                .any(|part| part.as_os_str() == topic.as_str())
        });
        found.len()
    };
    wait_until(|| logs() == 1);
    assert!(consume(&it.server, "t") == lines(2_000, 1_000));
    it.server.ok(&["topic", "delete", "t", "--yes"], b"");
    wait_until(|| logs() == 0);
    assert_eq!(it.verify().status.code(), Some(0));
}

#[test]
fn archived_segments_are_missed_without_the_archive() {
    let mut it = Archived::start(&[NOTHING_LOCAL]);
    it.server.ok(&["produce", "t"], &lines(0, 100));
    it.server.ok(&["archive", "flush"], b"");
    wait_until(|| it.status("t")["local_start_offset"] == 100);
    it.server.stop();
    let bare = Server::start_in(&it.server.data_dir(), &[]);
    let (_, message) = bare.fails(&["consume", "t"]);
    assert!(message.contains("--archive"), "{message}");
}

#[test]
fn an_archive_of_a_newer_format_is_refused_and_nobody_is_called_fenced() {
    let archive = tempfile::tempdir().expect("a temporary folder");
    let newer = "comlog archive 2 00000000\n";
    std::fs::write(archive.path().join("comlog-archive"), newer).expect("it can be written");
    let it = Archived {
        server: Server::start_with(&serve_args(archive.path(), &[])),
        archive,
    };
    wait_until(|| metric(&it.server, "comlog_archive_refused") == "1");
    assert_eq!(metric(&it.server, "comlog_archive_fenced"), "0");
    it.server.ok(&["produce", "t"], &lines(0, 10));
    let (code, message) = it.server.fails(&["archive", "flush"]);
    assert_eq!(code, 1, "{message}");
    assert!(message.contains("format 2"), "{message}");
}

/// The value of one of the server's metrics; empty when it has none of this name.
fn metric(server: &Server, name: &str) -> String {
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is text");
    let value = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(' ')
            .map(str::to_owned)
    };
    answer.lines().find_map(value).unwrap_or_default()
}

/// Commits `offset` in partition 0.
fn commit(server: &Server, group: &str, topic: &str, offset: i64) {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let committed = comlog_proto::v1::CommittedOffset {
        topic: topic.to_owned(),
        offset,
        ..comlog_proto::v1::CommittedOffset::default()
    };
    runtime
        .block_on(async {
            let client = Client::new(ClientConfig::new(&server.url))?;
            client.commit_offsets(group, vec![committed]).await
        })
        .expect("it is committed");
}

fn sorted(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8(text.to_vec()).expect("lines are text");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Every file below `dir` whose name begins and ends so.
fn find(dir: &Path, begin: &str, end: &str, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            find(&path, begin, end, found);
        } else if name.starts_with(begin) && name.ends_with(end) {
            found.push(path);
        }
    }
}

/// Waits for what happens by itself; a test that waits too long is ended as a whole.
fn wait_until(mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 120, "it does not happen");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
