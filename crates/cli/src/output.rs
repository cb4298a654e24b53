//! What commands print: tables for people, JSON for programs.
//!
//! Everything goes through [`Out`], never through `println!`, which panics when the reader of a
//! pipe has gone.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::error::Result;
use crate::printable;

/// Bytes gathered before they go to standard output.
const BUFFER_BYTES: usize = 256 << 10;

/// Text from a file or a path, for a terminal: no control character comes through.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    #[default]
    Text,
    /// One JSON value, or one a line where a command prints many
    Json,
}

/// Buffered standard output and the format asked for.
#[derive(Debug)]
pub(crate) struct Out {
    /// The format asked for.
    pub(crate) format: OutputFormat,
    /// What it would obey is escaped.
    is_terminal: bool,
    stdout: BufWriter<StdoutLock<'static>>,
}

impl Out {
    /// Standard output in `format`.
    pub(crate) fn new(format: OutputFormat) -> Out {
        Out {
            format,
            is_terminal: io::stdout().is_terminal(),
            stdout: BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()),
        }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Prints a JSON value on a line of its own.
    pub(crate) fn json(&mut self, value: &Value) -> Result<()> {
        let text = value.to_string();
        // The standard's control characters are escaped already, those of Latin-1 are not.
        let is_latin_control = |char| ('\u{7f}'..='\u{9f}').contains(&char);
        if !text.contains(is_latin_control) {
            return Ok(writeln!(self.stdout, "{text}")?);
        }
        let escaped = text.chars().map(|char| match char {
            char if is_latin_control(char) => format!("\\u{:04x}", u32::from(char)),
            char => char.to_string(),
        });
        Ok(writeln!(self.stdout, "{}", escaped.collect::<String>())?)
    }

    /// Prints a line of text.
    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Result<()> {
        let line = line.to_string();
        if self.is_terminal {
            let line = printable::escape(line.as_bytes());
            return Ok(writeln!(self.stdout, "{line}")?);
        }
        Ok(writeln!(self.stdout, "{line}")?)
    }

    /// Prints rows under a head, in columns as wide as they need.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> Result<()> {
        let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                row.iter()
                    .map(|cell| printable::cell(cell).into())
                    .collect()
            })
            .collect();
        let all = || std::iter::once(&head).chain(&rows);
        let width = |column| {
            all()
                .filter_map(|row| row.get(column))
                .map(|cell: &String| cell.chars().count())
                .max()
        };
        for row in all() {
            let cells = row.iter().enumerate();
            let line: String = cells
                .map(|(column, cell)| {
                    format!("{cell:<width$}  ", width = width(column).unwrap_or(0))
                })
                .collect();
            writeln!(self.stdout, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Hands what is buffered to the reader.
    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.stdout.flush()?)
    }
}

/// For records, whose bytes go out as they are; but to a terminal, nothing that it would obey.
impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_terminal {
            return self.stdout.write(bytes);
        }
        let escaped = printable::escape(bytes);
        self.stdout.write_all(escaped.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// Bytes for people: `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let power = (count.ilog2() / 10).min(UNITS.len() as u32);
    let scaled = count as f64 / (1_u64 << (10 * power)) as f64;
    format!("{scaled:.1} {}", UNITS[power as usize - 1])
}
