//! Dates in English from seconds since 1970, for templates that ask for the date.

use std::time::{SystemTime, UNIX_EPOCH};

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
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The present time in UTC, to the second, as in RFC 3339.
pub fn utc_now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    strftime(now.as_secs(), "%Y-%m-%dT%H:%M:%SZ").unwrap_or_default()
}

/// Formats seconds since 1970, UTC, in English, as Python formats a time without a zone (`%z` and `%Z` are empty). Knows
/// the directives of the C library but for alternative forms (`%E`, `%O`), and GNU's marks for padding (`%-d`); `None`
/// where the format has any other.
pub(super) fn strftime(unix_seconds: u64, format: &str) -> Option<String> {
    let time = Time::new(unix_seconds);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next()?;
        let mark = Some(directive).filter(|c| matches!(c, '-' | '_' | '0'));
        if mark.is_some() {
            directive = chars.next()?;
        }
        if let Some(longer) = composed(directive) {
            out += &strftime(unix_seconds, longer)?;
        } else if let Some((number, width, fill)) = time.number(directive) {
            out += &match (mark, fill) {
                (Some('-'), _) => number.to_string(),
                (Some('_'), _) | (None, ' ') => format!("{number:width$}"),
                _ => format!("{number:0width$}"),
            };
        } else {
            out += time.text(directive)?;
        }
    }
    Some(out)
}

/// What a directive stands for that consists of others.
fn composed(directive: char) -> Option<&'static str> {
    Some(match directive {
        'c' => "%a %b %e %H:%M:%S %Y",
        'D' | 'x' => "%m/%d/%y",
        'F' => "%Y-%m-%d",
        'r' => "%I:%M:%S %p",
        'R' => "%H:%M",
        'T' | 'X' => "%H:%M:%S",
        _ => return None,
    })
}

struct Time {
    unix_seconds: u64,
    year: u64,
    month: usize,
    day: u64,
    day_of_year: u64,
    /// From Sunday.
    weekday: u64,
}

impl Time {
    fn new(unix_seconds: u64) -> Self {
        let days = unix_seconds / 86_400;
        let (year, month, day, day_of_year) = civil_date(days);
        // 1970-01-01 was a Thursday.
        Self { unix_seconds, year, month, day, day_of_year, weekday: (days + 4) % 7 }
    }

    fn hour(&self) -> u64 {
        self.unix_seconds % 86_400 / 3600
    }

    /// A number with the width that it is padded to, and what with.
    fn number(&self, directive: char) -> Option<(u64, usize, char)> {
        let hour = self.hour();
        let from_monday = (self.weekday + 6) % 7;
        let (number, width) = match directive {
            'Y' => (self.year, 1),
            'C' => (self.year / 100, 2),
            'y' => (self.year % 100, 2),
            'G' => (self.thursday().0, 1),
            'g' => (self.thursday().0 % 100, 2),
            'V' => ((self.thursday().3 - 1) / 7 + 1, 2),
            'U' => ((self.day_of_year + 6 - self.weekday) / 7, 2),
            'W' => ((self.day_of_year + 6 - from_monday) / 7, 2),
            'm' => (self.month as u64, 2),
            'd' => (self.day, 2),
            'e' => return Some((self.day, 2, ' ')),
            'j' => (self.day_of_year, 3),
            'u' => (from_monday + 1, 1),
            'w' => (self.weekday, 1),
            'H' => (hour, 2),
            'k' => return Some((hour, 2, ' ')),
            'I' => ((hour + 11) % 12 + 1, 2),
            'l' => return Some(((hour + 11) % 12 + 1, 2, ' ')),
            'M' => (self.unix_seconds / 60 % 60, 2),
            'S' => (self.unix_seconds % 60, 2),
            'f' => (0, 6),
            's' => (self.unix_seconds, 1),
            _ => return None,
        };
        Some((number, width, '0'))
    }

    /// The date of the Thursday in the week, which begins on Monday. Before 1970 there is no date; its first days belong
    /// to a week whose Thursday is in it.
    fn thursday(&self) -> (u64, usize, u64, u64) {
        civil_date(self.unix_seconds / 86_400 + 3 - (self.weekday + 6) % 7)
    }

    fn text(&self, directive: char) -> Option<&'static str> {
        let month = MONTHS[self.month - 1];
        let weekday = WEEKDAYS[self.weekday as usize];
        Some(match directive {
            'B' => month,
            'b' | 'h' => &month[..3],
            'A' => weekday,
            'a' => &weekday[..3],
            'p' if self.hour() < 12 => "AM",
            'p' => "PM",
            'P' if self.hour() < 12 => "am",
            'P' => "pm",
            'z' | 'Z' => "",
            'n' => "\n",
            't' => "\t",
            '%' => "%",
            _ => return None,
        })
    }
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
        assert_eq!([strftime(0, "%Q"), strftime(0, "%"), strftime(0, "%-")], [None, None, None]);
    }

    #[test]
    fn rare_directives_agree_with_python() {
        // Expected by `datetime.fromtimestamp(SECONDS, timezone.utc).replace(tzinfo=None).strftime(FORMAT)`, but for %s.
        let format = "%F %T|%D %R %r|%c|%x %X|%z%Z|%s|%C %G %g %V %U %W %u %w|%k %l %P %_d %0e %h|%n%t|%f";
        let cases = [
            (
                0,
                "1970-01-01 00:00:00|01/01/70 00:00 12:00:00 AM|Thu Jan  1 00:00:00 1970|01/01/70 00:00:00||0|19 1970 70 01 00 00 4 4| 0 12 am  1 01 Jan|\n\t|000000",
            ),
            (
                951782400,
                "2000-02-29 00:00:00|02/29/00 00:00 12:00:00 AM|Tue Feb 29 00:00:00 2000|02/29/00 00:00:00||951782400|20 2000 00 09 09 09 2 2| 0 12 am 29 29 Feb|\n\t|000000",
            ),
            (
                1735689599,
                "2024-12-31 23:59:59|12/31/24 23:59 11:59:59 PM|Tue Dec 31 23:59:59 2024|12/31/24 23:59:59||1735689599|20 2025 25 01 52 53 2 2|23 11 pm 31 31 Dec|\n\t|000000",
            ),
            (
                4107542400,
                "2100-03-01 00:00:00|03/01/00 00:00 12:00:00 AM|Mon Mar  1 00:00:00 2100|03/01/00 00:00:00||4107542400|21 2100 00 09 09 09 1 1| 0 12 am  1 01 Mar|\n\t|000000",
            ),
            (
                1609459200,
                "2021-01-01 00:00:00|01/01/21 00:00 12:00:00 AM|Fri Jan  1 00:00:00 2021|01/01/21 00:00:00||1609459200|20 2020 20 53 00 00 5 5| 0 12 am  1 01 Jan|\n\t|000000",
            ),
            (
                1230768000,
                "2009-01-01 00:00:00|01/01/09 00:00 12:00:00 AM|Thu Jan  1 00:00:00 2009|01/01/09 00:00:00||1230768000|20 2009 09 01 00 00 4 4| 0 12 am  1 01 Jan|\n\t|000000",
            ),
            (
                1264947323,
                "2010-01-31 14:15:23|01/31/10 14:15 02:15:23 PM|Sun Jan 31 14:15:23 2010|01/31/10 14:15:23||1264947323|20 2010 10 04 05 04 7 0|14  2 pm 31 31 Jan|\n\t|000000",
            ),
        ];
        for (seconds, expected) in cases {
            assert_eq!(strftime(seconds, format).as_deref(), Some(expected));
        }
    }
}
