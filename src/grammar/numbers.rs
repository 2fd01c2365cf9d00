//! Numbers of JSON within bounds, digit by digit.

use super::decimals::{End, between};
use super::digits::{DIGITS, digit, fraction, naturals, nines};
use super::expr::Expr;
use anyhow::{Context, Result, ensure};
use std::fmt::{self, Display};

/// Any whole number.
pub fn integer() -> Expr {
    Expr::Sequence(vec![Expr::text("-").optional(), natural()])
}

fn natural() -> Expr {
    Expr::Choice(vec![Expr::text("0"), Expr::Sequence(vec![digit(1, 9), digit(0, 9).times(0, DIGITS - 1)])])
}

/// Any number.
pub fn number() -> Expr {
    let sign = Expr::Choice(vec![Expr::text("+"), Expr::text("-"), Expr::Sequence(vec![])]);
    let exponent =
        Expr::Sequence(vec![Expr::Choice(vec![Expr::text("e"), Expr::text("E")]), sign, digit(0, 9).times(1, 2)]);
    Expr::Sequence(vec![integer(), fraction().optional(), exponent.optional()])
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
