//! Rotary embedding and causal attention over the KV cache.

use super::compute::Compute;
use crate::cpu::{ActRow, Activations, Kernels};
use crate::executor::kv_cache::{HeadCache, KvCache};
use crate::model::{Caps, Config, KvType, Rope, RopeKind};
use std::ops::Range;

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

/// Positions whose scores are held at a time.
const BLOCK: usize = 128;

/// What a query attends to: the cache of its sequence, up to its own position.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    /// Keys and values, those of the query's own token included.
    pub kv: &'a KvCache,
    /// Position of its token.
    pub position: usize,
}

/// Attention, with the memory that it keeps from call to call.
#[derive(Default)]
pub(super) struct Attention {
    queries: Activations,
    by_head: Vec<f32>,
}

impl Attention {
    /// Attention of `[n_tokens][n_head][head_dim]` queries of layer `layer`; `query` says what each token attends to,
    /// `sinks` which score of each head joins its softmax without a value. `out` grows by `[n_tokens][n_head][value_dim]`.
    #[allow(clippy::too_many_arguments, reason = "what a layer has, and where its vectors are")]
    pub fn of<'k>(
        &mut self,
        cx: Compute,
        config: &Config,
        layer: usize,
        sinks: Option<&[f32]>,
        q: &[f32],
        query: impl Fn(usize) -> Query<'k> + Sync,
        out: &mut Vec<f32>,
    ) {
        let Self { queries, by_head } = self;
        let (n_head, head_dim, value_dim) = (config.n_head, config.head_dim, config.value_dim);
        let group = n_head / config.n_head_kv;
        let (scale, cap) = (config.attention_scale, config.caps.scores);
        let n_tokens = q.len() / (n_head * head_dim);
        let KvType { k, v } = query(0).kv.kind();
        let kernels = [k, v].map(|dtype| cx.isa.kernels(dtype));
        queries.load(q, head_dim, [kernels[0].act]);
        let queries = &*queries;
        by_head.resize(n_tokens * n_head * value_dim, 0.0);
        // Query heads of one key/value head lie together in [n_head][n_tokens][value_dim].
        let grain = group * n_tokens * value_dim;
        cx.pool.fill(by_head, grain, |start, piece| {
            for (i, piece) in piece.chunks_exact_mut(grain).enumerate() {
                let head_kv = start / grain + i;
                for (j, row) in piece.chunks_exact_mut(value_dim).enumerate() {
                    let (head, token) = (head_kv * group + j / n_tokens, j % n_tokens);
                    let Query { kv, position } = query(token);
                    let (cache, seen) = (kv.of_head(layer, head_kv), kv.seen(layer, position));
                    let sink = sinks.map(|sinks| sinks[head]);
                    attend(kernels, queries.row(token * n_head + head), cache, seen, (scale, cap, sink), row);
                }
            }
        });
        let before = out.len();
        out.resize(before + by_head.len(), 0.0);
        for (i, out) in out[before..].chunks_exact_mut(value_dim).enumerate() {
            let (token, head) = (i / n_head, i % n_head);
            out.copy_from_slice(&by_head[(head * n_tokens + token) * value_dim..][..value_dim]);
        }
    }
}

/// Softmax of `scale * (q . keys)`, below the cap where there is one, and beside the score of the sink where there is one, times
/// values, into `out`, of the positions `seen`: block after block of them, with the largest score so far and everything rescaled
/// when a larger one comes ("online softmax", arXiv 1805.02867), so that no vector as long as the context is made.
fn attend(
    [of_keys, of_values]: [&Kernels; 2],
    q: ActRow,
    cache: HeadCache,
    seen: Range<usize>,
    (scale, cap, sink): (f32, Option<f32>, Option<f32>),
    out: &mut [f32],
) {
    let (mut max, mut sum) = sink.map_or((f32::NEG_INFINITY, 0.0f32), |sink| (sink, 1.0));
    out.fill(0.0);
    for start in seen.clone().step_by(BLOCK) {
        let block = start..seen.end.min(start + BLOCK);
        let mut scores = [0.0; BLOCK];
        let scores = &mut scores[..block.len()];
        for stretch in cache.stretches(block.clone()) {
            let own = stretch.start - start..stretch.end - start;
            (of_keys.dot)(cache.keys(&stretch), q, &mut scores[own]);
        }
        scores.iter_mut().for_each(|s| *s *= scale);
        if let Some(cap) = cap {
            Caps::apply(cap, scores);
        }
        let block_max = scores.iter().copied().fold(max, f32::max);
        if block_max > max {
            let rescale = (max - block_max).exp();
            sum *= rescale;
            out.iter_mut().for_each(|o| *o *= rescale);
            max = block_max;
        }
        for score in scores.iter_mut() {
            *score = (*score - max).exp();
            sum += *score;
        }
        for stretch in cache.stretches(block) {
            let own = stretch.start - start..stretch.end - start;
            (of_values.add_scaled)(cache.values(&stretch), &scores[own], out);
        }
    }
    out.iter_mut().for_each(|o| *o /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{ActKind, Isa};

    fn wave(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * seed).sin() * 2.0).collect()
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// One query of `head_dim` over the positions `seen` of a cache.
    fn attended(head_dim: usize, cache: HeadCache, seen: Range<usize>) -> Vec<f32> {
        attended_beside(head_dim, cache, seen, None)
    }

    /// The same beside a sink.
    fn attended_beside(head_dim: usize, cache: HeadCache, seen: Range<usize>, sink: Option<f32>) -> Vec<f32> {
        let q: Vec<f32> = (0..head_dim).map(|i| (i as f32).cos() * 3.0).collect();
        let mut queries = Activations::default();
        queries.load(&q, head_dim, [ActKind::F32]);
        let mut out = vec![0.0; head_dim];
        let kernels = Isa::Plain.kernels(crate::quant::GgmlType::F32);
        attend([kernels; 2], queries.row(0), cache, seen, (1.0 / (head_dim as f32).sqrt(), None, sink), &mut out);
        out
    }

    #[test]
    fn blocks_of_positions_give_what_one_softmax_over_all_gives() {
        let (n, head_dim) = (3 * BLOCK + 17, 32);
        let (k, v) = (wave(n * head_dim, 0.37), wave(n * head_dim, 0.71));
        let q: Vec<f32> = (0..head_dim).map(|i| (i as f32).cos() * 3.0).collect();
        let out = attended(head_dim, HeadCache::new(&bytes(&k), &bytes(&v), 4 * head_dim), 0..n);

        let dot = |k: &[f32]| k.iter().zip(&q).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
        let weights: Vec<f64> = k.chunks(head_dim).map(|k| (dot(k) / (head_dim as f64).sqrt()).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (i, out) in out.iter().enumerate() {
            let exact: f64 = weights.iter().zip(v.chunks(head_dim)).map(|(w, v)| w / total * f64::from(v[i])).sum();
            assert!((f64::from(*out) - exact).abs() < 1e-5, "{i}: {out} instead of {exact}");
        }
    }

    #[test]
    fn a_sink_takes_its_share_of_the_softmax_and_gives_nothing() {
        let (n, head_dim) = (BLOCK + 17, 32);
        let (k, v) = (wave(n * head_dim, 0.37), wave(n * head_dim, 0.71));
        let q: Vec<f32> = (0..head_dim).map(|i| (i as f32).cos() * 3.0).collect();
        let dot = |k: &[f32]| k.iter().zip(&q).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
        let total: f64 = k.chunks(head_dim).map(|k| (dot(k) / (head_dim as f64).sqrt()).exp()).sum();
        let cache = || HeadCache::new(&[], &[], 4 * head_dim);
        assert_eq!(attended_beside(head_dim, cache(), 0..0, Some(0.5)), vec![0.0; head_dim]);
        let (k, v) = (bytes(&k), bytes(&v));
        let plain = attended(head_dim, HeadCache::new(&k, &v, 4 * head_dim), 0..n);
        for sink in [-3.0, 0.5, 12.0] {
            let got = attended_beside(head_dim, HeadCache::new(&k, &v, 4 * head_dim), 0..n, Some(sink));
            let share = total / (total + f64::from(sink).exp());
            for (plain, got) in plain.iter().zip(got) {
                assert!((f64::from(*plain) * share - f64::from(got)).abs() < 1e-5, "{sink}: {got}");
            }
        }
    }

    #[test]
    fn positions_that_have_taken_the_rows_of_others_give_the_bits_that_they_give_one_behind_the_other() {
        let (n, head_dim, n_rows) = (2 * BLOCK + 60, 32, BLOCK + 9);
        let (k, v) = (wave(n * head_dim, 0.37), wave(n * head_dim, 0.71));
        let ring = |all: &[f32]| {
            let mut rows = vec![0.0; n_rows * head_dim];
            for (position, row) in all.chunks(head_dim).enumerate() {
                rows[position % n_rows * head_dim..][..head_dim].copy_from_slice(row);
            }
            bytes(&rows)
        };
        let (k_ring, v_ring) = (ring(&k), ring(&v));
        let (k, v) = (bytes(&k), bytes(&v));
        for window in [1, 7, BLOCK, BLOCK + 1, n_rows] {
            let straight = attended(head_dim, HeadCache::new(&k, &v, 4 * head_dim), n - window..n);
            let in_ring = attended(head_dim, HeadCache::new(&k_ring, &v_ring, 4 * head_dim), n - window..n);
            let bits = |out: &[f32]| out.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&straight), bits(&in_ring), "{window}");
        }
    }
}
