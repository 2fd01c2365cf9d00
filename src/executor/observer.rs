//! Observers: what watches a prefill.

use crate::model::GroupAt;

/// A group of neurons, and the tokens of a batch that it was computed for.
#[derive(Debug, Clone, Copy)]
pub struct FfnAt<'a> {
    /// Which group.
    pub group: GroupAt,
    /// Numbers of the tokens in the batch, rising.
    pub tokens: &'a [u32],
}

/// Watches a prefill. Of a layer with several groups, those that are computed together come one behind the other: the gates
/// of each, then what [`Observer::ffn`] shows of each. A group that is computed for no token is not shown.
pub trait Observer {
    /// `[n_tokens][n_embd]` inputs of a layer's FFN.
    fn ffn_input(&mut self, _layer: usize, _x: &[f32]) {}
    /// `[at.tokens][n_ff]` products of a group's mask matrix (gate, or up where there is no gate) with their biases, by slot:
    /// what the activation function is about to be applied to.
    fn gates(&mut self, _at: FfnAt, _gates: &[f32]) {}
    /// `[at.tokens][n_ff]` activations of a group, and these times `up` where there is a gate, both by slot: for a group
    /// that a router chose before its weight.
    fn ffn(&mut self, _at: FfnAt, _act: &[f32], _h: &[f32]) {}
    /// Whether [`Observer::logits`] is to be called.
    fn wants_logits(&self) -> bool {
        false
    }
    /// The logits after the token at `position` (`[n_vocab]`).
    fn logits(&mut self, _position: usize, _logits: &[f32]) {}
}

pub(super) struct Unobserved;

impl Observer for Unobserved {}
