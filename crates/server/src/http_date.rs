//! The `Date` header. hyper makes one of its own, and panics when the clock shows a time before 1970.

use std::time::Duration;

use axum::http::HeaderValue;

use crate::clock::since_1970;

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// The header has four digits for the year.
const YEAR_MAX: u64 = 9_999;

/// Now, as RFC 9110 section 5.6.7 wants it; `None` (and no header) when the clock shows no year
/// between 1970 and 9999.
pub(crate) fn now() -> Option<HeaderValue> {
    HeaderValue::from_str(&format(since_1970()?)?).ok()
}

fn format(since_1970: Duration) -> Option<String> {
    let (mut days, seconds) = (since_1970.as_secs() / 86_400, since_1970.as_secs() % 86_400);
    let weekday = WEEKDAYS[(days % 7) as usize];
    let mut year = 1970;
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
        if year > YEAR_MAX {
            return None;
        }
    }
    let february = days_of(year) - 337;
    let mut month = 0;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    Some(format!(
        "{weekday}, {:02} {} {year} {:02}:{:02}:{:02} GMT",
        days + 1,
        MONTHS[month],
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
    ))
}

fn days_of(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    365 + u64::from(leap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_standard_does() {
        for (seconds, written) in [
            (0, Some("Thu, 01 Jan 1970 00:00:00 GMT")),
            (784_111_777, Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            (951_782_400, Some("Tue, 29 Feb 2000 00:00:00 GMT")),
            (951_868_800, Some("Wed, 01 Mar 2000 00:00:00 GMT")),
            (4_107_542_399, Some("Sun, 28 Feb 2100 23:59:59 GMT")),
            (4_107_542_400, Some("Mon, 01 Mar 2100 00:00:00 GMT")),
            (253_402_300_799, Some("Fri, 31 Dec 9999 23:59:59 GMT")),
            (253_402_300_800, None),
            (u64::MAX, None),
        ] {
            let found = format(Duration::from_secs(seconds));
            assert_eq!(found.as_deref(), written, "{seconds}");
        }
    }
}
