//! Granite with experts, with or without one for all tokens beside them.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind, Scales};
use crate::model::decoder::Defaults;
use crate::model::expert_keys::harmless_beside_experts;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::router::Gating;
use crate::model::spec::{GroupSpec, LayerSpec, attention, norm};
use crate::model::step::{serial_scaled, with_router};
use anyhow::Result;

/// As Granite, with experts in place of one FFN.
pub struct GraniteMoe;

impl Architecture for GraniteMoe {
    fn name(&self) -> &'static str {
        "granitemoe"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Interleaved);
        let computed = &[
            "expert_count",
            "expert_used_count",
            "expert_shared_count",
            "embedding_scale",
            "logit_scale",
            "residual_scale",
        ];
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed })?;
        let experts = keys.experts_beside_shared(&config, Gating::Softmax)?;
        Ok(Config { experts: Some(experts), scales: keys.scales(Scales::NONE)?, ..config })
    }

    fn harmless(&self) -> &'static [&'static str] {
        harmless_beside_experts()
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let experts = config.experts();
        let [q, k, v, output] = attention(config);
        let norms = [Role::AttnNorm, Role::FfnNorm].map(|role| norm(config, role));
        let parts = vec![norms[0], q, k, v, output, norms[1], experts.router_part(config)];
        let (mut groups, router) = (experts.groups(layer, true), Some(experts.router(layer)));
        if experts.n_ff_shared > 0 {
            groups.push(GroupSpec::shared_expert(experts.n_ff_shared, true));
        }
        LayerSpec { parts, groups, router, steps: with_router(serial_scaled(config.scales.residual)) }
    }
}
