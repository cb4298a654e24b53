//! Records as JSON objects.
//!
//! Bytes that are UTF-8 stand as text under `key` and `value`, others in base64 under `key_base64`
//! and `value_base64`; absent ones are null.

use comlog_record::Record;
use serde_json::{Map, Value, json};

/// Adds the fields of a record to `object`.
pub(crate) fn put_record(object: &mut Map<String, Value>, record: &Record<'_>) {
    object.insert("offset".to_owned(), json!(record.offset.0));
    object.insert("timestamp_ms".to_owned(), json!(record.timestamp.0));
    put_bytes(object, "key", record.key);
    put_bytes(object, "value", record.value);
    let headers = record.headers.map(|(name, value)| {
        let mut header = Map::new();
        put_bytes(&mut header, "name", Some(name));
        put_bytes(&mut header, "value", value);
        Value::Object(header)
    });
    object.insert("headers".to_owned(), headers.collect());
}

fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => object.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => object.insert(name.to_owned(), json!(text)),
        Some(Err(_)) => object.insert(
            format!("{name}_base64"),
            json!(base64(bytes.unwrap_or_default())),
        ),
    };
}

/// Standard base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for sextet in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * sextet) & 63) as usize];
            out.push(if sextet <= group.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Option<&[u8]>) -> Map<String, Value> {
        let mut object = Map::new();
        let record = Record {
            key: Some(b"k"),
            value,
            ..Record::default()
        };
        put_record(&mut object, &record);
        object
    }

    #[test]
    fn bytes_that_are_not_text_are_base64() {
        assert_eq!(object(Some(b"\xff\x00"))["value_base64"], "/wA=");
        assert_eq!(object(Some(b"text"))["value"], "text");
        assert_eq!(object(None)["value"], Value::Null);
        assert_eq!(object(None)["key"], "k");
    }

    #[test]
    fn base64_of_the_standard_is_met() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
