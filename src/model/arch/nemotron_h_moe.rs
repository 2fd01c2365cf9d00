//! Nemotron 3 Nano 30B-A3B, Super and Puzzle.

use super::Architecture;
use super::nemotron_h::{around_still_layers, config, looks_ahead, one_of_three};
use crate::model::config::Config;
use crate::model::expert_keys::harmless_beside_experts;
use crate::model::keys::Keys;
use crate::model::spec::{LayerSpec, PartSpec};
use anyhow::Result;

/// As [`NemotronH`](super::nemotron_h::NemotronH), where FFNs are mixtures of experts.
pub struct NemotronHMoe;

impl Architecture for NemotronHMoe {
    fn name(&self) -> &'static str {
        "nemotron_h_moe"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        config(keys)
    }

    fn harmless(&self) -> &'static [&'static str] {
        harmless_beside_experts()
    }

    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        around_still_layers(config)
    }

    fn skips(&self, keys: &Keys, config: &Config, tensor: &str) -> bool {
        looks_ahead(keys, config, tensor)
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        one_of_three(config, layer)
    }
}
