//! Predictors: which neurons may fire, judged from the FFN's input at a fraction of the mask matrix's bytes.

mod auto;
mod calibrate;
mod data;
mod file;
mod fit;
mod linalg;
mod lowrank;
pub mod mlp;
mod report;
mod sign;
mod stored;
mod tensor;
#[cfg(test)]
mod tests;

pub use auto::Costs;
pub use calibrate::{ALWAYS, NEVER};
pub use fit::{FitParams, PredictorChoice, fit, left_out};
pub use report::table;
pub use stored::{Kind, Weights};
pub use tensor::Tensor;

use crate::model::NeuronId;
use crate::placement::workload::PredictorWork;
use crate::profile::Fingerprint;

/// Predictors of all layers of one model, by [`crate::model::NeuronId`].
#[derive(Debug, Clone, PartialEq)]
pub struct Predictors {
    /// The model they were fitted to.
    pub fingerprint: Fingerprint,
    /// Name of that model.
    pub name: String,
    /// By layer number.
    pub layers: Vec<LayerPredictor>,
}

/// The predictor of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPredictor {
    /// What scores are computed from.
    pub weights: Weights,
    /// `[n_ff]`: a neuron is active if its score plus this is not negative. [`ALWAYS`] and above: for every token;
    /// [`NEVER`] and below: for none. Empty for [`Kind::None`].
    pub bias: Vec<f32>,
    /// What it does on text it has not seen.
    pub measured: LayerMeasures,
}

/// What a layer's predictor does on held-out tokens. Without a predictor everything is active.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerMeasures {
    /// Share of the activation mass that was the target.
    pub target: f32,
    /// Share of the activation mass that is in active neurons.
    pub recall: f32,
    /// Share of the firings that are of active neurons.
    pub recall_count: f32,
    /// Share of the active neurons that fire.
    pub precision: f32,
    /// Share of neurons that are active.
    pub active: f32,
    /// Share of neurons that fire.
    pub fired: f32,
}

impl LayerMeasures {
    /// Of a layer that is computed, of which nothing was measured.
    pub const COMPUTED: Self =
        Self { target: 1.0, recall: 1.0, recall_count: 1.0, precision: 0.0, active: 1.0, fired: 0.0 };
}

impl LayerPredictor {
    /// Neurons that are never scored.
    pub fn n_always(&self) -> usize {
        self.bias.iter().filter(|b| **b >= ALWAYS).count()
    }

    /// What planning must know about it if its neurons lie in `order`; `None` if there is nothing to score with.
    pub fn work(&self, order: &[NeuronId]) -> Option<PredictorWork> {
        let (dtype, m) = (self.weights.dtype()?, self.measured);
        let always = |id: &&NeuronId| self.bias.get(id.0 as usize).is_some_and(|b| *b >= ALWAYS);
        let n_always = order.iter().take_while(always).count();
        let (fixed, row) = (self.weights.common_bytes(), self.weights.score_row() + 4);
        let n_hidden = self.weights.n_hidden();
        Some(PredictorWork { n_hidden, n_always, ..PredictorWork::new(fixed, row, dtype, m.active, m.fired) })
    }

    /// Bytes in a file, biases included.
    pub fn n_bytes(&self) -> usize {
        self.weights.common_bytes() + self.weights.score_row() * self.weights.n_rows() + 4 * self.bias.len()
    }

    /// Bytes of it that a token reads if neurons that are always active come first.
    pub fn bytes_read(&self) -> usize {
        self.weights.common_bytes() + (self.weights.score_row() + 4) * (self.bias.len() - self.n_always())
    }
}
