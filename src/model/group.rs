//! Groups of neurons: all of a dense layer's, or one expert's.

use super::down::Down;
use super::matrix::Matrix;
use super::neurons::NeuronIndex;
use super::part::{Part, Tensor};
use super::predictor::Predictor;

/// Where a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupAt {
    /// Number of its layer.
    pub layer: usize,
    /// Its number in the layer.
    pub group: usize,
    /// Its number among the groups of all layers.
    pub number: usize,
}

/// Shares of tokens that groups are computed for, by number, as a profile has counted them: in variants of models whose
/// routers choose.
pub const CHOSEN_KEY: &str = "powerinfer.group_rates";

/// When a group is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// For every token.
    Always,
    /// When the layer's router chooses its row of this number.
    ByRouter(usize),
}

/// Neurons that are computed together. They have an order of their own: the model's, or hot first.
#[derive(Clone)]
pub struct NeuronGroup {
    /// [`Role::FfnGate`](super::Role::FfnGate), absent where the FFN has no gate.
    pub gate: Option<Part>,
    /// [`Role::FfnUp`](super::Role::FfnUp).
    pub up: Part,
    /// [`Role::FfnDown`](super::Role::FfnDown).
    pub down: Part,
    /// Which tokens it is computed for.
    pub chosen: Chosen,
    /// Which neuron lies where, in a variant.
    pub index: Option<NeuronIndex>,
    /// Which neurons may fire, where a predictor is packed in.
    pub predictor: Option<Predictor>,
}

impl NeuronGroup {
    /// Its parts.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.gate.iter().chain([&self.up, &self.down])
    }

    /// `[n_ff][n_embd]`, absent where the FFN has no gate.
    pub fn ffn_gate(&self) -> Option<&Matrix> {
        self.gate.as_ref().map(Part::matrix)
    }

    /// `[n_ff][n_embd]`.
    pub fn ffn_up(&self) -> &Matrix {
        self.up.matrix()
    }

    /// From `[n_ff]` back to `[n_embd]`.
    ///
    /// # Panics
    /// Where the part was made of something else.
    pub fn ffn_down(&self) -> &Down {
        match &self.down.tensor {
            Tensor::Down(down) => down,
            Tensor::Vector(_) | Tensor::Matrix(_) => panic!("ffn_down has no layout"),
        }
    }

    /// Whether a router chooses it.
    pub fn is_routed(&self) -> bool {
        matches!(self.chosen, Chosen::ByRouter(_))
    }

    /// Elements of what its neurons read and give.
    pub fn width(&self) -> usize {
        self.ffn_up().n_cols
    }

    /// Number of neurons.
    pub fn n_ff(&self) -> usize {
        self.ffn_up().n_rows
    }

    /// The part whose product, through the activation, says which neurons fire: gate, or up where there is no gate.
    pub fn mask(&self) -> &Part {
        self.gate.as_ref().unwrap_or(&self.up)
    }

    /// The matrix of [`NeuronGroup::mask`].
    pub fn mask_matrix(&self) -> &Matrix {
        self.mask().matrix()
    }

    /// Has the system read its weights soon, where they are in a mapped file.
    pub fn will_need(&self) {
        self.ffn_gate().into_iter().chain([self.ffn_up()]).for_each(Matrix::will_need);
        self.ffn_down().will_need();
    }

    /// Bytes read where `opened` gates are above zero and `n` neurons fire, beyond mask rows and what is read whole.
    pub fn bytes_for_active(&self, opened: f64, n: f64) -> f64 {
        let up = if self.gate.is_some() { opened * self.ffn_up().row_bytes() as f64 } else { 0.0 };
        match self.ffn_down() {
            Down::Rows(down) => up + n * down.row_bytes() as f64,
            Down::Lossless(down) => up + down.bytes_for(n),
            Down::Columns(_) => up,
        }
    }

    /// Bytes that are read however few neurons fire: `ffn_down` by columns, which cannot be skipped.
    pub fn bytes_always(&self) -> u64 {
        match self.ffn_down() {
            Down::Columns(down) => down.n_bytes() as u64,
            Down::Rows(_) | Down::Lossless(_) => 0,
        }
    }
}
