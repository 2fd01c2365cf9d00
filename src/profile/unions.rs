//! How many neurons fire for any of a few tokens: of consecutive ones, which are counted, and of unrelated ones, which follows
//! from how often each neuron fires.

use super::sections::{Reader, Tag, put_u64s};
use anyhow::{Context, Result, ensure};

/// Consecutive tokens that are looked at together.
pub use crate::model::CONSECUTIVE_SIZES as SIZES;

/// Optional section of a profile: programs that do not know it pass over it.
pub(super) const UNIONS: Tag = *b"unio";

/// A number for each of [`SIZES`].
pub type BySize = [u64; SIZES.len()];

/// Unions of what fires for consecutive tokens, counted within windows.
///
/// A block of n tokens begins at a multiple of n tokens from the beginning of its window. Blocks that the window ends within,
/// or that have a token which is not counted (BOS), are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnionCounts {
    /// Blocks of each size.
    pub blocks: BySize,
    /// By group, the sum over blocks of each size of how many of its neurons fire for any token of the block. In groups that a
    /// router chooses, for tokens that they are chosen for.
    pub fired: Vec<BySize>,
    /// By router, the same sum of how many groups it chooses for any of them.
    pub chosen: Vec<BySize>,
}

impl UnionCounts {
    /// Nothing counted yet.
    pub fn new(n_groups: usize, n_routers: usize) -> Self {
        let zeros = |n| vec![BySize::default(); n];
        Self { blocks: BySize::default(), fired: zeros(n_groups), chosen: zeros(n_routers) }
    }

    pub(super) fn clear(&mut self) {
        self.counts().for_each(|n| *n = 0);
    }

    fn counts(&mut self) -> impl Iterator<Item = &mut u64> {
        self.blocks.iter_mut().chain(self.fired.as_flattened_mut()).chain(self.chosen.as_flattened_mut())
    }

    /// Adds the counts of `other`, of as many groups and routers.
    ///
    /// # Errors
    /// When a count overflows.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let theirs = other.blocks.iter().chain(other.fired.as_flattened()).chain(other.chosen.as_flattened());
        for (a, b) in self.counts().zip(theirs) {
            *a = a.checked_add(*b).context("has more activity than can be counted")?;
        }
        Ok(())
    }

    /// Mean number of neurons of the groups `groups` that fire for any token of a block of size number `size`; `None` where
    /// no block was counted.
    pub fn mean(&self, groups: &[usize], size: usize) -> Option<f64> {
        let sum: f64 = groups.iter().map(|group| self.fired[*group][size] as f64).sum();
        (self.blocks[size] > 0).then(|| sum / self.blocks[size] as f64)
    }

    /// Mean number of groups that router number `router` chooses for any token of such a block.
    pub fn mean_chosen(&self, router: usize, size: usize) -> Option<f64> {
        (self.blocks[size] > 0).then(|| self.chosen[router][size] as f64 / self.blocks[size] as f64)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend((SIZES.len() as u32).to_le_bytes());
        SIZES.iter().for_each(|n| out.extend((*n as u32).to_le_bytes()));
        put_u64s(out, self.blocks.iter().chain(self.fired.as_flattened()).chain(self.chosen.as_flattened()));
    }

    /// Reads the counts of `n_groups` groups and `n_routers` routers.
    pub(super) fn read(bytes: &[u8], n_groups: usize, n_routers: usize) -> Result<Self> {
        let mut r = Reader { bytes };
        ensure!(r.u32()? as usize == SIZES.len(), "section unio: wants blocks of {SIZES:?} tokens");
        for n in SIZES {
            ensure!(r.u32()? as usize == n, "section unio: wants blocks of {SIZES:?} tokens");
        }
        let mut unions = Self::new(n_groups, n_routers);
        for count in unions.counts() {
            *count = r.u64()?;
        }
        r.end("unio")?;
        Ok(unions)
    }

    /// Refuses counts that contradict each other or what else was counted of so many tokens: `fired` has for each group its
    /// neurons and their firings, `chosen` for each router its groups and choices.
    pub(super) fn check(&self, n_tokens: u64, fired: &[(usize, u64)], chosen: &[(usize, u64)]) -> Result<()> {
        let blocks = SIZES.iter().zip(&self.blocks).all(|(n, blocks)| blocks.saturating_mul(*n as u64) <= n_tokens);
        // Two blocks make up each of twice their size, but for what is left at the end.
        let halves = self.blocks.array_windows().all(|[small, large]| large.saturating_mul(2) <= *small);
        ensure!(blocks && halves, "section unio: has more blocks than {n_tokens} tokens make up");
        let possible = |counts: &BySize, (n, total): &(usize, u64)| {
            let room =
                counts.iter().zip(&self.blocks).all(|(count, blocks)| *count <= blocks.saturating_mul(*n as u64));
            room && counts.iter().all(|count| count <= total) && counts.is_sorted_by(|small, large| small >= large)
        };
        let all = |counts: &[BySize], totals: &[(usize, u64)]| counts.iter().zip(totals).all(|(c, t)| possible(c, t));
        ensure!(
            all(&self.fired, fired) && all(&self.chosen, chosen),
            "section unio: has more in blocks of tokens than fired or was chosen for them"
        );
        Ok(())
    }
}

/// Of things that are counted over `n_tokens` tokens, by count, how many there are on average for any of so many of these
/// tokens: the mean over all choices of 2, 4, 8 and 16 of them. It does not hang on which things come together for a token.
/// `None` where there are not so many tokens.
pub(super) fn unrelated(counts: impl Iterator<Item = u64>, n_tokens: u64) -> [Option<f64>; SIZES.len()] {
    let mut sums = [0.0; SIZES.len()];
    for count in counts.filter(|count| *count > 0) {
        let others = n_tokens.saturating_sub(count);
        // The chance that none of the first tokens, chosen one after the other, has it.
        let (mut misses, mut chosen) = (1.0, 0);
        for (sum, n) in sums.iter_mut().zip(SIZES) {
            for i in chosen..n as u64 {
                misses *= others.saturating_sub(i) as f64 / n_tokens.saturating_sub(i).max(1) as f64;
            }
            chosen = n as u64;
            *sum += 1.0 - misses;
        }
    }
    std::array::from_fn(|size| (n_tokens >= SIZES[size] as u64).then_some(sums[size]))
}

/// Which tokens of a window are counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// The first of them, from the beginning of the window.
    pub(super) first: usize,
    /// The first behind them.
    pub(super) end: usize,
}

impl Counted {
    /// Whole blocks of each size.
    pub(super) fn blocks(self) -> BySize {
        SIZES.map(|n| (self.end / n).saturating_sub(self.first.div_ceil(n)) as u64)
    }

    /// How many of the sizes have a whole block around the token at `position`: the smallest ones.
    fn n_whole(self, position: usize) -> usize {
        let whole = |n: &&usize| position / **n * **n >= self.first && (position / **n + 1) * **n <= self.end;
        SIZES.iter().take_while(whole).count()
    }
}

/// One more than sizes: the blocks that a firing is the first of are those of the smallest sizes.
const LEVELS: usize = SIZES.len() + 2;

/// Finds which firings are the first of their blocks, in a batch that divides no block.
#[derive(Default)]
pub(super) struct Firsts {
    /// By slot: where in the window it fired last.
    last: Vec<u32>,
}

impl Firsts {
    /// Begins a batch of `n` slots.
    pub(super) fn begin(&mut self, n: usize) {
        self.last.clear();
        self.last.resize(n, u32::MAX);
    }

    /// Begins the token at `position` in the window.
    pub(super) fn token(&mut self, position: usize) -> Token<'_> {
        Token { last: &mut self.last, position: position as u32, by_level: [0; LEVELS] }
    }
}

/// The token that is being counted. Separate from [`Firsts`], so that a loop over its neurons keeps the slice in registers.
pub(super) struct Token<'a> {
    last: &'a mut [u32],
    position: u32,
    /// Firings by the number of bits in which this token's position differs from that of the last firing, from the highest on.
    by_level: [u32; LEVELS],
}

impl Token<'_> {
    /// The neuron in `slot` fires.
    #[inline]
    pub(super) fn fires(&mut self, slot: usize) {
        let before = std::mem::replace(&mut self.last[slot], self.position);
        let bits = u32::BITS - (before ^ self.position).leading_zeros();
        self.by_level[(bits as usize).min(LEVELS - 1)] += 1;
    }

    /// Ends the token, and adds those that are the first of a whole block.
    pub(super) fn count(self, counted: Counted, sums: &mut BySize) {
        // In blocks of 2^k tokens are together whose positions differ in the last k bits at the most.
        for (size, sum) in sums.iter_mut().enumerate().take(counted.n_whole(self.position as usize)) {
            *sum += self.by_level[size + 2..].iter().map(|n| u64::from(*n)).sum::<u64>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn window(n: usize, seed: u64) -> Vec<BTreeSet<usize>> {
        let mut state = seed;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        (0..n).map(|_| (0..20).filter(|i| random() % (2 + i) == 0).map(|i| i as usize).collect()).collect()
    }

    /// Blocks and their unions, by sets.
    fn naive(tokens: &[BTreeSet<usize>], first: usize) -> (BySize, BySize) {
        let (mut blocks, mut sums) = (BySize::default(), BySize::default());
        for (i, n) in SIZES.into_iter().enumerate() {
            for block in (0..tokens.len() / n).map(|at| at * n).filter(|at| *at >= first) {
                blocks[i] += 1;
                sums[i] += tokens[block..block + n].iter().flatten().collect::<BTreeSet<_>>().len() as u64;
            }
        }
        (blocks, sums)
    }

    #[test]
    fn unions_are_those_of_sets() {
        for (n, first) in [(64, 0), (64, 1), (33, 1), (16, 0), (16, 1), (15, 0), (1, 0), (1, 1), (50, 3)] {
            let (tokens, counted) = (window(n, n as u64), Counted { first, end: n });
            let mut sums = BySize::default();
            // In batches of 16.
            for (batch, tokens) in tokens.chunks(16).enumerate() {
                let mut firsts = Firsts::default();
                firsts.begin(20);
                for (i, fired) in tokens.iter().enumerate().filter(|(i, _)| batch * 16 + i >= first) {
                    let mut token = firsts.token(batch * 16 + i);
                    fired.iter().for_each(|slot| token.fires(*slot));
                    token.count(counted, &mut sums);
                }
            }
            assert_eq!((counted.blocks(), sums), naive(&tokens, first), "{n} tokens from {first} on");
        }
    }

    #[test]
    fn the_union_of_unrelated_tokens_is_the_mean_over_all_choices() {
        let tokens = window(9, 5);
        let counts = (0..20).map(|i| tokens.iter().filter(|fired| fired.contains(&i)).count() as u64);
        let found = unrelated(counts, 9);
        for (size, n) in SIZES[..3].iter().enumerate() {
            let choices: Vec<u32> = (0u32..1 << 9).filter(|choice| choice.count_ones() as usize == *n).collect();
            let union = |choice: &u32| {
                let chosen = (0..9).filter(|i| choice >> i & 1 == 1);
                chosen.flat_map(|i| &tokens[i]).collect::<BTreeSet<_>>().len() as f64
            };
            let mean = choices.iter().map(union).sum::<f64>() / choices.len() as f64;
            assert!((found[size].unwrap() - mean).abs() < 1e-9, "{n}: {found:?} instead of {mean}");
        }
        assert_eq!(found[3], None);
        assert_eq!(unrelated([16, 0, 1].into_iter(), 16)[3], Some(2.0));
    }

    #[test]
    fn counts_survive_and_what_is_impossible_is_refused() {
        let mut unions = UnionCounts::new(2, 1);
        unions.blocks = [8, 4, 2, 1];
        unions.fired = vec![[20, 12, 8, 5], [0; 4]];
        unions.chosen = vec![[16, 10, 6, 3]];
        let check = |unions: &UnionCounts| unions.check(17, &[(5, 30), (3, 0)], &[(4, 17)]);
        let mut bytes = Vec::new();
        unions.put(&mut bytes);
        assert_eq!(UnionCounts::read(&bytes, 2, 1).unwrap(), unions);
        check(&unions).unwrap();
        assert_eq!((unions.mean(&[0, 1], 1), unions.mean_chosen(0, 3)), (Some(3.0), Some(3.0)));
        for n in 0..bytes.len() {
            assert!(UnionCounts::read(&bytes[..n], 2, 1).is_err());
        }
        assert!(UnionCounts::read(&bytes, 1, 1).is_err() && UnionCounts::read(&bytes, 2, 2).is_err());
        bytes[4] = 3;
        assert!(UnionCounts::read(&bytes, 2, 1).unwrap_err().to_string().contains("[2, 4, 8, 16]"));
        let refused = |change: fn(&mut UnionCounts)| {
            let mut wrong = unions.clone();
            change(&mut wrong);
            assert!(check(&wrong).is_err(), "{wrong:?}");
        };
        refused(|u| u.blocks[0] = 9);
        refused(|u| u.blocks[3] = 2);
        refused(|u| u.fired[0][0] = 31);
        refused(|u| u.fired[0][3] = 6);
        refused(|u| u.fired[0][2] = 4);
        refused(|u| u.fired[1][0] = 1);
        refused(|u| u.chosen[0][0] = 18);
        let mut most = unions.clone();
        most.fired[0][0] = u64::MAX;
        assert!(most.merge(&unions).is_err());
        let mut twice = unions.clone();
        twice.merge(&unions).unwrap();
        assert_eq!((twice.blocks, twice.fired[0][1]), ([16, 8, 4, 2], 24));
    }
}
