//! Which tokens are sampled: those with the smallest hashes.

use super::sections::Reader;
use anyhow::{Result, ensure};
use std::collections::BTreeSet;

/// Where a sample comes from. Ordered by hash first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SampleKey {
    /// Hash of seed, text and position.
    pub hash: u64,
    /// SHA-256 of the text.
    pub text: [u8; 32],
    /// Position of the token in the text; tokens that are not counted (BOS) have none.
    pub position: u64,
}

impl SampleKey {
    /// The key of a token. The hash mixes in the words of `text` one after another, then the position
    /// (docs/formats.md).
    pub fn new(seed: u64, text: [u8; 32], position: u64) -> Self {
        Self { hash: mix(Self::text_hash(seed, &text) ^ position), text, position }
    }

    /// The part that all keys of a text share, for making many of them.
    fn text_hash(seed: u64, text: &[u8; 32]) -> u64 {
        text.as_chunks::<8>().0.iter().fold(mix(seed), |hash, word| mix(hash ^ u64::from_le_bytes(*word)))
    }

    pub(super) fn put(keys: &[Self], out: &mut Vec<u8>) {
        for key in keys {
            out.extend(key.hash.to_le_bytes());
            out.extend(key.text);
            out.extend(key.position.to_le_bytes());
        }
    }

    /// Reads `n` keys of this seed, which must be sorted and have the right hashes.
    pub(super) fn read(r: &mut Reader, n: usize, seed: u64) -> Result<Vec<Self>> {
        let mut words = Reader { bytes: r.take(n as u64 * 48)? };
        let mut keys = Vec::with_capacity(n);
        for _ in 0..n {
            let key = Self { hash: words.u64()?, text: words.array()?, position: words.u64()? };
            ensure!(key == Self::new(seed, key.text, key.position), "a sampled token has the wrong hash");
            keys.push(key);
        }
        ensure!(keys.is_sorted_by(|a, b| a < b), "its sampled tokens are not sorted");
        Ok(keys)
    }
}

/// The last step of SplitMix64: every bit of the result depends on every bit of `x`.
pub(super) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Keeps the smallest of the keys that it is shown, each once.
pub(super) struct SampleChoice {
    seed: u64,
    capacity: usize,
    smallest: BTreeSet<SampleKey>,
}

impl SampleChoice {
    pub(super) fn new(seed: u64, capacity: usize) -> Self {
        Self { seed, capacity, smallest: BTreeSet::new() }
    }

    /// Shows the tokens at `positions` of a text.
    pub(super) fn offer(&mut self, text: [u8; 32], positions: std::ops::Range<u64>) {
        let text_hash = SampleKey::text_hash(self.seed, &text);
        for position in positions {
            let key = SampleKey { hash: mix(text_hash ^ position), text, position };
            let full = self.smallest.len() >= self.capacity;
            if full && self.smallest.last().is_none_or(|largest| key >= *largest) {
                continue;
            }
            if self.smallest.insert(key) && full {
                self.smallest.pop_last();
            }
        }
    }

    /// The keys, sorted.
    pub(super) fn keys(self) -> Vec<SampleKey> {
        self.smallest.into_iter().collect()
    }
}

/// Which tokens of a window are among `keys`: pairs of the token's index among those counted and the key's place.
pub(super) fn marks(
    keys: &[SampleKey],
    seed: u64,
    text: [u8; 32],
    positions: std::ops::Range<u64>,
) -> Vec<(usize, usize)> {
    let Some(largest) = keys.last() else { return Vec::new() };
    let text_hash = SampleKey::text_hash(seed, &text);
    let key = |position| SampleKey { hash: mix(text_hash ^ position), text, position };
    let near = positions.enumerate().map(|(i, p)| (i, key(p))).filter(|(_, k)| k.hash <= largest.hash);
    near.filter_map(|(i, k)| Some((i, keys.binary_search(&k).ok()?))).collect()
}

/// How two sorted lists of samples become one.
pub(super) struct Union {
    /// The keys that are kept, sorted.
    pub(super) keys: Vec<SampleKey>,
    /// By key: whether its sample comes from the second list, and its place in that list.
    pub(super) from: Vec<(bool, usize)>,
}

impl Union {
    /// The smallest `capacity` keys of both. If both have a key, `second_is_less(i, j)` decides whose sample is taken
    /// (they differ if a text was profiled with windows of two lengths), so that order does not matter.
    pub(super) fn new(
        a: &[SampleKey],
        b: &[SampleKey],
        capacity: usize,
        second_is_less: impl Fn(usize, usize) -> bool,
    ) -> Self {
        let (mut i, mut j) = (0, 0);
        let mut union = Self { keys: Vec::new(), from: Vec::new() };
        while union.keys.len() < capacity && (i < a.len() || j < b.len()) {
            let both = i < a.len() && j < b.len() && a[i] == b[j];
            let second = if both { second_is_less(i, j) } else { i == a.len() || (j < b.len() && b[j] < a[i]) };
            union.keys.push(if second { b[j] } else { a[i] });
            union.from.push((second, if second { j } else { i }));
            i += usize::from(both || !second);
            j += usize::from(both || second);
        }
        union
    }

    /// The rows of the union, of `width` each.
    pub(super) fn rows<T: Copy>(&self, a: &[T], b: &[T], width: usize) -> Vec<T> {
        let mut out = Vec::with_capacity(self.keys.len() * width);
        for (second, at) in &self.from {
            let list = if *second { b } else { a };
            out.extend_from_slice(&list[at * width..(at + 1) * width]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(capacity: usize, parts: &[(u8, std::ops::Range<u64>)]) -> Vec<SampleKey> {
        let mut choice = SampleChoice::new(3, capacity);
        parts.iter().for_each(|(text, positions)| choice.offer([*text; 32], positions.clone()));
        choice.keys()
    }

    #[test]
    fn the_choice_does_not_depend_on_how_the_tokens_are_divided() {
        let whole = chosen(50, &[(1, 0..1000), (2, 0..500)]);
        assert_eq!(whole.len(), 50);
        assert_eq!(chosen(50, &[(2, 100..500), (1, 0..1000), (2, 0..200)]), whole);
        let (a, b) = (chosen(50, &[(1, 0..700)]), chosen(50, &[(2, 0..500), (1, 600..1000)]));
        assert_eq!(Union::new(&a, &b, 50, |_, _| false).keys, whole);
        assert_eq!(Union::new(&b, &a, 50, |_, _| true).keys, whole);
    }

    #[test]
    fn every_token_is_as_likely_as_any_other() {
        let keys = chosen(1000, &[(9, 0..10_000)]);
        let tenth = |i: u64| keys.iter().filter(|k| k.position / 1000 == i).count();
        assert!((0..10).all(|i| (60..140).contains(&tenth(i))), "{:?}", (0..10).map(tenth).collect::<Vec<_>>());
    }

    #[test]
    fn marks_find_every_chosen_token_once() {
        let keys = chosen(20, &[(1, 0..300)]);
        let found: Vec<_> = (0..3).flat_map(|w| marks(&keys, 3, [1; 32], w * 100..(w + 1) * 100)).collect();
        let mut places: Vec<_> = found.iter().map(|(_, place)| *place).collect();
        places.sort_unstable();
        assert_eq!(places, (0..20).collect::<Vec<_>>());
        assert!(found.iter().all(|(token, place)| keys[*place].position % 100 == *token as u64));
        assert!(marks(&keys, 3, [2; 32], 0..300).is_empty());
    }

    #[test]
    fn small_capacities_hold() {
        assert!(chosen(0, &[(1, 0..10)]).is_empty());
        assert_eq!(chosen(10, &[(1, 0..3), (1, 0..3)]).len(), 3);
    }
}
