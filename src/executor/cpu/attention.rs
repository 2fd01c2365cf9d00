//! Rotary embedding and causal attention over the KV cache.

mod scratch;
mod spans;
mod strips;
#[cfg(test)]
mod testing;

use super::compute::{Compute, How};
use crate::executor::kv_cache::KvCache;
use crate::model::{Config, Rope, RopeKind};
use spans::Spans;
use strips::Strips;

/// Rotary embedding with its frequencies worked out.
pub(in crate::executor) struct Rotation {
    rope: Rope,
    frequencies: Vec<f32>,
}

impl Rotation {
    /// `divisors` are those of `rope_freqs`, one per pair, where the model has them.
    pub fn new(rope: &Rope, divisors: Option<&[f32]>) -> Self {
        Self { rope: rope.clone(), frequencies: rope.frequencies(divisors) }
    }

    /// Radians per position, `[n_dims / 2]`.
    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// Elements of a head that are rotated with each other, one pair for each frequency; none where nothing is rotated.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let Rope { kind, first, n_dims, .. } = self.rope;
        let n = if kind == RopeKind::None { 0 } else { self.frequencies.len() };
        (0..n).map(move |i| match kind {
            RopeKind::Interleaved => (first + 2 * i, first + 2 * i + 1),
            RopeKind::Halves | RopeKind::None => (first + i, first + i + n_dims / 2),
        })
    }

    /// Rotates `[n_heads][head_dim]` values of the token at `position`, and scales them by the magnitude.
    pub fn apply(&self, heads: &mut [f32], head_dim: usize, position: usize) {
        for ((a, b), frequency) in self.pairs().zip(&self.frequencies) {
            let (sin, cos) = (position as f32 * frequency).sin_cos();
            let (sin, cos) = (sin * self.rope.magnitude, cos * self.rope.magnitude);
            for head in heads.chunks_exact_mut(head_dim) {
                let (x, y) = (head[a], head[b]);
                head[a] = x * cos - y * sin;
                head[b] = x * sin + y * cos;
            }
        }
    }
}

/// What a query attends to: the cache of its sequence, up to its own position.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    /// Keys and values, those of the query's own token included.
    pub kv: &'a KvCache,
    /// Position of its token.
    pub position: usize,
}

/// The layer that attends.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub config: &'a Config,
    pub number: usize,
    /// Which score of each head joins its softmax without a value.
    pub sinks: Option<&'a [f32]>,
}

/// Attention, with the memory that it keeps from call to call.
#[derive(Default)]
pub(super) struct Attention {
    spans: Spans,
    strips: Strips,
}

impl Attention {
    /// Attention of `[n_tokens][n_head][head_dim]` queries of a layer; `query` says what each token attends to. `out` grows by
    /// `[n_tokens][n_head][value_dim]`.
    pub fn of<'k>(
        &mut self,
        cx: Compute,
        how: How,
        layer: &Layer,
        q: &[f32],
        query: impl Fn(usize) -> Query<'k> + Sync,
        out: &mut Vec<f32>,
    ) {
        let Config { head_dim, value_dim, .. } = *layer.config;
        let before = out.len();
        out.resize(before + q.len() / head_dim * value_dim, 0.0);
        let out = &mut out[before..];
        match how {
            How::Rows => self.spans.of(cx, layer, q, &query, out),
            How::Tiles => self.strips.of(cx, layer, q, &query, out),
        }
    }
}
