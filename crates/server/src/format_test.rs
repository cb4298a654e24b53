//! The files of `format.md`, byte by byte: made by a script that knows only that document.

use comlog_log::frame::Owner;
use prost::Message;

use crate::archive::WRITER_KIND;
use crate::group_state::{FORMAT, OffsetKey, OffsetValue};
use crate::topic_config::TopicOverrides;
use crate::topic_store::{self, Stage, TopicMeta};
use crate::{meta_file, producer_ids};

const ID: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn topic_metadata_of_format_1() {
    let golden = include_bytes!("../tests/golden/topic-1");
    let topic = TopicMeta {
        name: "greetings".to_owned(),
        id: ID.to_owned(),
        partitions: 3,
        created_ms: 1_700_000_000_000,
        stage: Stage::Live,
        config: TopicOverrides {
            retention_ms: Some(5),
            ..TopicOverrides::default()
        },
    };
    assert_eq!(topic_store::decode(ID, golden).as_ref(), Ok(&topic));
    let owner = Owner::topic(Owner::parse_topic_id(ID).expect("an id"));
    let json = serde_json::to_vec(&topic).expect("encodes");
    let written = meta_file::encode(topic_store::KIND, owner, 7, &json);
    assert_eq!(&written[..], golden);
}

#[test]
fn the_files_of_the_server_of_format_1() {
    let ids = include_bytes!("../tests/golden/producer-ids-1");
    let end = 3_000_i64.to_be_bytes();
    let written = meta_file::encode(producer_ids::KIND, Owner::SERVER, 2, &end);
    assert_eq!(&written[..], ids);
    let writer = include_bytes!("../tests/golden/archive-writer-1");
    let id = b"00112233445566778899aabbccddeeff";
    let written = meta_file::encode(WRITER_KIND, Owner::SERVER, 1, id);
    assert_eq!(&written[..], writer);
}

#[test]
fn commit_records_of_format_1() {
    let key = OffsetKey {
        format: FORMAT,
        group: "readers".to_owned(),
        topic: "greetings".to_owned(),
        topic_id: ID.to_owned(),
        partition: 2,
    };
    let value = OffsetValue {
        offset: 42,
        metadata: "m".to_owned(),
        committed_ms: 1_700_000_000_000,
    };
    let golden_key = include_bytes!("../tests/golden/offset-key-1");
    let golden_value = include_bytes!("../tests/golden/offset-value-1");
    assert_eq!(key.encode_to_vec(), golden_key);
    assert_eq!(value.encode_to_vec(), golden_value);
    assert_eq!(OffsetKey::decode(&golden_key[..]), Ok(key));
    assert_eq!(OffsetValue::decode(&golden_value[..]), Ok(value));
}
