//! Experts: groups of neurons that a router chooses among.

use super::router::{Gating, Router};

/// Experts of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Number of experts in each layer that has some.
    pub n: usize,
    /// How many are chosen for a token, by layer.
    pub n_used: Vec<usize>,
    /// Neurons of an expert, by layer.
    pub n_ff: Vec<usize>,
    /// Neurons of the expert that is computed for every token; 0 where there is none.
    pub n_ff_shared: usize,
    /// How scores become weights.
    pub gating: Gating,
    /// Whether the weights of chosen experts are divided by their sum.
    pub normalised: bool,
    /// What weights are multiplied with.
    pub scale: f32,
    /// Elements of what experts read and give, where these are others than the residual stream's.
    pub latent: Option<usize>,
}

impl Experts {
    /// The router of layer number `layer`.
    pub fn router(&self, layer: usize) -> Router {
        let Self { gating, normalised, scale, .. } = *self;
        Router { gating, n_used: self.n_used[layer], normalised, scale }
    }
}
