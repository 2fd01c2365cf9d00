//! Sizes with their unit in the type, printed the way people read them.

use anyhow::{Result, bail, ensure};
use std::fmt;
use std::str::FromStr;

/// A number of bytes. Displays in binary units (`3.53 GiB`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.2} {}", UNITS[unit])
    }
}

/// Units that a size may be given in, in lower case.
const SIZES: [(&str, u64); 10] = [
    ("b", 1),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("bytes", 1),
];

impl FromStr for Bytes {
    type Err = anyhow::Error;

    /// Reads `8GiB`, `8 GB`, `1.5gib`: a positive decimal number with a unit, in any case. `GB` is 10^9 bytes and `GiB`
    /// 2^30. What may mean either (`8G`, `8`) is refused. Fractions of a byte are dropped.
    fn from_str(text: &str) -> Result<Self> {
        let shown: String = text.chars().take(40).collect();
        let trimmed = text.trim();
        ensure!(!trimmed.is_empty(), "a size is missing; write one such as 8GiB or 8GB");
        ensure!(!trimmed.starts_with('-'), "size \"{shown}\" is negative");
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..digits], trimmed[digits..].trim_start().to_ascii_lowercase());
        let whole = number.bytes().any(|b| b.is_ascii_digit()) && number.matches('.').count() <= 1;
        ensure!(whole && number.len() <= 20, "size \"{shown}\" is not a number with a unit, such as 8GiB or 8GB");
        let Some((_, factor)) = SIZES.iter().find(|(name, _)| *name == unit) else {
            let prefix = matches!(unit.as_str(), "k" | "m" | "g" | "t");
            ensure!(
                !prefix,
                "size \"{shown}\" can mean {number}{0}B or {number}{0}iB; write one or the other",
                unit.to_uppercase()
            );
            ensure!(!unit.is_empty(), "size \"{shown}\" has no unit; write it with one, such as 8GiB or 8GB");
            bail!("size \"{shown}\": unit \"{unit}\" is not known; B, KB, MB, GB, TB and KiB, MiB, GiB, TiB are");
        };
        // Whole numbers stay exact; a fraction is worth the 53 bits of a float.
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole = if whole.is_empty() { Some(0) } else { whole.parse::<u64>().ok() };
        let part = format!("0.{fraction}0").parse::<f64>().unwrap_or(0.0) * *factor as f64;
        let bytes = whole.and_then(|n| n.checked_mul(*factor)?.checked_add(part as u64));
        let Some(bytes) = bytes.filter(|n| *n <= 1 << 60) else { bail!("size \"{shown}\" is too large") };
        ensure!(bytes > 0, "size \"{shown}\" is zero; it must be more than that");
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_and_binary_units_differ_and_both_work() {
        let size = |text: &str| text.parse::<Bytes>().unwrap().0;
        assert_eq!(size("8GB"), 8_000_000_000);
        assert_eq!(size("8GiB"), 8 << 30);
        assert_eq!(size("1.5 gib"), 3 << 29);
        assert_eq!(size("512MiB"), 512 << 20);
        assert_eq!(size(" 700 mb "), 700_000_000);
        assert_eq!((size("3KB"), size("3KiB"), size("2TB"), size("17B")), (3000, 3072, 2_000_000_000_000, 17));
        assert_eq!(size(".5KiB"), 512);
    }

    #[test]
    fn what_is_no_size_is_refused_by_name() {
        for (text, says) in [
            ("", "missing"),
            ("  ", "missing"),
            ("-1GB", "\"-1GB\" is negative"),
            ("0", "no unit"),
            ("0GB", "\"0GB\" is zero"),
            ("0.1B", "is zero"),
            ("8", "no unit"),
            ("8G", "8GB or 8GiB"),
            ("8 gigs", "\"gigs\" is not known"),
            ("GiB", "not a number"),
            ("1.2.3GB", "not a number"),
            ("1e3GB", "not known"),
            ("nan", "not a number"),
            ("8GiBs", "not known"),
            ("99999999999TB", "too large"),
            ("99999999999999999999999GB", "not a number"),
        ] {
            let error = text.parse::<Bytes>().unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn bytes_are_shown_in_binary_units() {
        assert_eq!(Bytes(0).to_string(), "0 B");
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(1536).to_string(), "1.50 KiB");
        assert_eq!(Bytes(8 << 30).to_string(), "8.00 GiB");
        assert_eq!(Bytes(u64::MAX).to_string(), "16384.00 PiB");
    }
}
