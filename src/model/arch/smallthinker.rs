//! SmallThinker, whose experts are chosen before anything else in a layer.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, Rope, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::expert_keys::harmless_beside_experts;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::router::Gating;
use crate::model::spec::{LayerSpec, attention, norm};
use crate::model::step::{serial, with_early_router};
use anyhow::{Result, ensure};

/// The rotary base of layers with a window.
const WINDOW_BASE: &str = "rope.freq_base_swa";
/// Where there is a window, it has so many tokens, whatever the key says.
const WINDOW: usize = 4096;
/// Where there is one, the first of so many layers has none, and does not rotate.
const PERIOD: usize = 4;

/// As LLaMA with experts, but for rotation in halves, a router that looks at the layer's input as it is, and ReLU. The larger
/// one has layers with a window, between layers without rotation.
pub struct SmallThinker;

impl Architecture for SmallThinker {
    fn name(&self) -> &'static str {
        "smallthinker"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        let computed = &["expert_count", "expert_used_count", WINDOW_BASE];
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Relu, computed })?;
        let gating = keys.name("expert_gating_func");
        ensure!(
            keys.whole("expert_gating_func")?.is_some_and(|n| n != 0),
            "{gating}: the key is missing, or 0; 1 is softmax, 2 sigmoid"
        );
        let experts = keys.usual_experts(&config, Gating::Softmax)?;
        ensure!(
            experts.gating != Gating::SoftmaxOfChosen,
            "{gating}: 3 is not of this architecture; 1 (softmax) and 2 (sigmoid) are"
        );
        let has_window = keys.numbers("attention.sliding_window")?.unwrap_or_default().iter().any(|n| *n != 0.0);
        let windows = keys.windows_behind_first(config.n_layer, PERIOD)?;
        let windows = windows.into_iter().map(|window| window.map(|_| WINDOW)).collect();
        let rotated = (0..config.n_layer).map(|layer| !has_window || !layer.is_multiple_of(PERIOD)).collect();
        let base = keys.base(WINDOW_BASE, config.rope.base)?;
        let window_rope = has_window.then(|| Rope { base, ..config.rope.clone() });
        Ok(Config { experts: Some(experts), windows, rotated, window_rope, ..config })
    }

    fn harmless(&self) -> &'static [&'static str] {
        harmless_beside_experts()
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let experts = config.experts();
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let norms = [Role::AttnNorm, Role::FfnNorm].map(|role| norm(config, role));
        let parts = vec![norms[0], q, k, v, output, norms[1], experts.router_part(config)];
        let (groups, router) = (experts.groups(layer, true), Some(experts.router(layer)));
        LayerSpec { parts, groups, router, steps: with_early_router(serial()) }
    }
}
