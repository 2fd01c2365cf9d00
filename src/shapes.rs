//! The catalogue of known models by their sizes alone, and how a user names one: `NAME[-LAYERS][:TYPE[:DENSITY]]`.

use crate::cpu::check_supported;
use crate::quant::GgmlType;
use anyhow::{Context, Result, ensure};
use std::str::FromStr;

/// Sizes of a known model, with GGUF's names.
#[derive(Debug, PartialEq)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// A shorter name, which files of synthetic models have; the same where there is none.
    pub short: &'static str,
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
    /// Base of the rotary frequencies, where there are such.
    pub rope_base: f32,
    /// Whether the FFN has a gate.
    pub gated: bool,
    /// Share of neurons that fire in the sparse model of this shape.
    pub density: f64,
}

impl Shape {
    /// Elements of all key or value heads.
    pub fn n_kv(&self) -> usize {
        self.n_embd / self.n_head * self.n_head_kv
    }
}

/// A shape with two names, then layers, `n_embd`, `n_ff`, and heads of queries and of keys.
const fn shape(
    names: (&'static str, &'static str),
    n_layer: usize,
    n_embd: usize,
    n_ff: usize,
    heads: (usize, usize),
) -> Shape {
    let ((name, short), (n_head, n_head_kv)) = (names, heads);
    let (n_vocab, rope_base, gated, density) = (32_000, 10_000.0, true, 0.1);
    Shape { name, short, n_layer, n_embd, n_ff, n_head, n_head_kv, n_vocab, rope_base, gated, density }
}

/// For tests: it is never listed.
const TEST: &str = "test";

/// All shapes. Densities are assumptions: ProSparse's 89 % sparsity for LLaMA-2 7B and 13B (arXiv 2402.13516),
/// TurboSparse's and Bamboo's 85 to 90 % for Mistral, 28 to 33 % firing in ReluLLaMA 70B (its model cards), 3 to 10 % for
/// the ungated ReLU models (arXiv 2310.17157 for OPT), and 10 % where nothing is published.
pub static SHAPES: [Shape; 11] = [
    shape(("tinyllama-1.1b", "1b"), 22, 2048, 5632, (32, 4)),
    // But for its vocabulary.
    shape(("llama-3.2-3b", "3b"), 28, 3072, 8192, (24, 8)),
    Shape { density: 0.11, ..shape(("llama-2-7b", "7b"), 32, 4096, 11_008, (32, 32)) },
    Shape { rope_base: 1e6, density: 0.12, ..shape(("mistral-7b", "mistral-7b"), 32, 4096, 14_336, (32, 8)) },
    Shape { n_vocab: 128_256, rope_base: 500_000.0, ..shape(("llama-3-8b", "8b"), 32, 4096, 14_336, (32, 8)) },
    Shape { density: 0.11, ..shape(("llama-2-13b", "13b"), 40, 5120, 13_824, (40, 40)) },
    ungated(65_024, 0.07, shape(("falcon-40b", "falcon-40b"), 60, 8192, 32_768, (128, 8))),
    Shape { density: 0.3, ..shape(("llama-70b", "70b"), 80, 8192, 28_672, (64, 8)) },
    ungated(50_272, 0.06, shape(("opt-30b", "opt-30b"), 48, 7168, 28_672, (56, 56))),
    ungated(50_272, 0.05, shape(("opt-175b", "opt-175b"), 96, 12_288, 49_152, (96, 96))),
    Shape { n_vocab: 512, ..shape((TEST, TEST), 8, 256, 768, (8, 4)) },
];

const fn ungated(n_vocab: usize, density: f64, shape: Shape) -> Shape {
    Shape { n_vocab, density, gated: false, ..shape }
}

fn find(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|s| [s.name, s.short].iter().any(|n| n.eq_ignore_ascii_case(name)))
}

/// The names that can be given, with the shorter ones in parentheses; those with a gate only if `gated`.
pub fn known(gated: bool) -> String {
    let named = |s: &Shape| if s.short == s.name { s.name.to_owned() } else { format!("{} ({})", s.name, s.short) };
    SHAPES.iter().filter(|s| s.name != TEST && (s.gated || !gated)).map(named).collect::<Vec<_>>().join(", ")
}

/// A shape as a user asks for it. Read from `NAME[-LAYERS][:TYPE[:DENSITY]]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sized {
    /// Sizes, but for the number of layers.
    pub shape: &'static Shape,
    /// Layers.
    pub n_layer: usize,
    /// Type of the matrices; `Q4_0` where none is given.
    pub dtype: GgmlType,
    /// Share of neurons that fire, where one is given.
    pub density: Option<f64>,
}

impl Sized {
    /// `name`, which is one of the shape's, with the number of layers where it is not the shape's.
    pub fn with_suffix(&self, name: &str) -> String {
        if self.n_layer == self.shape.n_layer { name.to_owned() } else { format!("{name}-{}", self.n_layer) }
    }

    /// The same with another number of layers.
    ///
    /// # Errors
    /// When no model has so many, or none.
    pub fn with_layers(self, n_layer: usize) -> Result<Self> {
        ensure!((1..=1024).contains(&n_layer), "{n_layer} layers; 1 to 1024 are possible");
        Ok(Self { n_layer, ..self })
    }

    /// Bytes of a row of `n_cols` elements.
    ///
    /// # Errors
    /// When it is not whole blocks of the type `dtype`.
    pub fn row_bytes(&self, dtype: GgmlType, n_cols: usize) -> Result<usize> {
        let bytes = dtype.row_bytes(n_cols);
        bytes.with_context(|| format!("rows of {n_cols}, which {} has, are not whole {dtype} blocks", self.shape.name))
    }

    /// Type of embeddings and head: 8 bits where the rest has fewer, as `split` makes them.
    pub fn outer_type(&self) -> GgmlType {
        if self.dtype.block_bytes() < self.dtype.block_len() { GgmlType::Q8_0 } else { self.dtype }
    }
}

impl FromStr for Sized {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let shortened = || name.rsplit_once('-').and_then(|(name, n)| Some((find(name)?, Some(n.parse().ok()?))));
        let found = find(name).map(|shape| (shape, None)).or_else(shortened);
        let (shape, n_layer) = found.with_context(|| {
            format!("shape \"{name}\" is not known; {} are, and any of them with -LAYERS", known(false))
        })?;
        let dtype = match parts.next() {
            None | Some("") => GgmlType::Q4_0,
            Some(name) => GgmlType::from_name(name).with_context(|| format!("type \"{name}\" is not known"))?,
        };
        check_supported(dtype)?;
        let density = match parts.next() {
            None | Some("") => None,
            Some(text) => Some(text.parse::<f64>().with_context(|| format!("density \"{text}\""))?),
        };
        let possible = density.is_none_or(|d| d > 0.0 && d <= 1.0);
        ensure!(possible, "density {}: must be above 0 and at most 1", density.unwrap_or_default());
        ensure!(parts.next().is_none(), "more than NAME:TYPE:DENSITY");
        let sized = Self { shape, n_layer: shape.n_layer, dtype, density };
        sized.row_bytes(dtype, shape.n_embd)?;
        sized.with_layers(n_layer.unwrap_or(shape.n_layer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(text: &str) -> Sized {
        text.parse().unwrap()
    }

    #[test]
    fn a_shape_has_a_long_name_and_a_short_one() {
        for shape in &SHAPES {
            assert_eq!((sized(shape.name).shape, sized(shape.short).shape), (shape, shape));
        }
        assert_eq!(sized("70B"), sized("llama-70b:q4_0"));
        assert_eq!(sized("llama-3-8b-16:f16").with_suffix("8b"), "8b-16");
        assert_eq!(sized("llama-2-7b").n_layer, 32);
        assert_eq!((sized("opt-30b-2::0.5").n_layer, sized("opt-30b-2::0.5").density), (2, Some(0.5)));
    }

    #[test]
    fn what_is_not_known_is_refused_and_says_what_is() {
        let error = |text: &str| format!("{:#}", text.parse::<Sized>().unwrap_err());
        assert!(error("8x7b").contains("llama-2-7b (7b), mistral-7b, llama-3-8b (8b)"), "{}", error("8x7b"));
        assert!(!error("8x7b").contains("test"));
        for text in ["7b-x", "7b-0", "7b-2000", "7b:f17", "7b::0", "7b::-1", "7b::1.5", "7b::nan", "7b::0.1:2"] {
            error(text);
        }
        assert!(error("7b::1.5").contains("1.5"));
    }
}
