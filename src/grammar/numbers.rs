//! Numbers of JSON within bounds, digit by digit.

use super::decimals::{End, between};
use super::expr::Expr;
use anyhow::{Context, Result, ensure};
use std::fmt::{self, Display};

/// Digits of whole numbers and of fractions: a model that goes on and on with them would never end.
pub(super) const DIGITS: usize = 15;

/// One digit of this range.
pub(super) fn digit(from: u64, to: u64) -> Expr {
    let char = |n: u64| char::from(b'0' + (n % 10) as u8);
    Expr::chars(&[(char(from), char(to))])
}

/// Any whole number.
pub fn integer() -> Expr {
    Expr::Sequence(vec![Expr::text("-").optional(), natural()])
}

fn natural() -> Expr {
    Expr::Choice(vec![Expr::text("0"), Expr::Sequence(vec![digit(1, 9), digit(0, 9).times(0, DIGITS - 1)])])
}

/// The point and what stands behind it.
pub(super) fn fraction() -> Expr {
    Expr::Sequence(vec![Expr::text("."), digit(0, 9).times(1, DIGITS)])
}

/// Any number.
pub fn number() -> Expr {
    let sign = Expr::Choice(vec![Expr::text("+"), Expr::text("-"), Expr::Sequence(vec![])]);
    let exponent =
        Expr::Sequence(vec![Expr::Choice(vec![Expr::text("e"), Expr::text("E")]), sign, digit(0, 9).times(1, 2)]);
    Expr::Sequence(vec![integer(), fraction().optional(), exponent.optional()])
}

/// The largest number of so many digits.
fn nines(digits: usize) -> u64 {
    10u64.pow(digits as u32) - 1
}

/// Numbers of as many digits as both ends have, from one to the other.
fn equally_long(from: u64, to: u64, digits: usize) -> Expr {
    if digits == 0 {
        return Expr::Sequence(vec![]);
    }
    let unit = 10u64.pow(digits as u32 - 1);
    let (first, last) = (from / unit, to / unit);
    let (low, high, rest) = (from % unit, to % unit, digits - 1);
    if first == last {
        return Expr::Sequence(vec![digit(first, first), equally_long(low, high, rest)]);
    }
    let mut options = Vec::new();
    let (mut begin, mut end) = (first, last);
    if low > 0 {
        options.push(Expr::Sequence(vec![digit(first, first), equally_long(low, unit - 1, rest)]));
        begin += 1;
    }
    if high < unit - 1 {
        options.push(Expr::Sequence(vec![digit(last, last), equally_long(0, high, rest)]));
        end -= 1;
    }
    if begin <= end {
        options.push(Expr::Sequence(vec![digit(begin, end), digit(0, 9).times(rest, rest)]));
    }
    Expr::Choice(options)
}

/// The natural numbers from one to another; none where that is less.
pub(super) fn naturals(from: u64, to: u64) -> Option<Expr> {
    let to = to.min(nines(DIGITS));
    let mut options = Vec::new();
    for digits in 1..=DIGITS {
        let least = if digits == 1 { 0 } else { nines(digits - 1) + 1 };
        let (from, to) = (from.max(least), to.min(nines(digits)));
        if from <= to {
            options.push(equally_long(from, to, digits));
        }
    }
    (!options.is_empty()).then_some(Expr::Choice(options))
}

/// Bounds of a number.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The least, and whether it is allowed itself.
    pub least: (f64, bool),
    /// The greatest, and whether it is allowed itself.
    pub most: (f64, bool),
}

impl Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (least, most) = (self.least, self.most);
        let above = if least.1 { "at least" } else { "above" };
        let below = if most.1 { "at most" } else { "below" };
        write!(f, "{above} {} and {below} {}", least.0, most.0)
    }
}

impl Bounds {
    /// No more digits than are written.
    ///
    /// # Errors
    /// When all numbers within have more.
    fn checked(self) -> Result<Self> {
        let limit = nines(DIGITS) as f64;
        let reaches = self.least.0 <= limit && self.most.0 >= -limit;
        ensure!(reaches, "a bound of more than {DIGITS} digits, which is the most that are written, cannot be kept to");
        let clamped = |(bound, included): (f64, bool)| (bound.clamp(-limit, limit), included || bound.is_infinite());
        Ok(Self { least: clamped(self.least), most: clamped(self.most) })
    }

    /// The least and the greatest whole number within; where there is none, the first is greater.
    ///
    /// # Errors
    /// When all numbers within have too many digits.
    pub fn whole(self) -> Result<(i64, i64)> {
        let checked = self.checked()?;
        let next = |(bound, included): (f64, bool), way: f64| {
            if bound.fract() == 0.0 && !included { bound + way } else { bound }
        };
        Ok((next(checked.least, 1.0).ceil() as i64, next(checked.most, -1.0).floor() as i64))
    }

    /// Whole numbers within.
    ///
    /// # Errors
    /// When there are none.
    pub fn integers(self) -> Result<Expr> {
        let (least, most) = self.whole()?;
        ensure!(least <= most, "no whole number is {self}");
        let negative = (least < 0).then(|| naturals((-most).max(1) as u64, least.unsigned_abs())).flatten();
        let positive = (most >= 0).then(|| naturals(least.max(0) as u64, most as u64)).flatten();
        let negative = negative.map(|number| Expr::Sequence(vec![Expr::text("-"), number]));
        Ok(Expr::Choice(negative.into_iter().chain(positive).collect()))
    }

    /// Numbers within, with a fraction or without.
    ///
    /// # Errors
    /// When there are none, and when a bound has too many digits.
    pub fn numbers(self) -> Result<Expr> {
        let Self { least, most } = self.checked()?;
        let end = |(bound, included): (f64, bool)| {
            End::new(bound.abs(), included).with_context(|| {
                format!("a bound of more than {DIGITS} digits, which is the most that are written, cannot be kept to")
            })
        };
        let zero = |included: bool| End { whole: 0, digits: vec![], included };
        let mut options = Vec::new();
        if least.0 < 0.0 {
            // Zero is no negative number.
            let low = if most.0 < 0.0 { end(most)? } else { zero(false) };
            let numbers = between(&low, &end(least)?);
            options.extend(numbers.map(|numbers| Expr::Sequence(vec![Expr::text("-"), numbers])));
        }
        if most.0 >= 0.0 {
            let low = if least.0 >= 0.0 { end(least)? } else { zero(true) };
            options.extend(between(&low, &end(most)?));
        }
        ensure!(!options.is_empty(), "no number is {self}");
        Ok(Expr::Choice(options))
    }
}
