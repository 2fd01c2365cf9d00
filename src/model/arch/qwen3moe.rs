//! Qwen 3 with experts.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::expert_keys::harmless_beside_experts;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::router::Gating;
use crate::model::spec::{LayerSpec, attention, head_norm, norm};
use crate::model::step::{serial, with_router};
use anyhow::Result;

/// As Qwen 3, with experts in place of one FFN.
pub struct Qwen3Moe;

impl Architecture for Qwen3Moe {
    fn name(&self) -> &'static str {
        "qwen3moe"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        let computed = &["expert_count", "expert_used_count"];
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed })?;
        let experts = keys.experts_chosen_by(&config, Gating::Softmax)?;
        Ok(Config { experts: Some(experts), ..config })
    }

    fn harmless(&self) -> &'static [&'static str] {
        harmless_beside_experts()
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let experts = config.experts();
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let [q_norm, k_norm] = [Role::AttnQNorm, Role::AttnKNorm].map(|role| head_norm(config, role));
        let norms = [Role::AttnNorm, Role::FfnNorm].map(|role| norm(config, role));
        let parts = vec![norms[0], q, k, v, output, q_norm, k_norm, norms[1], experts.router_part(config)];
        let (groups, router) = (experts.groups(layer, true), Some(experts.router(layer)));
        LayerSpec { parts, groups, router, steps: with_router(serial()) }
    }
}
