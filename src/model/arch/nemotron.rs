//! Nemotron-4, and Minitron, which was cut from it.

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

/// Serial blocks behind layer norms: rotation of a part of each head, in halves, and an FFN without a gate that squares
/// what fires. What their norms add to their weights, converters have added.
pub struct Nemotron;

impl Architecture for Nemotron {
    fn name(&self) -> &'static str {
        "nemotron"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Layer, RopeKind::Halves);
        keys.decoder(Defaults { norm, rope, activation: Activation::Relu2, computed: &[] })
    }

    /// The head is never the embedding.
    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        let mut parts = around_layers(config);
        for part in &mut parts {
            if part.role == Role::Output {
                part.weight = Presence::Required;
            } else if part.role == Role::OutputNorm {
                part.bias = Presence::Required;
            }
        }
        parts
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let norm = |role| norm(config, role).with_bias(Presence::Required);
        let parts = vec![norm(Role::AttnNorm), q, k, v, output, norm(Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], false).with_biases(Presence::Optional)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
