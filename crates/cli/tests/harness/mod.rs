//! The real binary: a server on a free port, and commands against it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// No command takes so long, on however slow a machine.
const COMMAND_MAX: Duration = Duration::from_secs(300);

/// A server with a data directory of its own; killed when dropped.
pub(crate) struct Server {
    _folder: Option<TempDir>,
    data_dir: PathBuf,
    args: Vec<String>,
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
}

impl Server {
    /// Starts one on a free port.
    pub(crate) fn start() -> Server {
        Server::start_with(&[])
    }

    /// As [`Server::start`], with more arguments of `comlog serve`.
    pub(crate) fn start_with(args: &[String]) -> Server {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Server::start_in(&folder.path().join("data"), args);
        server._folder = Some(folder);
        server
    }

    /// As [`Server::start_with`], on a data directory that outlives it.
    pub(crate) fn start_in(data_dir: &Path, args: &[String]) -> Server {
        let (child, url) = spawn(data_dir, "127.0.0.1:0", args);
        Server {
            _folder: None,
            data_dir: data_dir.to_owned(),
            args: args.to_vec(),
            child,
            url,
        }
    }

    /// SIGSTOP: it listens on, and does nothing.
    pub(crate) fn pause(&self) {
        signal(&self.child, "STOP");
    }

    /// Ends [`Server::pause`].
    pub(crate) fn resume(&self) {
        signal(&self.child, "CONT");
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_file(&self.data_dir)).expect("it logs")
    }

    /// Where its data lies.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// SIGKILL, then a new process on the same data and port.
    pub(crate) fn kill_and_restart(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it can be waited for");
        let address = self.url.trim_start_matches("http://").to_owned();
        let (child, url) = spawn(&self.data_dir, &address, &self.args);
        assert_eq!(url, self.url);
        self.child = child;
    }

    /// SIGTERM; the server must end well.
    pub(crate) fn stop(&mut self) {
        signal(&self.child, "TERM");
        let status = self.child.wait().expect("it can be waited for");
        assert_eq!(status.code(), Some(0));
    }

    /// A command against this server, not yet run.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_comlog"));
        command.env("COMLOG_SERVER", &self.url).args(args);
        command
    }

    /// Runs a command with `input` and returns what came of it.
    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let mut stdin = child.stdin.take().expect("it is piped");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // A command that ends before it has read its input is the caller's to judge.
            let _ = stdin.write_all(&input);
        });
        let watchdog = Watchdog::start(child.id());
        let output = child.wait_with_output().expect("it ends");
        drop(watchdog);
        writer.join().expect("the writer does not panic");
        output
    }

    /// Runs a command that must succeed and returns its standard output.
    pub(crate) fn ok(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(args, input);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        output.stdout
    }

    /// Runs a command that must succeed with `-o json` and returns one value a line.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let text = self.ok(&[args, &["-o", "json"]].concat(), b"");
        let text = String::from_utf8(text).expect("JSON is text");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("one value a line"))
            .collect()
    }

    /// Runs a command that must fail and returns its code and standard error.
    pub(crate) fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args, b"");
        let code = output.status.code().expect("it was not killed");
        assert_ne!(code, 0, "{args:?}: {output:?}");
        (code, String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Kills a command that stands still, so that its output shows where.
struct Watchdog {
    ended: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn start(pid: u32) -> Watchdog {
        let (ended, wait) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            if wait.recv_timeout(COMMAND_MAX) == Err(RecvTimeoutError::Timeout) {
                let mut kill = Command::new("kill");
                let _ = kill.args(["-ABRT", &pid.to_string()]).status();
            }
        });
        Watchdog {
            ended: Some(ended),
            thread: Some(thread),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.ended.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the watchdog does not panic");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let status = Command::new("kill")
        .args(["-s", name, &id])
        .status()
        .expect("kill is there");
    assert!(status.success());
}

/// Beside the data directory.
fn log_file(data_dir: &Path) -> PathBuf {
    data_dir.with_extension("log")
}

fn spawn(data_dir: &Path, listen: &str, args: &[String]) -> (Child, String) {
    let log = std::fs::File::create(log_file(data_dir)).expect("a file for the log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_comlog"))
        .args(["serve", "--listen", listen, "--data-dir"])
        .arg(data_dir)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the binary was built for this test");
    let mut ready = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout)
        .read_line(&mut ready)
        .expect("it can be read");
    let url = ready
        .trim_end()
        .strip_prefix("comlog ready ")
        .unwrap_or_else(|| panic!("not ready: {ready:?}"));
    (child, url.to_owned())
}
