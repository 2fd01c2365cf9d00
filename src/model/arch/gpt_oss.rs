//! gpt-oss 20B and 120B.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, Rope, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::expert_keys::harmless_beside_experts;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::router::Gating;
use crate::model::spec::{LayerSpec, PartSpec, attention, norm};
use crate::model::step::{Step, serial, with_router};
use anyhow::{Result, ensure};

/// The rotary base of layers with a window.
const WINDOW_BASE: &str = "rope.freq_base_swa";
/// The last layer of so many has no window.
const PERIOD: usize = 2;

/// As LLaMA with experts, but for rotation in halves, biases of all matrices, a score of each head that attends to nothing, and
/// a window in every second layer.
pub struct GptOss;

impl Architecture for GptOss {
    fn name(&self) -> &'static str {
        "gpt-oss"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        let computed = &["expert_count", "expert_used_count", WINDOW_BASE];
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::SwigluOai, computed })?;
        let experts = keys.experts_chosen_by(&config, Gating::SoftmaxOfChosen)?;
        let windows = keys.windows(config.n_layer, None, PERIOD)?;
        let key = keys.name("attention.sliding_window");
        ensure!(windows.iter().any(Option::is_some), "{key}: the key is missing, or 0; this architecture has a window");
        let base = keys.base(WINDOW_BASE, config.rope.base)?;
        let window_rope = Some(Rope { base, ..config.rope.clone() });
        Ok(Config { experts: Some(experts), windows, window_rope, ..config })
    }

    fn harmless(&self) -> &'static [&'static str] {
        harmless_beside_experts()
    }

    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        let embd = |role| PartSpec::matrix(role, config.n_vocab, config.n_embd);
        vec![embd(Role::TokenEmbd), norm(config, Role::OutputNorm), embd(Role::Output)]
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let experts = config.experts();
        let [q, k, v, output] = attention(config).map(|part| part.with_bias(Presence::Required));
        // The norm in front of the FFN has this name.
        let norms = [Role::AttnNorm, Role::PostAttnNorm].map(|role| norm(config, role));
        let sinks = PartSpec::vector(Role::AttnSinks, config.n_head);
        let router = experts.router_part(config).with_bias(Presence::Required);
        let parts = vec![norms[0], q, k, v, output, sinks, norms[1], router];
        let groups =
            experts.groups(layer, true).into_iter().map(|group| group.with_biases(Presence::Required)).collect();
        LayerSpec { parts, groups, router: Some(experts.router(layer)), steps: with_router(steps()) }
    }
}

/// Serial ones, with a norm of another name.
fn steps() -> Vec<Step> {
    let renamed = |step| match step {
        Step::Norm { of: Role::FfnNorm, from, to } => Step::Norm { of: Role::PostAttnNorm, from, to },
        other => other,
    };
    serial().into_iter().map(renamed).collect()
}
