//! What version 1 wrote is read, and written again, byte for byte: see `format.md`. The files beside
//! the manifest were made from that document alone, by a script that shares nothing with comlog.

use std::sync::Arc;

use bytes::Bytes;
use comlog_archive::{
    ARCHIVE_BLOB, ArchiveError, ArchiveStore, Catalog, Identity, Manifest, PartitionKeys,
    SegmentEntry, StateEntry, StoreOptions, Writes,
};
use comlog_log::Snapshot;
use comlog_record::{LeaderEpoch, Offset};
use comlog_storage::{
    BLOCK_BYTES, BlockCache, BlockSums, CacheOptions, MemoryStorage, Storage, SumsBuilder,
};
use object_store::memory::InMemory;

const MANIFEST: &[u8] = include_bytes!("golden/manifest-1");
const SUMS: &[u8] = include_bytes!("golden/sums-1");
const STATE: &[u8] = include_bytes!("golden/state-1");
const IDENTITY: &[u8] = include_bytes!("golden/comlog-archive-1");
const ARCHIVED: &[u8] = include_bytes!("golden/archived-1");
const ARCHIVE_ID: &str = "00112233445566778899aabbccddeeff";

fn manifest() -> Manifest {
    let segment = |base_offset, end_offset, crc, max_timestamp| SegmentEntry {
        base_offset,
        end_offset,
        len: 1_048_576,
        crc,
        epoch: 2,
        max_timestamp,
        archived_ms: 1_700_000_000_000,
    };
    Manifest {
        topic: "greetings".to_owned(),
        topic_id: "0123456789abcdef0123456789abcdef".to_owned(),
        partition: 3,
        revision: 9,
        writer_epoch: 4,
        writer_id: "fedcba9876543210fedcba9876543210".to_owned(),
        log_start_offset: 10,
        leader_epoch: 1,
        fencing_token: 5,
        state: Some(StateEntry {
            end_offset: 200,
            len: 77,
            crc: 0x0a0b_0c0d,
            epoch: 2,
        }),
        segments: vec![
            segment(0, 100, 0xdead_beef, Some(1_600_000_000_000)),
            segment(100, 200, 1, None),
        ],
    }
}

#[test]
fn a_manifest_of_version_1_is_read_and_written_again() {
    let read = Manifest::decode("manifest", MANIFEST).expect("it is whole");
    assert_eq!(read, manifest());
    let written = manifest().encode().expect("it encodes");
    assert_eq!(
        String::from_utf8_lossy(&written),
        String::from_utf8_lossy(MANIFEST)
    );
}

#[test]
fn keys_are_those_of_the_format() {
    let keys = PartitionKeys::new("0123456789abcdef0123456789abcdef", 3);
    let manifest = manifest();
    let dir = "topics/0123456789abcdef0123456789abcdef/3";
    assert_eq!(keys.manifest().as_ref(), format!("{dir}/manifest"));
    let log = keys.segment(&manifest.segments[0]);
    let name = "00000000000000000000-00000000000000000100-2-deadbeef.log";
    assert_eq!(log.as_ref(), format!("{dir}/{name}"));
    let state = manifest.state.as_ref().map(|state| keys.state(state));
    let state = state.expect("there is one");
    assert_eq!(
        state.as_ref(),
        format!("{dir}/state-00000000000000000200-2-0a0b0c0d")
    );
}

#[test]
fn damage_and_newer_formats_are_told_apart() {
    for at in 0..MANIFEST.len() {
        let mut broken = MANIFEST.to_vec();
        broken[at] ^= 1;
        assert!(Manifest::decode("manifest", &broken).is_err(), "byte {at}");
    }
    let text = String::from_utf8_lossy(MANIFEST);
    let newer = text.replacen("manifest 1 ", "manifest 2 ", 1);
    let refused = Manifest::decode("manifest", newer.as_bytes());
    assert!(
        matches!(refused, Err(ArchiveError::UnknownFormat { .. })),
        "{refused:?}"
    );
}

#[test]
fn block_checksums_of_version_1_are_read_and_written_again() {
    // Two blocks, the second of five bytes.
    let content: Vec<u8> = (0..BLOCK_BYTES as usize + 5)
        .map(|at| (at % 251) as u8)
        .collect();
    let mut sums = SumsBuilder::default();
    sums.update(&content);
    let sums = sums.finish();
    assert_eq!(sums.encode(), SUMS);
    assert_eq!(BlockSums::decode(SUMS), Some(sums));
}

#[test]
fn a_state_of_version_1_is_read_and_written_again() {
    let keys = PartitionKeys::new("0123456789abcdef0123456789abcdef", 3);
    let state = Snapshot::decode(keys.owner(), STATE).expect("it is whole");
    assert_eq!(state.end(), Offset(200));
    assert_eq!(state.leader_epoch(), LeaderEpoch(1));
    assert_eq!(state.producer_id_max(), 7);
    assert_eq!(state.encode(), STATE);
}

#[tokio::test]
async fn an_identity_of_version_1_is_read() {
    let inner = Arc::new(InMemory::new());
    let store = ArchiveStore::from_store(inner, "memory", StoreOptions::default());
    let key = "comlog-archive".into();
    store
        .overwrite(&key, Bytes::from_static(IDENTITY))
        .await
        .expect("memory works");
    let found = Identity::load_or_create(&store, Writes::Conditional).await;
    assert_eq!(found.expect("it is whole").id, ARCHIVE_ID);
}

#[tokio::test]
async fn a_local_blob_of_version_1_is_read_and_written_again() {
    let local = MemoryStorage::new();
    Catalog::restore(&local, ARCHIVE_ID, manifest())
        .await
        .expect("memory works");
    let written = local.read_blob(ARCHIVE_BLOB).await.expect("memory works");
    assert_eq!(
        String::from_utf8_lossy(&written.unwrap_or_default()),
        String::from_utf8_lossy(ARCHIVED)
    );

    let read = MemoryStorage::new();
    let blob = Bytes::from_static(ARCHIVED);
    read.write_blob(ARCHIVE_BLOB, blob)
        .await
        .expect("memory works");
    let inner = Arc::new(InMemory::new());
    let store = ArchiveStore::from_store(inner, "memory", StoreOptions::default());
    let cache = BlockCache::new(store.object_store().clone(), CacheOptions::default());
    let keys = PartitionKeys::new("0123456789abcdef0123456789abcdef", 3);
    let catalog = Catalog::open(Arc::new(read), keys, store, cache).await;
    let catalog = catalog.expect("it is whole");
    assert_eq!(catalog.archive_id().as_deref(), Some(ARCHIVE_ID));
    assert_eq!(catalog.manifest(), Some(manifest()));
    assert!(catalog.forgotten().is_empty());
}
