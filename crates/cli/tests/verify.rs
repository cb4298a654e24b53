//! `comlog verify` on the data directory of a real server that was stopped, and then lost something.

#[allow(dead_code, reason = "the other tests use more of it")]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use harness::Server;
use serde_json::Value;

/// A server that was stopped after some records in topic `t`, of two partitions.
fn stopped() -> (Server, PathBuf) {
    let mut server = Server::start();
    server.ok(&["topic", "create", "t", "--partitions", "2"], b"");
    server.ok(&["produce", "t", "--partition", "0"], b"one\ntwo\n");
    let described = server.json(&["topic", "describe", "t"]);
    let id = described[0]["id"].as_str().expect("topics have an id");
    let topic = server.data_dir().join("topics").join(id);
    server.stop();
    (server, topic)
}

/// The exit code, and the damage and notes that were printed.
fn verify(server: &Server, dir: &Path) -> (i32, Vec<Value>, Vec<Value>) {
    let dir = dir.to_str().expect("UTF-8");
    let output = server.run(&["verify", "-o", "json", dir], b"");
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let lines = text.lines();
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).expect("one value a line"))
        .collect();
    let of = |kind: &str| {
        let found = lines.iter().filter(|line| line["kind"] == kind);
        found.cloned().collect::<Vec<_>>()
    };
    let mut notes = of("note");
    for partition in of("partition") {
        let unusable = partition["unusable"].as_array().expect("a list");
        notes.extend(unusable.iter().cloned());
    }
    (
        output.status.code().expect("not killed"),
        of("damage"),
        notes,
    )
}

#[test]
fn a_data_directory_that_was_closed_is_whole() {
    let (server, _) = stopped();
    let (code, damage, notes) = verify(&server, &server.data_dir());
    assert_eq!((code, damage, notes), (0, vec![], vec![]));
}

#[test]
fn a_topic_without_metadata_or_with_damaged_metadata_is_named() {
    let (server, topic) = stopped();
    let id = topic.file_name().expect("a name").to_str().expect("UTF-8");
    let places = [
        server.data_dir().join("meta").join(format!("topic-{id}")),
        topic.join("topic"),
    ];
    let good = fs::read(&places[0]).expect("it is there");
    for place in &places {
        fs::remove_file(place).expect("it was there");
        let (code, damage, notes) = verify(&server, &server.data_dir());
        assert_eq!(
            (code, damage.len(), notes.len()),
            (0, 0, 1),
            "one is enough"
        );
        fs::write(place, &good).expect("it can be written");
    }
    let mut wrong = good.clone();
    wrong[60] ^= 1;
    for content in [None, Some(&wrong)] {
        for place in &places {
            match content {
                None => fs::remove_file(place),
                Some(content) => fs::write(place, content),
            }
            .expect("it can be changed");
        }
        let (code, damage, _) = verify(&server, &server.data_dir());
        assert_eq!((code, damage.len()), (6, 1), "{damage:?}");
        let said = damage[0].to_string();
        assert!(
            said.contains(id) && said.contains("put meta/topic-"),
            "{said}"
        );
        for place in &places {
            fs::write(place, &good).expect("it can be written");
        }
    }
    assert_eq!(verify(&server, &server.data_dir()).0, 0);
}

#[test]
fn a_missing_partition_and_missing_segments_are_damage() {
    let (server, topic) = stopped();
    let aside = topic.with_extension("aside");
    for partition in ["0", "1"] {
        fs::rename(topic.join(partition), &aside).expect("it moves");
        let (code, damage, _) = verify(&server, &server.data_dir());
        assert_eq!((code, damage.len()), (6, 1), "{damage:?}");
        fs::rename(&aside, topic.join(partition)).expect("it moves back");
    }
    // The one segment with records: its folder has no segment left, and was passed over.
    let segment = topic.join("0").join("00000000000000000000.log");
    fs::remove_file(segment).expect("it was there");
    let (code, damage, _) = verify(&server, &server.data_dir());
    assert_eq!(code, 6);
    assert_eq!(
        (&damage[0]["start_offset"], &damage[0]["end_offset"]),
        (&0.into(), &2.into())
    );
}

#[test]
fn producer_ids_and_checkpoints_are_checked() {
    let (server, topic) = stopped();
    let ids = ["producer-ids", "producer-ids.copy"];
    let ids = ids.map(|name| server.data_dir().join("meta").join(name));
    fs::write(&ids[0], b"comlogPI and then nonsense").expect("it can be written");
    let (code, _, notes) = verify(&server, &server.data_dir());
    assert_eq!((code, notes.len()), (0, 1), "{notes:?}");
    fs::remove_file(&ids[1]).expect("it was there");
    let (code, damage, _) = verify(&server, &server.data_dir());
    assert_eq!((code, damage.len()), (6, 2), "{damage:?}");

    let (server, _) = (stopped().0, topic);
    let found = server.data_dir().join("topics");
    let checkpoints: Vec<PathBuf> = walk(&found)
        .into_iter()
        .filter(|path| path.ends_with("checkpoint"))
        .collect();
    let exchanged = fs::read(&checkpoints[1]).expect("it is there");
    fs::write(&checkpoints[0], exchanged).expect("it can be written");
    let (_, _, notes) = verify(&server, &server.data_dir());
    assert!(
        notes
            .iter()
            .any(|note| note.to_string().contains("belongs to")),
        "{notes:?}"
    );
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_link_is_followed_and_a_circle_ends() {
    let (mut server, topic) = stopped();
    let elsewhere = server.data_dir().with_extension("elsewhere");
    fs::rename(&topic, &elsewhere).expect("it moves");
    std::os::unix::fs::symlink(&elsewhere, &topic).expect("a link");
    std::os::unix::fs::symlink(&elsewhere, elsewhere.join("circle")).expect("a link");
    let (code, damage, _) = verify(&server, &server.data_dir());
    assert_eq!((code, damage), (0, vec![]));
    let segment = elsewhere.join("0").join("00000000000000000000.log");
    let good = fs::read(&segment).expect("a segment");
    let mut wrong = good.clone();
    wrong[70] ^= 1;
    fs::write(&segment, wrong).expect("it can be written");
    let (code, damage, _) = verify(&server, &server.data_dir());
    assert_eq!((code, damage.len()), (6, 1), "{damage:?}");
    // The server reads it through the link too.
    fs::write(&segment, good).expect("it can be written");
    server.kill_and_restart();
    assert_eq!(server.ok(&["consume", "t"], b""), b"one\ntwo\n");
}

#[test]
fn metadata_can_be_inspected_and_no_control_character_is_printed() {
    let (server, topic) = stopped();
    let inspect = |path: &Path| {
        server
            .json(&["inspect", path.to_str().expect("UTF-8")])
            .remove(0)
    };
    let found = inspect(&topic.join("topic"));
    assert_eq!(
        (&found["kind"], &found["name"]),
        (&"topic".into(), &"t".into())
    );
    let ids = inspect(&server.data_dir().join("meta").join("producer-ids"));
    assert_eq!(
        (&ids["kind"], &ids["end"]),
        (&"producer_ids".into(), &1_000.into())
    );
    let odd = server.data_dir().join("topics").join("odd\x1b[2J");
    fs::create_dir(odd).expect("a folder");
    let dir = server.data_dir();
    let text = server.ok(&["verify", dir.to_str().expect("UTF-8")], b"");
    assert!(!text.contains(&0x1b), "{}", String::from_utf8_lossy(&text));
    assert!(String::from_utf8_lossy(&text).contains(r"odd\u{1b}"));
}

#[test]
fn archived_and_restored_data_is_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("file://{}", folder.path().join("archive").display());
    let args = [
        format!("--archive={url}"),
        "--archive-single-writer".to_owned(),
        "--set=topic_defaults.local_retention_bytes=0".to_owned(),
    ];
    let mut server = Server::start_with(&args);
    server.ok(&["produce", "t"], b"one\ntwo\n");
    server.ok(&["archive", "flush"], b"");
    server.ok(&["produce", "t"], b"three\n");
    server.stop();
    let (code, damage, notes) = verify(&server, &server.data_dir());
    assert_eq!((code, damage, notes), (0, vec![], vec![]));
    let to = folder.path().join("restored");
    let restore = [
        "restore",
        "--from",
        &url,
        "--to",
        to.to_str().expect("UTF-8"),
    ];
    server.ok(&restore, b"");
    let (code, damage, notes) = verify(&server, &to);
    assert_eq!((code, damage, notes), (0, vec![], vec![]));
}
