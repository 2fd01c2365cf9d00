//! Decimal numbers between two ends, digit by digit.

use super::digits::{DIGITS, digit, fraction, naturals};
use super::expr::Expr;

/// An end of a range of numbers that are 0 or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What stands before the point.
    pub whole: u64,
    /// The digits behind it, of which the last is none that could be left out.
    pub digits: Vec<u8>,
    /// Whether the number itself is in the range.
    pub included: bool,
}

impl End {
    /// Of a number of 0 or more; `None` where it has more digits than are written.
    pub fn new(number: f64, included: bool) -> Option<Self> {
        // Without exponents, and with as many digits as it takes.
        let text = number.to_string();
        let (whole, digits) = text.split_once('.').unwrap_or((&text, ""));
        let digits: Vec<u8> = digits.trim_end_matches('0').bytes().map(|digit| digit - b'0').collect();
        (whole.len() <= DIGITS && digits.len() <= DIGITS).then_some(())?;
        Some(Self { whole: whole.parse().ok()?, digits, included })
    }
}

/// The numbers from one end to the other, with a fraction or without; `None` where there are none.
pub fn between(low: &End, high: &End) -> Option<Expr> {
    let with = |whole: u64, fraction: Expr| Some(Expr::Sequence(vec![naturals(whole, whole)?, fraction]));
    if low.whole >= high.whole {
        return (low.whole == high.whole).then(|| within(low, high)).flatten().and_then(|f| with(low.whole, f));
    }
    let inner = naturals(low.whole + 1, high.whole - 1);
    let inner = inner.map(|whole| Expr::Sequence(vec![whole, fraction().optional()]));
    let options = [with(low.whole, from(low)), inner, up_to(high).and_then(|f| with(high.whole, f))];
    Some(Expr::Choice(options.into_iter().flatten().collect()))
}

fn any_digits() -> Expr {
    digit(0, 9).times(0, DIGITS)
}

fn zeros(least: usize) -> Expr {
    digit(0, 0).times(least, DIGITS)
}

fn behind_point(digits: Expr) -> Expr {
    Expr::Sequence(vec![Expr::text("."), digits])
}

/// Fractions that are at least that of `low`.
fn from(low: &End) -> Expr {
    match (&low.digits[..], low.included) {
        ([], true) => fraction().optional(),
        (digits, included) => behind_point(digits_from(digits, included)),
    }
}

fn digits_from(low: &[u8], included: bool) -> Expr {
    match low.split_first() {
        None if included => any_digits(),
        None => Expr::Sequence(vec![zeros(0), digit(1, 9), any_digits()]),
        Some((&first, rest)) => {
            let more = (first < 9).then(|| Expr::Sequence(vec![one(first + 1, 9), any_digits()]));
            let same = Expr::Sequence(vec![one(first, first), digits_from(rest, included)]);
            Expr::Choice(more.into_iter().chain([same]).collect())
        }
    }
}

/// Fractions that are at most that of `high`, none among them; `None` where the whole number is too much.
fn up_to(high: &End) -> Option<Expr> {
    if high.digits.is_empty() {
        return high.included.then(|| behind_point(zeros(1)).optional());
    }
    Some(
        digits_to(&high.digits, high.included).map_or(Expr::Sequence(vec![]), |digits| behind_point(digits).optional()),
    )
}

/// One digit or more; `high` has some.
fn digits_to(high: &[u8], included: bool) -> Option<Expr> {
    let (&first, rest) = high.split_first()?;
    let less = (first > 0).then(|| Expr::Sequence(vec![one(0, first - 1), any_digits()]));
    let options: Vec<Expr> = less.into_iter().chain(last_digit(first, rest, included)).collect();
    (!options.is_empty()).then_some(Expr::Choice(options))
}

/// The digit of the upper end, and what may follow it.
fn last_digit(first: u8, rest: &[u8], included: bool) -> Option<Expr> {
    let rest = match rest {
        [] if included => Some(zeros(0)),
        [] => None,
        // What ends here is less.
        rest => Some(digits_to(rest, included).map_or(Expr::Sequence(vec![]), Expr::optional)),
    };
    Some(Expr::Sequence(vec![one(first, first), rest?]))
}

/// Fractions between those of two ends with the same whole number.
fn within(low: &End, high: &End) -> Option<Expr> {
    let included = (low.included, high.included);
    let none = low.digits.is_empty() && low.included && (high.included || !high.digits.is_empty());
    let some = digits_within(&low.digits, &high.digits, included).map(behind_point);
    match some {
        Some(some) => Some(if none { some.optional() } else { some }),
        None => none.then(|| Expr::Sequence(vec![])),
    }
}

/// One digit or more.
fn digits_within(low: &[u8], high: &[u8], included: (bool, bool)) -> Option<Expr> {
    if low.is_empty() && high.is_empty() {
        return (included.0 && included.1).then(|| zeros(1));
    }
    let split = |digits: &'_ [u8]| digits.first().copied().unwrap_or(0);
    let (least, most) = (split(low), split(high));
    let (low, high) = (low.get(1..).unwrap_or_default(), high.get(1..).unwrap_or_default());
    if least > most {
        return None;
    }
    if least == most {
        let may_end = low.is_empty() && included.0 && (included.1 || !high.is_empty());
        let rest = match digits_within(low, high, included) {
            Some(rest) if may_end => rest.optional(),
            Some(rest) => rest,
            None if may_end => Expr::Sequence(vec![]),
            None => return None,
        };
        return Some(Expr::Sequence(vec![one(least, least), rest]));
    }
    let first = Expr::Sequence(vec![one(least, least), digits_from(low, included.0)]);
    let inner = (most - least > 1).then(|| Expr::Sequence(vec![one(least + 1, most - 1), any_digits()]));
    let options = [Some(first), inner, last_digit(most, high, included.1)];
    Some(Expr::Choice(options.into_iter().flatten().collect()))
}

fn one(from: u8, to: u8) -> Expr {
    digit(u64::from(from), u64::from(to))
}
