//! Names: base offset <-> segment file name, and what a blob may be called.

use comlog_record::Offset;

use crate::{Result, StorageError};

const SEGMENT_SUFFIX: &str = ".log";
const BLOB_NAME_LEN_MAX: usize = 64;
/// The file of the slots for marks, which is no blob.
pub(crate) const MARK_FILE: &str = "mark";

/// The file name of a segment: its base offset in 20 digits, then `.log`.
#[must_use]
pub fn segment_name(base_offset: Offset) -> String {
    format!("{:020}{SEGMENT_SUFFIX}", base_offset.0)
}

/// The base offset in a segment's file name; `None` when it is not one.
#[must_use]
pub fn parse_segment_name(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Offset)
}

/// Checks a blob's name: 1 to 64 of `[a-z0-9.-]`, not starting with a dot, not a segment's name,
/// and not `mark`, the file of the marks.
///
/// # Errors
/// [`StorageError::InvalidInput`].
pub fn check_blob_name(name: &str) -> Result<()> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let good = !name.is_empty()
        && name.len() <= BLOB_NAME_LEN_MAX
        && !name.starts_with('.')
        && !name.ends_with(SEGMENT_SUFFIX)
        && name != MARK_FILE
        && name.bytes().all(allowed);
    if good {
        Ok(())
    } else {
        Err(StorageError::InvalidInput {
            what: format!("blob name {name:?}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_names_come_back() {
        for offset in [0, 1, 42, i64::MAX] {
            let name = segment_name(Offset(offset));
            assert_eq!(name.len(), 24);
            assert_eq!(parse_segment_name(&name), Some(Offset(offset)));
        }
        for name in [
            "0.log",
            "0000000000000000000a.log",
            "99999999999999999999.log",
            ".log",
            "x",
        ] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }

    #[test]
    fn blob_names_stay_in_their_directory() {
        for name in ["checkpoint", "00000000000000000000.index", "a-b.c"] {
            assert!(check_blob_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "../x",
            "A",
            "mark",
            "00000000000000000000.log",
            "a\0b",
        ] {
            assert!(check_blob_name(name).is_err(), "{name}");
        }
    }
}
