//! Qwen 1.5 to 2.5, and the many models that are made of them.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, PartSpec, around_layers, attention, norm};
use crate::model::step::serial;
use anyhow::Result;

/// As LLaMA, but for rotation in halves and the biases of queries, keys and values.
pub struct Qwen2;

impl Architecture for Qwen2 {
    fn name(&self) -> &'static str {
        "qwen2"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: &[] })
    }

    /// A head of its own may have a bias.
    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        let head = |part: PartSpec| if part.role == Role::Output { part.with_bias(Presence::Optional) } else { part };
        around_layers(config).into_iter().map(head).collect()
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
