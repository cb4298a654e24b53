//! Files of topics that are gone, damaged, exchanged or put back while the server was stopped.

use bytes::Bytes;
use comlog_proto::v1;
use comlog_server::BrokerConfig;
use comlog_storage::Storage;
use tonic::Code;

use crate::common::*;

/// A server with topic `t`, records in it, and a commit of group `g` for it; and the topic's id.
async fn filled() -> (TestServer, String) {
    let server = TestServer::start().await;
    server.create_topic("t", 2).await;
    server.create_topic("other", 1).await;
    for value in ["a", "b", "c"] {
        server.append("t", 0, value).await;
    }
    server.append("other", 0, "kept").await;
    commit(&server, "g", "t", 2).await.expect("commits");
    commit(&server, "g", "other", 1).await.expect("commits");
    let id = describe(&server, "t").await.topic.expect("set").id;
    (server, id)
}

async fn describe(server: &TestServer, name: &str) -> v1::DescribeTopicResponse {
    let name = name.to_owned();
    let request = v1::DescribeTopicRequest { name };
    let answer = server.topics().describe_topic(request).await;
    answer.expect("describes").into_inner()
}

async fn commit(
    server: &TestServer,
    group: &str,
    topic: &str,
    offset: i64,
) -> Result<(), tonic::Status> {
    let request = v1::CommitOffsetsRequest {
        group: group.to_owned(),
        offsets: vec![v1::CommittedOffset {
            topic: topic.to_owned(),
            offset,
            ..Default::default()
        }],
    };
    server.groups().commit_offsets(request).await.map(drop)
}

async fn fetch(server: &TestServer, group: &str) -> Result<Vec<(String, i64)>, tonic::Status> {
    let request = v1::FetchOffsetsRequest {
        group: group.to_owned(),
        ..Default::default()
    };
    let answer = server.groups().fetch_offsets(request).await?;
    let offsets = answer.into_inner().offsets.into_iter();
    Ok(offsets.map(|found| (found.topic, found.offset)).collect())
}

async fn read_blob(dirs: &MemoryDirs, dir: &str, blob: &str) -> Bytes {
    let content = dirs.raw(dir).read_blob(blob).await.expect("reads");
    content.expect("is there")
}

async fn write_blob(dirs: &MemoryDirs, dir: &str, blob: &str, content: Bytes) {
    let written = dirs.raw(dir).write_blob(blob, content).await;
    written.expect("writes");
}

async fn remove_blob(dirs: &MemoryDirs, dir: &str, blob: &str) {
    dirs.raw(dir).remove_blob(blob).await.expect("removes");
}

async fn start(dirs: std::sync::Arc<MemoryDirs>) -> TestServer {
    TestServer::start_on(BrokerConfig::default(), dirs).await
}

fn places(id: &str) -> [(String, String); 2] {
    [
        ("meta".to_owned(), format!("topic-{id}")),
        (format!("topics/{id}"), "topic".to_owned()),
    ]
}

#[tokio::test]
async fn one_copy_of_the_metadata_is_enough_whatever_became_of_the_other() {
    let (mut server, id) = filled().await;
    for (dir, blob) in places(&id) {
        for damage in 0..3 {
            let dirs = server.stop().await;
            let good = read_blob(&dirs, &dir, &blob).await;
            match damage {
                0 => remove_blob(&dirs, &dir, &blob).await,
                1 => {
                    let mut wrong = good.to_vec();
                    wrong[60] ^= 1;
                    write_blob(&dirs, &dir, &blob, wrong.into()).await;
                }
                _ => write_blob(&dirs, &dir, &blob, good.slice(..30)).await,
            }
            server = start(dirs).await;
            assert_eq!(server.values("t", 0, 0).await, ["a", "b", "c"]);
            let found = fetch(&server, "g").await.expect("fetches");
            assert_eq!(found, [("other".to_owned(), 1), ("t".to_owned(), 2)]);
            let both = places(&id).map(|(dir, blob)| (server.dirs.raw(&dir), blob));
            let [first, second] = both;
            let first = first.0.read_blob(&first.1).await.expect("reads");
            let second = second.0.read_blob(&second.1).await.expect("reads");
            assert_eq!(first, second, "both are whole again");
        }
    }
}

#[tokio::test]
async fn an_older_copy_of_the_metadata_does_not_win() {
    let (server, id) = filled().await;
    let [(dir, blob), _] = places(&id);
    let older = read_blob(&server.dirs, &dir, &blob).await;
    let more = v1::AlterTopicRequest {
        name: "t".to_owned(),
        partitions: Some(3),
        ..Default::default()
    };
    server.topics().alter_topic(more).await.expect("alters");
    let dirs = server.stop().await;
    write_blob(&dirs, &dir, &blob, older).await;
    let server = start(dirs).await;
    assert_eq!(describe(&server, "t").await.partitions.len(), 3);
}

#[tokio::test]
async fn a_topic_without_metadata_comes_back_with_its_commits() {
    let (server, id) = filled().await;
    let dirs = server.stop().await;
    let mut content = Bytes::new();
    for (dir, blob) in places(&id) {
        content = read_blob(&dirs, &dir, &blob).await;
        remove_blob(&dirs, &dir, &blob).await;
    }
    // The topic is not known, and made anew under its name; the group is used meanwhile.
    let server = start(dirs).await;
    assert_eq!(server.values("other", 0, 0).await, ["kept"]);
    assert_eq!(server.append("t", 0, "meanwhile").await, 0);
    commit(&server, "g", "t", 1).await.expect("commits");
    let other = fetch(&server, "g").await.expect("fetches");
    assert_eq!(other, [("other".to_owned(), 1), ("t".to_owned(), 1)]);
    let server = server.restart(BrokerConfig::default()).await;
    assert!(server.dirs.paths().contains(&format!("topics/{id}/0")));
    let younger = describe(&server, "t").await.topic.expect("set").id;
    assert_ne!(younger, id);

    let dirs = server.stop().await;
    write_blob(&dirs, "meta", &format!("topic-{id}"), content).await;
    // The clock of these tests stands still, so the ids decide which of the two is older.
    let server = start(dirs).await;
    let served = describe(&server, "t").await.topic.expect("set").id;
    assert_eq!(served, id.clone().min(younger.clone()));
    let dirs = server.stop().await;
    for (dir, blob) in places(&younger) {
        remove_blob(&dirs, &dir, &blob).await;
    }
    let server = start(dirs).await;
    assert_eq!(server.values("t", 0, 0).await, ["a", "b", "c"]);
    let found = fetch(&server, "g").await.expect("fetches");
    assert_eq!(found, [("other".to_owned(), 1), ("t".to_owned(), 2)]);
    let kept = format!("topics/{younger}/0");
    assert!(server.dirs.paths().contains(&kept), "nothing is destroyed");
}

#[tokio::test]
async fn a_topic_with_damaged_metadata_is_refused_and_the_others_are_served() {
    let (server, id) = filled().await;
    let dirs = server.stop().await;
    let mut good = Bytes::new();
    for (dir, blob) in places(&id) {
        good = read_blob(&dirs, &dir, &blob).await;
        let mut wrong = good.to_vec();
        wrong[20] ^= 1; // the frame, so the name can still be made out
        write_blob(&dirs, &dir, &blob, wrong.into()).await;
    }
    let server = start(dirs).await;
    assert_eq!(server.values("other", 0, 0).await, ["kept"]);
    let refused = server.log().append(append_request("t", 0, &["x"])).await;
    let status = assert_refused(refused, Code::DataLoss, "CORRUPT");
    let message = status.message();
    assert!(
        message.contains(&id) && message.contains("Put meta/topic-"),
        "{message}"
    );
    let refused = server.log().read(read_request("t", 0, 0)).await;
    assert_refused(refused, Code::DataLoss, "CORRUPT");
    let dirs = server.stop().await;
    write_blob(&dirs, "meta", &format!("topic-{id}"), good).await;
    let server = start(dirs).await;
    assert_eq!(server.values("t", 0, 0).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn exchanged_metadata_is_damage() {
    let (server, id) = filled().await;
    let other = describe(&server, "other").await.topic.expect("set").id;
    let dirs = server.stop().await;
    for ((dir, blob), (other_dir, other_blob)) in places(&id).iter().zip(&places(&other)) {
        let first = read_blob(&dirs, dir, blob).await;
        let second = read_blob(&dirs, other_dir, other_blob).await;
        write_blob(&dirs, dir, blob, second).await;
        write_blob(&dirs, other_dir, other_blob, first).await;
    }
    let server = start(dirs).await;
    let all = v1::ListTopicsRequest::default();
    let listed = server.topics().list_topics(all).await.expect("lists");
    let listed = listed.into_inner().topics;
    assert_eq!(listed.len(), 1, "the topic of the original API: {listed:?}");
    let kept = server.dirs.paths();
    assert!(kept.contains(&format!("topics/{id}/0")));
    assert!(kept.contains(&format!("topics/{other}/0")));
}

#[tokio::test]
async fn without_the_metadata_of_the_commits_groups_are_unavailable() {
    let (server, _) = filled().await;
    let id = describe(&server, "__consumer_offsets").await;
    let id = id.topic.expect("set").id;
    let dirs = server.stop().await;
    let mut content = Bytes::new();
    for (dir, blob) in places(&id) {
        content = read_blob(&dirs, &dir, &blob).await;
        remove_blob(&dirs, &dir, &blob).await;
    }
    let server = start(dirs).await;
    assert_refused(fetch(&server, "g").await, Code::DataLoss, "CORRUPT");
    assert_refused(
        commit(&server, "g", "t", 3).await,
        Code::DataLoss,
        "CORRUPT",
    );
    assert_eq!(server.values("t", 0, 0).await, ["a", "b", "c"]);
    let dirs = server.stop().await;
    write_blob(&dirs, "meta", &format!("topic-{id}"), content).await;
    let server = start(dirs).await;
    let found = fetch(&server, "g").await.expect("fetches");
    assert_eq!(found, [("other".to_owned(), 1), ("t".to_owned(), 2)]);
}

#[tokio::test]
async fn a_partition_whose_directory_is_gone_fails_and_says_why() {
    let (server, id) = filled().await;
    let dirs = server.stop().await;
    let taken = dirs.take(&format!("topics/{id}/0"));
    assert_eq!(taken.len(), 1);
    let server = start(dirs).await;
    let described = describe(&server, "t").await;
    let failure = &described.partitions[0].failure;
    assert!(
        failure.contains(&id) && failure.contains("the directory is gone"),
        "{failure}"
    );
    let refused = server.log().append(append_request("t", 0, &["x"])).await;
    assert_refused(refused, Code::DataLoss, "CORRUPT");
    assert_eq!(server.append("t", 1, "in the other").await, 0);
    assert_eq!(server.values("other", 0, 0).await, ["kept"]);
    assert!(!server.dirs.paths().contains(&format!("topics/{id}/0")));
    // What is added later is made, and the topic can be deleted.
    let more = v1::AlterTopicRequest {
        name: "t".to_owned(),
        partitions: Some(3),
        ..Default::default()
    };
    server.topics().alter_topic(more).await.expect("alters");
    assert_eq!(server.append("t", 2, "in the new").await, 0);
    let name = "t".to_owned();
    let gone = v1::DeleteTopicRequest { name };
    server.topics().delete_topic(gone).await.expect("deletes");
}

#[tokio::test]
async fn without_the_directory_of_the_commits_groups_are_unavailable() {
    let (server, _) = filled().await;
    let id = describe(&server, "__consumer_offsets").await;
    let dir = format!("topics/{}/0", id.topic.expect("set").id);
    let dirs = server.stop().await;
    dirs.take(&dir);
    let server = start(dirs).await;
    assert_refused(fetch(&server, "g").await, Code::DataLoss, "CORRUPT");
    assert!(!server.dirs.paths().contains(&dir));
    assert_eq!(server.values("t", 0, 0).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn commits_for_a_deleted_topic_are_forgotten_after_a_crash_too() {
    let (server, id) = filled().await;
    // The crash comes when the deletion is noted: nothing else of it has happened.
    let dirs = server.stop().await;
    let file = format!("topic-{id}");
    let content = read_blob(&dirs, "meta", &file).await;
    write_blob(&dirs, "meta", &file, deleting(&content)).await;
    let server = start(dirs).await;
    let found = fetch(&server, "g").await.expect("fetches");
    assert_eq!(found, [("other".to_owned(), 1)]);
    let left = server.dirs.raw("meta").read_blob(&file).await;
    assert_eq!(left.expect("reads"), None);
    assert!(!server.dirs.paths().iter().any(|path| path.contains(&id)));
}

/// The same metadata in stage `deleting`, written once more.
fn deleting(content: &[u8]) -> Bytes {
    staged(content, "deleting")
}

/// Metadata of a live topic in another stage, written once more.
pub(crate) fn staged(content: &[u8], stage: &str) -> Bytes {
    use comlog_log::frame::{Decoder, Encoder, Kind};
    let kind = Kind {
        magic: *b"comlogTM",
        format: 1,
    };
    let mut from = Decoder::open_any(kind, content).expect("a frame");
    let json = from.bytes().expect("the payload");
    let json = String::from_utf8(json.to_vec()).expect("text");
    let json = json.replace(r#""stage":"live""#, &format!(r#""stage":"{stage}""#));
    let mut out = Encoder::new(kind, from.owner(), from.generation() + 1);
    out.bytes(json.as_bytes());
    out.finish()
}
