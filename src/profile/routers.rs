//! What routers chose: how often each group, how soon again, and whether one half of a text tells of the other.

use super::reuse::Stack;
use super::sections::{Reader, put_u64s};
use super::unions::{BySize, Counted, Firsts};
use crate::model::Model;
use anyhow::{Context, Result, ensure};

/// What the router of one layer chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterCounts {
    /// Number of the layer.
    pub layer: u32,
    /// Numbers of the groups that it chooses from, in the order of its rows.
    pub groups: Vec<u32>,
    /// By row, the tokens for which it was chosen: in the first half of the windows of the text, and in the second.
    pub chosen: [Vec<u64>; 2],
    /// Choices by LRU stack distance less 1, counted within windows: each window begins with an empty stack. The distance
    /// is the number of groups that were chosen since the token of this group's last choice, that token included. All
    /// groups of a token are used at once. A cache of the so many groups used last, or of more, holds the group.
    pub again: Vec<u64>,
    /// Choices of groups that had not been chosen before in their window.
    pub first: u64,
}

impl RouterCounts {
    /// Nothing counted yet.
    pub fn new(layer: u32, groups: Vec<u32>) -> Self {
        let zeros = vec![0; groups.len()];
        Self { layer, groups, chosen: [zeros.clone(), zeros.clone()], again: zeros, first: 0 }
    }

    /// Those of a model, of which nothing is counted yet.
    pub fn of_model(model: &Model) -> Vec<Self> {
        let layers = model.weights.layers.iter().enumerate().map(|(i, layer)| {
            let routed = layer.groups.iter().enumerate().filter(|(_, group)| group.is_routed());
            Self::new(i as u32, routed.map(|(at, _)| (layer.first_group + at) as u32).collect())
        });
        layers.filter(|router| !router.groups.is_empty()).collect()
    }

    /// Tokens for which each was chosen, by row.
    pub fn n_chosen(&self) -> Vec<u64> {
        let [first, second] = &self.chosen;
        first.iter().zip(second).map(|(a, b)| a.saturating_add(*b)).collect()
    }

    /// All choices.
    pub fn total(&self) -> u64 {
        self.chosen.iter().flatten().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Choices that the `n` groups that are chosen most hit.
    pub fn fixed_hits(&self, n: usize) -> u64 {
        let mut chosen = self.n_chosen();
        chosen.sort_unstable_by(|a, b| b.cmp(a));
        chosen.iter().take(n).fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Choices of either half that the `n` groups hit that are chosen most in the other half; `None` where one of the halves
    /// has no choices.
    pub fn held_out_hits(&self, n: usize) -> Option<u64> {
        let [first, second] = &self.chosen;
        let both = self.chosen.iter().all(|half| half.iter().any(|n| *n > 0));
        both.then(|| hits_of(first, second, n).saturating_add(hits_of(second, first, n)))
    }

    /// Choices that the `n` groups hit that are chosen most in `learned`, which is of the same router.
    pub(super) fn hits_of_most_chosen(&self, learned: &Self, n: usize) -> u64 {
        hits_of(&self.n_chosen(), &learned.n_chosen(), n)
    }

    /// Choices that a cache of the `n` groups used last hits, at least: those of groups that are new in their window count as
    /// missed.
    pub fn cache_hits(&self, n: usize) -> u64 {
        self.again.iter().take(n).fold(0, |sum, n| sum.saturating_add(*n))
    }

    pub(super) fn clear(&mut self) {
        self.counts().for_each(|n| *n = 0);
    }

    /// All counts, one after another.
    fn counts(&mut self) -> impl Iterator<Item = &mut u64> {
        let [first, second] = &mut self.chosen;
        first.iter_mut().chain(second).chain(&mut self.again).chain([&mut self.first])
    }

    /// Adds the counts of `other`.
    ///
    /// # Errors
    /// When it is of another layer or other groups, or a count overflows.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        ensure!(self.layer == other.layer && self.groups == other.groups, "has experts in other layers");
        let theirs = other.chosen.iter().flatten().chain(&other.again).chain([&other.first]);
        for (a, b) in self.counts().zip(theirs) {
            *a = a.checked_add(*b).context("has more choices than can be counted")?;
        }
        Ok(())
    }

    pub(super) fn put(all: &[Self], out: &mut Vec<u8>) {
        out.extend((all.len() as u32).to_le_bytes());
        for router in all {
            out.extend(router.layer.to_le_bytes());
            out.extend((router.groups.len() as u32).to_le_bytes());
            router.groups.iter().for_each(|group| out.extend(group.to_le_bytes()));
            put_u64s(out, router.chosen.iter().flatten().chain(&router.again).chain([&router.first]));
        }
    }

    /// Reads and checks the routers of a model whose groups are in these layers.
    pub(super) fn read(bytes: &[u8], layer_of: &[u32]) -> Result<Vec<Self>> {
        let mut r = Reader { bytes };
        let mut all: Vec<Self> = Vec::new();
        for _ in 0..r.u32()? {
            let (layer, n) = (r.u32()?, r.u32()? as usize);
            let groups = r.take((n as u64).saturating_mul(4))?.as_chunks::<4>().0;
            let groups: Vec<u32> = groups.iter().map(|b| u32::from_le_bytes(*b)).collect();
            let chosen = [r.u64s(n)?, r.u64s(n)?];
            let router = Self { layer, groups, chosen, again: r.u64s(n)?, first: r.u64()? };
            let in_layer = |group: &u32| layer_of.get(*group as usize) == Some(&layer);
            let fits = n > 0 && router.groups.is_sorted_by(|a, b| a < b) && router.groups.iter().all(in_layer);
            let later = all.last().is_none_or(|before| before.layer < layer);
            ensure!(fits && later, "section ROUT: names groups that layer {layer} does not have, or in no order");
            let again = router.again.iter().fold(router.first, |sum, n| sum.saturating_add(*n));
            let total = router.total();
            ensure!(again == total, "section ROUT: layer {layer} has {total} choices, but reuse is of {again}");
            all.push(router);
        }
        r.end("ROUT")?;
        Ok(all)
    }
}

/// Choices of `of` that the `n` most chosen of `learned` hit; of equals the first is taken.
fn hits_of(of: &[u64], learned: &[u64], n: usize) -> u64 {
    let mut order: Vec<usize> = (0..learned.len()).collect();
    order.sort_unstable_by_key(|i| (std::cmp::Reverse(learned[*i]), *i));
    order.iter().take(n).fold(0, |sum, i| sum.saturating_add(of[*i]))
}

/// Follows one router through the tokens of a window.
pub(super) struct Follower {
    stack: Stack,
    firsts: Firsts,
    /// Token of the batch and row, of all that were chosen in the batch.
    choices: Vec<(u32, u32)>,
}

impl Follower {
    /// Of a router with `n` rows.
    pub(super) fn new(n: usize) -> Self {
        Self { stack: Stack::new(n), firsts: Firsts::default(), choices: Vec::new() }
    }

    /// Begins a window.
    pub(super) fn reset(&mut self) {
        self.stack.reset();
        self.choices.clear();
    }

    /// Group `row` was chosen for these tokens of the batch.
    pub(super) fn chose(&mut self, row: usize, tokens: &[u32]) {
        self.choices.extend(tokens.iter().map(|token| (*token, row as u32)));
    }

    /// Ends a batch, which begins at `base` in its window: adds its choices to `counts`, and those that are the first of a block
    /// of tokens to `unions`.
    pub(super) fn end_batch(
        &mut self,
        counts: &mut RouterCounts,
        second_half: bool,
        (base, counted): (usize, Counted),
        unions: &mut BySize,
    ) {
        self.choices.sort_unstable();
        self.firsts.begin(counts.groups.len());
        for of_token in self.choices.chunk_by(|a, b| a.0 == b.0) {
            let mut token = self.stack.token();
            let mut first = self.firsts.token(base + of_token[0].0 as usize);
            for (_, row) in of_token {
                counts.chosen[usize::from(second_half)][*row as usize] += 1;
                token.fires(*row as usize);
                first.fires(*row as usize);
            }
            first.count(counted, unions);
            self.stack.count(&mut counts.again, &mut counts.first);
        }
        self.choices.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(tokens: &[&[usize]], batch: usize) -> RouterCounts {
        let mut counts = RouterCounts::new(0, (0..4).collect());
        let mut follower = Follower::new(4);
        follower.reset();
        for (i, batch) in tokens.chunks(batch).enumerate() {
            for row in 0..4 {
                let chosen: Vec<u32> =
                    (0..).zip(batch).filter(|(_, rows)| rows.contains(&row)).map(|(token, _)| token).collect();
                follower.chose(row, &chosen);
            }
            let counted = Counted { first: 0, end: tokens.len() };
            follower.end_batch(&mut counts, i > 0, (i * batch.len(), counted), &mut BySize::default());
        }
        counts
    }

    #[test]
    fn hits_are_those_of_a_cache_that_takes_a_token_at_once() {
        let counts = counted(&[&[0, 1], &[0, 2], &[1, 2], &[0, 3]], 2);
        assert_eq!(counts.chosen, [vec![2, 1, 1, 0], vec![1, 1, 1, 1]]);
        // 0 again at once: 0 and 1 were used. 1 then after 0, 1, 2. 2 at once: 0 and 2. 0 after 0, 1, 2.
        assert_eq!((&*counts.again, counts.first), (&[0, 2, 2, 0][..], 4));
        assert_eq!([0, 1, 2, 3, 4, 9].map(|n| counts.cache_hits(n)), [0, 0, 2, 4, 4, 4]);
        assert_eq!([0, 1, 2, 4].map(|n| counts.fixed_hits(n)), [0, 3, 5, 8]);
        // Of the first half 0 is the most chosen, of the second the first of four equals.
        assert_eq!(counts.held_out_hits(1), Some(1 + 2));
        assert_eq!(counts.total(), 8);
    }

    #[test]
    fn batches_divide_nothing_but_the_halves() {
        let tokens: Vec<Vec<usize>> = (0..40usize).map(|t| vec![t % 3, 3 - t * t % 2]).collect();
        let tokens: Vec<&[usize]> = tokens.iter().map(|rows| &**rows).collect();
        let (one, seven) = (counted(&tokens, 40), counted(&tokens, 7));
        assert_eq!((&one.again, one.first, one.n_chosen()), (&seven.again, seven.first, seven.n_chosen()));
        assert_eq!(one.held_out_hits(1), None);
        let mut sum = one.clone();
        sum.merge(&seven).unwrap();
        let mut other_way = seven;
        other_way.merge(&one).unwrap();
        assert_eq!(sum, other_way);
        assert!(sum.merge(&RouterCounts::new(1, (0..4).collect())).is_err());
    }

    #[test]
    fn counts_survive_and_what_is_impossible_is_refused() {
        let router = counted(&[&[0, 1], &[0, 2]], 1);
        let mut bytes = Vec::new();
        RouterCounts::put(std::slice::from_ref(&router), &mut bytes);
        assert_eq!(RouterCounts::read(&bytes, &[0; 4]).unwrap(), std::slice::from_ref(&router));
        for n in 0..bytes.len() {
            assert!(RouterCounts::read(&bytes[..n], &[0; 4]).is_err());
        }
        for layers in [&[0; 3][..], &[0, 0, 0, 1]] {
            assert!(RouterCounts::read(&bytes, layers).is_err());
        }
        let refused = |change: fn(&mut RouterCounts)| {
            let (mut wrong, mut bytes) = (router.clone(), Vec::new());
            change(&mut wrong);
            RouterCounts::put(&[wrong], &mut bytes);
            assert!(RouterCounts::read(&bytes, &[0; 4]).is_err());
        };
        refused(|r| r.first += 1);
        refused(|r| r.groups.swap(0, 1));
        refused(|r| r.layer = 1);
    }
}
