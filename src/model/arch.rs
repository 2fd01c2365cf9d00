//! The architectures that are known: a description each, no code.

use super::activation::Activation;
use super::config::{NormKind, Residual, RopeKind};
use anyhow::{Result, bail};

/// What distinguishes an architecture from the others, where its files do not say it.
#[derive(Debug, PartialEq, Eq)]
pub struct Arch {
    /// Value of `general.architecture` and prefix of its keys.
    pub name: &'static str,
    /// Kind of every normalisation.
    pub norm: NormKind,
    /// Pairing of rotary embedding.
    pub rope: RopeKind,
    /// How attention and FFN join the residual stream.
    pub residual: Residual,
    /// Whether the FFN has a gate.
    pub gated: bool,
    /// Activation where nothing else names one.
    pub activation: Activation,
}

/// LLaMA 1 to 3, Mistral, and everything converted as such.
pub static LLAMA: Arch = Arch {
    name: "llama",
    norm: NormKind::Rms,
    rope: RopeKind::Interleaved,
    residual: Residual::Serial,
    gated: true,
    activation: Activation::Silu,
};

static ARCHS: [&Arch; 1] = [&LLAMA];

/// The architecture of that name.
///
/// # Errors
/// Names it and the known ones.
pub fn find(name: &str) -> Result<&'static Arch> {
    if let Some(found) = ARCHS.iter().find(|a| a.name == name) {
        return Ok(found);
    }
    let known: Vec<_> = ARCHS.iter().map(|a| a.name).collect();
    let shown: String = name.chars().take(60).collect();
    bail!("general.architecture: \"{shown}\" is not supported yet; supported: {}", known.join(", "))
}
