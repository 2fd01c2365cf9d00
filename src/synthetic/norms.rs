//! How large the residual stream is at each norm, and so the norms' weights.

use super::kind::Kind;
use super::neurons::{FFN_GROWTH, count, n_ffn};
use super::random::Stream;
use super::spec::{N_CONSTANT, Spec};
use crate::shapes::LayerKind;

/// What attention adds when it looks at one token only.
const ATTN_GROWTH: f64 = 0.2;
/// Share of that when it looks at many.
const ATTN_MEAN: f64 = 0.1;
/// What all recurrent layers add.
const RECURRENT_GROWTH: f64 = 0.3;
/// Standard deviation of logits.
pub(super) const LOGITS: f64 = 2.0;

/// What one attention adds to the variance where it looks at one token only.
pub(super) fn attention_growth(spec: &Spec) -> f64 {
    ATTN_GROWTH / count(spec, spec.sized.n_layer, LayerKind::attends).max(1) as f64
}

/// What one recurrent mixer adds to the variance.
pub(super) fn recurrent_growth(spec: &Spec) -> f64 {
    RECURRENT_GROWTH / count(spec, spec.sized.n_layer, is_recurrent).max(1) as f64
}

fn is_recurrent(kind: LayerKind) -> bool {
    kind == LayerKind::Recurrent
}

/// The variance of the residual stream's data before `layer`, or behind its attention.
pub(super) fn variance(spec: &Spec, layer: usize, after_attention: bool) -> f64 {
    let attention = attention_growth(spec) * ATTN_MEAN;
    let ffn = FFN_GROWTH / n_ffn(spec).max(1) as f64;
    let before = |of: fn(LayerKind) -> bool| count(spec, layer, of) as f64;
    let grown = before(LayerKind::attends) * attention
        + before(LayerKind::has_ffn) * ffn
        + before(is_recurrent) * recurrent_growth(spec);
    1.0 + grown + if after_attention { attention } else { 0.0 }
}

/// The weights that give data of variance 1 and a constant of 1.
pub(super) struct Norms {
    data: f32,
    constant: f32,
}

impl Norms {
    /// Before `layer`, or behind its attention.
    pub fn new(spec: &Spec, layer: usize, after_attention: bool) -> Self {
        let variance = variance(spec, layer, after_attention);
        let (n, constant) = (spec.sized.shape.n_embd as f64, N_CONSTANT as f64);
        let square = ((n - constant) * variance + constant) / n;
        Self { data: (square / variance).sqrt() as f32, constant: square.sqrt() as f32 }
    }

    /// Weights of a norm; only masks of neurons and routers may see the constant.
    pub fn weights(&self, n_embd: usize, with_constant: bool) -> Vec<f32> {
        let constant = if with_constant { self.constant } else { 0.0 };
        (0..n_embd).map(|c| if c < N_CONSTANT { constant } else { self.data }).collect()
    }
}

/// Weights of the last norm.
pub(super) fn output_norm(spec: &Spec) -> Vec<f32> {
    let shape = spec.sized.shape;
    let mut weights = Norms::new(spec, spec.sized.n_layer, false).weights(shape.n_embd, false);
    if shape.tied {
        // Embeddings are long, and each token's would point to itself.
        let scale = (LOGITS / ((shape.n_embd - N_CONSTANT) as f64).sqrt()) as f32;
        let mut stream = Stream::new([spec.seed, Kind::HeadSigns as u64, 0, 0]);
        weights.iter_mut().for_each(|w| *w *= if stream.next() & 1 == 0 { scale } else { -scale });
    }
    weights
}
