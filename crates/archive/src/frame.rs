//! The frame of every object that is JSON: a line `comlog KIND FORMAT CRC`, then the JSON.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ArchiveError, Result};

/// What an object is, and the newest format number this version writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) format: u32,
}

/// Puts `value` into its frame; the checksum is the CRC-32C of the JSON, in hex.
pub(crate) fn encode<T: Serialize>(kind: Kind, value: &T) -> Result<Bytes> {
    let json = serde_json::to_string(value)
        .map_err(|error| ArchiveError::Config(format!("cannot encode {}: {error}", kind.name)))?;
    let crc = crc32c::crc32c(json.as_bytes());
    let (name, format) = (kind.name, kind.format);
    Ok(format!("comlog {name} {format} {crc:08x}\n{json}").into())
}

/// Takes a value out of its frame; `object` is named in errors.
pub(crate) fn decode<T: DeserializeOwned>(kind: Kind, object: &str, content: &[u8]) -> Result<T> {
    let damaged = |reason: String| ArchiveError::Damaged {
        object: object.to_owned(),
        reason,
    };
    let text = std::str::from_utf8(content).map_err(|error| damaged(error.to_string()))?;
    let (head, json) = text
        .split_once('\n')
        .ok_or_else(|| damaged("no content".to_owned()))?;
    let rest = head
        .strip_prefix("comlog ")
        .and_then(|rest| rest.strip_prefix(kind.name));
    let mut words = rest.unwrap_or_default().split_ascii_whitespace();
    let (Some(format), Some(crc), None) = (words.next(), words.next(), words.next()) else {
        return Err(damaged(format!("not a {} of comlog", kind.name)));
    };
    if u32::from_str_radix(crc, 16) != Ok(crc32c::crc32c(json.as_bytes())) {
        return Err(damaged("checksum mismatch".to_owned()));
    }
    if format != kind.format.to_string() {
        return Err(ArchiveError::UnknownFormat {
            object: object.to_owned(),
            found: format.to_owned(),
        });
    }
    serde_json::from_str(json).map_err(|error| damaged(error.to_string()))
}
