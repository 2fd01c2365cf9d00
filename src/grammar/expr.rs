//! What a grammar is made of, whichever language it was written in.

use std::collections::BTreeSet;

/// Any scalar value of Unicode that is none of the surrogates.
const ALL: [(u32, u32); 2] = [(0, 0xd7ff), (0xe000, 0x0010_ffff)];

/// Characters, as ranges of code points with both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chars(pub Vec<(u32, u32)>);

impl Chars {
    /// All of these.
    pub fn of(ranges: &[(char, char)]) -> Self {
        Self(ranges.iter().map(|(from, to)| (u32::from(*from), u32::from(*to))).collect())
    }

    /// Every character.
    pub fn any() -> Self {
        Self(ALL.to_vec())
    }

    /// The same in order and apart, without what is no character.
    pub fn normal(&self) -> Self {
        let clipped = |(from, to): (u32, u32)| ALL.map(|(least, most)| (from.max(least), to.min(most)));
        let mut ranges: Vec<_> = self.0.iter().copied().flat_map(clipped).filter(|(from, to)| from <= to).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }

    /// All other characters.
    pub fn others(&self) -> Self {
        let mut ranges = Vec::new();
        let mut next = 0;
        for (from, to) in self.normal().0 {
            if from > next {
                ranges.push((next, from - 1));
            }
            next = to + 1;
        }
        ranges.push((next, u32::MAX));
        Self(ranges).normal()
    }

    /// Those that are in both.
    pub fn and(&self, other: &Self) -> Self {
        let mut outside = self.others();
        outside.0.extend(other.others().0);
        outside.others()
    }
}

/// A text, or several one after another.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// One of these characters.
    Chars(Chars),
    /// All of these in turn; none is the empty text.
    Sequence(Vec<Expr>),
    /// One of these.
    Choice(Vec<Expr>),
    /// At least and at most so many of the same.
    Repeat(Box<Expr>, usize, Option<usize>),
    /// What the rule of that number says.
    Rule(usize),
    /// The token of that id, or any other.
    Token(TokenName, bool),
}

/// A token that a grammar names.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenName {
    /// By its id.
    Id(u32),
    /// By its text.
    Text(String),
}

impl Expr {
    /// Just this text.
    pub fn text(text: &str) -> Self {
        Self::Sequence(text.chars().map(|c| Self::Chars(Chars::of(&[(c, c)]))).collect())
    }

    /// One character of these ranges.
    pub fn chars(ranges: &[(char, char)]) -> Self {
        Self::Chars(Chars::of(ranges))
    }

    /// This or nothing.
    pub fn optional(self) -> Self {
        Self::Repeat(Box::new(self), 0, Some(1))
    }

    /// This any number of times.
    pub fn any_number(self) -> Self {
        Self::Repeat(Box::new(self), 0, None)
    }

    /// This so many times.
    pub fn times(self, least: usize, most: impl Into<Option<usize>>) -> Self {
        Self::Repeat(Box::new(self), least, most.into())
    }
}

/// A grammar: rules, the first of which is the whole text.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Name and meaning.
    pub list: Vec<(String, Expr)>,
    /// What messages call it: a flag or a file.
    pub source: String,
    /// Keys of a schema that are not known: they may be a slip, and restrict nothing.
    pub unknown: BTreeSet<String>,
}

impl Rules {
    /// Adds a rule and returns it.
    pub fn add(&mut self, name: impl Into<String>, expr: Expr) -> Expr {
        self.list.push((name.into(), expr));
        Expr::Rule(self.list.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_characters_are_all_but_these() {
        let some = Chars::of(&[('c', 'e'), ('a', 'b'), ('x', 'x')]);
        assert_eq!(some.normal().0, [(97, 101), (120, 120)]);
        assert_eq!(some.others().0, [(0, 96), (102, 119), (121, 0xd7ff), (0xe000, 0x10ffff)]);
        assert_eq!(some.others().others(), some.normal());
        assert_eq!(Chars::any().others().0, []);
        assert_eq!(some.and(&Chars::of(&[('b', 'c')])).0, [(98, 99)]);
    }
}
