//! What queries and keys go through on the card between their products and attention.

use super::record::{Card, Heads};
use super::resident::{CardAttention, CardNorm};
use crate::gpu::Ptr;
use crate::gpu::ops::norm::{Acts, norm};
use crate::gpu::ops::rope::{Prepare, Rope, RopeStore, rope_store};
use crate::model::{Config, RopeKind};
use anyhow::Result;

impl Card<'_> {
    /// Normalises queries and keys of layer number `layer` where it does so, rotates them where it does so, and stores keys
    /// and values.
    pub fn store(&self, layer: usize, attention: &CardAttention, heads: Heads) -> Result<()> {
        let config = &self.model.config;
        let Heads { q, k, v, n_tokens, token, first, sequence } = heads;
        // A norm of each head comes with the rotation; one of all heads needs the sum over them before.
        let of_heads = |found: &Option<CardNorm>, at: Ptr| match found {
            Some(found) if found.n == config.head_dim => Ok(found.norm.weight),
            Some(CardNorm { norm: all, n }) => {
                norm(self.kernels, self.stream, at, *n, n_tokens, all, Acts { f32: at, x8: Ptr::NULL })?;
                anyhow::Ok(Ptr::NULL)
            }
            None => Ok(Ptr::NULL),
        };
        let prepare = Prepare {
            q_norm: of_heads(&attention.q_norm, q)?,
            k_norm: of_heads(&attention.k_norm, k)?,
            norm: config.norm,
            eps: config.norm_eps,
            // The kernels of attention multiply scores by what is usual.
            q_scale: config.attention_scale / Config::usual_attention_scale(config.head_dim),
            temperature: config.temperature,
        };
        let of_layer = config.rope_of(layer);
        let kind = if config.rotated[layer] { of_layer.kind } else { RopeKind::None };
        let (n_dims, magnitude) = (of_layer.n_dims, of_layer.magnitude);
        let rope = Rope { kind, n_dims, frequencies: self.scratch.frequencies(config, layer), magnitude };
        let stored = RopeStore { q, k, v, n_head: config.n_head, n_tokens, token, first, prepare };
        rope_store(self.kernels, self.stream, &stored, &rope, &attention.cache.of_sequence(sequence)?)
    }
}
