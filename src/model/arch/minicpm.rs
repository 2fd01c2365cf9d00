//! MiniCPM 1 and 2, MiniCPM-S among them.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind, Scales};
use crate::model::decoder::{Defaults, SCALES};
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, attention, norm};
use crate::model::step::serial_scaled;
use anyhow::Result;

/// Width of the models by which logits are scaled: `dim_model_base` of all that were published.
const BASE_WIDTH: f32 = 256.0;

/// As LLaMA, but for scales of embeddings, of what is added to the residual stream, and of logits. Old files do not say
/// them.
pub struct MiniCpm;

impl Architecture for MiniCpm {
    fn name(&self) -> &'static str {
        "minicpm"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Interleaved);
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: SCALES })?;
        let residual = 1.4 / (config.n_layer as f32).sqrt();
        let defaults = Scales { embedding: 12.0, residual, logits: BASE_WIDTH / config.n_embd as f32 };
        Ok(Config { scales: keys.scales(defaults)?, ..config })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true).with_biases(Presence::Optional)];
        LayerSpec { parts, groups, router: None, steps: serial_scaled(config.scales.residual) }
    }
}
