//! Every repeated field of every request has a bound, and it holds.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;

use comlog_proto::bounds::{REQUESTS, Refused, Repeated, Request};
use comlog_proto::{FILE_DESCRIPTOR_SET, api, v1};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap()
}

/// The message of this name, which may stand inside another.
fn message(set: &FileDescriptorSet, name: &str) -> DescriptorProto {
    fn find(prefix: &str, messages: &[DescriptorProto], name: &str) -> Option<DescriptorProto> {
        messages.iter().find_map(|message| {
            let path = format!("{prefix}.{}", message.name());
            if path == name {
                return Some(message.clone());
            }
            find(&path, &message.nested_type, name)
        })
    }
    let found = set.file.iter().find_map(|file| {
        let prefix = format!(".{}", file.package());
        find(&prefix, &file.message_type, name)
    });
    found.unwrap_or_else(|| panic!("{name} is not in the descriptors"))
}

/// Holds `fields` to the repeated fields of a message, and of what it holds.
fn check(set: &FileDescriptorSet, name: &str, fields: &[Repeated]) {
    let mut known: BTreeSet<&str> = fields.iter().map(|field| field.name).collect();
    for field in message(set, name).field {
        let is_message = field.r#type() == Type::Message;
        if field.label() == Label::Repeated {
            let bound = fields.iter().find(|bound| bound.name == field.name());
            let bound = bound.unwrap_or_else(|| panic!("{name}.{} has no bound", field.name()));
            assert_eq!(
                bound.number as i32,
                field.number(),
                "{name}.{}",
                field.name()
            );
            let sized = [Type::Message, Type::String, Type::Bytes];
            assert!(sized.contains(&field.r#type()), "{name}.{}", field.name());
            assert!(bound.max > 0 && bound.cost > 0);
            known.remove(bound.name);
            if is_message {
                check(set, field.type_name(), bound.fields);
            }
        } else if is_message {
            // Of what a message holds once nothing may repeat: nobody would count it.
            check(set, field.type_name(), &[]);
        }
    }
    assert!(known.is_empty(), "{name} has no such fields: {known:?}");
}

#[test]
fn every_repeated_field_of_every_request_has_a_bound() {
    let set = descriptors();
    let services = set.file.iter().flat_map(|file| &file.service);
    let methods = services.flat_map(|service| &service.method);
    let inputs: BTreeSet<&str> = methods.map(|method| method.input_type()).collect();
    for input in &inputs {
        let request = REQUESTS.iter().find(|request| request.name == &input[1..]);
        let request = request.unwrap_or_else(|| panic!("{input} is not among the requests"));
        check(&set, input, request.fields);
    }
    assert_eq!(
        inputs.len(),
        REQUESTS.len(),
        "no request that no method takes"
    );
}

fn measure<T: Message + 'static>(message: &T) -> Result<u64, Refused> {
    Request::of::<T>()
        .unwrap()
        .measure(&message.encode_to_vec())
}

#[test]
fn bounds_are_inclusive() {
    let records = |count| v1::AppendRequest {
        topic: "t".to_owned(),
        records: vec![v1::Record::default(); count],
        ..Default::default()
    };
    let cost = measure(&records(100_000)).unwrap();
    assert!(cost >= 100_000 * size_of::<v1::Record>() as u64);
    let refused = measure(&records(100_001)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "records: more than 100000 in one message"
    );
    let values = |count| api::BatchRecords {
        batch: vec![api::Record::default(); count],
    };
    assert!(measure(&values(100_000)).is_ok());
    assert!(measure(&values(100_001)).is_err());
    let mut headers = records(1);
    headers.records[0].headers = vec![v1::Header::default(); 10_000];
    assert!(measure(&headers).unwrap() > measure(&records(1)).unwrap());
    headers.records[0].headers.push(v1::Header::default());
    assert!(measure(&headers).is_err());
}

#[test]
fn what_all_fields_cost_is_bounded_too() {
    let record = v1::Record {
        headers: vec![v1::Header::default(); 10_000],
        ..Default::default()
    };
    let request = v1::AppendRequest {
        records: vec![record; 100],
        ..Default::default()
    };
    assert_eq!(
        measure(&request),
        Err(Refused::TooCostly { field: "headers" })
    );
}

#[test]
fn nonsense_is_refused_and_unknown_fields_are_not() {
    let append = Request::of::<v1::AppendRequest>().unwrap();
    for nonsense in [
        &[0xff; 12][..],
        &[0x1a],             // no length
        &[0x1a, 5, 0],       // a length beyond the end
        &[0x1a, 2, 0x1a, 5], // the same inside a record
        &[0x0b],             // a group
        &[0x09, 1],          // eight bytes, of which one is there
    ] {
        let refused = append.measure(nonsense);
        assert!(
            matches!(refused, Err(Refused::Malformed(_))),
            "{nonsense:?}"
        );
    }
    let unknown = [0xa0, 0x06, 1, 0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(append.measure(&unknown), Ok(0));
    assert!(Request::of::<v1::AppendResponse>().is_none());
}
