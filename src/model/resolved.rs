//! Which activation function a file has, and how that is found out.

use super::activation::{Activation, Threshold};
use super::registry;
use crate::gguf::Metadata;
use anyhow::{Context, Result, bail};

/// An activation function and where it was found.
#[derive(Debug, Clone)]
pub struct ResolvedActivation {
    /// The function.
    pub activation: Activation,
    /// Why this one, for people: `--activation`, a metadata key, models.toml, or the architecture's default.
    pub from: String,
}

/// Finds the activation function of a file. GGUF has no reliable field for it, so in this order: the user's word,
/// `powerinfer.activation`, `<arch>.hidden_activation`, models.toml, `default`. A threshold is in
/// `powerinfer.activation_threshold` or `<arch>.activation_threshold`.
///
/// # Errors
/// When a metadata key names an unknown function, or there is a threshold without a function that has one, or the reverse.
pub fn resolve(
    forced: Option<Activation>,
    metadata: &Metadata,
    arch: &str,
    default: ResolvedActivation,
) -> Result<ResolvedActivation> {
    if let Some(activation) = forced {
        return Ok(ResolvedActivation { activation, from: "--activation".to_owned() });
    }
    let stored = threshold(metadata, arch)?;
    let value = stored.as_ref().map(|(_, value)| *value);
    let found = named(metadata, arch, value, default)?;
    // Our own key overrules what the file said before.
    if let Some((key, value)) = stored.filter(|_| found.from != ACTIVATION)
        && found.activation.threshold().is_none()
    {
        let (value, ResolvedActivation { activation, from }) = (value.get(), found);
        bail!(
            "{key}: {value}: {activation} (from {from}) has no threshold; --activation fatrelu:{value}, or {activation}"
        );
    }
    Ok(found)
}

/// Our own key, which `split` writes.
const ACTIVATION: &str = "powerinfer.activation";
/// Its threshold.
pub const THRESHOLD: &str = "powerinfer.activation_threshold";

/// The threshold that a file has, and the key that has it.
fn threshold(metadata: &Metadata, arch: &str) -> Result<Option<(String, Threshold)>> {
    for key in [THRESHOLD.to_owned(), format!("{arch}.activation_threshold")] {
        if let Some(value) = metadata.f32(&key)? {
            let threshold = Threshold::new(value).with_context(|| key.clone())?;
            return Ok(Some((key, threshold)));
        }
    }
    Ok(None)
}

/// What the file or models.toml says, or `default`.
fn named(
    metadata: &Metadata,
    arch: &str,
    threshold: Option<Threshold>,
    default: ResolvedActivation,
) -> Result<ResolvedActivation> {
    for key in [ACTIVATION.to_owned(), format!("{arch}.hidden_activation")] {
        if let Some(name) = metadata.str(&key)? {
            let activation = Activation::named(name, threshold).with_context(|| key.clone())?;
            return Ok(ResolvedActivation { activation, from: key });
        }
    }
    if let Some(name) = metadata.str("general.name")?
        && let Some(known) = registry::find(name, arch)?
    {
        let activation = Activation::named(&known.activation, threshold.or(known.threshold()?))
            .with_context(|| format!("models.toml, {}; --activation runs it otherwise", known.name))?;
        let doubt = if known.verified { "" } else { ", not verified" };
        return Ok(ResolvedActivation { activation, from: format!("models.toml, {}{doubt}", known.name) });
    }
    Ok(default)
}
