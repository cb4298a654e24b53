//! Sizes and spans of time as people write them: `64MiB`, `7d`.

use std::time::Duration;

/// Reads a number of bytes: `1048576`, `1MiB`, `64KiB`, `2GiB`; `K`, `M`, `G`, `T` alone mean the same.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let error = || {
        format!("{text:?} is not a size: use a number of bytes, or KiB, MiB, GiB, TiB behind it")
    };
    let (number, unit) = split_unit(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(1 << shift).ok_or_else(error)
}

/// As [`parse_bytes`], for fields of 32 bits.
pub(crate) fn parse_u32(text: &str) -> Result<u32, String> {
    u32::try_from(parse_bytes(text)?).map_err(|_| format!("{text} is too large, at most 4GiB - 1"))
}

/// As [`parse_bytes`]; `unlimited` is -1.
pub(crate) fn parse_bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "unlimited" {
        return Ok(-1);
    }
    i64::try_from(parse_bytes(text)?).map_err(|_| format!("{text} is too large"))
}

/// Reads a span of time: `250ms`, `30s`, `15m`, `12h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is not a span of time: use ms, s, m, h or d behind a number");
    let (number, unit) = split_unit(text);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(error)
}

/// As [`parse_duration`], in milliseconds; `unlimited` is -1.
pub(crate) fn parse_ms_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "unlimited" {
        return Ok(-1);
    }
    i64::try_from(parse_duration(text)?.as_millis()).map_err(|_| format!("{text} is too long"))
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse_bytes("10"), Ok(10));
        assert_eq!(parse_bytes("64KiB"), Ok(64 << 10));
        assert_eq!(parse_bytes("2g"), Ok(2 << 30));
        assert_eq!(parse_bytes_or_unlimited("unlimited"), Ok(-1));
        for text in [
            "",
            "MiB",
            "1 MiB",
            "-1",
            "1MB",
            "99999999999999999999",
            "18446744073709551615KiB",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_need_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_ms_or_unlimited("7d"), Ok(604_800_000));
        for text in ["", "5", "s", "-5s", "5y", "18446744073709551615d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
