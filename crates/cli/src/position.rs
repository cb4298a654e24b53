//! Places in a partition as people name them.

use comlog_client::StartAt;
use comlog_record::{Offset, Timestamp};

use crate::time;

/// `earliest`, `latest`, an offset, or `@TIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// The log start offset.
    Earliest,
    /// The high watermark.
    Latest,
    /// This offset.
    Offset(i64),
    /// The first record at or after this time, in Unix milliseconds.
    Time(i64),
}

impl Position {
    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Position, String> {
        match text {
            "earliest" => return Ok(Position::Earliest),
            "latest" => return Ok(Position::Latest),
            _ => {}
        }
        if let Some(at) = text.strip_prefix('@') {
            return time::parse(at, time::now_ms()).map(Position::Time);
        }
        text.parse()
            .ok()
            .filter(|&offset| offset >= 0)
            .map(Position::Offset)
            .ok_or_else(|| {
                "use earliest, latest, an offset from 0, or @TIME (@2026-11-23T10:15:00Z, @-15m)"
                    .to_owned()
            })
    }
}

impl Position {
    /// The client's word for it.
    pub(crate) fn start(self) -> StartAt {
        match self {
            Position::Earliest => StartAt::Earliest,
            Position::Latest => StartAt::Latest,
            Position::Offset(offset) => StartAt::Offset(Offset(offset)),
            Position::Time(ms) => StartAt::Timestamp(Timestamp(ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        assert_eq!(Position::parse("earliest"), Ok(Position::Earliest));
        assert_eq!(Position::parse("latest"), Ok(Position::Latest));
        assert_eq!(Position::parse("42"), Ok(Position::Offset(42)));
        assert_eq!(Position::parse("@1000"), Ok(Position::Time(1000)));
        for text in ["", "-1", "@", "@x", "begin", "1.5"] {
            assert!(Position::parse(text).is_err(), "{text}");
        }
    }
}
