//! Gemma 2: norms before and behind blocks, soft caps, and windows in every second layer.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Caps, Config, NormKind, Rope, RopeKind, Scales};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, PartSpec, attention, norm};
use crate::model::step::serial_with_norms_behind;
use anyhow::Result;

/// Another rotary base for layers with a window.
const WINDOW_BASE: &str = "rope.freq_base_swa";
/// What most files do not say: tokens of a window, which every second layer has, and caps.
const WINDOW: usize = 4096;
const PERIOD: usize = 2;
const CAPS: Caps = Caps { scores: Some(50.0), logits: Some(30.0) };
/// Layers of the model with 27 billion weights.
const N_LAYER_27B: usize = 46;

/// Norms in front of blocks and behind them, soft caps of scores and logits, a window in every second layer, rotation in
/// halves, and an FFN that is gated by GELU. The embedding is the head.
pub struct Gemma2;

impl Architecture for Gemma2 {
    fn name(&self) -> &'static str {
        "gemma2"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        let computed = &["attn_logit_softcapping", "final_logit_softcapping", WINDOW_BASE];
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Gelu, computed })?;
        let base = keys.base(WINDOW_BASE, config.rope.base)?;
        let window_rope = (base != config.rope.base).then(|| Rope { base, ..config.rope.clone() });
        let windows = keys.windows(config.n_layer, Some(WINDOW), PERIOD)?;
        let attention_scale = scale(keys, &config, N_LAYER_27B)?;
        Ok(Config { windows, window_rope, attention_scale, scales: scales(&config), caps: keys.caps(CAPS)?, ..config })
    }

    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        let embd = PartSpec::matrix(Role::TokenEmbd, config.n_vocab, config.n_embd);
        vec![embd, norm(config, Role::OutputNorm)]
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let norms = [Role::AttnNorm, Role::PostAttnNorm, Role::FfnNorm, Role::PostFfnNorm];
        let norms = norms.map(|role| norm(config, role));
        let parts = vec![norms[0], q, k, v, output, norms[1], norms[2], norms[3]];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true)];
        LayerSpec { parts, groups, router: None, steps: serial_with_norms_behind() }
    }
}

/// Embeddings are scaled so that they are as large as what is added to them.
pub(super) fn scales(config: &Config) -> Scales {
    Scales { embedding: (config.n_embd as f32).sqrt(), ..Scales::NONE }
}

/// What scores are multiplied by: in the model with 27 billion weights, which has `n_layer_27b` layers, as if the heads were
/// as wide as the residual stream allows.
///
/// # Errors
/// When the key for it is no number.
pub(super) fn scale(keys: &Keys, config: &Config, n_layer_27b: usize) -> Result<f32> {
    let said = keys.f32("attention.scale")?.is_some_and(|scale| scale != 0.0);
    let wide = config.n_layer == n_layer_27b && !said;
    Ok(if wide { Config::usual_attention_scale(config.n_embd / config.n_head) } else { config.attention_scale })
}
