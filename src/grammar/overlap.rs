//! Whether two texts that are described without rules may be the same.

use super::automaton::{Automaton, DEAD, State};
use super::expr::{Expr, Rules};
use super::graph::Graph;
use anyhow::{Result, bail};
use std::collections::HashSet;

/// Pairs of states that are looked at.
const MOST_PAIRS: usize = 4_000;

/// Whether some text is both.
///
/// # Errors
/// When that cannot be found out with reasonable effort.
pub fn overlap(a: &Expr, b: &Expr) -> Result<bool> {
    let (mut a, first) = start(a)?;
    let (mut b, second) = start(b)?;
    let (mut seen, mut open): (HashSet<(State, State)>, _) = (HashSet::from([(first, second)]), vec![(first, second)]);
    while let Some((in_a, in_b)) = open.pop() {
        if a.is_complete(in_a) && b.is_complete(in_b) {
            return Ok(true);
        }
        for byte in 0..=u8::MAX {
            let next_a = a.after(in_a, byte)?;
            if next_a == DEAD {
                continue;
            }
            let next = (next_a, b.after(in_b, byte)?);
            if next.1 != DEAD && seen.insert(next) {
                open.push(next);
            }
        }
        if seen.len() > MOST_PAIRS {
            bail!("patterns that are too large to be held against each other");
        }
    }
    Ok(false)
}

fn start(expr: &Expr) -> Result<(Automaton, State)> {
    let rules = Rules { list: vec![("root".to_owned(), expr.clone())], ..Rules::default() };
    Automaton::new(Graph::new(&rules, 0, &|_| bail!("a token"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_overlap_where_one_is_both() {
        let letters = || Expr::chars(&[('a', 'z')]).times(1, None);
        let of = |text: &str| Expr::text(text);
        assert!(overlap(&letters(), &of("abc")).unwrap());
        assert!(!overlap(&letters(), &of("ab1")).unwrap());
        let behind_x = Expr::Sequence(vec![of("x-"), letters()]);
        assert!(!overlap(&behind_x, &letters()).unwrap());
        let either = Expr::Choice(vec![of("y-"), of("x-a")]);
        assert!(overlap(&behind_x, &either).unwrap());
    }
}
