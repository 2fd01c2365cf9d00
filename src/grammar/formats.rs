//! Formats of strings: what is written of them, and which strings are of one.

use super::pattern;
use anyhow::Result;
use std::net::Ipv6Addr;

const DATE: &str = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])";
const TIME: &str = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{3})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";

const UUID: &str = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";

/// A number from 0 to 255.
const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// A label of a host's name.
const LABEL: &str = "[a-zA-Z0-9]([-a-zA-Z0-9]{0,28}[a-zA-Z0-9])?";

/// What a format looks like, or a part of all that it allows; those that are not known say something about a text, and no more.
pub fn format(name: &str) -> Option<String> {
    let host = || format!("{LABEL}(\\.{LABEL}){{0,3}}");
    Some(match name {
        "date" => format!("^{DATE}$"),
        "time" => format!("^{TIME}$"),
        "date-time" => format!("^{DATE}T{TIME}$"),
        "uuid" => format!("^{UUID}$"),
        "uuid1" | "uuid2" | "uuid3" | "uuid4" | "uuid5" => {
            let version = &name[4..];
            format!("^[0-9a-fA-F]{{8}}-[0-9a-fA-F]{{4}}-{version}[0-9a-fA-F]{{3}}-[89abAB][0-9a-fA-F]{{3}}-[0-9a-fA-F]{{12}}$")
        }
        "duration" => "^P([0-9]{1,4}W|[0-9]{1,4}Y([0-9]{1,4}M([0-9]{1,4}D)?)?(T[0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?)?|\
             [0-9]{1,4}M([0-9]{1,4}D)?(T[0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?)?|[0-9]{1,4}D(T[0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?)?|\
             T([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S))$"
            .to_owned(),
        "ipv4" => format!("^{BYTE}(\\.{BYTE}){{3}}$"),
        "ipv6" => "^[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4}){7}$".to_owned(),
        "hostname" => format!("^{}$", host()),
        "email" => format!("^[a-zA-Z0-9_+-]{{1,20}}(\\.[a-zA-Z0-9_+-]{{1,20}}){{0,2}}@{}$", host()),
        _ => return None,
    })
}

/// Whether `text` is of a format; any text is of one that is not known.
///
/// # Errors
/// None that is to be expected.
pub fn fits(name: &str, text: &str) -> Result<bool> {
    match name {
        "date" => is_date(text),
        "time" => is_time(text),
        "date-time" => {
            let Some((date, time)) = text.split_once(['T', 't']) else { return Ok(false) };
            Ok(is_date(date)? && is_time(time)?)
        }
        // As many digits as one likes.
        "duration" => pattern::fits(&format(name).unwrap_or_default().replace("{1,4}", "+"), text),
        "ipv6" => Ok(text.parse::<Ipv6Addr>().is_ok()),
        "hostname" => is_host(text),
        "email" => {
            let Some((local, host)) = text.rsplit_once('@') else { return Ok(false) };
            let atom = "[-a-zA-Z0-9!#$%&'*+/=?^_`{|}~]+";
            let is_local = pattern::fits(&format!("^{atom}(\\.{atom})*$"), local)?;
            Ok((is_local || pattern::fits("^\"[^\"]*\"$", local)?)
                && (is_host(host)? || pattern::fits("^\\[[^\\[\\]]+\\]$", host)?))
        }
        name => format(name).map_or(Ok(true), |pattern| pattern::fits(&pattern, text)),
    }
}

fn is_date(text: &str) -> Result<bool> {
    if !pattern::fits(&format!("^{DATE}$"), text)? {
        return Ok(false);
    }
    let part = |from: usize, to: usize| text.get(from..to).and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    let (year, month, day) = (part(0, 4), part(5, 7), part(8, 10));
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    Ok(day <= days)
}

/// With any number of decimals, and with leap seconds.
fn is_time(text: &str) -> Result<bool> {
    const ANY: &str =
        "^([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";
    pattern::fits(ANY, text)
}

fn is_host(text: &str) -> Result<bool> {
    const ANY: &str = "[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?";
    Ok(text.len() <= 253 && pattern::fits(&format!("^{ANY}(\\.{ANY})*$"), text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_of_formats_that_are_written_in_part_only() {
        for (name, good, bad) in [
            ("date", "2024-02-29 2000-12-31", "2023-02-29 1900-02-29 2024-04-31 2024-1-1"),
            ("time", "23:59:60Z 01:02:03.5z 01:02:03.123456+01:00", "24:00:00Z 01:02:03"),
            ("date-time", "2024-02-29T00:00:00Z 2024-02-29t00:00:00.25Z", "2024-02-30T00:00:00Z 2024-02-28"),
            ("duration", "P20000D PT1H", "P P1Y2D"),
            ("ipv6", "::1 fe80::1 1:2:3:4:5:6:7:8 ::ffff:1.2.3.4", "1:2 :::1 1.2.3.4"),
            ("hostname", "a.b.c.d.e.f.g localhost", "-a a-.b a..b"),
            ("email", "o'neill+x@a.b.c.d.e.f \"x\"@[127.0.0.1]", "a@ @b a..b@c a"),
            ("no-such", "anything", ""),
        ] {
            good.split(' ').for_each(|text| assert!(fits(name, text).unwrap(), "{name} {text}"));
            bad.split_terminator(' ').for_each(|text| assert!(!fits(name, text).unwrap(), "{name} {text}"));
        }
    }
}
