//! Arcee: AFM-4.5B and its relatives, whose FFN has no gate and squares what fires.

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

/// As LLaMA, but for `down . relu(up . x)^2` in place of the gated FFN.
pub struct Arcee;

impl Architecture for Arcee {
    fn name(&self) -> &'static str {
        "arcee"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Interleaved);
        keys.decoder(Defaults { norm, rope, activation: Activation::Relu2, computed: &[] })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], false)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
