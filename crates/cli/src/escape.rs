//! Backslashes as in printf, for every option that takes a separator or a template.

use std::str::Chars;

use bytes::Bytes;

/// Which escapes there are, for help texts.
pub(crate) const ESCAPES_HELP: &str = r"\n \t \r \0 \\ \xHH as in printf";

/// The bytes that `text` stands for.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => bytes.push(escape(&mut chars)?),
            other => bytes.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    Ok(bytes)
}

/// The byte that stands behind a backslash; its characters are taken.
pub(crate) fn escape(chars: &mut Chars<'_>) -> Result<u8, String> {
    Ok(match chars.next() {
        Some('a') => 0x07,
        Some('b') => 0x08,
        Some('e') => 0x1b,
        Some('f') => 0x0c,
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('v') => 0x0b,
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('x') => {
            let mut digit = || chars.next().and_then(|digit| digit.to_digit(16));
            let (high, low) = (digit(), digit());
            let byte = high.zip(low).map(|(high, low)| (high * 16 + low) as u8);
            byte.ok_or(r"behind \x stand two hex digits, as in \x1f")?
        }
        _ => return Err(format!("a backslash stands only in {ESCAPES_HELP}")),
    })
}

/// What stands between two things: not empty.
pub(crate) fn parse_separator(text: &str) -> Result<Bytes, String> {
    let separator = unescape(text)?;
    if separator.is_empty() {
        return Err("an empty text separates nothing".to_owned());
    }
    Ok(separator.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        let all = unescape(r"a\t\n\r\0\\\x1f\xFF\a\b\e\f\vü");
        let expected = b"a\t\n\r\0\\\x1f\xff\x07\x08\x1b\x0c\x0b\xc3\xbc";
        assert_eq!(all, Ok(expected.to_vec()));
        for text in [r"\", r"\y", r"\x", r"\x1", r"\xg0", r"\x1ü"] {
            assert!(unescape(text).is_err(), "{text}");
        }
        assert!(parse_separator("").is_err());
        assert_eq!(parse_separator(r"\t"), Ok(Bytes::from_static(b"\t")));
    }
}
