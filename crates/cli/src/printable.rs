//! What a terminal gets of bytes that others chose: nothing that it would obey.

use std::borrow::Cow;

/// `bytes` with control characters, but newline and tab, and what is no UTF-8 as `\xHH`.
pub(crate) fn escape(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(is_obeyed) => Cow::Borrowed(text),
        _ => Cow::Owned(escaped(bytes)),
    }
}

fn is_obeyed(char: char) -> bool {
    char.is_control() && char != '\n' && char != '\t'
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    let push = |out: &mut String, code: u32| out.push_str(&format!("\\x{code:02x}"));
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if is_obeyed(char) {
                push(&mut out, u32::from(char));
            } else {
                out.push(char);
            }
        }
        for &byte in chunk.invalid() {
            push(&mut out, u32::from(byte));
        }
    }
    out
}

/// `text` on one line: as [`escape`], and newlines and tabs too.
pub(crate) fn cell(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = escape(text.as_bytes());
    Cow::Owned(escaped.replace('\n', "\\n").replace('\t', "\\t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_text_is_not() {
        assert_eq!(escape("grüße\n\tals Text".as_bytes()), "grüße\n\tals Text");
        assert_eq!(escape(b"\x1b]0;title\x07\r"), r"\x1b]0;title\x07\x0d");
        assert_eq!(escape("\u{9b}2J\u{7f}".as_bytes()), r"\x9b2J\x7f");
        assert_eq!(escape(b"a\xff\xfeb"), r"a\xff\xfeb");
        assert_eq!(cell("one\ntwo\x1b"), r"one\ntwo\x1b");
    }
}
