//! Gemma 3, its text part, and models of its form without windows.

use super::{Architecture, gemma2};
use crate::model::activation::Activation;
use crate::model::config::{Caps, Config, NormKind, Rope, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, PartSpec, attention, head_norm, norm};
use crate::model::step::serial_with_norms_behind;
use anyhow::{Result, ensure};

/// The rotary base of layers with a window.
const WINDOW_BASE: &str = "rope.freq_base_swa";
const USUAL_WINDOW_BASE: f32 = 10_000.0;
/// Where there is a window, the last layer of so many has none.
const PERIOD: usize = 6;
/// Layers of the model with 27 billion weights.
const N_LAYER_27B: usize = 62;

/// As Gemma 2, but for norms of heads instead of caps of scores, a window in five of six layers, and another rotary base for
/// these, which are not scaled.
pub struct Gemma3;

impl Architecture for Gemma3 {
    fn name(&self) -> &'static str {
        "gemma3"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        let computed = &["final_logit_softcapping", WINDOW_BASE];
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Gelu, computed })?;
        let base = keys.base(WINDOW_BASE, USUAL_WINDOW_BASE)?;
        let window_rope = Rope { base, scale: 1.0, ..config.rope.clone() };
        let windows = keys.windows(config.n_layer, None, PERIOD)?;
        let windowed = windows.iter().any(Option::is_some);
        ensure!(
            !windowed || config.rope.yarn.is_none(),
            "{}: YaRN beside layers with a window is not supported yet",
            keys.name("rope.scaling.type")
        );
        let attention_scale = gemma2::scale(keys, &config, N_LAYER_27B)?;
        let caps = keys.caps(Caps::NONE)?;
        let window_rope = windowed.then_some(window_rope);
        Ok(Config { windows, window_rope, attention_scale, scales: gemma2::scales(&config), caps, ..config })
    }

    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        let embd = |role| PartSpec::matrix(role, config.n_vocab, config.n_embd);
        vec![embd(Role::TokenEmbd), norm(config, Role::OutputNorm), embd(Role::Output).optional()]
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let [q_norm, k_norm] = [Role::AttnQNorm, Role::AttnKNorm].map(|role| head_norm(config, role));
        let norms = [Role::AttnNorm, Role::PostAttnNorm, Role::FfnNorm, Role::PostFfnNorm];
        let norms = norms.map(|role| norm(config, role));
        let parts = vec![norms[0], q, k, v, output, q_norm, k_norm, norms[1], norms[2], norms[3]];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true)];
        LayerSpec { parts, groups, router: None, steps: serial_with_norms_behind() }
    }
}
