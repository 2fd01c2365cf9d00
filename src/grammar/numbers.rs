//! Numbers of JSON within bounds, digit by digit.

use super::expr::Expr;
use anyhow::{Result, ensure};

/// Digits of whole numbers and of fractions: a model that goes on and on with them would never end.
pub const DIGITS: usize = 15;

/// One digit of this range.
pub fn digit(from: u64, to: u64) -> Expr {
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

fn fraction() -> Expr {
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
fn naturals(from: u64, to: u64) -> Option<Expr> {
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

/// Bounds of a number, both ends included.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The least.
    pub least: f64,
    /// The greatest.
    pub most: f64,
}

impl Bounds {
    /// The whole numbers within.
    pub fn whole(self) -> (i64, i64) {
        // No more digits than are written.
        let limit = nines(DIGITS) as f64;
        (self.least.ceil().clamp(-limit, limit) as i64, self.most.floor().clamp(-limit, limit) as i64)
    }

    /// Whole numbers within.
    ///
    /// # Errors
    /// When there are none.
    pub fn integers(self) -> Result<Expr> {
        let (least, most) = self.whole();
        ensure!(
            self.least.ceil() <= self.most.floor(),
            "no whole number is at least {} and at most {}",
            self.least,
            self.most
        );
        let negative = (least < 0).then(|| naturals((-most).max(1) as u64, least.unsigned_abs())).flatten();
        let positive = (most >= 0).then(|| naturals(least.max(0) as u64, most as u64)).flatten();
        let negative = negative.map(|number| Expr::Sequence(vec![Expr::text("-"), number]));
        Ok(Expr::Choice(negative.into_iter().chain(positive).collect()))
    }

    /// Numbers between the whole numbers within, with a fraction or without.
    ///
    /// # Errors
    /// When there is no whole number within.
    pub fn numbers(self) -> Result<Expr> {
        let mut options = vec![self.integers()?];
        let (least, most) = self.whole();
        if most > 0
            && let Some(number) = naturals(least.max(0) as u64, most as u64 - 1)
        {
            options.push(Expr::Sequence(vec![number, fraction()]));
        }
        if least < 0
            && let Some(number) = naturals((-most).max(0) as u64, least.unsigned_abs() - 1)
        {
            options.push(Expr::Sequence(vec![Expr::text("-"), number, fraction()]));
        }
        Ok(Expr::Choice(options))
    }
}
