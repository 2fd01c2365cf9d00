//! StarCoder 2, whose FFN has neither a gate nor zeros.

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

/// Serial blocks behind layer norms: rotation in halves, an FFN without a gate, and biases everywhere.
pub struct StarCoder2;

impl Architecture for StarCoder2 {
    fn name(&self) -> &'static str {
        "starcoder2"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Layer, RopeKind::Halves);
        keys.decoder(Defaults { norm, rope, activation: Activation::Gelu, computed: &[] })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], false).with_biases(Presence::Optional)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
