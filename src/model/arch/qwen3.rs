//! Qwen 3, the dense ones.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, attention, head_norm, norm};
use crate::model::step::serial;
use anyhow::Result;

/// As LLaMA, but for rotation in halves, before which each head of queries and keys is normalised.
pub struct Qwen3;

impl Architecture for Qwen3 {
    fn name(&self) -> &'static str {
        "qwen3"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: &[] })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let [q_norm, k_norm] = [Role::AttnQNorm, Role::AttnKNorm].map(|role| head_norm(config, role));
        let norms = [Role::AttnNorm, Role::FfnNorm].map(|role| norm(config, role));
        let parts = vec![norms[0], q, k, v, output, q_norm, k_norm, norms[1]];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
