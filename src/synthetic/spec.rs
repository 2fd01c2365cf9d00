//! What a synthetic model is to be: shape, type, density, layers, seed.

use crate::cpu::check_supported;
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result, ensure};
use std::str::FromStr;

/// Sizes of a known model, with GGUF's names.
#[derive(Debug, PartialEq)]
pub struct Shape {
    /// What the user calls it.
    pub name: &'static str,
    /// Layers.
    pub n_layer: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// FFN neurons of a layer.
    pub n_ff: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Entries of the vocabulary.
    pub n_vocab: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f32,
}

impl Shape {
    /// Elements of all key or value heads.
    pub fn n_kv(&self) -> usize {
        self.n_embd / self.n_head * self.n_head_kv
    }
}

const fn shape(name: &'static str, n_layer: usize, n_embd: usize, n_ff: usize, heads: (usize, usize)) -> Shape {
    let (n_head, n_head_kv) = heads;
    Shape { name, n_layer, n_embd, n_ff, n_head, n_head_kv, n_vocab: 32_000, rope_base: 10_000.0 }
}

/// The shapes that are known. The last one is for tests.
pub static SHAPES: [Shape; 8] = [
    // TinyLlama 1.1B.
    shape("1b", 22, 2048, 5632, (32, 4)),
    // LLaMA 3.2 3B, but for its vocabulary.
    shape("3b", 28, 3072, 8192, (24, 8)),
    // LLaMA 1 and 2.
    shape("7b", 32, 4096, 11_008, (32, 32)),
    Shape { rope_base: 1e6, ..shape("mistral-7b", 32, 4096, 14_336, (32, 8)) },
    // LLaMA 3.
    Shape { n_vocab: 128_256, rope_base: 500_000.0, ..shape("8b", 32, 4096, 14_336, (32, 8)) },
    shape("13b", 40, 5120, 13_824, (40, 40)),
    shape("70b", 80, 8192, 28_672, (64, 8)),
    Shape { n_vocab: 512, ..shape(TEST, 8, 256, 768, (8, 4)) },
];

const TEST: &str = "test";
/// Of a layer's neurons.
const DEFAULT_DENSITY: f64 = 0.1;

/// Whether neurons lie in `split`'s order or in a model's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Hot first, `ffn_down` transposed, with the index.
    Variant,
    /// As llama.cpp reads it.
    Plain,
}

/// A synthetic model before it is written. Read from `SHAPE[-LAYERS][:TYPE[:DENSITY]]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// Sizes, but for the number of layers.
    pub shape: &'static Shape,
    /// Layers.
    pub n_layer: usize,
    /// Type of the matrices.
    pub dtype: GgmlType,
    /// Share of neurons that fire.
    pub density: f64,
    /// Of all random numbers.
    pub seed: u64,
}

impl Spec {
    /// `general.name`.
    pub fn name(&self) -> String {
        let layers = if self.n_layer == self.shape.n_layer { String::new() } else { format!("-{}", self.n_layer) };
        format!("synthetic {}{layers} {} d={}", self.shape.name, self.dtype, self.shown_density())
    }

    /// Name of its file: everything that the weights depend on.
    pub fn file_name(&self, layout: Layout) -> String {
        let layout = match layout {
            Layout::Variant => "variant",
            Layout::Plain => "plain",
        };
        let (shape, dtype) = (self.shape.name, self.dtype.name().to_ascii_lowercase());
        let (n_layer, density, seed) = (self.n_layer, self.shown_density(), self.seed);
        let version = super::write::VERSION;
        format!("synthetic-{shape}-{dtype}-d{density}-l{n_layer}-s{seed}-v{version}-{layout}.gguf")
    }

    /// Two digits, or all that there are.
    fn shown_density(&self) -> String {
        let (short, whole) = (format!("{:.2}", self.density), self.density.to_string());
        if short.len() > whole.len() { short } else { whole }
    }

    /// The same with another number of layers.
    ///
    /// # Errors
    /// When no model has so many, or none.
    pub fn with_layers(self, n_layer: usize) -> Result<Self> {
        ensure!((1..=1024).contains(&n_layer), "{n_layer} layers; 1 to 1024 are possible");
        Ok(Self { n_layer, ..self })
    }

    /// Type of a matrix: embeddings and head have 8 bits where the rest has fewer, as `split` does it.
    pub(super) fn matrix_type(&self, outer: bool) -> GgmlType {
        let below_8_bits = self.dtype.block_bytes() < self.dtype.block_len();
        if outer && below_8_bits { GgmlType::Q8_0 } else { self.dtype }
    }
}

fn find(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|s| s.name.eq_ignore_ascii_case(name))
}

impl FromStr for Spec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let shortened = || name.rsplit_once('-').and_then(|(name, n)| Some((find(name)?, Some(n.parse().ok()?))));
        let found = find(name).map(|shape| (shape, None)).or_else(shortened);
        let (shape, n_layer) = found.with_context(|| {
            let known: Vec<_> = SHAPES.iter().map(|s| s.name).filter(|n| *n != TEST).collect();
            format!("shape \"{name}\" is not known; {} are, and any of them with -LAYERS", known.join(", "))
        })?;
        let dtype = match parts.next() {
            None | Some("") => GgmlType::Q4_0,
            Some(name) => GgmlType::from_name(name).with_context(|| format!("type \"{name}\" is not known"))?,
        };
        convert::quantizer(dtype)?;
        check_supported(dtype)?;
        for n_cols in [shape.n_embd, shape.n_ff] {
            let whole = dtype.row_bytes(n_cols).is_some();
            ensure!(whole, "rows of {n_cols}, which {} has, are not whole {dtype} blocks", shape.name);
        }
        let density = match parts.next() {
            None | Some("") => DEFAULT_DENSITY,
            Some(text) => text.parse().with_context(|| format!("density \"{text}\""))?,
        };
        ensure!(density > 0.0 && density <= 1.0, "density {density}: must be above 0 and at most 1");
        ensure!(parts.next().is_none(), "more than SHAPE:TYPE:DENSITY");
        Self { shape, n_layer: shape.n_layer, dtype, density, seed: 0 }.with_layers(n_layer.unwrap_or(shape.n_layer))
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
        assert_eq!((whole.shape.name, whole.n_layer, whole.dtype), ("7b", 32, GgmlType::Q4_0));
        assert_eq!(whole, spec("7B:q4_0:0.1"));
        assert_eq!(spec("mistral-7b").n_layer, 32);
        assert_eq!(spec("mistral-7b-16::0.3").n_layer, 16);
        assert_eq!(spec("70b-40:F16").name(), "synthetic 70b-40 F16 d=0.10");
    }

    #[test]
    fn a_file_is_named_after_all_that_its_weights_depend_on() {
        assert_eq!(spec("7b-16:q8_0:0.125").file_name(Layout::Plain), "synthetic-7b-q8_0-d0.125-l16-s0-v1-plain.gguf");
        assert_eq!(spec("1b").file_name(Layout::Variant), "synthetic-1b-q4_0-d0.10-l22-s0-v1-variant.gguf");
        assert_ne!(spec("1b::0.101").file_name(Layout::Plain), spec("1b::0.1").file_name(Layout::Plain));
    }

    #[test]
    fn what_cannot_be_made_is_refused_and_says_what_can() {
        let error = |text: &str| format!("{:#}", text.parse::<Spec>().unwrap_err());
        assert!(error("8x7b").contains("1b, 3b, 7b, mistral-7b, 8b, 13b, 70b"), "{}", error("8x7b"));
        for text in
            ["7b-x", "7b-0", "7b-2000", "7b:f17", "7b:i32", "7b::0", "7b::-1", "7b::1.5", "7b::nan", "7b::0.1:2"]
        {
            error(text);
        }
        assert!(error("7b::1.5").contains("1.5"));
    }
}
