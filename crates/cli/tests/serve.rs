//! `comlog serve` as an operator meets it: a real process.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A server that is killed when the test ends.
struct Served {
    child: Child,
    ready: String,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(data_dir: &Path, args: &[&str]) -> Served {
        let mut child = serve(data_dir)
            .args(["--listen", "127.0.0.1:0"])
            .args(args)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        Served {
            child,
            ready,
            stdout,
        }
    }

    fn address(&self) -> &str {
        self.ready.trim().split("//").nth(1).unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

fn serve(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comlog"));
    command.arg("serve").arg("--data-dir").arg(data_dir);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn finished(mut command: Command) -> Output {
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn stdout_is_one_line_and_sigterm_drains() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut served = Served::start(&data, &[]);
    let port: u16 = served
        .ready
        .strip_prefix("comlog ready http://127.0.0.1:")
        .unwrap()
        .trim_end()
        .parse()
        .unwrap();
    assert_ne!(port, 0);
    served.signal("TERM");
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    served.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "nothing else goes to stdout");
    let mut said = String::new();
    served
        .child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    assert!(
        said.contains("comlog produce") && said.contains("comlog consume"),
        "{said}"
    );
    assert!(!said.contains('\x1b'), "no colours into a pipe");
}

#[test]
fn what_is_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data, &[]);

    let mut second = serve(&data);
    second.args(["--listen", "127.0.0.1:0"]);
    let output = finished(second);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains(&format!("in use by process {}", served.child.id())),
        "{said}"
    );
    assert!(said.contains("--data-dir"), "{said}");

    let mut other = serve(&dir.path().join("other"));
    other.args(["--listen", served.address()]);
    let output = finished(other);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("is in use") && stderr(&output).contains("--listen"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_configuration_is_checked_before_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("comlog.toml");
    for (content, args, word) in [
        (
            "[http]\nconections_max = 1\n",
            vec![],
            "http.conections_max",
        ),
        ("[http\n", vec![], "comlog.toml"),
        ("", vec!["--set", "fetch.nonsense=1"], "fetch.nonsense"),
        ("", vec!["--tls-cert", "x.pem"], "tls.key"),
        ("", vec!["--listen", "nowhere"], "listen"),
        ("", vec!["--log-level", "a=b=c"], "log.level"),
    ] {
        std::fs::write(&file, content).unwrap();
        let mut command = serve(&data);
        command.arg("--config").arg(&file).args(&args);
        let output = finished(command);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(
            stderr(&output).contains(word),
            "{word}: {}",
            stderr(&output)
        );
    }
    assert!(!data.exists());
}

#[test]
fn the_printed_configuration_is_a_configuration_file() {
    let dir = tempfile::tempdir().unwrap();
    let print = |args: &[&str]| {
        let mut command = serve(dir.path());
        command.arg("--print-config").args(args);
        let output = finished(command);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = print(&["--set", "http.idle_timeout_ms=7s"]);
    assert!(printed.contains("idle_timeout_ms = 7000"), "{printed}");
    let file = dir.path().join("comlog.toml");
    std::fs::write(&file, &printed).unwrap();
    assert_eq!(print(&["--config", file.to_str().unwrap()]), printed);
}

#[test]
fn unknown_variables_are_told_and_logs_can_be_json() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = serve(&dir.path().join("data"));
    command
        .env("COMLOG_NONSENSE", "1")
        .env("COMLOG_SERVER", "http://x");
    let mut child = command
        .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let first = lines.next().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let value: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert!(
        value["fields"]["message"]
            .as_str()
            .unwrap()
            .contains("COMLOG_NONSENSE"),
        "{first}"
    );
}

#[test]
fn a_second_signal_stops_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--set", "drain_delay_ms=600s"];
    let mut served = Served::start(&dir.path().join("data"), &args);
    served.signal("INT");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(
        served.child.try_wait().unwrap().is_none(),
        "it serves on for the delay"
    );
    served.signal("INT");
    assert_eq!(served.child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_port_in_use_is_found_before_the_data_directory_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut command = serve(&data);
    command.args(["--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(finished(command).status.code(), Some(1));
    assert!(!data.exists());
}

/// Processor time of a process so far, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
    // utime and stime, counted from behind the name.
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

fn limit_descriptors(pid: u32, max: usize) {
    let limited = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={max}:")])
        .status();
    assert!(limited.unwrap().success());
}

#[test]
fn without_file_descriptors_it_waits_and_does_not_spin() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(&dir.path().join("data"), &[]);
    let pid = served.child.id();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count();
    // From now on the process may open nothing more; the hard limit stays.
    limit_descriptors(pid, open);

    let mut waiting = TcpStream::connect(served.address()).unwrap();
    let mut said = BufReader::new(served.child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("cannot accept connections")));
    let before = ticks(pid);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let spent = ticks(pid) - before;
    assert!(spent < 30, "{spent} of 100 ticks were spent on waiting");

    limit_descriptors(pid, open + 100);
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    waiting.write_all(request).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok\n"), "who waited is served: {answer}");
}

#[test]
fn it_serves_on_when_nobody_reads_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(&dir.path().join("data"), &["--log-level", "debug"]);
    drop(served.child.stderr.take());
    for _ in 0..3 {
        // Each of these is logged, to nobody.
        let mut broken = TcpStream::connect(served.address()).unwrap();
        broken.write_all(b"nonsense\r\n\r\n").unwrap();
        broken.read_to_end(&mut Vec::new()).unwrap();
    }
    let mut stream = TcpStream::connect(served.address()).unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
    served.signal("TERM");
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_it_says_to_try_works_over_tls_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(&dir.path().join("data"), &["--tls-self-signed"]);
    assert!(served.ready.starts_with("comlog ready https://127.0.0.1:"));
    let mut said = BufReader::new(served.child.stderr.take().unwrap()).lines();
    let hint = said.find_map(|line| {
        let line = line.unwrap();
        let (_, arguments) = line.split_once("| comlog ")?;
        Some(arguments.to_owned())
    });
    let hint = hint.unwrap();
    let produce = |trusted: Option<&str>, arguments: &mut dyn Iterator<Item = &str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_comlog"));
        command
            .args(arguments)
            .envs(trusted.map(|file| ("SSL_CERT_FILE", file)));
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        // One that does not trust the server may not read it.
        let _ = child.stdin.take().unwrap().write_all(b"hello\n");
        child.wait().unwrap().success()
    };
    assert!(produce(None, &mut hint.split(' ')));

    // Without --ca-cert, what the system trusts counts, and only that.
    let words: Vec<&str> = hint.split(' ').collect();
    let flag = words.iter().position(|word| *word == "--ca-cert").unwrap();
    let mut rest = [&words[..flag], &words[flag + 2..]].concat();
    rest.extend(["--timeout", "5s", "--delivery-timeout", "2s"]);
    assert!(produce(Some(words[flag + 1]), &mut rest.iter().copied()));
    assert!(!produce(None, &mut rest.iter().copied()));
}
