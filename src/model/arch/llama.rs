//! LLaMA 1 to 3, Mistral, and everything that is converted as such.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, attention, norm};
use crate::model::step::serial;
use anyhow::Result;

/// Serial blocks of attention with rotary embedding and a gated FFN, each behind an RMS norm.
pub struct Llama;

impl Architecture for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Interleaved);
        keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: &[] })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true).with_biases(Presence::Optional)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
