//! Granite, the dense ones.

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

/// As LLaMA, but for scales of embeddings, of what is added to the residual stream, and of logits.
pub struct Granite;

impl Architecture for Granite {
    fn name(&self) -> &'static str {
        "granite"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        // Of this family, those that do not rotate say so by a key that means nothing elsewhere.
        let rotates = keys.bool("rope.scaling.finetuned")?.unwrap_or(true);
        let (norm, rope) = (NormKind::Rms, if rotates { RopeKind::Interleaved } else { RopeKind::None });
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: SCALES })?;
        Ok(Config { scales: keys.scales(Scales::NONE)?, ..config })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let parts = vec![norm(config, Role::AttnNorm), q, k, v, output, norm(config, Role::FfnNorm)];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true).with_biases(Presence::Optional)];
        LayerSpec { parts, groups, router: None, steps: serial_scaled(config.scales.residual) }
    }
}
