//! How `consume` writes values one behind the other.

use std::io::{self, Write};

use clap::ValueEnum;

/// Written instead of a length for a record without a value, as in Kafka's formats.
pub(crate) const LENGTH_OF_NONE: u32 = u32::MAX;

/// How records are told apart in what `consume` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OutputFraming {
    /// A newline behind each value
    #[default]
    Lines,
    /// Nothing between values
    None,
    /// A big-endian u32 with the length before each value; 2^32-1 stands for "no value"
    Length,
}

impl OutputFraming {
    /// Writes one value.
    pub(crate) fn write(self, out: &mut impl Write, value: Option<&[u8]>) -> io::Result<()> {
        let bytes = value.unwrap_or_default();
        if self == OutputFraming::Length {
            let length = value.map_or(LENGTH_OF_NONE, |value| value.len() as u32);
            out.write_all(&length.to_be_bytes())?;
        }
        out.write_all(bytes)?;
        if self == OutputFraming::Lines {
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_apart_as_asked() {
        let write = |framing: OutputFraming| {
            let mut out = Vec::new();
            for value in [Some(&b"ab"[..]), None] {
                framing.write(&mut out, value).expect("memory takes all");
            }
            out
        };
        assert_eq!(write(OutputFraming::Lines), b"ab\n\n");
        assert_eq!(write(OutputFraming::None), b"ab");
        assert_eq!(
            write(OutputFraming::Length),
            b"\0\0\0\x02ab\xff\xff\xff\xff"
        );
    }
}
