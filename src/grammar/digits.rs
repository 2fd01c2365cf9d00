//! Digits, and the whole numbers and fractions that are made of them.

use super::expr::Expr;

/// Digits of whole numbers and of fractions: a model that goes on and on with them would never end.
pub const DIGITS: usize = 15;

/// One digit of this range.
pub fn digit(from: u64, to: u64) -> Expr {
    let char = |n: u64| char::from(b'0' + (n % 10) as u8);
    Expr::chars(&[(char(from), char(to))])
}

/// The point and what stands behind it.
pub fn fraction() -> Expr {
    Expr::Sequence(vec![Expr::text("."), digit(0, 9).times(1, DIGITS)])
}

/// The largest number of so many digits.
pub fn nines(digits: usize) -> u64 {
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
pub fn naturals(from: u64, to: u64) -> Option<Expr> {
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
