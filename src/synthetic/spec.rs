//! What a synthetic model is to be: sizes, type, density and seed.

use crate::quant::{GgmlType, convert};
use crate::shapes::{Shape, Sized};
use anyhow::{Result, ensure};
use std::str::FromStr;

/// Of the weights: another one gives other numbers for the same seed.
pub(super) const VERSION: u32 = 1;
/// Share of a layer's neurons that fire, whatever the shape.
const DEFAULT_DENSITY: f64 = 0.1;

/// Whether neurons lie in `split`'s order or in a model's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Hot first, `ffn_down` transposed, with the index.
    Variant,
    /// As llama.cpp reads it.
    Plain,
}

/// A synthetic model before it is written. Read from `NAME[-LAYERS][:TYPE[:DENSITY]]`.
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
    /// When it cannot be made: its FFN has no gate, or no quantizer writes its type, or rows are not whole blocks.
    pub fn new(sized: Sized, seed: u64) -> Result<Self> {
        let name = sized.shape.name;
        ensure!(sized.shape.gated, "shape \"{name}\" has an FFN without a gate; synthetic models are made with one");
        ensure!(sized.shape.experts.is_none(), "shape \"{name}\" has experts; synthetic models are made without");
        convert::quantizer(sized.dtype)?;
        sized.row_bytes(sized.dtype, sized.shape.n_ff)?;
        Ok(Self { sized, seed })
    }

    /// Whether models of `shape` can be made.
    pub fn is_possible(shape: &Shape) -> bool {
        shape.gated && shape.experts.is_none()
    }

    /// The same with another number of layers.
    ///
    /// # Errors
    /// When no model has so many, or none.
    pub fn with_layers(self, n_layer: usize) -> Result<Self> {
        Ok(Self { sized: self.sized.with_layers(n_layer)?, ..self })
    }

    /// Share of neurons that fire.
    pub fn density(&self) -> f64 {
        self.sized.density.unwrap_or(DEFAULT_DENSITY)
    }

    /// `general.name`.
    pub fn name(&self) -> String {
        let name = self.sized.with_suffix(self.sized.shape.short);
        format!("synthetic {name} {} d={}", self.sized.dtype, self.shown_density())
    }

    /// Name of its file: everything that the weights depend on.
    pub fn file_name(&self, layout: Layout) -> String {
        let layout = match layout {
            Layout::Variant => "variant",
            Layout::Plain => "plain",
        };
        let Sized { shape, n_layer, dtype, .. } = self.sized;
        let (shape, dtype) = (shape.short, dtype.name().to_ascii_lowercase());
        let (density, seed, version) = (self.shown_density(), self.seed, VERSION);
        format!("synthetic-{shape}-{dtype}-d{density}-l{n_layer}-s{seed}-v{version}-{layout}.gguf")
    }

    /// Two digits, or as many as there are.
    fn shown_density(&self) -> String {
        let (short, whole) = (format!("{:.2}", self.density()), self.density().to_string());
        if short.len() > whole.len() { short } else { whole }
    }

    /// Type of a matrix, or of embeddings and head.
    pub(super) fn matrix_type(&self, outer: bool) -> GgmlType {
        if outer { self.sized.outer_type() } else { self.sized.dtype }
    }
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
    }

    #[test]
    fn a_file_is_named_after_all_that_its_weights_depend_on() {
        assert_eq!(spec("7b-16:q8_0:0.125").file_name(Layout::Plain), "synthetic-7b-q8_0-d0.125-l16-s0-v1-plain.gguf");
        assert_eq!(spec("1b").file_name(Layout::Variant), "synthetic-1b-q4_0-d0.10-l22-s0-v1-variant.gguf");
        assert_eq!(spec("tinyllama-1.1b").file_name(Layout::Plain), spec("1b").file_name(Layout::Plain));
        assert_ne!(spec("1b::0.101").file_name(Layout::Plain), spec("1b::0.1").file_name(Layout::Plain));
    }

    #[test]
    fn what_cannot_be_made_is_refused_by_name() {
        let error = |text: &str| format!("{:#}", text.parse::<Spec>().unwrap_err());
        assert!(error("opt-30b-2").contains("\"opt-30b\" has an FFN without a gate"), "{}", error("opt-30b-2"));
        for text in ["falcon-40b", "7b:i32", "8x7b", "7b-0"] {
            error(text);
        }
    }
}
