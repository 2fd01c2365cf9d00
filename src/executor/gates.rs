//! What the gates of a prefill look like before the activation function.

use super::observer::{FfnAt, Observer};

/// Tokens of a prefill that are looked at.
const N_TOKENS: u32 = 64;

/// How many gates of each layer are positive; of an FFN without a gate, how many `up` products.
///
/// The first token of a prefill is left out: what begins a text is often the one token of which models make something else
/// than of all others.
#[derive(Debug, Clone, Default)]
pub struct Gates {
    layers: Vec<Layer>,
    n_tokens: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Layer {
    n: u64,
    n_positive: u64,
}

impl Layer {
    fn share(self) -> Option<f64> {
        (self.n > 0).then(|| self.n_positive as f64 / self.n as f64)
    }
}

impl Gates {
    /// Fewer tokens say nothing.
    pub const MIN_TOKENS: usize = 16;

    /// Whether so many tokens have been computed that they say something.
    pub fn are_enough(&self) -> bool {
        self.n_tokens >= Self::MIN_TOKENS
    }

    /// A prefill of `n` tokens is over.
    pub fn advance(&mut self, n: usize) {
        self.n_tokens += n;
    }

    /// Share of the gates of the first layer that has any which are positive. No activation function has changed what these
    /// are products of.
    pub fn first(&self) -> Option<f64> {
        self.layers.iter().find_map(|layer| layer.share())
    }

    /// Share of the gates of all layers that are positive.
    pub fn all(&self) -> Option<f64> {
        let sum = |a: Layer, b: &Layer| Layer { n: a.n + b.n, n_positive: a.n_positive + b.n_positive };
        self.layers.iter().fold(Layer::default(), sum).share()
    }
}

impl Observer for Gates {
    fn gates(&mut self, at: FfnAt, gates: &[f32]) {
        if self.layers.len() <= at.group.layer {
            self.layers.resize(at.group.layer + 1, Layer::default());
        }
        let layer = &mut self.layers[at.group.layer];
        let n_ff = gates.len() / at.tokens.len().max(1);
        for (token, gates) in at.tokens.iter().zip(gates.chunks_exact(n_ff.max(1))) {
            if (1..N_TOKENS).contains(token) {
                layer.n += n_ff as u64;
                layer.n_positive += gates.iter().map(|gate| u64::from(*gate > 0.0)).sum::<u64>();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GroupAt;

    fn see(gates: &mut Gates, layer: usize, tokens: &[u32], values: &[f32]) {
        gates.gates(FfnAt { group: GroupAt { layer, group: 0, number: layer }, tokens }, values);
    }

    #[test]
    fn the_first_token_and_those_beyond_the_limit_do_not_count() {
        let mut gates = Gates::default();
        see(&mut gates, 1, &[0], &[1.0, 1.0]);
        assert!(gates.first().is_none() && gates.all().is_none());
        see(&mut gates, 1, &[0, 1, 64], &[1.0, 1.0, 1.0, -1.0, 1.0, 1.0]);
        assert_eq!(gates.first(), Some(0.5));
        see(&mut gates, 2, &[1, 2], &[0.0, -1.0, f32::NAN, -0.0]);
        assert_eq!((gates.first(), gates.all()), (Some(0.5), Some(1.0 / 6.0)));
    }
}
