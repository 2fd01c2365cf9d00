//! Sizes and kinds of a model, as data.

use super::activation::ResolvedActivation;
use super::presence::Presence;

/// Kind of normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, no mean, no bias.
    Rms,
    /// Mean and variance, with a bias where the file has one.
    Layer,
}

impl NormKind {
    /// Whether such norms have biases.
    pub fn bias(self) -> Presence {
        match self {
            Self::Rms => Presence::Absent,
            Self::Layer => Presence::Optional,
        }
    }
}

/// How rotary embedding pairs the elements of a head (RoFormer, arXiv 2104.09864).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeKind {
    /// Element `2i` with `2i + 1`.
    Interleaved,
    /// Element `i` with `i + n/2`.
    Halves,
    /// No rotary embedding.
    None,
}

/// Rotary embedding of one model.
#[derive(Debug, Clone)]
pub struct Rope {
    /// Pairing of elements.
    pub kind: RopeKind,
    /// Base of the frequencies.
    pub base: f32,
    /// Elements of a head that are rotated.
    pub n_dims: usize,
    /// Positions are multiplied by this (linear scaling: 1 / factor).
    pub scale: f32,
}

/// Sizes and kinds of a model. [`Keys`](super::Keys) reads them from a file.
#[derive(Debug, Clone)]
pub struct Config {
    /// Value of `general.architecture`.
    pub arch: String,
    /// Value of `general.name`, or the architecture where there is none; what could command a terminal is escaped.
    pub name: String,
    /// Entries of the vocabulary: rows of `token_embd`.
    pub n_vocab: usize,
    /// Context the model was trained for, in tokens.
    pub n_ctx_train: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// What `feed_forward_length` says of each layer.
    pub n_ff: Vec<usize>,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads (grouped-query attention where fewer than `n_head`).
    pub n_head_kv: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Kind of every normalisation.
    pub norm: NormKind,
    /// Epsilon of every normalisation.
    pub norm_eps: f32,
    /// Rotary embedding.
    pub rope: Rope,
    /// Activation of the FFN, and why this one.
    pub activation: ResolvedActivation,
}

impl Config {
    /// Elements of all query heads.
    pub fn n_q(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// Elements of all key heads; as many of the values.
    pub fn n_kv(&self) -> usize {
        self.n_head_kv * self.head_dim
    }
}
