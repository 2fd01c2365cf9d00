//! Multiples of a number, digit by digit.

use super::digits::{DIGITS, digit};
use super::expr::{Expr, Rules};
use super::json::Json;
use super::numbers::{Bounds, integer};
use anyhow::{Result, bail, ensure};

/// Numbers whose multiples are known by what is left of them.
const MOST: u64 = 100;
/// Multiples within bounds that are written one by one.
const MOST_WRITTEN: i64 = 1000;
/// Digits behind the point of what is no whole number.
const MOST_DECIMALS: u32 = 4;

/// What a number must be a multiple of: a whole number, or a part of one of which a whole number makes 1.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Whole(u64),
    /// So many of the units of so many decimals.
    Part(u64, u32),
}

fn step(of: f64) -> Option<Step> {
    if of >= 1.0 && of.fract() == 0.0 && of <= 1e15 {
        return Some(Step::Whole(of as u64));
    }
    (1..=MOST_DECIMALS).find_map(|decimals| {
        let (units, one) = (of * f64::from(10u32.pow(decimals)), 10u64.pow(decimals));
        let whole = units.round();
        let is = whole >= 1.0 && (units - whole).abs() < 1e-9 && one.is_multiple_of(whole as u64);
        is.then_some(Step::Part(whole as u64, decimals))
    })
}

/// Whether a number is a multiple of another, both as they are written in decimals; `None` where they have too many digits to tell.
pub fn is_multiple(number: &Json, of: &Json) -> Option<bool> {
    let digits = |number: &Json| {
        // Whole numbers have all their digits so; others are written without exponents.
        let text = number.written();
        let is_whole = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        Some(if is_whole { text } else { number.number()?.to_string() })
    };
    let (number, of) = (digits(number)?, digits(of)?);
    let decimals = |text: &str| text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let most = decimals(&number).max(decimals(&of));
    let units = |text: &str| format!("{}{}", text.replace('.', ""), "0".repeat(most - decimals(text))).parse::<i128>();
    units(&number).ok()?.checked_rem(units(&of).ok()?).map(|rest| rest == 0)
}

/// Multiples of `of` within `bounds`, whole ones where that is asked for.
///
/// # Errors
/// When they cannot be written digit by digit, which says what helps.
pub fn multiples(of: f64, bounds: Option<Bounds>, whole: bool, rules: &mut Rules) -> Result<Expr> {
    ensure!(of > 0.0, "multipleOf must be more than 0");
    let help = "multipleOf is known of whole numbers up to 100 (of others with minimum and maximum), and of 0.5, 0.25, 0.1, 0.01 and the like";
    match (step(of), bounds) {
        (Some(Step::Whole(1)), _) | (Some(Step::Part(..)), _) if whole => match bounds {
            Some(bounds) => bounds.integers(),
            None => Ok(integer()),
        },
        (Some(Step::Whole(n)), Some(bounds)) => within(n, bounds, help),
        (Some(Step::Whole(n)), None) => {
            ensure!(n <= MOST, "{help}");
            Ok(Expr::Sequence(vec![Expr::text("-").optional(), by_rest(n, rules)]))
        }
        (Some(Step::Part(units, decimals)), None) => Ok(with_decimals(units, decimals)),
        (Some(Step::Part(..)), Some(_)) => {
            bail!("multipleOf {of} beside bounds cannot be kept to; leave out either of them")
        }
        (None, _) => bail!("{help}"),
    }
}

/// One by one.
fn within(n: u64, bounds: Bounds, help: &str) -> Result<Expr> {
    let (least, most) = bounds.whole()?;
    let n = n as i64;
    let first = least.div_euclid(n) + i64::from(least.rem_euclid(n) != 0);
    let last = most.div_euclid(n);
    ensure!(first <= last, "no multiple of {n} is {bounds}");
    ensure!(last - first < MOST_WRITTEN, "{help}; here there are more than {MOST_WRITTEN}");
    Ok(Expr::Choice((first..=last).map(|times| Expr::text(&(times * n).to_string())).collect()))
}

/// Natural numbers, by what is left of the digits so far when they are divided.
fn by_rest(n: u64, rules: &mut Rules) -> Expr {
    // From the last digit on; behind it nothing more comes.
    let mut next: Vec<Option<Expr>> = vec![None; n as usize];
    for digits in (1..=DIGITS).rev() {
        let rest_of = |rest: u64, next: &[Option<Expr>]| {
            let mut options = Vec::new();
            options.extend((rest == 0).then(|| Expr::Sequence(vec![])));
            options.extend(further(0, rest, n, next));
            (!options.is_empty()).then_some(Expr::Choice(options))
        };
        next = (0..n)
            .map(|rest| {
                rest_of(rest, &next).map(|expr| rules.add(format!("a multiple of {n}, behind {digits} digits"), expr))
            })
            .collect();
    }
    Expr::Choice([Expr::text("0")].into_iter().chain(further(1, 0, n, &next)).collect())
}

/// A digit from `least` on behind what leaves `rest`, and what may follow it.
fn further<'a>(least: u64, rest: u64, n: u64, next: &'a [Option<Expr>]) -> impl Iterator<Item = Expr> + use<'a> {
    (least..=9).filter_map(move |of| {
        let then = next[((rest * 10 + of) % n) as usize].clone()?;
        Some(Expr::Sequence(vec![digit(of, of), then]))
    })
}

/// Whole numbers with a fraction that is a multiple, or none.
fn with_decimals(units: u64, decimals: u32) -> Expr {
    let one = 10u64.pow(decimals);
    let fractions = (1..one / units).flat_map(|times| {
        let digits = format!("{:0width$}", times * units, width = decimals as usize);
        let shortest = digits.trim_end_matches('0').len();
        (shortest..=digits.len()).map(move |len| digits[..len].to_owned()).collect::<Vec<_>>()
    });
    let mut all: Vec<String> = fractions.chain((1..=decimals as usize).map(|n| "0".repeat(n))).collect();
    all.sort_unstable();
    all.dedup();
    let fraction = if units == 1 {
        digit(0, 9).times(1, decimals as usize)
    } else {
        Expr::Choice(all.iter().map(|digits| Expr::text(digits)).collect())
    };
    Expr::Sequence(vec![integer(), Expr::Sequence(vec![Expr::text("."), fraction]).optional()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_are_found() {
        assert_eq!(step(5.0), Some(Step::Whole(5)));
        assert_eq!(step(0.01), Some(Step::Part(1, 2)));
        assert_eq!(step(0.5), Some(Step::Part(5, 1)));
        assert_eq!(step(0.25), Some(Step::Part(25, 2)));
        assert_eq!(step(0.3), None);
        assert_eq!(step(1.5), None);
    }

    #[test]
    fn numbers_are_multiples_as_they_are_written() {
        let is = |number: &str, of: &str| {
            let [number, of] = [number, of].map(|text| serde_json::from_str::<Json>(text).unwrap());
            is_multiple(&number, &of)
        };
        for (number, of) in [("0.3", "0.1"), ("-1.15", "0.05"), ("7.5", "1.5"), ("0", "3"), ("1e3", "8"), ("14.0", "7")]
        {
            assert_eq!(is(number, of), Some(true), "{number} {of}");
        }
        for (number, of) in [("0.35", "0.1"), ("1", "1.5"), ("9007199254740993", "2"), ("1e-3", "0.01")] {
            assert_eq!(is(number, of), Some(false), "{number} {of}");
        }
        assert_eq!(is("1e300", "3"), None);
        assert_eq!(is("1", "0"), None);
    }
}
