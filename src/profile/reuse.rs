//! How long it takes until a neuron fires again: the hits of a cache of recently used neurons.

use super::sections::{Reader, put_u64s};
use anyhow::{Context, Result, ensure};

/// Buckets of the histogram of a layer; each is a 64th of its neurons.
pub const N_BUCKETS: usize = 64;

/// LRU stack distances of one layer's firings, counted within windows: each window begins with an empty stack.
///
/// The distance of a firing is the number of distinct neurons that have fired since the token of this neuron's last
/// firing, that token included. All neurons of a token fire at once. A least-recently-used cache of that many neurons
/// or more holds the neuron when it fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReuseCounts {
    /// Firings by distance: `(distance - 1) * N_BUCKETS / n_ff` is the bucket.
    pub buckets: [u64; N_BUCKETS],
    /// Firings of neurons that had not fired before in their window.
    pub first: u64,
}

impl Default for ReuseCounts {
    fn default() -> Self {
        Self { buckets: [0; N_BUCKETS], first: 0 }
    }
}

impl ReuseCounts {
    /// All firings counted.
    pub fn total(&self) -> u64 {
        self.buckets.iter().fold(self.first, |sum, n| sum.saturating_add(*n))
    }

    /// Share of firings that hit in an LRU cache of `capacity` of the layer's `n_ff` neurons. Distances within a bucket
    /// count as evenly spread. 0 if nothing fired.
    pub fn hit_rate(&self, n_ff: usize, capacity: usize) -> f64 {
        let buckets = capacity.min(n_ff) as f64 * N_BUCKETS as f64 / n_ff.max(1) as f64;
        let (whole, part) = (buckets as usize, buckets.fract());
        let hit: f64 = self.buckets[..whole].iter().map(|n| *n as f64).sum();
        let hit = hit + self.buckets.get(whole).map_or(0.0, |n| *n as f64 * part);
        if self.total() == 0 { 0.0 } else { hit / self.total() as f64 }
    }

    /// Adds the counts of `other`.
    ///
    /// # Errors
    /// When a count overflows.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let theirs = other.buckets.iter().chain([&other.first]);
        for (a, b) in self.buckets.iter_mut().chain([&mut self.first]).zip(theirs) {
            *a = a.checked_add(*b).context("has more activity than can be counted")?;
        }
        Ok(())
    }

    pub(super) fn put<'a>(layers: impl Iterator<Item = &'a Self>, out: &mut Vec<u8>) {
        out.extend((N_BUCKETS as u32).to_le_bytes());
        layers.for_each(|l| put_u64s(out, l.buckets.iter().chain([&l.first])));
    }

    pub(super) fn read(bytes: &[u8], n_layer: usize) -> Result<Vec<Self>> {
        let mut r = Reader { bytes };
        let n = r.u32()?;
        ensure!(n as usize == N_BUCKETS, "section LRUD has {n} buckets, not {N_BUCKETS}");
        let mut layers = Vec::new();
        for _ in 0..n_layer {
            let mut layer = Self::default();
            layer.buckets.copy_from_slice(&r.u64s(N_BUCKETS)?);
            layer.first = r.u64()?;
            layers.push(layer);
        }
        r.end("LRUD")?;
        Ok(layers)
    }
}

/// The LRU stack of one layer's neurons, or of a router's groups, in one window.
///
/// It is kept as a number per token, of the neurons that fired last for it: a token then costs its firings and a pass
/// over the tokens before it.
pub(super) struct Stack {
    /// By slot: the token of the last firing, from 1; 0 if there was none.
    last: Vec<u32>,
    /// By token, from 1: the number of neurons that fired last for it.
    holding: Vec<u32>,
    /// By token: how many of those fire again for the token being counted.
    again: Vec<u32>,
}

impl Stack {
    pub(super) fn new(n_ff: usize) -> Self {
        Self { last: vec![0; n_ff], holding: vec![0], again: vec![0] }
    }

    /// Begins a window.
    pub(super) fn reset(&mut self) {
        self.last.fill(0);
        self.holding.truncate(1);
        self.again.truncate(1);
    }

    /// Begins a token.
    pub(super) fn token(&mut self) -> Token<'_> {
        let now = self.holding.len() as u32;
        Token { last: &mut self.last, again: &mut self.again, now }
    }

    /// Ends a token and adds its firings to equally wide buckets of distances, and to those that are the first.
    pub(super) fn count(&mut self, buckets: &mut [u64], firsts: &mut u64) {
        let n_ff = self.last.len();
        let first = std::mem::take(&mut self.again[0]);
        *firsts += u64::from(first);
        let (mut distance, mut fired) = (0usize, first);
        for (holding, again) in self.holding[1..].iter_mut().zip(&mut self.again[1..]).rev() {
            distance += *holding as usize;
            if *again > 0 {
                buckets[(distance - 1) * buckets.len() / n_ff] += u64::from(*again);
                fired += *again;
                *holding -= std::mem::take(again);
            }
        }
        self.holding.push(fired);
        self.again.push(0);
    }
}

/// The token being counted. Separate from [`Stack`], so that the loop over its neurons keeps the slices in registers.
pub(super) struct Token<'a> {
    last: &'a mut [u32],
    again: &'a mut [u32],
    now: u32,
}

impl Token<'_> {
    /// The neuron in `slot` fires.
    #[inline]
    pub(super) fn fires(&mut self, slot: usize) {
        let before = std::mem::replace(&mut self.last[slot], self.now);
        self.again[before as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distances by a list of neurons, most recent token first.
    fn naive(tokens: &[Vec<usize>], n_ff: usize) -> ReuseCounts {
        let mut counts = ReuseCounts::default();
        for (t, fired) in tokens.iter().enumerate() {
            for neuron in fired {
                let Some(last) = (0..t).rev().find(|u| tokens[*u].contains(neuron)) else {
                    counts.first += 1;
                    continue;
                };
                let since: std::collections::BTreeSet<_> = tokens[last..t].iter().flatten().collect();
                counts.buckets[(since.len() - 1) * N_BUCKETS / n_ff] += 1;
            }
        }
        counts
    }

    fn counted(stack: &mut Stack, tokens: &[Vec<usize>]) -> ReuseCounts {
        let mut counts = ReuseCounts::default();
        stack.reset();
        for fired in tokens {
            let mut token = stack.token();
            fired.iter().for_each(|n| token.fires(*n));
            stack.count(&mut counts.buckets, &mut counts.first);
        }
        counts
    }

    #[test]
    fn distances_are_those_of_a_naive_stack() {
        for n_ff in [1, 5, 64, 100, 1000] {
            let mut state = 7u64;
            let mut random = move || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state >> 33
            };
            let mut stack = Stack::new(n_ff);
            for _ in 0..3 {
                let fires = |neuron: usize, r: u64| r % 10 < 1 + 8 * u64::from(neuron.is_multiple_of(7));
                let tokens: Vec<Vec<usize>> =
                    (0..40).map(|_| (0..n_ff).filter(|n| fires(*n, random())).collect()).collect();
                assert_eq!(counted(&mut stack, &tokens), naive(&tokens, n_ff), "{n_ff}");
            }
        }
    }

    #[test]
    fn the_hit_rate_rises_from_nothing_to_all_but_first_touches() {
        let mut counts = ReuseCounts { first: 10, ..Default::default() };
        counts.buckets[0] = 20;
        counts.buckets[32] = 70;
        assert_eq!(counts.hit_rate(64, 0), 0.0);
        assert_eq!(counts.hit_rate(64, 1), 0.2);
        assert_eq!(counts.hit_rate(64, 33), 0.9);
        assert_eq!(counts.hit_rate(128, 65), 0.55);
        assert_eq!(counts.hit_rate(64, 1000), 0.9);
        assert_eq!(ReuseCounts::default().hit_rate(64, 64), 0.0);
    }
}
