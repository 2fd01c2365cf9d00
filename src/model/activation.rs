//! The activation function of the FFN, and how a file's is found out.

use crate::gguf::Metadata;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::str::FromStr;

/// Applied to the gate (gated FFN) or to the up projection (ungated).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`: never exactly zero, so nothing can be skipped.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))` (arXiv 1606.08415): never exactly zero over a range of inputs.
    Gelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)^2`.
    Relu2,
}

impl Activation {
    const NAMES: [(&'static str, Self); 12] = [
        ("silu", Self::Silu),
        ("gelu", Self::Gelu),
        ("relu", Self::Relu),
        ("relu2", Self::Relu2),
        ("swish", Self::Silu),
        ("swiglu", Self::Silu),
        ("gelu_tanh", Self::Gelu),
        ("gelu_pytorch_tanh", Self::Gelu),
        ("geglu", Self::Gelu),
        ("reglu", Self::Relu),
        ("relu_sqr", Self::Relu2),
        ("relu^2", Self::Relu2),
    ];

    /// The function's value.
    #[inline]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Gelu => gelu(x),
            Self::Relu => relu(x),
            Self::Relu2 => relu(x) * relu(x),
        }
    }

    /// Whether it is exactly zero over a whole range of inputs.
    pub fn is_sparse(self) -> bool {
        match self {
            Self::Silu | Self::Gelu => false,
            Self::Relu | Self::Relu2 => true,
        }
    }
}

fn gelu(x: f32) -> f32 {
    let y = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2 * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + y.tanh())
}

/// `max(x, 0)`, except that what is not a number stays so: `f32::max` would turn it into a neuron that did not fire.
#[inline]
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

impl FromStr for Activation {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some((_, found)) => Ok(*found),
            None => bail!("activation \"{name}\" is not known; silu, gelu, relu and relu2 are"),
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::Relu => "relu",
            Self::Relu2 => "relu2",
        })
    }
}

/// An activation function and where it was found.
#[derive(Debug, Clone)]
pub struct ResolvedActivation {
    /// The function.
    pub activation: Activation,
    /// Why this one, for people: `--activation`, a metadata key, models.toml, or the architecture's default.
    pub from: String,
}

/// Finds the activation function of a file. GGUF has no reliable field for it, so in this order: the user's word,
/// `powerinfer.activation`, `<arch>.hidden_activation`, models.toml, the architecture's default.
///
/// # Errors
/// When a metadata key names an unknown function.
pub fn resolve(
    forced: Option<Activation>,
    metadata: &Metadata,
    arch: &str,
    default: Activation,
) -> Result<ResolvedActivation> {
    if let Some(activation) = forced {
        return Ok(ResolvedActivation { activation, from: "--activation".to_owned() });
    }
    for key in ["powerinfer.activation".to_owned(), format!("{arch}.hidden_activation")] {
        if let Some(name) = metadata.str(&key)? {
            let activation = name.parse().map_err(|e| anyhow::anyhow!("{key}: {e}"))?;
            return Ok(ResolvedActivation { activation, from: key });
        }
    }
    if let Some(name) = metadata.str("general.name")?
        && let Some(known) = super::registry::find(name)?
    {
        let activation = known
            .activation
            .parse()
            .with_context(|| format!("models.toml, {}; --activation runs it otherwise", known.name))?;
        let doubt = if known.verified { "" } else { ", not verified" };
        return Ok(ResolvedActivation { activation, from: format!("models.toml, {}{doubt}", known.name) });
    }
    Ok(ResolvedActivation { activation: default, from: format!("default of architecture {arch}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_not_taken_for_a_neuron_at_rest() {
        for activation in [Activation::Silu, Activation::Gelu, Activation::Relu, Activation::Relu2] {
            assert!(activation.apply(f32::NAN).is_nan(), "{activation}");
        }
        assert_eq!(Activation::Relu.apply(-0.0).to_bits(), 0);
        // By 64-bit floats.
        for (x, y) in [(1.0, 0.841_192), (-1.0, -0.158_808), (-3.0, -0.003_637_39), (0.5, 0.345_714), (20.0, 20.0)] {
            assert!((Activation::Gelu.apply(x) - y).abs() < 1e-6 * y.abs().max(1.0), "gelu of {x}");
        }
        assert_eq!([Activation::Relu.apply(-2.0), Activation::Relu2.apply(3.0)], [0.0, 9.0]);
    }
}
