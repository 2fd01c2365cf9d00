//! Dates in English from seconds since 1970, for templates that ask for the date.

/// Formats seconds since 1970, UTC, in English. Knows `%Y %y %m %d %e %j %B %b %A %a %H %I %M %S %p %%` and
/// their forms without padding (`%-d`); `None` where the format has any other.
pub(super) fn strftime(unix_seconds: u64, format: &str) -> Option<String> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    // 1970-01-01 was a Thursday.
    const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (year, month, day, day_of_year) = civil_date(days);
    let month_name = MONTHS[month - 1];
    let weekday = WEEKDAYS[(days % 7) as usize];

    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let padded = directive != Some('-');
        if !padded {
            directive = chars.next();
        }
        let (number, width) = match directive {
            Some('Y') => (year, 4),
            Some('y') => (year % 100, 2),
            Some('m') => (month as u64, 2),
            Some('d') => (day, 2),
            Some('e') => {
                out += &if padded { format!("{day:2}") } else { day.to_string() };
                continue;
            }
            Some('j') => (day_of_year, 3),
            Some('H') => (hour, 2),
            Some('I') => ((hour + 11) % 12 + 1, 2),
            Some('M') => (minute, 2),
            Some('S') => (second % 60, 2),
            text => {
                out += match text {
                    Some('B') => month_name,
                    Some('b') => &month_name[..3],
                    Some('A') => weekday,
                    Some('a') => &weekday[..3],
                    Some('p') => {
                        if hour < 12 {
                            "AM"
                        } else {
                            "PM"
                        }
                    }
                    Some('%') => "%",
                    _ => return None,
                };
                continue;
            }
        };
        let width = if padded { width } else { 0 };
        out += &format!("{number:0width$}");
    }
    Some(out)
}

/// Year, month 1..=12, day 1.. and day of the year 1.. of a day counted from 1970-01-01.
fn civil_date(mut days: u64) -> (u64, usize, u64, u64) {
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970 + days / DAYS_PER_400_YEARS * 400;
    days %= DAYS_PER_400_YEARS;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let day_of_year = days + 1;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1, day_of_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_c_library() {
        // Expected by `TZ=UTC LC_ALL=C date -d @SECONDS +FORMAT`.
        let format = "%Y-%m-%d %H:%M:%S %y %j %A %a %B %b %e %I %p %-d %-m %%";
        let cases = [
            (0, "1970-01-01 00:00:00 70 001 Thursday Thu January Jan  1 12 AM 1 1 %"),
            (951_782_400, "2000-02-29 00:00:00 00 060 Tuesday Tue February Feb 29 12 AM 29 2 %"),
            (1_735_689_599, "2024-12-31 23:59:59 24 366 Tuesday Tue December Dec 31 11 PM 31 12 %"),
            (4_107_542_400, "2100-03-01 00:00:00 00 060 Monday Mon March Mar  1 12 AM 1 3 %"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(strftime(seconds, format).as_deref(), Some(expected));
        }
        assert_eq!([strftime(0, "%Q"), strftime(0, "%")], [None, None]);
    }
}
