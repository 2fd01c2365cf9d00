//! Which neurons each of a few tokens needs.

use crate::cpu::Which;

/// Rows in rising order for each token, and all of them together.
#[derive(Default)]
pub(super) struct Active {
    /// One token behind the other.
    rows: Vec<u32>,
    /// By token, where its rows end.
    ends: Vec<usize>,
    /// Rows that any token needs, where there are several tokens.
    union: Vec<u32>,
}

impl Active {
    pub fn clear(&mut self) {
        self.rows.clear();
        self.ends.clear();
        self.union.clear();
    }

    /// A further token's rows, in rising order.
    pub fn push(&mut self, rows: impl IntoIterator<Item = u32>) {
        self.rows.extend(rows);
        self.ends.push(self.rows.len());
    }

    pub fn n_tokens(&self) -> usize {
        self.ends.len()
    }

    /// Rows of all tokens, one token behind the other.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Where the rows of a token are among those of all.
    pub fn range(&self, token: usize) -> std::ops::Range<usize> {
        let start = if token == 0 { 0 } else { self.ends[token - 1] };
        start..self.ends[token]
    }

    /// The rows of a token.
    pub fn of(&self, token: usize) -> &[u32] {
        &self.rows[self.range(token)]
    }

    /// Rows that any token needs; [`Active::unite`] finds them.
    pub fn union(&self) -> &[u32] {
        if self.n_tokens() == 1 { &self.rows } else { &self.union }
    }

    /// Calls `f` with the places in `block`, some consecutive rows of the union, of those that a token needs.
    pub fn mark(&self, token: usize, block: &[u32], mut f: impl FnMut(usize)) {
        let (own, mut at) = (self.of(token), 0);
        for row in &own[within(own, block)] {
            while block[at] != *row {
                at += 1;
            }
            f(at);
        }
    }

    /// Finds the rows that any token needs.
    pub fn unite(&mut self) {
        if self.n_tokens() > 1 {
            self.union.clear();
            self.union.extend_from_slice(&self.rows);
            self.union.sort_unstable();
            self.union.dedup();
        }
    }

    /// Becomes a copy of `other`, keeping its memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.clear();
        self.rows.extend_from_slice(&other.rows);
        self.ends.extend_from_slice(&other.ends);
        self.union.extend_from_slice(&other.union);
    }

    /// Keeps the rows whose value is not 0, and their values. `values` are in the order of [`Active::rows`].
    pub fn keep_fired(&mut self, values: &mut Vec<f32>) {
        let (mut from, mut to) = (0, 0);
        for end in &mut self.ends {
            for i in from..*end {
                (self.rows[to], values[to]) = (self.rows[i], values[i]);
                to += usize::from(values[i] != 0.0);
            }
            (from, *end) = (*end, to);
        }
        self.rows.truncate(to);
        values.truncate(to);
    }

    /// Keeps the rows for which `wanted` is true.
    pub fn keep(&mut self, wanted: impl Fn(u32) -> bool) {
        let (mut from, mut to) = (0, 0);
        for end in &mut self.ends {
            for i in from..*end {
                self.rows[to] = self.rows[i];
                to += usize::from(wanted(self.rows[i]));
            }
            (from, *end) = (*end, to);
        }
        self.rows.truncate(to);
    }

    /// Calls `f` with each of `values`, which are in the order of [`Active::rows`], and the product of its row and token,
    /// where `products` are `[union][n_tokens]`.
    pub fn gather(&self, products: &[f32], values: &mut [f32], f: impl Fn(&mut f32, f32)) {
        let n = self.n_tokens();
        if n == 1 {
            return values.iter_mut().zip(products).for_each(|(value, product)| f(value, *product));
        }
        for token in 0..n {
            let (mut at, range) = (0, self.range(token));
            for (row, value) in self.rows[range.clone()].iter().zip(&mut values[range]) {
                while self.union[at] != *row {
                    at += 1;
                }
                f(value, products[at * n + token]);
            }
        }
    }
}

/// Which rows are wanted, owned: a [`Which`] for all tokens, or rows of its own for each.
#[derive(Default)]
pub(super) struct Wanted {
    kind: Kind,
    first: usize,
    len: usize,
    list: Vec<u32>,
    each: Active,
}

#[derive(Default, Clone, Copy)]
enum Kind {
    #[default]
    Range,
    List,
    Each,
}

/// Which rows a [`Wanted`] means.
#[derive(Clone, Copy)]
pub(super) enum WantedBy<'a> {
    /// These, by all tokens.
    All(Which<'a>),
    /// By each token its own.
    Each(&'a Active),
}

impl Wanted {
    /// All tokens want `which`.
    pub fn all(&mut self, which: Which) {
        match which {
            Which::Range { first, len } => (self.kind, self.first, self.len) = (Kind::Range, first, len),
            Which::List(list) => {
                self.kind = Kind::List;
                self.list.clear();
                self.list.extend_from_slice(list);
            }
        }
    }

    /// Each token wants its own.
    pub fn each(&mut self, active: &Active) {
        self.kind = Kind::Each;
        self.each.copy_from(active);
    }

    pub fn get(&self) -> WantedBy<'_> {
        match self.kind {
            Kind::Range => WantedBy::All(Which::Range { first: self.first, len: self.len }),
            Kind::List => WantedBy::All(Which::List(&self.list)),
            Kind::Each => WantedBy::Each(&self.each),
        }
    }
}

/// Of rising `rows` the places of those between the first and the last of `block`.
pub(super) fn within(rows: &[u32], block: &[u32]) -> std::ops::Range<usize> {
    let (Some(first), Some(last)) = (block.first(), block.last()) else { return 0..0 };
    rows.partition_point(|row| row < first)..rows.partition_point(|row| row <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lists: &[&[u32]]) -> Active {
        let mut active = Active::default();
        lists.iter().for_each(|list| active.push(list.iter().copied()));
        active.unite();
        active
    }

    #[test]
    fn the_union_has_every_row_once_and_each_token_finds_its_own() {
        let active = of(&[&[1, 5, 9], &[], &[0, 5]]);
        assert_eq!(active.union(), [0, 1, 5, 9]);
        let products: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut got = vec![0.0; 5];
        active.gather(&products, &mut got, |got, value| *got = value);
        // Row 1 of token 0 is [1][0], row 5 of token 2 is [2][2].
        assert_eq!(got, [3.0, 6.0, 9.0, 2.0, 8.0]);
        assert_eq!(
            (within(active.of(0), &[2, 3, 9]), within(active.of(1), &[1]), within(&[4], &[])),
            (1..3, 0..0, 0..0)
        );
    }

    #[test]
    fn what_has_not_fired_is_left_out_token_by_token() {
        let mut active = of(&[&[1, 5, 9], &[2], &[0, 5]]);
        let mut values = vec![1.0, 0.0, 2.0, 0.0, 0.0, f32::NAN];
        active.keep_fired(&mut values);
        assert_eq!((active.of(0), active.of(1), active.of(2)), (&[1, 9][..], &[][..], &[5][..]));
        assert_eq!((values[0], values[1], values[2].is_nan()), (1.0, 2.0, true));
    }
}
