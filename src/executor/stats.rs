//! What fired while decoding, and what it cost in bytes.

use crate::model::Model;

/// Counts over all tokens decoded so far.
#[derive(Debug, Clone)]
pub struct FfnStats {
    n_ff: Vec<usize>,
    fired: Vec<u64>,
    n_tokens: u64,
}

impl FfnStats {
    /// Nothing counted yet, for layers of `n_ff` neurons.
    pub fn new(n_ff: &[usize]) -> Self {
        Self { n_ff: n_ff.to_vec(), fired: vec![0; n_ff.len()], n_tokens: 0 }
    }

    pub(super) fn add(&mut self, layer: usize, fired: usize) {
        self.fired[layer] += fired as u64;
    }

    pub(super) fn end_token(&mut self) {
        self.n_tokens += 1;
    }

    /// Tokens decoded.
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    /// Share of a layer's neurons that fired; `None` before the first token.
    pub fn layer_density(&self, layer: usize) -> Option<f64> {
        let possible = self.n_tokens * self.n_ff[layer] as u64;
        (possible > 0).then(|| self.fired[layer] as f64 / possible as f64)
    }

    /// Share of all neurons that fired; `None` before the first token.
    pub fn density(&self) -> Option<f64> {
        let possible = self.n_tokens * self.n_ff.iter().sum::<usize>() as u64;
        (possible > 0).then(|| self.fired.iter().sum::<u64>() as f64 / possible as f64)
    }

    /// Mean bytes of weights that one decoded token touched when only neurons that fired were computed.
    pub fn exact_bytes_per_token(&self, model: &Model) -> Option<f64> {
        let fixed = outside_ffn(model) as f64;
        let layers = model.weights.layers.iter().enumerate();
        layers
            .map(|(i, layer)| {
                let active = self.layer_density(i)? * self.n_ff[i] as f64;
                Some(
                    layer
                        .ffn
                        .iter()
                        .map(|group| {
                            let down = if group.index.is_some() { 0 } else { group.ffn_down.n_bytes() };
                            (group.mask_matrix().n_bytes() + down) as f64 + group.bytes_for_active(active)
                        })
                        .sum::<f64>(),
                )
            })
            .sum::<Option<f64>>()
            .map(|ffn| ffn + fixed)
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
