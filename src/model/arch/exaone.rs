//! EXAONE 3 and 3.5.

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

/// As LLaMA, but for rotation in halves.
pub struct Exaone;

impl Architecture for Exaone {
    fn name(&self) -> &'static str {
        "exaone"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: &[] })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
