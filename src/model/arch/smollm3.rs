//! SmolLM 3.

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

/// Of so many layers, the last one does not rotate queries and keys. No key says it.
const STILL_EVERY: usize = 4;

/// As LLaMA, but for layers without rotation.
pub struct SmolLm3;

impl Architecture for SmolLm3 {
    fn name(&self) -> &'static str {
        "smollm3"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Interleaved);
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: &[] })?;
        let rotated = (1..=config.n_layer).map(|n| !n.is_multiple_of(STILL_EVERY)).collect();
        Ok(Config { rotated, ..config })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
