//! Points in time as people write them: Unix milliseconds, RFC 3339 in UTC, or "so long ago".

use std::time::{SystemTime, UNIX_EPOCH};

const DAY_MS: i64 = 86_400_000;

/// Now, in Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Reads `1764000000000`, `2026-11-23`, `2026-11-23T10:15:00Z`, `2026-11-23T10:15:00.250Z`, or
/// `-90s`, `-15m`, `-2h`, `-7d` (before `now_ms`).
pub(crate) fn parse(text: &str, now_ms: i64) -> Result<i64, String> {
    let error = || {
        format!(
            "{text:?} is not a time: use Unix milliseconds, 2026-11-23T10:15:00Z, or -15m (s, m, h, d)"
        )
    };
    if let Some(ago) = text.strip_prefix('-') {
        return parse_span(ago)
            .and_then(|span| now_ms.checked_sub(span))
            .ok_or_else(error);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| error());
    }
    parse_rfc3339(text).ok_or_else(error)
}

fn parse_span(text: &str) -> Option<i64> {
    let unit = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => DAY_MS,
        _ => return None,
    };
    text[..text.len() - 1]
        .parse::<u32>()
        .ok()
        .and_then(|count| i64::from(count).checked_mul(unit))
}

fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00Z"));
    let [year, month, day] = numbers(date, '-')?;
    let (clock, fraction) = match time.strip_suffix('Z')?.split_once('.') {
        Some((clock, fraction)) => (clock, milliseconds(fraction)?),
        None => (time.strip_suffix('Z')?, 0),
    };
    let [hour, minute, second] = numbers(clock, ':')?;
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let seconds = (hour * 60 + minute) * 60 + second;
    valid.then(|| days_from_civil(year, month, day) * DAY_MS + seconds * 1000 + fraction)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| {
        let digits =
            !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    });
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

fn milliseconds(fraction: &str) -> Option<i64> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<3}")[..3].parse().ok()
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let next = if month == 12 {
        days_from_civil(year + 1, 1, 1)
    } else {
        days_from_civil(year, month + 1, 1)
    };
    next - days_from_civil(year, month, 1)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that
/// a leap day is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Unix milliseconds as `2026-11-23T10:15:00.250Z`.
pub(crate) fn format(ms: i64) -> String {
    let days = ms.div_euclid(DAY_MS);
    let clock = ms.rem_euclid(DAY_MS);
    let (year, month, day) = civil_from_days(days);
    let (seconds, fraction) = (clock / 1000, clock % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    // 146,097 days are 400 years; the estimate is at most two years early.
    let mut year = 1969 + (days * 400).div_euclid(146_097);
    while days_from_civil(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (2..=12)
        .rev()
        .find(|&month| days_from_civil(year, month, 1) <= days)
        .unwrap_or(1);
    (year, month, days - days_from_civil(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(parse("1970-01-01T00:00:00Z", 0), Ok(0));
        assert_eq!(parse("2000-02-29T12:00:00Z", 0), Ok(951_825_600_000));
        assert_eq!(parse("2026-11-23 10:15:00.25Z", 0), Ok(1_795_428_900_250));
        assert_eq!(parse("2026-11-23", 0), Ok(1_795_392_000_000));
        assert_eq!(parse("1764000000000", 0), Ok(1_764_000_000_000));
        assert_eq!(parse("-2h", 10_000_000), Ok(2_800_000));
    }

    #[test]
    fn what_is_formatted_is_parsed_back() {
        for ms in (-3_000..30_000).map(|step| step * 83_333_333 + 7) {
            let text = format(ms);
            if ms >= 0 {
                assert_eq!(parse(&text, 0), Ok(ms), "{text}");
            }
        }
        assert_eq!(format(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "-",
            "-5",
            "-5y",
            "2026-13-01",
            "2026-02-29",
            "2026-11-23T24:00:00Z",
            "2026-11-23T10:15:00",
            "x",
        ] {
            assert!(parse(text, 0).is_err(), "{text}");
        }
    }
}
