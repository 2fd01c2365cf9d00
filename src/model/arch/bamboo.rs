//! Bamboo and TurboSparse-Mistral.

use super::{Architecture, Llama};
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::spec::LayerSpec;
use anyhow::Result;

/// As [`Llama`], but for the activation: dReLU.
pub struct Bamboo;

impl Architecture for Bamboo {
    fn name(&self) -> &'static str {
        "bamboo"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Interleaved);
        keys.decoder(Defaults { norm, rope, activation: Activation::DRelu, computed: &[] })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        Llama.layer(config, layer)
    }
}
