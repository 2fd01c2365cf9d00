//! Architectures: one file each, which says everything that distinguishes it.

mod arcee;
mod bamboo;
mod exaone;
mod falcon;
mod gemma2;
mod gemma3;
mod gpt_oss;
mod granite;
mod granitemoe;
mod jais2;
mod llama;
mod minicpm;
mod mistral3;
mod nemotron;
mod nemotron_h;
mod nemotron_h_moe;
mod olmo2;
mod opt;
mod phi3;
mod plm;
mod qwen2;
mod qwen3;
mod qwen3moe;
mod smallthinker;
mod smollm3;
mod stablelm;
mod starcoder2;

use super::config::Config;
use super::decoder::HARMLESS;
use super::keys::Keys;
use super::spec::{LayerSpec, PartSpec, around_layers};
use anyhow::{Result, bail};

pub use llama::Llama;

/// A kind of model.
pub trait Architecture: Sync {
    /// Value of `general.architecture` and prefix of its keys.
    fn name(&self) -> &'static str;

    /// Sizes and kinds. Keys that change the model are read or refused here.
    ///
    /// # Errors
    /// Names the key that is missing, makes no sense, or asks for what cannot be computed.
    fn config(&self, keys: &Keys) -> Result<Config>;

    /// Keys that do not change what is computed, without the name: with those that [`Architecture::config`] reads, all that
    /// are known. Others are named in a note.
    fn harmless(&self) -> &'static [&'static str] {
        HARMLESS
    }

    /// Tensors beside those of the layers, in llama.cpp's usual order.
    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        around_layers(config)
    }

    /// Whether a tensor is of what is not computed and changes nothing of what is. All others must be known.
    fn skips(&self, _keys: &Keys, _config: &Config, _tensor: &str) -> bool {
        false
    }

    /// Layer number `layer`: its tensors, and what happens in it.
    fn layer(&self, config: &Config, layer: usize) -> LayerSpec;
}

/// The architectures that are known.
#[rustfmt::skip] // One line each.
pub static KNOWN: &[&dyn Architecture] = &[
    &Llama,
    &bamboo::Bamboo,
    &arcee::Arcee,
    &qwen2::Qwen2,
    &qwen3::Qwen3,
    &granite::Granite,
    &minicpm::MiniCpm,
    &smollm3::SmolLm3,
    &nemotron::Nemotron,
    &nemotron_h::NemotronH,
    &nemotron_h_moe::NemotronHMoe,
    &jais2::Jais2,
    &opt::Opt,
    &falcon::Falcon,
    &olmo2::Olmo2,
    &mistral3::Mistral3,
    &stablelm::StableLm,
    &starcoder2::StarCoder2,
    &exaone::Exaone,
    &gemma2::Gemma2,
    &gemma3::Gemma3,
    &phi3::Phi3,
    &plm::Plm,
    &smallthinker::SmallThinker,
    &qwen3moe::Qwen3Moe,
    &granitemoe::GraniteMoe,
    &gpt_oss::GptOss,
];

/// The one of `known` that has this name.
///
/// # Errors
/// Names it and the known ones.
pub fn find<'a>(known: &[&'a dyn Architecture], name: &str) -> Result<&'a dyn Architecture> {
    if let Some(found) = known.iter().find(|a| a.name() == name) {
        return Ok(*found);
    }
    let names: Vec<_> = known.iter().map(|a| a.name()).collect();
    let shown: String = name.chars().take(60).collect();
    bail!("general.architecture: \"{shown}\" is not supported yet; supported: {}", names.join(", "))
}
