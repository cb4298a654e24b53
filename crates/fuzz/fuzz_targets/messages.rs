//! The messages that a client sends.
#![no_main]

use comlog_proto::{api, v1};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    match kind % 10 {
        0 => decode::<v1::AppendRequest>(data),
        1 => decode::<v1::AppendBatchesRequest>(data),
        2 => decode::<v1::AppendStreamRequest>(data),
        3 => decode::<v1::ReadRequest>(data),
        4 => decode::<v1::TailRequest>(data),
        5 => decode::<v1::UpdateTailRequest>(data),
        6 => decode::<v1::ListOffsetsRequest>(data),
        7 => decode::<v1::CommitOffsetsRequest>(data),
        8 => decode::<v1::AlterTopicRequest>(data),
        _ => decode::<api::BatchRecords>(data),
    }
});

/// What was decoded comes back the same.
fn decode<M: Message + Default + PartialEq>(data: &[u8]) {
    if let Ok(message) = M::decode(data) {
        let again = M::decode(message.encode_to_vec().as_slice());
        assert!(again.is_ok_and(|again| again == message));
    }
}
