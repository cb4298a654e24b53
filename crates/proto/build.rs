//! Compiles `proto/` without a system protoc.

use std::error::Error;
use std::path::Path;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    // As cargo says now: what was compiled in may be another checkout's.
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = [
        "comlog/v1/common.proto",
        "comlog/v1/log.proto",
        "comlog/v1/topic.proto",
        "comlog/v1/group.proto",
        "comlog/v1/archive.proto",
        "api/comlog.proto",
    ];
    let descriptors = protox::compile(files, [&root])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(
        Path::new(&out).join("descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .codec_path("crate::BoundedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
