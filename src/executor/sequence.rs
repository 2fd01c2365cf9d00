//! Sequences: tokens that belong together, with what a model remembers of them.

use super::kv_cache::KvPages;
use super::memory::Memory;
use super::seat::Seat;
use super::stats::FfnStats;
use anyhow::Result;

/// A sequence of tokens: its memory and counts. Executors compute it and do not own it.
pub struct Sequence {
    pub(super) memory: Memory,
    pub(super) stats: FfnStats,
    /// Those that are in.
    pub(super) tokens: Vec<u32>,
    /// Where a device remembers what is not in `memory`.
    pub(super) seat: Option<Seat>,
}

impl Sequence {
    pub(super) fn new(memory: Memory, stats: FfnStats, seat: Option<Seat>) -> Self {
        let tokens = Vec::with_capacity(memory.n_ctx());
        Self { memory, stats, tokens, seat }
    }

    /// Whether it was made for a model of the same sizes, with as much room.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.memory.is_like(&other.memory) && self.stats.is_like(&other.stats)
    }

    /// What the model remembers.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Pages of the keys and values of some sequences, which have them with each other only.
    pub fn kv_pages(sequences: &[Self]) -> KvPages {
        KvPages::of(sequences.iter().map(|sequence| sequence.memory.kv()))
    }

    /// Tokens that are in.
    pub fn n_past(&self) -> usize {
        self.memory.n_past()
    }

    /// What fired while it was decoded.
    pub fn stats(&self) -> &FfnStats {
        &self.stats
    }

    /// Forgets all tokens; counts stay.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.tokens.clear();
    }

    /// Further tokens have gone through all layers.
    pub(super) fn advance(&mut self, tokens: impl ExactSizeIterator<Item = u32>) {
        self.memory.advance(tokens.len());
        self.tokens.extend(tokens);
    }

    /// Gives up room that its tokens do not need: it has had more.
    pub fn give_up_unused(&mut self) {
        self.memory.give_up_unused();
    }

    /// Forgets everything after the first `n_past` tokens.
    ///
    /// # Errors
    /// When its memory cannot forget just these: then [`Sequence::clear`] it and compute the others again.
    pub(super) fn truncate(&mut self, n_past: usize) -> Result<()> {
        self.memory.truncate(n_past)?;
        self.forget_tokens();
        Ok(())
    }

    /// Holds the first `n` tokens of `other` as far as they are in memory, but for the keys and values of layers that are
    /// `elsewhere`, and nothing else: the pages of keys and values are those of both until one of them writes there. `false` where it
    /// is of another model or set-up, has fewer tokens or has given up what is needed to go on behind these: then it holds nothing.
    /// Counts stay.
    pub(super) fn copy_from(&mut self, other: &Self, n: usize, elsewhere: impl Fn(usize) -> bool) -> bool {
        self.clear();
        let copied = self.is_like(other) && n <= other.n_past() && self.memory.copy_from(&other.memory, n, elsewhere);
        if copied {
            self.tokens.extend_from_slice(&other.tokens[..n]);
        }
        copied
    }

    /// Makes it possible to go back to where it is now: [`Memory::remember`].
    pub(super) fn remember(&mut self) {
        self.memory.remember();
    }

    /// Forgets everything after the first `n_past` tokens, and as few of these as it must. Returns how many are left.
    pub(super) fn keep(&mut self, n_past: usize) -> usize {
        self.memory.keep(n_past);
        self.forget_tokens();
        self.n_past()
    }

    /// Goes back to where states of recurrent layers are whole, after a pass that has ended in its middle.
    pub(super) fn recover(&mut self) {
        self.memory.recover();
        self.forget_tokens();
    }

    /// Its memory has gone back.
    pub(super) fn forget_tokens(&mut self) {
        self.tokens.truncate(self.memory.n_past());
    }
}
