//! Jais 2: as Nemotron, with whole heads rotated and biases everywhere.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, PartSpec, around_biased_layers, attention, norm};
use crate::model::step::serial;
use anyhow::Result;

/// Serial blocks behind layer norms: rotation in halves, an FFN without a gate that squares what fires, and biases
/// everywhere; only those of queries, keys and values may be missing.
pub struct Jais2;

impl Architecture for Jais2 {
    fn name(&self) -> &'static str {
        "jais2"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Layer, RopeKind::Halves);
        keys.decoder(Defaults { norm, rope, activation: Activation::Relu2, computed: &[] })
    }

    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        around_biased_layers(config)
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Required);
        let norm = |role| norm(config, role).with_bias(Presence::Required);
        let parts = vec![norm(Role::AttnNorm), q, k, v, output, norm(Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], false).with_biases(Presence::Required)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
