use bytes::Bytes;
use proptest::prelude::*;

use super::piecewise::Piecewise;
use super::{Compression, Failure, lz4, snappy, zstd_native, zstd_pure};
use crate::DecodeError;

const MAX: usize = 1 << 20;

/// A megabyte minus one, neither constant nor random: several blocks of every codec.
fn sample() -> Vec<u8> {
    (0..MAX as u32 - 1)
        .map(|index| (index.wrapping_mul(index >> 9) >> 7) as u8)
        .collect()
}

fn text(length: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![4 => 97u8..101, 1 => any::<u8>()], 0..length)
}

fn corrupt(result: Result<Vec<u8>, DecodeError>) -> bool {
    matches!(result, Err(DecodeError::Decompress { .. }))
}

fn too_large(result: &Result<Vec<u8>, DecodeError>) -> bool {
    matches!(result, Err(DecodeError::TooLarge { .. }))
}

/// What comes out of a piecewise decoder in pieces of `room`, or that it fails.
fn in_pieces(decoder: Result<Box<dyn Piecewise>, Failure>, room: usize) -> Option<Vec<u8>> {
    let mut decoder = decoder.ok()?;
    let (mut out, mut piece) = (Vec::new(), vec![0; room]);
    loop {
        match decoder.read(&mut piece).ok()? {
            0 => return Some(out),
            count => out.extend_from_slice(&piece[..count]),
        }
    }
}

fn both_ways(codec: Compression, body: &[u8], room: usize) -> Option<Vec<u8>> {
    let body = Bytes::copy_from_slice(body);
    let native = in_pieces(codec.piecewise(body.clone(), MAX), room);
    let portable = in_pieces(codec.piecewise_portable(body, MAX), room);
    assert_eq!(native.is_some(), portable.is_some(), "{codec}");
    assert!(native == portable, "{codec}");
    native
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_compressed_comes_back(records in text(5_000)) {
        for codec in Compression::ALL {
            let body = codec.compress(&records).unwrap();
            prop_assert_eq!(codec.decompress(&body, records.len()).unwrap(), records.clone());
        }
    }

    #[test]
    fn both_zstd_decoders_read_both_encoders(records in text(20_000)) {
        for body in [zstd_native::compress(&records), zstd_pure::compress(&records)] {
            let body = body.unwrap();
            let native = zstd_native::decompress(&body, MAX).ok().unwrap();
            let pure = zstd_pure::decompress(&body, MAX).ok().unwrap();
            prop_assert!(native == records && pure == records);
        }
    }

    #[test]
    fn noise_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for codec in Compression::ALL {
            let _ = codec.decompress(&body, MAX);
        }
        let _ = zstd_pure::decompress(&body, MAX);
    }
}

#[test]
fn pieces_are_what_the_whole_is() {
    let records = sample();
    for codec in Compression::ALL {
        let body = codec.compress(&records).unwrap();
        for room in [1_000, 64 << 10, 2 * MAX] {
            assert!(
                both_ways(codec, &body, room).as_ref() == Some(&records),
                "{codec}"
            );
        }
    }
}

#[test]
fn pieces_fail_where_the_whole_does() {
    let records = &sample()[..70_000];
    for codec in &Compression::ALL[1..] {
        let body = codec.compress(records).unwrap();
        let cuts = (1..100).chain(100..body.len()).step_by(997);
        for cut in cuts.chain(body.len() - 8..body.len()) {
            let whole = codec.decompress(&body[..cut], MAX).ok();
            assert!(
                both_ways(*codec, &body[..cut], 9_000) == whole,
                "{codec} cut at {cut}"
            );
        }
        let longer = [&body[..], &[1]].concat();
        assert!(both_ways(*codec, &longer, 9_000).is_none(), "{codec}");
        let twice = body.repeat(2);
        let whole = codec.decompress(&twice, MAX).ok();
        assert!(both_ways(*codec, &twice, 9_000) == whole, "{codec}");
    }
}

#[test]
fn many_blocks_come_back() {
    let records = sample();
    for codec in Compression::ALL {
        let body = codec.compress(&records).unwrap();
        assert_eq!(codec.decompress(&body, MAX).unwrap(), records, "{codec}");
    }
}

#[test]
fn the_bound_is_inclusive_and_holds() {
    let records = sample();
    for codec in Compression::ALL {
        let body = codec.compress(&records).unwrap();
        assert!(codec.decompress(&body, records.len()).is_ok(), "{codec}");
        for bytes_max in [0, 1, records.len() - 1] {
            let result = codec.decompress(&body, bytes_max);
            assert!(too_large(&result), "{codec} {bytes_max}: {result:?}");
        }
    }
}

#[test]
fn bombs_stop_at_the_bound() {
    let bomb = vec![0; 64 << 20];
    for codec in &Compression::ALL[1..] {
        let body = codec.compress(&bomb).unwrap();
        assert!(body.len() < bomb.len() / 20, "{codec}");
        assert!(too_large(&codec.decompress(&body, MAX)), "{codec}");
    }
    let body = zstd_native::compress(&bomb).unwrap();
    let pure = zstd_pure::decompress(&body, MAX);
    assert!(matches!(pure, Err(Failure::TooLarge)));
}

#[test]
fn every_truncation_is_an_error() {
    let records = &sample()[..70_000];
    for codec in &Compression::ALL[1..] {
        let body = codec.compress(records).unwrap();
        let cuts = (0..100).chain(100..body.len()).step_by(97);
        for cut in cuts.chain(body.len() - 40..body.len()) {
            // A xerial stream may end behind any of its blocks, and zstd is any number of frames.
            if let Ok(whole) = codec.decompress(&body[..cut], MAX) {
                let whole_blocks = *codec == Compression::Snappy && whole.len() % 32_768 == 0;
                assert!(whole_blocks || whole.is_empty(), "{codec} cut at {cut}");
            }
            assert!(zstd_pure::decompress(&body[..cut], MAX).is_err() || cut == 0);
        }
    }
}

#[test]
fn bytes_behind_the_end_are_an_error() {
    for codec in &Compression::ALL[1..] {
        let mut body = codec.compress(b"some records").unwrap();
        body.push(1);
        assert!(corrupt(codec.decompress(&body, MAX)), "{codec}");
        assert!(corrupt(codec.decompress(b"\0nonsense", MAX)), "{codec}");
    }
}

#[test]
fn parts_behind_each_other_are_read_as_kafka_reads_them() {
    let twice = |codec: Compression| {
        let body = codec.compress(b"some records").unwrap().repeat(2);
        codec.decompress(&body, MAX)
    };
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Zstd] {
        assert_eq!(twice(codec).unwrap(), b"some records".repeat(2), "{codec}");
    }
    assert!(corrupt(twice(Compression::Lz4)));

    let mut body = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    body.extend(zstd_native::compress(b"behind a skippable frame").unwrap());
    for decompress in [zstd_native::decompress, zstd_pure::decompress] {
        let records = decompress(&body, MAX).ok();
        assert_eq!(records.as_deref(), Some(&b"behind a skippable frame"[..]));
        assert!(decompress(&body[..9], MAX).is_err());
    }
}

#[test]
fn raw_snappy_is_read() {
    let records = &sample()[..100_000];
    let body = snap::raw::Encoder::new().compress_vec(records).unwrap();
    assert_eq!(Compression::Snappy.decompress(&body, MAX).unwrap(), records);
}

#[test]
fn xerial_framing_is_written_as_java_writes_it() {
    let body = snappy::compress(&[7; 40_000]).unwrap();
    assert_eq!(&body[..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let first = u32::from_be_bytes(body[16..20].try_into().unwrap()) as usize;
    assert_eq!(snap::raw::decompress_len(&body[20..]), Ok(32 * 1024));
    assert_eq!(
        snap::raw::decompress_len(&body[20 + first + 4..]),
        Ok(40_000 - 32 * 1024)
    );
    let mut version_0 = body;
    version_0[11] = 0;
    assert!(corrupt(Compression::Snappy.decompress(&version_0, MAX)));
}

#[test]
fn a_snappy_block_is_not_believed() {
    // Claims 2^32 - 1 bytes, holds one literal.
    let body = b"\xff\xff\xff\xff\x0f\0a";
    assert!(corrupt(Compression::Snappy.decompress(body, usize::MAX)));
    let framed = [&snappy::compress(b"").unwrap()[..], b"\xff\xff\xff\xff"].concat();
    assert!(corrupt(Compression::Snappy.decompress(&framed, MAX)));
}

#[test]
fn lz4_frames_have_the_shape_kafka_demands() {
    let body = lz4::compress(&sample()).unwrap();
    // Version 1, independent blocks, no checksums, no content size; blocks of 64 KiB.
    assert_eq!(&body[4..6], &[0x60, 0x40]);
}

#[test]
fn lz4_with_linked_blocks_and_checksums_is_read() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let records = sample();
    let info = FrameInfo::new()
        .block_mode(BlockMode::Linked)
        .block_size(BlockSize::Max256KB)
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(records.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    std::io::Write::write_all(&mut encoder, &records).unwrap();
    let mut body = encoder.finish().unwrap();
    assert_eq!(Compression::Lz4.decompress(&body, MAX).unwrap(), records);
    *body.last_mut().unwrap() ^= 1;
    assert!(corrupt(Compression::Lz4.decompress(&body, MAX)));
}

#[test]
fn zstd_checksums_are_checked() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    std::io::Write::write_all(&mut encoder, b"some records").unwrap();
    let mut body = encoder.finish().unwrap();
    for decompress in [zstd_native::decompress, zstd_pure::decompress] {
        assert_eq!(decompress(&body, MAX).ok().unwrap(), b"some records");
    }
    *body.last_mut().unwrap() ^= 1;
    for decompress in [zstd_native::decompress, zstd_pure::decompress] {
        assert!(matches!(decompress(&body, MAX), Err(Failure::Corrupt(_))));
    }
}

#[test]
fn names_lead_back_to_codecs() {
    for codec in Compression::ALL {
        assert_eq!(codec.name().parse(), Ok(codec));
        assert_eq!(Compression::from_attributes(codec.attributes()), Ok(codec));
    }
    let error = "brotli".parse::<Compression>().unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown compression \"brotli\": use none, gzip, snappy, lz4 or zstd"
    );
    assert!(Compression::from_attributes(5).is_err());
}
