//! How much of everything a request may hold, in one place.
//!
//! A repeated field costs its sender two bytes an element, and its receiver a hundred. So every
//! repeated field of every request has a bound here, a test holds the descriptors to that, and
//! [`Request::measure`] walks a message's bytes, without allocating, before it is decoded.

use std::any::TypeId;
use std::mem::size_of;

use crate::{api, v1};

/// Most records of one structured append.
pub const RECORDS_MAX: u32 = 100_000;
/// Most headers of one record of a structured append.
pub const HEADERS_MAX: u32 = 10_000;
/// Most partitions that one request names to follow, change or look up.
pub const PARTITIONS_MAX: u32 = 10_000;
/// Most offsets of one commit, or of one question for commits.
pub const OFFSETS_MAX: u32 = 20_000;
/// Most topics that one request names.
pub const TOPICS_MAX: u32 = 10_000;
/// Most names of settings that one request resets.
pub const SETTINGS_MAX: u32 = 100;
/// Most bytes of all elements of all repeated fields of one request, as decoded.
pub const DECODED_BYTES_MAX: u64 = 64 << 20;

/// What an allocation costs beside its bytes.
const ALLOCATION: usize = 32;
/// A request has at most so many repeated fields side by side.
const FIELDS_MAX: usize = 4;

/// A request of one of the services.
#[derive(Debug)]
pub struct Request {
    /// Its full name in the protocol.
    pub name: &'static str,
    /// Its repeated fields.
    pub fields: &'static [Repeated],
    type_id: TypeId,
}

/// A repeated field: strings, bytes or messages.
#[derive(Debug)]
pub struct Repeated {
    /// Its name in the protocol.
    pub name: &'static str,
    /// Its number in the protocol.
    pub number: u32,
    /// Most elements in one message.
    pub max: u32,
    /// Bytes that one element takes once it is decoded, beside those it has on the wire.
    pub cost: usize,
    /// The repeated fields of an element.
    pub fields: &'static [Repeated],
}

/// Why a message is not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no message of the wire format.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A field has too many elements.
    #[error("{field}: more than {max} in one message")]
    TooMany {
        /// Its name.
        field: &'static str,
        /// Its bound.
        max: u32,
    },
    /// All elements together are beyond [`DECODED_BYTES_MAX`].
    #[error("{field}: the message would take more than {DECODED_BYTES_MAX} bytes once decoded")]
    TooCostly {
        /// Where that was seen.
        field: &'static str,
    },
}

const fn request<T: 'static>(name: &'static str, fields: &'static [Repeated]) -> Request {
    Request {
        name,
        fields,
        type_id: TypeId::of::<T>(),
    }
}

/// Elements of type `T`. A vector grows by doubling, so there may be room for as many again.
const fn repeated<T>(
    name: &'static str,
    number: u32,
    max: u32,
    fields: &'static [Repeated],
) -> Repeated {
    Repeated {
        name,
        number,
        max,
        cost: 2 * size_of::<T>() + ALLOCATION,
        fields,
    }
}

/// Every request of every service, but the empty message.
pub const REQUESTS: [Request; 28] = [
    request::<v1::AppendRequest>(
        "comlog.v1.AppendRequest",
        &[repeated::<v1::Record>(
            "records",
            3,
            RECORDS_MAX,
            &[repeated::<v1::Header>("headers", 3, HEADERS_MAX, &[])],
        )],
    ),
    request::<v1::AppendBatchesRequest>("comlog.v1.AppendBatchesRequest", &[]),
    request::<v1::AppendStreamRequest>("comlog.v1.AppendStreamRequest", &[]),
    request::<v1::ReadRequest>("comlog.v1.ReadRequest", &[]),
    request::<v1::TailRequest>(
        "comlog.v1.TailRequest",
        &[repeated::<v1::TailStart>(
            "partitions",
            1,
            PARTITIONS_MAX,
            &[],
        )],
    ),
    request::<v1::UpdateTailRequest>(
        "comlog.v1.UpdateTailRequest",
        &[repeated::<v1::TailChange>(
            "changes",
            2,
            PARTITIONS_MAX,
            &[],
        )],
    ),
    request::<v1::ListOffsetsRequest>(
        "comlog.v1.ListOffsetsRequest",
        &[repeated::<v1::OffsetQuery>(
            "queries",
            1,
            PARTITIONS_MAX,
            &[],
        )],
    ),
    request::<v1::TrimRequest>("comlog.v1.TrimRequest", &[]),
    request::<v1::SyncRequest>("comlog.v1.SyncRequest", &[]),
    request::<v1::InitProducerIdRequest>("comlog.v1.InitProducerIdRequest", &[]),
    request::<v1::FenceRequest>("comlog.v1.FenceRequest", &[]),
    request::<v1::CreateTopicRequest>("comlog.v1.CreateTopicRequest", &[]),
    request::<v1::ListTopicsRequest>("comlog.v1.ListTopicsRequest", &[]),
    request::<v1::DescribeTopicRequest>("comlog.v1.DescribeTopicRequest", &[]),
    request::<v1::AlterTopicRequest>(
        "comlog.v1.AlterTopicRequest",
        &[repeated::<String>("reset", 3, SETTINGS_MAX, &[])],
    ),
    request::<v1::DeleteTopicRequest>("comlog.v1.DeleteTopicRequest", &[]),
    request::<v1::CommitOffsetsRequest>(
        "comlog.v1.CommitOffsetsRequest",
        &[repeated::<v1::CommittedOffset>(
            "offsets",
            2,
            OFFSETS_MAX,
            &[],
        )],
    ),
    request::<v1::FetchOffsetsRequest>(
        "comlog.v1.FetchOffsetsRequest",
        &[repeated::<v1::TopicPartition>(
            "partitions",
            2,
            OFFSETS_MAX,
            &[],
        )],
    ),
    request::<v1::ListGroupsRequest>("comlog.v1.ListGroupsRequest", &[]),
    request::<v1::DeleteGroupRequest>("comlog.v1.DeleteGroupRequest", &[]),
    request::<v1::FlushArchiveRequest>(
        "comlog.v1.FlushArchiveRequest",
        &[repeated::<String>("topics", 1, TOPICS_MAX, &[])],
    ),
    request::<v1::ArchiveStatusRequest>(
        "comlog.v1.ArchiveStatusRequest",
        &[repeated::<String>("topics", 1, TOPICS_MAX, &[])],
    ),
    request::<api::Record>("api.Record", &[]),
    request::<api::BatchRecords>(
        "api.BatchRecords",
        &[repeated::<api::Record>("batch", 1, RECORDS_MAX, &[])],
    ),
    request::<api::Offset>("api.Offset", &[]),
    request::<api::IndexFlushSyncType>("api.IndexFlushSyncType", &[]),
    request::<api::CollectOffset>("api.CollectOffset", &[]),
    request::<()>("google.protobuf.Empty", &[]),
];

impl Request {
    /// The request of this type, if it is one.
    #[must_use]
    pub fn of<T: 'static>() -> Option<&'static Request> {
        const ALL: &[Request] = &REQUESTS;
        let type_id = TypeId::of::<T>();
        ALL.iter().find(|request| request.type_id == type_id)
    }

    /// The bytes that the elements of repeated fields take once `message` is decoded, beside
    /// those it has. Allocates nothing.
    ///
    /// # Errors
    /// A bound is exceeded, or these are no fields. What a field holds is not looked at.
    pub fn measure(&self, message: &[u8]) -> Result<u64, Refused> {
        let mut cost = 0;
        measure(self.fields, message, &mut cost)?;
        Ok(cost)
    }
}

fn measure(fields: &[Repeated], mut rest: &[u8], cost: &mut u64) -> Result<(), Refused> {
    let mut counts = [0u32; FIELDS_MAX];
    while !rest.is_empty() {
        let (number, value) = take_field(&mut rest)?;
        let Some(value) = value else { continue };
        let found = fields.iter().zip(&mut counts);
        let found = found.into_iter().find(|(field, _)| field.number == number);
        let Some((field, count)) = found else {
            continue;
        };
        *count += 1;
        *cost += field.cost as u64;
        if *count > field.max {
            return Err(Refused::TooMany {
                field: field.name,
                max: field.max,
            });
        }
        if *cost > DECODED_BYTES_MAX {
            return Err(Refused::TooCostly { field: field.name });
        }
        if !field.fields.is_empty() {
            measure(field.fields, value, cost)?;
        }
    }
    Ok(())
}

/// Takes one field off the front: its number, and its bytes if it is of a length of its own.
fn take_field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Option<&'a [u8]>), Refused> {
    let key = take_varint(rest)?;
    let number = u32::try_from(key >> 3).map_err(|_| Refused::Malformed("a field's number"))?;
    let mut fixed = |len: usize| {
        let cut = Refused::Malformed("it ends inside a field");
        let (value, behind) = rest.split_at_checked(len).ok_or(cut)?;
        *rest = behind;
        Ok(value)
    };
    match key & 7 {
        0 => take_varint(rest).map(|_| (number, None)),
        1 => fixed(8).map(|_| (number, None)),
        5 => fixed(4).map(|_| (number, None)),
        2 => {
            let len = take_varint(rest)?;
            let cut = Refused::Malformed("a length beyond the end");
            let len = usize::try_from(len).map_err(|_| cut.clone())?;
            let (value, behind) = rest.split_at_checked(len).ok_or(cut)?;
            *rest = behind;
            Ok((number, Some(value)))
        }
        _ => Err(Refused::Malformed("a field of an unknown type")),
    }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, Refused> {
    let mut value = 0u64;
    for (index, &byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(Refused::Malformed("a number without an end"))
}
