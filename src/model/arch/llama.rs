//! LLaMA 1 to 3, Mistral, Mixtral, and everything that is converted as such.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::router::Gating;
use crate::model::spec::{GroupSpec, LayerSpec, attention, norm};
use crate::model::step::{serial, with_router};
use anyhow::{Result, ensure};

/// Serial blocks of attention with rotary embedding and a gated FFN, or experts that are one, each behind an RMS norm.
pub struct Llama;

impl Architecture for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Interleaved);
        let computed = &["expert_count", "expert_used_count"];
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed })?;
        if keys.whole("expert_count")?.unwrap_or(0) == 0 {
            let (router, count) = ("blk.0.ffn_gate_inp.weight", keys.name("expert_count"));
            ensure!(!keys.has_tensor(router), "{count}: the key is missing, or 0, but {router} is a router of experts");
            keys.refuse(&["expert_used_count"], &[0.0], "a choice among no experts is")?;
            return Ok(config);
        }
        let experts = keys.experts_chosen_by(&config, Gating::Softmax)?;
        Ok(Config { experts: Some(experts), ..config })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let mut parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        if let Some(experts) = &config.experts {
            parts.push(experts.router_part(config));
            let (groups, router) = (experts.groups(layer, true), Some(experts.router(layer)));
            return LayerSpec { parts, groups, router, steps: with_router(serial()) };
        }
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true).with_biases(Presence::Optional)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
