//! A server that runs short: of descriptors, of a right clock, of clients that go, of disk.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A server that is killed when the test ends.
struct Served {
    child: Child,
    url: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(command: &mut Command, data: &Path, args: &[&str]) -> Served {
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        let url = ready.trim().strip_prefix("comlog ready ").unwrap();
        Served {
            url: url.to_owned(),
            child,
        }
    }

    fn said(&mut self) -> impl Iterator<Item = String> + use<> {
        let stderr = self.child.stderr.take().unwrap();
        BufReader::new(stderr).lines().map(Result::unwrap)
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.url.trim_start_matches("http://")).unwrap()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = self.connect();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_comlog"))
            .env("COMLOG_SERVER", &self.url)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that ends before it has read all is the caller's to judge.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn ok(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(args, input);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        output.stdout
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }
}

fn serve() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comlog"));
    command.arg("serve");
    command
}

/// `count` lines, together about `count` KiB.
fn lines(count: usize) -> Vec<u8> {
    let line = |number: usize| format!("{number:>1023}\n").into_bytes();
    (0..count).flat_map(line).collect()
}

#[test]
fn a_client_that_never_ends_does_not_make_the_end_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--set", "drain_timeout_ms=20s"];
    let mut served = Served::start(&mut serve(), &dir.path().join("data"), &args);
    let mut endless = served.connect();
    let head = "POST /comlog.v1.LogService/Append HTTP/1.1\r\nhost: x\r\n\
                content-type: application/grpc-web+proto\r\ncontent-length: 100\r\n\
                expect: 100-continue\r\n\r\n";
    endless.write_all(head.as_bytes()).unwrap();
    let mut asked = [0; 12];
    endless.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100", "the request has begun");
    assert_eq!(served.stop(), Some(0));
}

#[test]
fn a_hang_up_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(&mut serve(), &dir.path().join("data"), &[]);
    let mut said = served.said();
    served.signal("HUP");
    assert!(said.any(|line| line.contains("SIGHUP ignored")));
    assert!(served.get("/healthz").ends_with("ok\n"));
    assert_eq!(served.stop(), Some(0));
}

/// A library that, loaded before others, sets the wall clock off by the seconds in a file.
fn clock_library(dir: &Path) -> PathBuf {
    let source = dir.join("clock.c");
    let library = dir.join("clock.so");
    let code = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <fcntl.h>
        #include <stdlib.h>
        #include <time.h>
        #include <unistd.h>
        int clock_gettime(clockid_t id, struct timespec *now) {
            static int (*real)(clockid_t, struct timespec *);
            if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
            int result = real(id, now);
            const char *path = getenv("TEST_CLOCK_OFF_BY");
            if (result != 0 || id != CLOCK_REALTIME || !path) return result;
            int file = open(path, O_RDONLY | O_CLOEXEC);
            if (file < 0) return result;
            char text[32] = {0};
            if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atoll(text);
            close(file);
            return result;
        }
    "#;
    fs::write(&source, code).unwrap();
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(made.expect("a C compiler").success());
    library
}

/// Sets the clock of servers that look at `file`; whole at once.
fn set_clock_off(file: &Path, by_seconds: i64) {
    let new = file.with_extension("new");
    fs::write(&new, by_seconds.to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

fn serve_with_clock(dir: &Path, file: &Path) -> Command {
    let mut command = serve();
    command
        .env("LD_PRELOAD", clock_library(dir))
        .env("TEST_CLOCK_OFF_BY", file);
    command
}

#[test]
fn a_clock_before_1970_takes_nothing_from_anybody() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("off-by");
    set_clock_off(&file, -100 * 365 * 86_400);
    let mut command = serve_with_clock(dir.path(), &file);
    let mut served = Served::start(&mut command, &dir.path().join("data"), &[]);
    let mut said = served.said();
    assert!(said.any(|line| line.contains("only HTTP/2 is served")));
    let mut refused = served.connect();
    let asked = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    refused.write_all(asked).unwrap();
    // Closed or reset, as it comes.
    let _ = refused.read_to_end(&mut Vec::new());
    served.ok(&["produce", "t"], b"one\n");
    assert_eq!(served.ok(&["consume", "t"], b""), b"one\n");
    set_clock_off(&file, 0);
    assert!(served.get("/healthz").to_lowercase().contains("\r\ndate:"));
    assert_eq!(served.stop(), Some(0));
    let panicked: Vec<String> = said.filter(|line| line.contains("panicked")).collect();
    assert!(panicked.is_empty(), "{panicked:?}");
}

#[test]
fn a_clock_that_jumps_ahead_removes_no_young_records() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("off-by");
    set_clock_off(&file, 0);
    let mut command = serve_with_clock(dir.path(), &file);
    let args = [
        "--set=topic_defaults.retention_ms=1h",
        "--set=topic_defaults.segment_bytes=1MiB",
        "--set=topic_defaults.max_batch_bytes=256KiB",
        "--set=append.maintain_interval_ms=100ms",
    ];
    let mut served = Served::start(&mut command, &dir.path().join("data"), &args);
    let mut said = served.said();
    let all = lines(4_000);
    served.ok(&["produce", "t"], &all);
    set_clock_off(&file, 10 * 365 * 86_400);
    let first = said
        .find(|line| line.contains("jumped ahead") || line.contains("past retention removed"))
        .unwrap();
    assert!(first.contains("jumped ahead"), "{first}");
    assert!(served.ok(&["consume", "t"], b"") == all);
}

#[test]
fn connections_leave_descriptors_for_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 128; exec \"$0\" \"$@\""]);
    command.args([env!("CARGO_BIN_EXE_comlog"), "serve"]);
    let args = [
        "--set=topic_defaults.segment_bytes=1MiB",
        "--set=topic_defaults.max_batch_bytes=256KiB",
    ];
    let mut served = Served::start(&mut command, &dir.path().join("data"), &args);
    let mut said = served.said();
    assert!(said.any(|line| line.contains("http.connections_max lowered")));
    let mut producing = Command::new(env!("CARGO_BIN_EXE_comlog"))
        .env("COMLOG_SERVER", &served.url)
        .args(["produce", "t"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = producing.stdin.take().unwrap();
    input.write_all(b"begun\n").unwrap();
    while !served
        .get("/metrics")
        .contains("comlog_appended_records_total 1")
    {}
    let idle: Vec<TcpStream> = (0..200).map(|_| served.connect()).collect();
    assert!(said.any(|line| line.contains("too many connections")));
    input.write_all(&lines(4_000)).unwrap();
    drop(input);
    assert!(producing.wait().unwrap().success());
    drop(idle);
}

/// The bytes that the files below `dir` take.
fn taken(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| match path.is_dir() {
        true => taken(&path),
        false => 512 * fs::metadata(&path).unwrap().blocks(),
    };
    entries.map(of).sum()
}

#[test]
fn a_partition_written_once_takes_little() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&mut serve(), &data, &[]);
    served.ok(&["topic", "create", "t", "--partitions", "20"], b"");
    for partition in 0..20 {
        let partition = partition.to_string();
        served.ok(&["produce", "t", "--partition", &partition], b"one\n");
    }
    let taken = taken(&data.join("topics"));
    assert!(taken < 20 * (64 << 10), "{taken} bytes for twenty records");
}
