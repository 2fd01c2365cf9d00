//! What a model remembers of a sequence: keys and values of its layers with attention.

use super::kv_cache::KvCache;
use super::params::ExecutorParams;
use crate::model::Model;
use anyhow::Result;

/// The memory of one sequence.
pub struct Memory {
    kv: KvCache,
}

impl Memory {
    /// An empty memory for as many tokens of `model` as the context of a run has.
    ///
    /// # Errors
    /// When it does not fit in memory, or heads are not whole blocks of the type.
    pub(super) fn new(model: &Model, run: &ExecutorParams) -> Result<Self> {
        Ok(Self { kv: KvCache::new(model, run.n_ctx, run.n_ubatch, run.kv_type)? })
    }

    /// Keys and values.
    pub(super) fn kv(&self) -> &KvCache {
        &self.kv
    }

    /// Stores `[n_head_kv][head_dim]` keys and `[n_head_kv][value_dim]` values of one token in a layer with attention.
    pub(super) fn store(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        self.kv.store(layer, position, k, v);
    }

    /// Further tokens have gone through all layers.
    pub(super) fn advance(&mut self, n_tokens: usize) {
        self.kv.advance(n_tokens);
    }

    /// Whether it has room for the same as `other`.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.kv.is_like(&other.kv)
    }

    /// Bytes that it takes.
    pub fn n_bytes(&self) -> usize {
        self.kv.n_bytes()
    }

    /// Tokens that fit.
    pub fn n_ctx(&self) -> usize {
        self.kv.n_ctx()
    }

    /// Tokens that are in.
    pub fn n_past(&self) -> usize {
        self.kv.n_past()
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.kv.clear();
    }

    /// Forgets everything after the first `n_past` tokens.
    ///
    /// # Errors
    /// Where what is left needs what has been given up for it: of layers with a window.
    pub fn truncate(&mut self, n_past: usize) -> Result<()> {
        self.kv.truncate(n_past)
    }
}
