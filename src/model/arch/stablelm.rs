//! StableLM 3B, StableLM 2 1.6B and 12B, and their relatives.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, attention, norm, own_head_norm};
use crate::model::step::{parallel, serial};
use anyhow::{Result, ensure};

/// Converters have written `true` for models of both kinds.
const PARALLEL: &str = "use_parallel_residual";

/// Those of queries and of keys.
const HEAD_NORMS: [Role; 2] = [Role::AttnQNorm, Role::AttnKNorm];

/// As LLaMA, but for layer norms, rotation of a part of each head, in halves, blocks that are parallel where there is no
/// second norm, and norms of each head of queries and keys where there are such.
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
        let own_head_norms = HEAD_NORMS.iter().any(|role| keys.has_tensor(&format!("blk.0.{}.weight", role.tensor())));
        Ok(Config { parallel, own_head_norms, ..config })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let mut parts = vec![norm(config, Role::AttnNorm), q, k, v, output];
        if config.own_head_norms {
            let n_heads = [config.n_head, config.n_head_kv];
            parts.extend(HEAD_NORMS.iter().zip(n_heads).map(|(role, n)| own_head_norm(config, *role, n)));
        }
        if !config.parallel {
            parts.push(norm(config, Role::FfnNorm));
        }
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true)];
        let steps = if config.parallel { parallel() } else { serial() };
        LayerSpec { parts, groups, router: None, steps }
    }
}
