//! comlog's gRPC protocol: the messages, clients and servers generated from `proto/`.
//!
//! `bytes` fields are [`bytes::Bytes`], so a batch inside a message is a slice of the buffer it
//! was received in. The crate needs no system protoc and compiles for wasm32 (no transport).

pub mod bounds;
mod codec;

pub use codec::{BoundedCodec, BoundedDecoder, Meter, charge_requests};

/// Package `comlog.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("comlog.v1");
}

/// Package `api`: the API of the original comlog.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod api {
    tonic::include_proto!("api");
}

/// Every file descriptor, encoded, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
