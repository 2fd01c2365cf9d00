//! Sequences: tokens that belong together, with what a model remembers of them.

use super::kv_cache::KvPages;
use super::memory::Memory;
use super::stats::FfnStats;
use anyhow::Result;

/// A sequence of tokens: its memory and counts. Executors compute it and do not own it.
pub struct Sequence {
    pub(super) memory: Memory,
    pub(super) stats: FfnStats,
}

impl Sequence {
    pub(super) fn new(memory: Memory, stats: FfnStats) -> Self {
        Self { memory, stats }
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
    }

    /// Gives up room that its tokens do not need: it has had more.
    pub fn give_up_unused(&mut self) {
        self.memory.give_up_unused();
    }

    /// Forgets everything after the first `n_past` tokens.
    ///
    /// # Errors
    /// When its memory cannot forget just these: then [`Sequence::clear`] it and compute the others again.
    pub fn truncate(&mut self, n_past: usize) -> Result<()> {
        self.memory.truncate(n_past)
    }

    /// Holds the first `n` tokens of `other`, and nothing else: the pages of their keys and values are those of both until one of
    /// them writes there. `false` where it is of another model or set-up, has fewer tokens or
    /// has given up what is needed to go on behind these: then it holds nothing. Counts stay.
    pub fn copy_from(&mut self, other: &Self, n: usize) -> bool {
        if !self.is_like(other) || n > other.n_past() {
            self.clear();
            return false;
        }
        self.memory.copy_from(&other.memory, n)
    }

    /// Makes it possible to go back to where it is now: [`Memory::remember`].
    pub fn remember(&mut self) {
        self.memory.remember();
    }

    /// Forgets everything after the first `n_past` tokens, and as few of these as it must. Returns how many are left.
    pub fn keep(&mut self, n_past: usize) -> usize {
        self.memory.keep(n_past)
    }
}
