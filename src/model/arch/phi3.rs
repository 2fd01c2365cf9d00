//! Phi 3, 3.5 and 4, the dense ones.

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

/// As LLaMA, but for rotation in halves, whose frequencies may depend on the length of the context, and gate and up in one
/// tensor. Windows that files state are not honoured, as they are not in llama.cpp.
pub struct Phi3;

impl Architecture for Phi3 {
    fn name(&self) -> &'static str {
        "phi3"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        let mut config = keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: &[] })?;
        // Files have these tensors and do not say what for.
        config.rope.long_from = keys.long_from(config.n_ctx_train)?;
        config.windows = vec![None; config.n_layer];
        Ok(config)
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true).with_gate_above_up()];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
