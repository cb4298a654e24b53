//! What version 1 wrote is read, and written again, byte for byte: see `format.md`.

use comlog_archive::{ArchiveError, Manifest, PartitionKeys, SegmentEntry, StateEntry};

const MANIFEST: &[u8] = include_bytes!("golden/manifest-1");

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
