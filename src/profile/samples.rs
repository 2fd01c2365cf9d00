//! Inputs of the FFN at sampled tokens: what predictors are fitted to.
//!
//! Which tokens are taken depends on `(seed, text, position)` only, by smallest hash: so samples of parts of a corpus
//! merge to those of the whole, in any order and grouping.

use half::f16;

/// Where a sample comes from. Ordered by hash first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SampleKey {
    /// Hash of seed, text and position.
    pub hash: u64,
    /// SHA-256 of the text.
    pub text: [u8; 32],
    /// Token of the text.
    pub position: u64,
}

/// The normalised inputs of all layers' FFN at sampled tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Seed of the choice.
    pub seed: u64,
    /// Tokens that are kept at most.
    pub capacity: usize,
    /// The tokens, sorted.
    pub keys: Vec<SampleKey>,
    /// By layer: `[keys][n_embd]`.
    pub x: Vec<Vec<f16>>,
}

impl Samples {
    /// Number of sampled tokens.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing was sampled.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Inputs of one layer as floats: `[keys][n_embd]`.
    pub fn layer(&self, layer: usize) -> Vec<f32> {
        self.x[layer].iter().map(|x| x.to_f32()).collect()
    }
}
