//! Which neurons fired together: for sampled tokens, the set of neurons that fired.

use super::choice::{SampleKey, Union};
use super::sections::Reader;
use crate::model::NeuronId;
use anyhow::{Result, ensure};

/// The most memory that the sets of a profile take, unless that is less than [`MIN_TOKENS`] need.
const MAX_BYTES: usize = 32 << 20;
/// The most tokens sampled. A thousand are enough for the 99th percentile.
const MAX_TOKENS: usize = 1024;
const MIN_TOKENS: usize = 16;

/// Bytes of one token's set: whole bytes per group of neurons.
pub(super) fn token_bytes(n_ff: &[usize]) -> usize {
    n_ff.iter().map(|n| n.div_ceil(8)).sum()
}

/// Tokens that a profile of a model with groups of these sizes keeps.
pub(super) fn capacity(n_ff: &[usize]) -> usize {
    (MAX_BYTES / token_bytes(n_ff).max(1)).clamp(MIN_TOKENS, MAX_TOKENS)
}

/// The neurons that fired for each of some tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiredSets {
    /// Seed of the choice of tokens.
    pub seed: u64,
    /// The most tokens kept.
    pub capacity: usize,
    /// The tokens, sorted.
    pub keys: Vec<SampleKey>,
    /// `[keys][n_groups][n_ff / 8, rounded up]`: bit `id % 8` of byte `id / 8` of a group is set where the neuron fired.
    pub bits: Vec<u8>,
}

impl FiredSets {
    /// The set of token `token` in group number `group`, as bytes.
    fn set(&self, n_ff: &[usize], group: usize, token: usize) -> &[u8] {
        let start = token * token_bytes(n_ff) + token_bytes(&n_ff[..group]);
        &self.bits[start..start + n_ff[group].div_ceil(8)]
    }

    /// Per token, how many of `neurons` of group number `group` fired; sorted. `n_ff` lists all groups.
    pub fn histogram(&self, n_ff: &[usize], group: usize, neurons: &[NeuronId]) -> Vec<u32> {
        let mut wanted = vec![0u8; n_ff[group].div_ceil(8)];
        neurons.iter().for_each(|id| wanted[id.0 as usize / 8] |= 1 << (id.0 % 8));
        let fired = |token| {
            let set = self.set(n_ff, group, token);
            set.iter().zip(&wanted).map(|(a, b)| (a & b).count_ones()).sum::<u32>()
        };
        let mut counts: Vec<u32> = (0..self.keys.len()).map(fired).collect();
        counts.sort_unstable();
        counts
    }

    /// Adds the tokens of `other`; the smallest hashes stay.
    ///
    /// # Errors
    /// When the tokens were chosen by another seed.
    pub fn merge(&mut self, other: &Self, n_ff: &[usize]) -> Result<()> {
        ensure!(
            self.seed == other.seed,
            "was made with --seed {}, the others with --seed {}; profile with one seed",
            other.seed,
            self.seed
        );
        let width = token_bytes(n_ff);
        let row = |bits: &[u8], i: usize| bits[i * width..(i + 1) * width].to_vec();
        self.capacity = self.capacity.min(other.capacity);
        let less = |i, j| row(&other.bits, j) < row(&self.bits, i);
        let union = Union::new(&self.keys, &other.keys, self.capacity, less);
        self.bits = union.rows(&self.bits, &other.bits, width);
        self.keys = union.keys;
        Ok(())
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.seed.to_le_bytes());
        out.extend((self.capacity as u32).to_le_bytes());
        out.extend((self.keys.len() as u32).to_le_bytes());
        SampleKey::put(&self.keys, out);
        out.extend(&self.bits);
    }

    pub(super) fn read(bytes: &[u8], n_ff: &[usize]) -> Result<Self> {
        let mut r = Reader { bytes };
        let (seed, capacity, n) = (r.u64()?, r.u32()? as usize, r.u32()? as usize);
        ensure!(n <= capacity, "section FSET has more tokens than allowed");
        let keys = SampleKey::read(&mut r, n, seed)?;
        let bits = r.take(n as u64 * token_bytes(n_ff) as u64)?.to_vec();
        r.end("FSET")?;
        let sets = Self { seed, capacity, keys, bits };
        // Bits in the last byte of a layer that belong to no neuron.
        let spare = |group: usize| if n_ff[group].is_multiple_of(8) { 0 } else { u8::MAX << (n_ff[group] % 8) };
        let clean = |token, group| sets.set(n_ff, group, token).last().is_none_or(|b| b & spare(group) == 0);
        let clean = (0..n).all(|token| (0..n_ff.len()).all(|group| clean(token, group)));
        ensure!(clean, "section FSET has neurons that the model does not have");
        Ok(sets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N_FF: [usize; 2] = [12, 3];

    /// Sets of 3 bytes: token `t` fires neurons `t`, `t + 1` of layer 0 and neuron `t % 3` of layer 1.
    fn sets(tokens: std::ops::Range<u64>, capacity: usize) -> FiredSets {
        let mut keys: Vec<_> = tokens.map(|t| SampleKey::new(1, [5; 32], t)).collect();
        keys.sort();
        keys.truncate(capacity);
        let bits = keys.iter().flat_map(|k| {
            let t = k.position % 8;
            let first = 3u16 << t;
            [first as u8, (first >> 8) as u8, 1 << (k.position % 3)]
        });
        FiredSets { seed: 1, capacity, bits: bits.collect(), keys }
    }

    #[test]
    fn a_histogram_counts_the_neurons_asked_for() {
        let sets = sets(0..8, 16);
        let ids = |ids: &[u32]| ids.iter().map(|i| NeuronId(*i)).collect::<Vec<_>>();
        assert_eq!(sets.histogram(&N_FF, 0, &ids(&(0..12).collect::<Vec<_>>())), [2; 8]);
        assert_eq!(sets.histogram(&N_FF, 0, &ids(&[3, 4])), [0, 0, 0, 0, 0, 1, 1, 2]);
        assert_eq!(sets.histogram(&N_FF, 1, &ids(&[0])), [0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(sets.histogram(&N_FF, 1, &[]), [0; 8]);
    }

    #[test]
    fn merged_parts_are_the_whole_in_any_order() {
        let whole = sets(0..40, 10);
        for (a, b) in [(0..20, 20..40), (0..30, 10..40), (25..40, 0..25)] {
            for (a, b) in [(a.clone(), b.clone()), (b, a)] {
                let mut merged = sets(a, 10);
                merged.merge(&sets(b, 10), &N_FF).unwrap();
                assert_eq!(merged, whole);
            }
        }
        let mut other = sets(0..4, 10);
        other.seed = 2;
        let error = sets(0..4, 10).merge(&other, &N_FF).unwrap_err().to_string();
        assert!(error.contains("--seed 2") && error.contains("--seed 1"), "{error}");
    }

    #[test]
    fn sets_survive_the_file_and_stray_bits_are_refused() {
        let sets = sets(0..8, 16);
        let mut bytes = Vec::new();
        sets.put(&mut bytes);
        assert_eq!(FiredSets::read(&bytes, &N_FF).unwrap(), sets);
        *bytes.last_mut().unwrap() |= 8;
        assert!(FiredSets::read(&bytes, &N_FF).unwrap_err().to_string().contains("neurons"));
        bytes.pop();
        assert!(FiredSets::read(&bytes, &N_FF).is_err());
    }

    #[test]
    fn the_capacity_is_bounded_by_tokens_and_by_memory() {
        assert_eq!(capacity(&[64; 2]), 1024);
        assert_eq!(capacity(&[11_008; 32]), (32 << 20) / 44_032);
        assert_eq!(capacity(&[1 << 20; 80]), 16);
    }
}
