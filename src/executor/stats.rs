//! What fired while decoding, and what it cost in bytes.

use crate::model::{Layer, Model, NeuronGroup};
use std::time::Duration;

/// What one shard computed for one token in one layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Computed {
    /// Neurons that fired.
    pub fired: usize,
    /// Neurons whose row of the mask matrix was read.
    pub masked: usize,
    /// Bytes of the predictor that were read.
    pub predictor_bytes: usize,
    /// Time that it took.
    pub predictor_time: Duration,
}

/// What of the neurons that fired was computed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Recall {
    /// Neurons that fired.
    pub fired: u64,
    /// Those that were computed.
    pub found: u64,
    /// Mass of the neurons that fired: `|activation * up|`, or `|activation|` where there is no gate.
    pub mass: f64,
    /// That of those that were computed.
    pub found_mass: f64,
}

impl Recall {
    pub(super) fn add(&mut self, mass: f64, found: bool) {
        self.fired += 1;
        self.mass += mass;
        if found {
            self.found += 1;
            self.found_mass += mass;
        }
    }

    fn merge(&mut self, other: Self) {
        self.fired += other.fired;
        self.found += other.found;
        self.mass += other.mass;
        self.found_mass += other.found_mass;
    }

    /// Share of the neurons that fired; 1 where none did.
    pub fn by_count(&self) -> f64 {
        if self.fired == 0 { 1.0 } else { self.found as f64 / self.fired as f64 }
    }

    /// Share of their mass; 1 where there is none.
    pub fn by_mass(&self) -> f64 {
        if self.mass > 0.0 { self.found_mass / self.mass } else { 1.0 }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct LayerStats {
    n_ff: usize,
    fired: u64,
    masked: u64,
    predictor_bytes: u64,
    predictor_time: Duration,
    recall: Recall,
}

/// Counts over all tokens decoded so far.
#[derive(Debug, Clone)]
pub struct FfnStats {
    layers: Vec<LayerStats>,
    n_tokens: u64,
}

impl FfnStats {
    /// Nothing counted yet, for layers of `n_ff` neurons.
    pub fn new(n_ff: &[usize]) -> Self {
        let layers = n_ff.iter().map(|n_ff| LayerStats { n_ff: *n_ff, ..LayerStats::default() }).collect();
        Self { layers, n_tokens: 0 }
    }

    pub(super) fn add(&mut self, layer: usize, computed: Computed) {
        let layer = &mut self.layers[layer];
        layer.fired += computed.fired as u64;
        layer.masked += computed.masked as u64;
        layer.predictor_bytes += computed.predictor_bytes as u64;
        layer.predictor_time += computed.predictor_time;
    }

    pub(super) fn add_recall(&mut self, layer: usize, recall: Recall) {
        self.layers[layer].recall.merge(recall);
    }

    pub(super) fn end_token(&mut self) {
        self.n_tokens += 1;
    }

    /// Tokens decoded.
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    fn share(&self, layers: &[LayerStats], of: fn(&LayerStats) -> u64) -> Option<f64> {
        let possible = self.n_tokens * layers.iter().map(|l| l.n_ff as u64).sum::<u64>();
        (possible > 0).then(|| layers.iter().map(of).sum::<u64>() as f64 / possible as f64)
    }

    /// Share of a layer's neurons that were computed and fired; `None` before the first token.
    pub fn layer_density(&self, layer: usize) -> Option<f64> {
        self.share(&self.layers[layer..=layer], |l| l.fired)
    }

    /// Share of all neurons that were computed and fired; `None` before the first token.
    pub fn density(&self) -> Option<f64> {
        self.share(&self.layers, |l| l.fired)
    }

    /// Share of a layer's neurons whose row of the mask matrix was read; `None` before the first token.
    pub fn layer_masked(&self, layer: usize) -> Option<f64> {
        self.share(&self.layers[layer..=layer], |l| l.masked)
    }

    /// Share of all neurons whose row of the mask matrix was read; `None` before the first token.
    pub fn masked(&self) -> Option<f64> {
        self.share(&self.layers, |l| l.masked)
    }

    /// What a layer's predictor found in the tokens that were looked at; `None` where none were.
    pub fn layer_recall(&self, layer: usize) -> Option<Recall> {
        Some(self.layers[layer].recall).filter(|r| r.fired > 0)
    }

    /// What all predictors found in the tokens that were looked at; `None` where none were.
    pub fn recall(&self) -> Option<Recall> {
        let mut all = Recall::default();
        self.layers.iter().for_each(|l| all.merge(l.recall));
        Some(all).filter(|r| r.fired > 0)
    }

    /// Mean bytes of predictors that one token touched.
    pub fn predictor_bytes_per_token(&self) -> f64 {
        let bytes: u64 = self.layers.iter().map(|l| l.predictor_bytes).sum();
        bytes as f64 / self.n_tokens.max(1) as f64
    }

    /// Mean time that predictors took for one token.
    pub fn predictor_time_per_token(&self) -> Duration {
        let total: Duration = self.layers.iter().map(|l| l.predictor_time).sum();
        total.div_f64(self.n_tokens.max(1) as f64)
    }

    /// Mean bytes of weights of the FFN, predictors among them, that one decoded token touched when only neurons that
    /// fired were computed.
    pub fn ffn_bytes_per_token(&self, model: &Model) -> Option<f64> {
        let n_tokens = self.n_tokens as f64;
        (self.n_tokens > 0).then(|| {
            let layer = |(weights, layer): (&Layer, &LayerStats)| {
                let [fired, masked, predictor] =
                    [layer.fired, layer.masked, layer.predictor_bytes].map(|n| n as f64 / n_tokens);
                let group = |group: &NeuronGroup| {
                    let down = if group.index.is_some() { 0 } else { group.ffn_down.n_bytes() };
                    masked * group.mask_matrix().row_bytes() as f64 + down as f64 + group.bytes_for_active(fired)
                };
                predictor + weights.ffn.iter().map(group).sum::<f64>()
            };
            model.weights.layers.iter().zip(&self.layers).map(layer).sum()
        })
    }

    /// Mean bytes of weights that one decoded token touched when only neurons that fired were computed.
    pub fn bytes_per_token(&self, model: &Model) -> Option<f64> {
        Some(self.ffn_bytes_per_token(model)? + outside_ffn(model) as f64)
    }
}

/// Bytes of weights that a dense pass over one batch of tokens touches: everything but the embedding rows of other
/// tokens.
pub fn dense_bytes(model: &Model) -> u64 {
    let ffn = |m: &crate::model::Matrix| m.n_bytes() as u64;
    let groups = model.weights.layers.iter().flat_map(|l| &l.ffn);
    let ffn: u64 =
        groups.map(|g| g.ffn_gate.as_ref().map_or(0, ffn) + ffn(&g.ffn_up) + g.ffn_down.n_bytes() as u64).sum();
    outside_ffn(model) + ffn
}

/// Bytes of attention, norms, head and one embedding row.
fn outside_ffn(model: &Model) -> u64 {
    let w = &model.weights;
    let floats = |v: &[f32]| std::mem::size_of_val(v) as u64;
    let layers: u64 = w
        .layers
        .iter()
        .map(|l| {
            let attn = [&l.attn_q, &l.attn_k, &l.attn_v, &l.attn_output];
            let attn: u64 = attn.iter().map(|a| a.weight.n_bytes() as u64 + a.bias.as_deref().map_or(0, floats)).sum();
            attn + floats(&l.attn_norm.weight) + l.ffn_norm.as_ref().map_or(0, |n| floats(&n.weight))
        })
        .sum();
    layers + floats(&w.output_norm.weight) + w.head().n_bytes() as u64 + w.token_embd.row_bytes() as u64
}
