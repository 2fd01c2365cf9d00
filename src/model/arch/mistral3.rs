//! Ministral 3, and other models of Mistral's after 2025 that are no mixtures of experts.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind, Temperature};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, attention, norm};
use crate::model::step::serial;
use anyhow::{Result, ensure};

/// What queries beyond the original context are scaled by.
const TEMPERATURE: &str = "attention.temperature_scale";

/// As LLaMA, but for attention that grows sharper beyond the original context.
pub struct Mistral3;

impl Architecture for Mistral3 {
    fn name(&self) -> &'static str {
        "mistral3"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Interleaved);
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: &[TEMPERATURE] })?;
        let scale = keys.f32(TEMPERATURE)?.unwrap_or(0.0);
        ensure!(scale >= 0.0, "{}: {scale} is negative", keys.name(TEMPERATURE));
        let original = keys.whole("rope.scaling.original_context_length")?.filter(|n| *n != 0);
        let n_ctx = original.unwrap_or(config.n_ctx_train);
        let temperature = (scale != 0.0).then_some(Temperature { scale, n_ctx });
        Ok(Config { temperature, ..config })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true).with_biases(Presence::Optional)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
