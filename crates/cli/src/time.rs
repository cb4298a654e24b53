//! Points in time as people read them.

const DAY_MS: i64 = 86_400_000;

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
        assert_eq!(format(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format(951_825_600_000), "2000-02-29T12:00:00.000Z");
        assert_eq!(format(1_795_428_900_250), "2026-11-23T10:15:00.250Z");
        assert_eq!(format(-1), "1969-12-31T23:59:59.999Z");
    }
}
