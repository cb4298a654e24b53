//! The commands that read files, on files made here, through the real binary.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use comlog_record::{BatchBuilder, Compression, LeaderEpoch, Limits, Offset, Timestamp};
use serde_json::Value;

fn comlog(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_comlog"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built for this test")
}

/// A batch of records `base`, `base + 1`, ..., whose values say their offsets.
fn batch(base: i64, count: i64, compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Limits::DEFAULT);
    for offset in base..base + count {
        let value = format!("value {offset}");
        let header = (&b"h"[..], Some(&b"\xff"[..]));
        builder
            .push(
                Timestamp(1_000 + offset),
                Some(b"k"),
                Some(value.as_bytes()),
                std::iter::once(header),
            )
            .expect("within the limits");
    }
    let mut batch = builder.build(compression, None).expect("not empty");
    batch.assign(Offset(base), LeaderEpoch(0));
    batch.to_bytes().to_vec()
}

fn write_segment(folder: &Path, base: i64, content: &[u8]) -> String {
    let path = folder.join(format!("{base:020}.log"));
    std::fs::write(&path, content).expect("the folder takes files");
    path.to_str().expect("temporary paths are text").to_owned()
}

fn json_lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).expect("JSON is text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("one value a line"))
        .collect()
}

fn damage(output: &Output) -> Vec<(Value, Value, Value)> {
    let lines = json_lines(output);
    let found = lines.iter().filter(|line| line["kind"] == "damage");
    found
        .map(|line| {
            (
                line["position"].clone(),
                line["start_offset"].clone(),
                line["end_offset"].clone(),
            )
        })
        .collect()
}

#[test]
fn inspect_prints_batches_and_records_of_every_codec() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut content = Vec::new();
    for (index, codec) in Compression::ALL.into_iter().enumerate() {
        content.extend(batch(index as i64 * 2, 2, codec));
    }
    content.resize(content.len() + 4096, 0);
    let file = write_segment(folder.path(), 0, &content);

    let text = comlog(&["inspect", &file]);
    assert_eq!(text.status.code(), Some(0), "{text:?}");
    let text = String::from_utf8(text.stdout).expect("text");
    assert!(text.contains("value=\"value 9\""), "{text}");
    assert!(text.contains("codec=zstd"), "{text}");
    assert!(
        text.lines()
            .last()
            .is_some_and(|line| line.starts_with("zeros ")),
        "{text}"
    );

    let lines = json_lines(&comlog(&["inspect", "-o", "json", &file]));
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[4]["compression"], "zstd");
    assert_eq!(lines[4]["records"][1]["value"], "value 9");
    assert_eq!(lines[4]["records"][1]["timestamp_ms"], 1_009);
    assert_eq!(lines[4]["records"][1]["headers"][0]["value_base64"], "/w==");
}

#[test]
fn inspect_goes_on_behind_damage_and_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut content = [
        batch(0, 3, Compression::None),
        batch(3, 1, Compression::None),
    ]
    .concat();
    content[70] ^= 1;
    let file = write_segment(folder.path(), 0, &content);
    let output = comlog(&["inspect", "--batches", &file]);
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.starts_with("damage position=0 "), "{text}");
    assert!(text.contains("offsets=[3, 4)"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_code_3() {
    for command in ["inspect", "verify"] {
        let output = comlog(&[command, "/no/such/place"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
    }
    let empty = tempfile::tempdir().expect("a temporary folder");
    let output = comlog(&["verify", empty.path().to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn verify_passes_what_a_crash_may_leave() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let partition = folder.path().join("topics/x/0");
    std::fs::create_dir_all(&partition).expect("a folder");
    write_segment(&partition, 5, &batch(5, 10, Compression::Lz4));
    let torn = batch(17, 9, Compression::None);
    let content = [
        batch(15, 2, Compression::None),
        torn[..torn.len() - 1].to_vec(),
        vec![0; 999],
    ]
    .concat();
    write_segment(&partition, 15, &content);

    let output = comlog(&[
        "verify",
        "-o",
        "json",
        folder.path().to_str().expect("text"),
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines = json_lines(&output);
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0]["start_offset"], &lines[0]["end_offset"]),
        (&5.into(), &17.into())
    );
    assert_eq!(lines[0]["torn_bytes"], torn.len() - 1 + 999);
    assert_eq!(
        (&lines[0]["records"], &lines[0]["segments"]),
        (&12.into(), &2.into())
    );
}

#[test]
fn verify_lists_damage_by_offset() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().to_str().expect("text");
    let sealed = [
        batch(0, 3, Compression::None),
        batch(3, 4, Compression::None),
        batch(7, 1, Compression::None),
    ];
    let second = sealed[0].len();
    let mut content = sealed.concat();
    content[second + 80] ^= 0x10;
    write_segment(folder.path(), 0, &content);
    write_segment(folder.path(), 8, &batch(8, 2, Compression::Gzip));
    let output = comlog(&["verify", "-o", "json", dir]);
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(damage(&output), [(second.into(), 3.into(), 7.into())]);

    // A torn end is damage when it is not the end of the log.
    write_segment(folder.path(), 0, &sealed.concat()[..second + 100]);
    let output = comlog(&["verify", "-o", "json", dir]);
    assert_eq!(output.status.code(), Some(6));
    let found = damage(&output);
    assert_eq!(found[0].1, 3, "{found:?}");

    // A segment that is gone is missed.
    write_segment(folder.path(), 0, &sealed[0]);
    let output = comlog(&["verify", "-o", "json", dir]);
    assert_eq!(damage(&output), [(0.into(), 3.into(), 8.into())]);
    let text = comlog(&["verify", dir]);
    assert!(
        String::from_utf8_lossy(&text.stdout).contains("offsets=[3, 8)"),
        "{text:?}"
    );
}

/// A log of 40 records in segments of about 600 bytes, closed; returns the names of its segments.
fn write_log(folder: &Path) -> Vec<String> {
    let config = comlog_log::LogConfig {
        segment_bytes_max: 600,
        ..comlog_log::LogConfig::default()
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let options = comlog_storage::DiskOptions::default();
        let dir = comlog_storage::DataDir::open(folder, options).expect("a new data directory");
        let storage = dir.storage("log").expect("a new log");
        let clock = std::sync::Arc::new(comlog_log::ManualClock::new(Timestamp(1_000)));
        let (mut log, _) = comlog_log::Log::open(storage, config, clock)
            .await
            .expect("it opens");
        for base in 0..20 {
            let mut bytes = batch(base * 2, 2, Compression::None).into();
            let batch =
                comlog_record::RecordBatch::decode(&mut bytes, &Limits::DEFAULT).expect("valid");
            let answers = log
                .append(vec![comlog_log::AppendRequest::new(batch)])
                .await;
            assert!(answers[0].is_ok());
        }
        log.close().await.expect("it closes");
    });
    let names = std::fs::read_dir(folder.join("log")).expect("it is there");
    let mut names: Vec<String> = names
        .filter_map(|entry| {
            entry
                .expect("it can be listed")
                .file_name()
                .into_string()
                .ok()
        })
        .filter(|name| name.ends_with(".log"))
        .collect();
    names.sort();
    names
}

#[test]
fn verify_holds_a_closed_log_to_its_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let names = write_log(folder.path());
    assert!(names.len() > 3, "{names:?}");
    let log = folder.path().join("log");
    let verify = || {
        comlog(&[
            "verify",
            "-o",
            "json",
            folder.path().to_str().expect("text"),
        ])
    };
    let whole = verify();
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    let report = json_lines(&whole).pop().expect("one partition");
    assert_eq!(
        (&report["records"], &report["end_offset"]),
        (&40.into(), &40.into())
    );
    assert_eq!(report["unusable"], Value::Array(Vec::new()));

    // A clean log has no tear: a cut at its end is damage.
    let last = log.join(&names[names.len() - 1]);
    let content = std::fs::read(&last).expect("it is there");
    let written = content
        .iter()
        .rposition(|&byte| byte != 0)
        .expect("it holds a batch");
    std::fs::write(&last, &content[..written]).expect("it can be written");
    assert_eq!(verify().status.code(), Some(6));
    std::fs::write(&last, []).expect("it can be written");
    let output = verify();
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(damage(&output)[0].2, 40);
    std::fs::write(&last, content).expect("it can be written");

    // Indexes can be rebuilt: they are noted, and nothing is lost.
    let index = log.join(names[0].replace(".log", ".index"));
    let mut content = std::fs::read(&index).expect("it is there");
    content[20] ^= 1;
    std::fs::write(&index, content).expect("it can be written");
    let output = verify();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json_lines(&output).pop().expect("one partition");
    assert_eq!(report["unusable"].as_array().map(Vec::len), Some(1));
    let output = comlog(&["inspect", index.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(6));
}

#[test]
fn inspect_reads_indexes_and_checkpoints() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let names = write_log(folder.path());
    let inspect = |name: &str| {
        let path = folder.path().join("log").join(name);
        let path = path.to_str().expect("text");
        assert_eq!(comlog(&["inspect", path]).status.code(), Some(0));
        json_lines(&comlog(&["inspect", "-o", "json", path])).remove(0)
    };
    let index = inspect(&names[1].replace(".log", ".index"));
    assert_eq!(index["kind"], "offset_index");
    assert_eq!(index["entries"][0]["offset"], index["base_offset"]);
    let times = inspect(&names[1].replace(".log", ".timeindex"));
    assert_eq!(times["kind"], "time_index");
    assert_eq!(times["base_offset"], index["base_offset"]);
    let checkpoint = inspect("checkpoint");
    assert_eq!(
        (&checkpoint["clean"], &checkpoint["recovery_offset"]),
        (&true.into(), &40.into())
    );
}

#[test]
fn verify_decodes_every_record() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A valid checksum around a record that claims to be longer than the batch.
    let mut lying = batch(0, 2, Compression::None);
    lying[61] = 0x7e;
    let crc = crc32c(&lying[21..]);
    lying[17..21].copy_from_slice(&crc.to_be_bytes());
    write_segment(folder.path(), 0, &lying);
    let output = comlog(&[
        "verify",
        "-o",
        "json",
        folder.path().to_str().expect("text"),
    ]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert_eq!(damage(&output), [(0.into(), 0.into(), 2.into())]);
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
    !bytes
        .iter()
        .fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_comlog"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary was built for this test");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn usage_errors_are_code_2() {
    for args in [
        &["no-such-command"][..],
        &["inspect"],
        &["offsets", "t", "--at", "nowhere"],
        &["topic", "delete", "t"],
    ] {
        let output = comlog(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_server_that_is_not_there_is_code_4_and_the_message_helps() {
    // Port 1 of the loopback: nothing listens there.
    let output = comlog(&["--server", "http://127.0.0.1:1", "topic", "list"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("comlog serve"),
        "{output:?}"
    );
}

/// Bytes inside a record's value that look like a batch are none, also behind damage.
#[test]
fn a_batch_inside_a_value_is_not_taken_for_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inner = batch(7, 1, Compression::None);
    let mut builder = BatchBuilder::new(Limits::DEFAULT);
    for value in [&b"first"[..], &inner, b"third"] {
        builder
            .push(Timestamp(1), None, Some(value), std::iter::empty())
            .expect("within the limits");
    }
    let outer = builder.build(Compression::None, None).expect("not empty");
    let mut content = outer.to_bytes().to_vec();
    let first = content.len();
    content[first - 2] ^= 1;
    content.extend(batch(3, 5, Compression::None));
    let file = write_segment(folder.path(), 0, &content);
    write_segment(folder.path(), 8, &batch(8, 1, Compression::None));
    let dir = folder.path().to_str().expect("text");
    let output = comlog(&["verify", "-o", "json", dir]);
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(damage(&output), [(0.into(), 0.into(), 3.into())]);
    let output = comlog(&["inspect", "-o", "json", &file]);
    let lines = json_lines(&output);
    let kinds: Vec<&Value> = lines.iter().map(|line| &line["kind"]).collect();
    assert_eq!(kinds, ["damage", "batch"], "{lines:?}");
}
