//! `consume --format`: how a record is printed, with fields.

use std::io::{self, Write};

use comlog_record::Record;

use crate::escape;

/// Which fields there are, for the help text.
pub(crate) const FIELDS_HELP: &str = "\
%v value, %k key, %o offset, %p partition, %T topic, %t timestamp (Unix ms), %h headers \
(name=value, comma between), %% a percent sign; \\n \\t \\r \\0 \\\\ \\xHH as in printf";

/// One record and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located<'a> {
    /// Its topic.
    pub(crate) topic: &'a str,
    /// Its partition.
    pub(crate) partition: u32,
    /// The record.
    pub(crate) record: Record<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Value,
    Key,
    Offset,
    Partition,
    Topic,
    Timestamp,
    Headers,
}

/// A parsed `--format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format(Vec<Piece>);

impl Format {
    /// Reads a format such as `%o\t%k\t%v\n`; see [`FIELDS_HELP`].
    pub(crate) fn parse(text: &str) -> Result<Format, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '%' => match field(chars.next())? {
                    Piece::Text(text) => literal.extend(text),
                    piece => {
                        flush(&mut literal, &mut pieces);
                        pieces.push(piece);
                    }
                },
                '\\' => literal.push(escape::escape(&mut chars)?),
                other => literal.extend(other.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        flush(&mut literal, &mut pieces);
        Ok(Format(pieces))
    }

    /// Writes one record. An absent key or value prints as nothing.
    pub(crate) fn write(&self, out: &mut impl Write, located: &Located<'_>) -> io::Result<()> {
        let record = &located.record;
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Value => out.write_all(record.value.unwrap_or_default())?,
                Piece::Key => out.write_all(record.key.unwrap_or_default())?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Partition => write!(out, "{}", located.partition)?,
                Piece::Topic => out.write_all(located.topic.as_bytes())?,
                Piece::Timestamp => write!(out, "{}", record.timestamp)?,
                Piece::Headers => write_headers(out, record)?,
            }
        }
        Ok(())
    }
}

fn flush(literal: &mut Vec<u8>, pieces: &mut Vec<Piece>) {
    if !literal.is_empty() {
        pieces.push(Piece::Text(std::mem::take(literal)));
    }
}

fn field(letter: Option<char>) -> Result<Piece, String> {
    Ok(match letter {
        Some('v') => Piece::Value,
        Some('k') => Piece::Key,
        Some('o') => Piece::Offset,
        Some('p') => Piece::Partition,
        Some('T') => Piece::Topic,
        Some('t') => Piece::Timestamp,
        Some('h') => Piece::Headers,
        Some('%') => Piece::Text(b"%".to_vec()),
        Some(other) => {
            return Err(format!(
                "there is no field %{other}; the fields are: {FIELDS_HELP}"
            ));
        }
        None => {
            return Err("the format ends with a single %; write %% for a percent sign".to_owned());
        }
    })
}

fn write_headers(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    for (index, (name, value)) in record.headers.enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        out.write_all(name)?;
        out.write_all(b"=")?;
        out.write_all(value.unwrap_or_default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use comlog_record::{Offset, Timestamp};

    use super::*;

    fn located<'a>(value: Option<&'a [u8]>) -> Located<'a> {
        let record = Record {
            offset: Offset(7),
            timestamp: Timestamp(99),
            key: Some(b"k"),
            value,
            ..Record::default()
        };
        Located {
            topic: "t",
            partition: 3,
            record,
        }
    }

    fn print(format: &str, value: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        let format = Format::parse(format).expect("a valid format");
        format
            .write(&mut out, &located(value))
            .expect("memory takes all");
        out
    }

    #[test]
    fn fields_and_escapes_are_replaced() {
        assert_eq!(
            print(r"%T/%p@%o %t %k=%v%%\n\\\x1e", Some(b"\xff")),
            b"t/3@7 99 k=\xff%\n\\\x1e"
        );
        assert_eq!(print("%v|%h|", None), b"||");
    }

    #[test]
    fn unknown_fields_are_refused() {
        for format in ["%", "%x", r"\", r"\x"] {
            assert!(Format::parse(format).is_err(), "{format}");
        }
    }
}
