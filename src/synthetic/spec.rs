//! What a synthetic model is to be: sizes, type, density and seed.

use crate::model::Activation;
use crate::quant::convert;
use crate::shapes::{Shape, Sized};
use anyhow::{Result, ensure};
use std::str::FromStr;

/// Of the weights: another one gives other numbers for the same seed.
pub(super) const VERSION: u32 = 1;
/// Share of a layer's neurons that fire, whatever the shape, where the activation has zeros.
const DEFAULT_DENSITY: f64 = 0.1;
/// Channels of the residual stream that hold a constant: a block of most types, so that its scale is that of the constant alone.
pub(super) const N_CONSTANT: usize = 32;
/// Architectures of which models are made.
const ARCHITECTURES: [&str; 4] = ["llama", "smallthinker", "qwen3moe", "nemotron_h_moe"];

/// Whether neurons lie in `split`'s order or in a model's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Hot first, `ffn_down` transposed, with the index.
    Variant,
    /// As llama.cpp reads it.
    Plain,
}

/// A synthetic model before it is written. Read from `NAME[-LAYERS][:TYPE[:DENSITY[:POPULARITY]]]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// Its sizes.
    pub sized: Sized,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl Spec {
    /// The model of these sizes.
    ///
    /// # Errors
    /// When it cannot be made: it is of another architecture, or its activation has no zeros and some are asked for, or no
    /// quantizer writes a type.
    pub fn new(sized: Sized, seed: u64) -> Result<Self> {
        let Shape { name, arch, .. } = *sized.shape;
        ensure!(
            Self::is_possible(sized.shape),
            "shape \"{name}\" is of architecture {arch}; synthetic models are of {}",
            ARCHITECTURES.join(", ")
        );
        convert::quantizer(sized.dtype)?;
        let spec = Self { sized, seed };
        let density = spec.density();
        ensure!(
            density == 1.0 || spec.activation() != Activation::Silu,
            "density {density}: shape \"{name}\" has SiLU, of which no zeros can be skipped; leave the density out"
        );
        Ok(spec)
    }

    /// Whether models of `shape` can be made.
    pub fn is_possible(shape: &Shape) -> bool {
        ARCHITECTURES.contains(&shape.arch)
    }

    /// The same with another number of layers.
    ///
    /// # Errors
    /// When no model has so many, or none.
    pub fn with_layers(self, n_layer: usize) -> Result<Self> {
        Ok(Self { sized: self.sized.with_layers(n_layer)?, ..self })
    }

    /// Share of neurons that fire, of those of chosen experts where there are experts.
    pub fn density(&self) -> f64 {
        let usual = if self.activation() == Activation::Silu { 1.0 } else { DEFAULT_DENSITY };
        self.sized.density.unwrap_or(usual)
    }

    /// What neurons do.
    pub(super) fn activation(&self) -> Activation {
        match self.sized.shape.arch {
            "qwen3moe" => Activation::Silu,
            "nemotron_h_moe" => Activation::Relu2,
            _ => Activation::Relu,
        }
    }

    /// Whether routers read the residual stream as it enters the layer.
    pub(super) fn routes_early(&self) -> bool {
        self.sized.shape.arch == "smallthinker"
    }

    /// Whether heads of queries and keys have norms.
    pub(super) fn normalises_heads(&self) -> bool {
        self.sized.shape.arch == "qwen3moe"
    }

    /// `general.name`.
    pub fn name(&self) -> String {
        let name = self.sized.with_suffix(self.sized.shape.short);
        let popularity = self.shown_popularity().map(|p| format!(" p={p}")).unwrap_or_default();
        format!("synthetic {name} {} d={}{popularity}", self.sized.dtype, shown(self.density()))
    }

    /// Name of its file: everything that the weights depend on.
    pub fn file_name(&self, layout: Layout) -> String {
        let layout = match layout {
            Layout::Variant => "variant",
            Layout::Plain => "plain",
        };
        let Sized { shape, n_layer, dtype, .. } = self.sized;
        let (shape, dtype) = (shape.short, dtype.name().to_ascii_lowercase());
        let popularity = self.shown_popularity().map(|p| format!("-p{p}")).unwrap_or_default();
        let (density, seed, version) = (shown(self.density()), self.seed, VERSION);
        format!("synthetic-{shape}-{dtype}-d{density}{popularity}-l{n_layer}-s{seed}-v{version}-{layout}.gguf")
    }

    /// Of experts, where there are such.
    fn shown_popularity(&self) -> Option<String> {
        self.sized.shape.experts.map(|_| shown(self.sized.popularity()))
    }
}

/// Two digits, or as many as there are.
fn shown(number: f64) -> String {
    let (short, whole) = (format!("{number:.2}"), number.to_string());
    if short.len() > whole.len() { short } else { whole }
}

impl FromStr for Spec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text.parse()?, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::GgmlType;

    fn spec(text: &str) -> Spec {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let whole = spec("7b");
        assert_eq!((whole.sized.n_layer, whole.sized.dtype, whole.density()), (32, GgmlType::Q4_0, 0.1));
        assert_eq!(spec("mistral-7b").density(), 0.1);
        assert_eq!(spec("mistral-7b-16::0.3").sized.n_layer, 16);
        assert_eq!(spec("70b-40:F16").name(), "synthetic 70b-40 F16 d=0.10");
        assert_eq!((spec("qwen3-30b").density(), spec("mixtral").density()), (1.0, 0.1));
        assert_eq!(spec("smallthinker-4b-2").name(), "synthetic smallthinker-4b-2 Q4_0 d=0.10 p=0.50");
    }

    #[test]
    fn a_file_is_named_after_all_that_its_weights_depend_on() {
        assert_eq!(spec("7b-16:q8_0:0.125").file_name(Layout::Plain), "synthetic-7b-q8_0-d0.125-l16-s0-v1-plain.gguf");
        assert_eq!(spec("1b").file_name(Layout::Variant), "synthetic-1b-q4_0-d0.10-l22-s0-v1-variant.gguf");
        assert_eq!(spec("tinyllama-1.1b").file_name(Layout::Plain), spec("1b").file_name(Layout::Plain));
        let name = "synthetic-nemotron-3-nano-q4_k-d0.20-p1.25-l4-s0-v1-plain.gguf";
        assert_eq!(spec("nemotron-3-nano-4:q4_k:0.2:1.25").file_name(Layout::Plain), name);
        assert_ne!(spec("1b::0.101").file_name(Layout::Plain), spec("1b::0.1").file_name(Layout::Plain));
    }

    #[test]
    fn what_cannot_be_made_is_refused_by_name() {
        let error = |text: &str| format!("{:#}", text.parse::<Spec>().unwrap_err());
        assert!(error("opt-30b-2").contains("\"opt-30b\" is of architecture opt"), "{}", error("opt-30b-2"));
        assert!(error("qwen3-30b-2::0.5").contains("density 0.5: shape \"qwen3-30b-a3b\" has SiLU"));
        for text in ["falcon-40b", "7b:i32", "8x7b", "7b-0"] {
            error(text);
        }
    }
}
