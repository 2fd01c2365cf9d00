//! PLM, whose keys and values come from one narrow vector.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::spec::{GroupSpec, LayerSpec, PartSpec, norm};
use crate::model::step::serial;
use anyhow::{Result, ensure};

/// Width of the narrow vector.
const NARROW: &str = "attention.kv_lora_rank";
const VALUES: &str = "attention.value_length";

/// Serial blocks of attention whose keys and values come from a narrow vector, but for the rotated end of the keys, which all
/// heads share (DeepSeek-V2, arXiv 2405.04434), and an FFN of a squared ReLU without a gate. The embedding is the head.
pub struct Plm;

impl Architecture for Plm {
    fn name(&self) -> &'static str {
        "plm"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Interleaved);
        let computed = &[NARROW, VALUES];
        let mut config = keys.decoder(Defaults { norm, rope, activation: Activation::Relu2, computed })?;
        let (n_head, n_head_kv) = (config.n_head, config.n_head_kv);
        let key = keys.name("attention.head_count_kv");
        ensure!(n_head == n_head_kv, "{key}: {n_head_kv}, but each of {n_head} heads has keys and values of its own");
        config.n_latent = Some(keys.size(NARROW)?);
        config.value_dim = keys.size(VALUES)?;
        let limit = 1 << 20;
        let widest = (n_head * config.value_dim).max(config.n_latent.unwrap_or(0));
        ensure!(widest <= limit, "{}: sizes beyond {limit}", keys.name(NARROW));
        config.rope.first = config.head_dim - config.rope.n_dims;
        Ok(config)
    }

    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        let embd = PartSpec::matrix(Role::TokenEmbd, config.n_vocab, config.n_embd);
        vec![embd, norm(config, Role::OutputNorm)]
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let (n_embd, n_narrow) = (config.n_embd, config.n_latent.unwrap_or(0));
        let (n_rot, n_still) = (config.rope.n_dims, config.rope.first);
        let parts = vec![
            norm(config, Role::AttnNorm),
            PartSpec::matrix(Role::AttnQ, config.n_q(), n_embd),
            PartSpec::matrix(Role::AttnKvA, n_narrow + n_rot, n_embd),
            PartSpec::vector(Role::AttnKvANorm, n_narrow),
            PartSpec::matrix(Role::AttnKvB, config.n_head * (n_still + config.value_dim), n_narrow),
            PartSpec::matrix(Role::AttnOutput, n_embd, config.n_attended()),
            norm(config, Role::FfnNorm),
        ];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], false)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}
