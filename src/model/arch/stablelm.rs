//! StableLM 3B, StableLM 2 1.6B and their relatives.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, attention, norm};
use crate::model::step::{parallel, serial};
use anyhow::{Result, ensure};

/// Converters have written `true` for models of both kinds.
const PARALLEL: &str = "use_parallel_residual";

/// As LLaMA, but for layer norms, rotation of a part of each head, in halves, and blocks that are parallel where there is no
/// second norm.
pub struct StableLm;

impl Architecture for StableLm {
    fn name(&self) -> &'static str {
        "stablelm"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Layer, RopeKind::Halves);
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: &[PARALLEL] })?;
        let parallel = !keys.has_tensor("blk.0.ffn_norm.weight");
        let said = keys.bool(PARALLEL)?.unwrap_or(true);
        ensure!(said || !parallel, "{}: false, but blk.0.ffn_norm.weight is missing", keys.name(PARALLEL));
        Ok(Config { parallel, ..config })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let mut parts = vec![norm(config, Role::AttnNorm), q, k, v, output];
        if !config.parallel {
            parts.push(norm(config, Role::FfnNorm));
        }
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true)];
        let steps = if config.parallel { parallel() } else { serial() };
        LayerSpec { parts, groups, router: None, steps }
    }
}
