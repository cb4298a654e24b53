//! A damaged log of committed offsets: readable groups go on, and `comlog group repair` gives up the rest.

#[allow(dead_code, reason = "the other tests use more of it")]
mod harness;

use std::fs;
use std::path::PathBuf;

use comlog_client::{Client, ClientConfig};
use harness::Server;

fn commit(server: &Server, group: &str, offset: i64) {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let committed = comlog_proto::v1::CommittedOffset {
        topic: "t".to_owned(),
        offset,
        ..comlog_proto::v1::CommittedOffset::default()
    };
    let done = runtime.block_on(async {
        let client = Client::new(ClientConfig::new(&server.url))?;
        client.commit_offsets(group, vec![committed]).await
    });
    done.expect("it is committed");
}

fn committed(server: &Server, group: &str) -> i64 {
    let described = server.json(&["group", "describe", group]);
    described[0]["offset"].as_i64().expect("an offset")
}

/// The segment of the committed offsets, and the bytes of it that hold what `group` committed.
fn find(server: &Server, group: &str) -> (PathBuf, usize) {
    let topics = fs::read_dir(server.data_dir().join("topics")).expect("a folder");
    for topic in topics {
        let segment = topic
            .expect("a folder")
            .path()
            .join("0/00000000000000000000.log");
        let content = fs::read(&segment).expect("a segment");
        let mut windows = content.windows(group.len());
        if let Some(at) = windows.position(|window| window == group.as_bytes()) {
            return (segment, at);
        }
    }
    panic!("{group} is nowhere");
}

fn start_again(server: &mut Server) {
    // It has ended already; the harness starts a new process on the same data and port.
    server.kill_and_restart();
}

#[test]
fn one_flipped_byte_costs_what_was_committed_there_and_nothing_else() {
    let mut server = Server::start();
    server.ok(&["produce", "t"], b"a\nb\nc\nd\n");
    commit(&server, "first-group", 1);
    commit(&server, "second-group", 2);
    commit(&server, "third-group", 3);
    server.stop();
    let (segment, at) = find(&server, "second-group");
    let mut content = fs::read(&segment).expect("a segment");
    content[at] ^= 1;
    fs::write(&segment, content).expect("it can be written");

    for round in 0..2 {
        start_again(&mut server);
        assert_eq!(committed(&server, "third-group"), 3 + round);
        commit(&server, "third-group", 4 + round);
        assert_eq!(committed(&server, "first-group"), 1);
        let listed = server.json(&["group", "list"]);
        assert_eq!(listed.len(), 2, "{listed:?}");
        // Nobody knows what it had: an empty answer would send it to its start.
        let (code, said) = server.fails(&["group", "describe", "second-group"]);
        assert_eq!(code, 6, "{said}");
        assert!(said.contains("comlog group repair"), "{said}");
        server.stop();
    }

    let dir = server.data_dir();
    let dir = dir.to_str().expect("UTF-8");
    let repaired = server.json(&["group", "repair", dir, "--yes"]).remove(0);
    assert_eq!(
        (&repaired["groups"], &repaired["offsets"]),
        (&2.into(), &2.into())
    );
    assert_eq!(
        repaired["lost"],
        serde_json::json!([{"start": 1, "end": 2}])
    );
    let again = server.json(&["group", "repair", dir, "--yes"]).remove(0);
    assert_eq!(again["lost"], serde_json::json!([]));
    assert_eq!(server.run(&["verify", dir], b"").status.code(), Some(0));
    start_again(&mut server);
    assert_eq!(committed(&server, "first-group"), 1);
    assert_eq!(committed(&server, "third-group"), 5);
    let (code, _) = server.fails(&["group", "describe", "second-group"]);
    assert_eq!(code, 3, "it has committed nothing");
    let held = server.fails(&["group", "repair", dir, "--yes"]);
    assert_eq!(held.0, 1, "a server has it open: {}", held.1);
}

#[test]
fn a_log_of_commits_that_is_gone_is_made_anew_only_when_asked() {
    let mut server = Server::start();
    server.ok(&["produce", "t"], b"a\n");
    commit(&server, "some-group", 1);
    server.stop();
    let (segment, _) = find(&server, "some-group");
    let partition = segment.parent().expect("a folder");
    fs::remove_dir_all(partition).expect("it was there");
    start_again(&mut server);
    let (code, said) = server.fails(&["group", "list"]);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("comlog group repair"), "{said}");
    assert_eq!(server.ok(&["consume", "t"], b""), b"a\n");
    server.stop();
    assert!(!partition.exists());
    let dir = server.data_dir();
    let dir = dir.to_str().expect("UTF-8");
    let repaired = server.json(&["group", "repair", dir, "--yes"]).remove(0);
    assert_eq!(repaired["made_anew"], true);
    start_again(&mut server);
    commit(&server, "some-group", 1);
    assert_eq!(committed(&server, "some-group"), 1);
}
