//! The tour of the README, as it stands there, against a real server.

#[allow(dead_code, reason = "the other tests use more of it")]
mod harness;

use std::path::Path;
use std::process::Command;

use harness::Server;

/// Lines that cannot run here: they never end, need another program, or leave something out.
const SKIPPED: [&str; 4] = ["--follow", "comlog serve", "grpcurl", "..."];

/// The commands behind `$ ` in the README's console blocks, continued lines joined.
fn commands() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let text = std::fs::read_to_string(readme).expect("the README is there");
    let joined = text.replace("\\\n", " ");
    let commands = joined.lines().filter_map(|line| line.strip_prefix("$ "));
    commands.map(str::to_owned).collect()
}

#[test]
fn the_tour_works() {
    let server = Server::start();
    let binary = Path::new(env!("CARGO_BIN_EXE_comlog"));
    let folder = binary
        .parent()
        .expect("it lies in a folder")
        .to_str()
        .expect("text");
    let path = format!("{folder}:{}", std::env::var("PATH").expect("there is one"));
    let data_dir = server.data_dir();
    let data_dir = data_dir.to_str().expect("text");
    let mut run = 0;
    for command in commands() {
        if SKIPPED.iter().any(|skipped| command.contains(skipped)) {
            continue;
        }
        let line = command.replace("comlog-data", data_dir);
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(server.data_dir())
            .env("PATH", &path)
            .env("COMLOG_SERVER", &server.url)
            .output()
            .expect("there is a shell");
        assert!(output.status.success(), "{command}: {output:?}");
        run += 1;
    }
    assert!(run >= 10, "the README has a tour: {run} commands were run");
    assert_eq!(server.ok(&["consume", "greetings"], b""), b"hello\n");
    assert_eq!(server.json(&["consume", "orders"]).len(), 3);
}
