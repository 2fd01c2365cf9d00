//! Rotary embedding and causal attention over the KV cache.

use super::kv_cache::KvCache;
use crate::cpu::Pool;
use crate::cpu::scalar::{add_scaled, dot};
use crate::model::{Config, Rope, RopeKind};

/// Rotary embedding with its frequencies worked out.
pub(super) struct Rotation {
    rope: Rope,
    frequencies: Vec<f32>,
}

impl Rotation {
    /// `divisors` are those of `rope_freqs`, one per pair, where the model has them.
    pub fn new(rope: &Rope, divisors: Option<&[f32]>) -> Self {
        let n = rope.n_dims;
        let frequency = |i: usize| {
            let base = f64::from(rope.base).powf(-2.0 * i as f64 / n as f64) as f32;
            let divisor = divisors.map_or(1.0, |d| d[i]);
            base / divisor * rope.scale
        };
        Self { rope: rope.clone(), frequencies: (0..n / 2).map(frequency).collect() }
    }

    /// Rotates `[n_heads][head_dim]` values of the token at `position`.
    pub fn apply(&self, heads: &mut [f32], head_dim: usize, position: usize) {
        let pair = |i: usize| match self.rope.kind {
            RopeKind::Interleaved => (2 * i, 2 * i + 1),
            RopeKind::Halves | RopeKind::None => (i, i + self.rope.n_dims / 2),
        };
        if self.rope.kind == RopeKind::None {
            return;
        }
        for (i, frequency) in self.frequencies.iter().enumerate() {
            let (sin, cos) = (position as f32 * frequency).sin_cos();
            let (a, b) = pair(i);
            for head in heads.chunks_exact_mut(head_dim) {
                let (x, y) = (head[a], head[b]);
                head[a] = x * cos - y * sin;
                head[b] = x * sin + y * cos;
            }
        }
    }
}

/// What one call of [`Attention::of`] attends to, and its scratch memory.
pub(super) struct Attention<'a> {
    /// Sizes.
    pub config: &'a Config,
    /// Threads.
    pub pool: &'a Pool,
    /// Keys and values, those of the queries' own tokens included.
    pub kv: &'a KvCache,
    /// Number of the layer.
    pub layer: usize,
    /// Position of the first query.
    pub first: usize,
    /// Kept for its memory only.
    pub by_head: &'a mut Vec<f32>,
}

impl Attention<'_> {
    /// Attention of `[n_tokens][n_head][head_dim]` queries to everything up to themselves; `out` is laid out as `q`.
    pub fn of(self, q: &[f32], out: &mut Vec<f32>) {
        let Self { config, pool, kv, layer, first, by_head } = self;
        let (n_head, head_dim) = (config.n_head, config.head_dim);
        let group = n_head / config.n_head_kv;
        let n_tokens = q.len() / (n_head * head_dim);
        let n_keys = first + n_tokens;
        let scale = 1.0 / (head_dim as f32).sqrt();
        by_head.resize(q.len(), 0.0);
        // Query heads of one key/value head lie together in [n_head][n_tokens][head_dim].
        let grain = group * n_tokens * head_dim;
        pool.fill(by_head, grain, |start, piece| {
            let mut k = vec![0.0; n_keys * head_dim];
            let mut v = vec![0.0; n_keys * head_dim];
            let mut scores = vec![0.0; n_keys];
            for (i, piece) in piece.chunks_exact_mut(grain).enumerate() {
                let head_kv = start / grain + i;
                kv.read(layer, head_kv, &mut k, &mut v);
                for (j, row) in piece.chunks_exact_mut(head_dim).enumerate() {
                    let (head, token) = (head_kv * group + j / n_tokens, j % n_tokens);
                    let q = &q[(token * n_head + head) * head_dim..][..head_dim];
                    let scores = &mut scores[..first + token + 1];
                    for (score, k) in scores.iter_mut().zip(k.chunks_exact(head_dim)) {
                        *score = dot(k, q) * scale;
                    }
                    softmax(scores);
                    row.fill(0.0);
                    for (score, v) in scores.iter().zip(v.chunks_exact(head_dim)) {
                        add_scaled(v, *score, row);
                    }
                }
            }
        });
        out.resize(q.len(), 0.0);
        for (i, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let (token, head) = (i / n_head, i % n_head);
            out.copy_from_slice(&by_head[(head * n_tokens + token) * head_dim..][..head_dim]);
        }
    }
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}
