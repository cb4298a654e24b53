//! Sizes and spans of time as people write them in a configuration: `64MiB`, `5s`.

/// What configurations write -1 for.
const UNLIMITED: &str = "unlimited";

/// A number, or a number of bytes: `1048576`, `64KiB`, `1MiB`, `2GiB`; `unlimited` is -1.
pub(crate) fn parse_bytes(text: &str) -> Option<i64> {
    parse(text, |unit| match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    })
}

/// A span of time in milliseconds: `250` or `250ms`, `30s`, `15m`, `12h`, `7d`; `unlimited` is -1.
pub(crate) fn parse_milliseconds(text: &str) -> Option<i64> {
    parse(text, |unit| match unit {
        "" | "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    })
}

fn parse(text: &str, factor: impl Fn(&str) -> Option<i64>) -> Option<i64> {
    if text == UNLIMITED {
        return Some(-1);
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let end = digits.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = digits.split_at(end);
    let number: i64 = number.parse().ok()?;
    number
        .checked_mul(factor(unit.trim_start())?)?
        .checked_mul(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_nonsense_is_not() {
        assert_eq!(parse_bytes("64KiB"), Some(64 << 10));
        assert_eq!(parse_bytes("2 GiB"), Some(2 << 30));
        assert_eq!(parse_bytes("unlimited"), Some(-1));
        assert_eq!(parse_milliseconds("-1"), Some(-1));
        assert_eq!(parse_milliseconds("7d"), Some(604_800_000));
        for text in ["", "s", "5 parsecs", "5MB", "9223372036854775807TiB", "--1"] {
            assert_eq!(parse_bytes(text), None, "{text}");
            assert_eq!(parse_milliseconds(text), None, "{text}");
        }
    }
}
