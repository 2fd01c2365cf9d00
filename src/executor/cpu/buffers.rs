//! Buffers of a pass, kept from pass to pass.

use super::ahead::Ahead;
use super::attention::Attention;
use super::audit::Audit;
use super::choice::Choice;
use super::ffn::few::Few;
use super::ffn::many::Many;
use super::product::Products;
use super::recurrent_buffers::RecurrentBuffers;
use crate::cpu::Activations;
use crate::model::Vector;

/// Buffers of a pass, kept from pass to pass.
#[derive(Default)]
pub(super) struct Buffers {
    /// `[n_tokens][n_embd]` each, by [`Vector`].
    pub streams: [Vec<f32>; Vector::N],
    /// Where a norm of a stream into itself is put together, and where tokens are gathered.
    pub spare: Vec<f32>,
    pub gathered: Vec<f32>,
    pub forms: Activations,
    /// What a predictor looks at, where that is not what the FFN reads.
    pub predictor_forms: Activations,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub attn: Vec<f32>,
    pub attention: Attention,
    pub products: Products,
    /// `[n_tokens][groups to choose]`: what each group counts.
    pub chosen: Vec<f32>,
    pub order: Vec<usize>,
    pub ahead: Ahead,
    /// Groups that are computed, with their tokens.
    pub choice: Choice,
    /// Tokens whose logits are wanted.
    pub tokens: Vec<u32>,
    pub few: Few,
    pub many: Many,
    pub recurrent: RecurrentBuffers,
    pub audit: Audit,
}
