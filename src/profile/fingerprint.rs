//! Telling whether two files hold the same model.

use crate::model::{Matrix, Model, NeuronId, Role};
use crate::quant::convert;
use crate::tokenizer::read_vocab;
use anyhow::Result;
use sha2::{Digest, Sha256};

/// Layers, and rows in each, that are sampled.
const N_LAYERS: usize = 8;
const N_ROWS: usize = 4;
/// Groups of neurons in each sampled layer.
const N_GROUPS: usize = 8;
/// Weights taken of each sampled row.
const N_WEIGHTS: usize = 64;
/// Cosine between the samples of two quantizations of one model: above 0.99 down to 4 bits, about 0.95 at 2. Models
/// trained apart are at 0.
const SIBLING_COSINE: f64 = 0.9;

/// What identifies a model whatever its file: its shape and tokenizer, and a sample of its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Fingerprint {
    /// SHA-256 over architecture, sizes and vocabulary.
    pub family: [u8; 32],
    /// Sampled weights as floats: the same neurons' in a plain file and in a variant.
    pub samples: Vec<f32>,
}

/// How two models are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// The sampled weights are the same numbers.
    Same,
    /// The same model in another precision.
    Sibling,
    /// The same shape and vocabulary, but other weights.
    OtherWeights,
    /// Another architecture, shape or vocabulary.
    OtherFamily,
}

impl Fingerprint {
    /// Takes the fingerprint of a model.
    ///
    /// # Errors
    /// When the vocabulary cannot be read.
    pub fn of(model: &Model) -> Result<Self> {
        Ok(Self { family: family(model)?, samples: samples(model)? })
    }

    /// How the model of `self` is related to that of `other`.
    pub fn kinship(&self, other: &Self) -> Kinship {
        if self.family != other.family || self.samples.len() != other.samples.len() {
            return Kinship::OtherFamily;
        }
        let pairs = || self.samples.iter().zip(&other.samples);
        if pairs().all(|(a, b)| a.to_bits() == b.to_bits()) {
            return Kinship::Same;
        }
        let product = |f: fn(f64, f64) -> f64| pairs().map(|(a, b)| f(f64::from(*a), f64::from(*b))).sum::<f64>();
        let cosine = product(|a, b| a * b) / (product(|a, _| a * a) * product(|_, b| b * b)).sqrt();
        if cosine >= SIBLING_COSINE { Kinship::Sibling } else { Kinship::OtherWeights }
    }

    /// SHA-256 over everything, in hex: the name of this very file's weights.
    pub fn hex(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.family);
        self.samples.iter().for_each(|s| hash.update(s.to_le_bytes()));
        hex(&hash.finalize())
    }
}

/// Lower-case hex digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn family(model: &Model) -> Result<[u8; 32]> {
    let c = &model.config;
    let mut hash = Sha256::new();
    hash.update(&c.arch);
    for n in [c.n_vocab, c.n_embd, c.n_layer, c.n_head, c.n_head_kv, c.head_dim, c.rope.n_dims] {
        hash.update((n as u64).to_le_bytes());
    }
    c.n_ff.iter().for_each(|n| hash.update((*n as u64).to_le_bytes()));
    hash.update(c.rope.base.to_le_bytes());
    // A tokenizer without tokens is llama.cpp's `no_vocab`.
    if ["model", "tokens"].iter().all(|key| model.gguf.metadata().has(&format!("tokenizer.ggml.{key}"))) {
        let vocab = read_vocab(&model.gguf)?;
        hash.update(vocab.model);
        for token in &vocab.tokens {
            hash.update((token.len() as u64).to_le_bytes());
            hash.update(token);
        }
    }
    Ok(hash.finalize().into())
}

fn samples(model: &Model) -> Result<Vec<f32>> {
    let mut out = Vec::new();
    let n_layer = model.config.n_layer;
    for layer in spread(n_layer, N_LAYERS) {
        let layer = &model.weights.layers[layer];
        for group in spread(layer.groups.len(), N_GROUPS).map(|group| &layer.groups[group]) {
            for id in spread(group.n_ff(), N_ROWS) {
                let id = NeuronId(id as u32);
                let slot = match &group.index {
                    Some(index) => index.ids().iter().position(|i| *i == id).unwrap_or(0),
                    None => id.0 as usize,
                };
                sample(group.mask_matrix(), slot, &mut out)?;
                sample(group.ffn_up(), slot, &mut out)?;
            }
        }
        for part in layer.parts.iter().filter(|part| is_sampled(part.role)) {
            for row in spread(part.matrix().n_rows, N_ROWS) {
                sample(part.matrix(), row, &mut out)?;
            }
        }
    }
    for part in model.weights.parts.iter().filter(|part| is_sampled(part.role)) {
        for row in spread(part.matrix().n_rows, N_LAYERS) {
            sample(part.matrix(), row, &mut out)?;
        }
    }
    Ok(out)
}

/// Whether rows are taken of parts with that role. Changing it makes other fingerprints of all models.
fn is_sampled(role: Role) -> bool {
    match role {
        Role::TokenEmbd | Role::AttnQ => true,
        // Beside attention, neurons are sampled by their number.
        Role::OutputNorm
        | Role::PositionEmbd
        | Role::Output
        | Role::RopeFreqs
        | Role::RopeFactorsLong
        | Role::RopeFactorsShort
        | Role::AttnNorm
        | Role::AttnNorm2
        | Role::PostAttnNorm
        | Role::FfnNorm
        | Role::PostFfnNorm
        | Role::AttnK
        | Role::AttnV
        | Role::AttnQNorm
        | Role::AttnKNorm
        | Role::AttnKvA
        | Role::AttnKvANorm
        | Role::AttnKvB
        | Role::AttnOutput
        | Role::AttnSinks
        | Role::SsmConv
        | Role::SsmDt
        | Role::SsmA
        | Role::SsmD
        | Role::SsmNorm
        | Role::RouterBias
        | Role::SsmIn
        | Role::SsmOut
        | Role::LatentDown
        | Role::LatentUp
        | Role::Router
        | Role::FfnGate
        | Role::FfnUp
        | Role::FfnDown => false,
    }
}

/// `n` numbers spread over `0..total`, without repeats.
fn spread(total: usize, n: usize) -> impl Iterator<Item = usize> {
    let n = n.min(total);
    (0..n).map(move |i| (2 * i + 1) * total / (2 * n))
}

fn sample(matrix: &Matrix, row: usize, out: &mut Vec<f32>) -> Result<()> {
    let mut values = vec![0.0; matrix.n_cols];
    convert::dequantizer(matrix.dtype())?(matrix.row(row), &mut values);
    out.extend(values.iter().take(N_WEIGHTS));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(samples: Vec<f32>) -> Fingerprint {
        Fingerprint { family: [1; 32], samples }
    }

    #[test]
    fn kinship_tells_precision_from_other_weights() {
        let a = with(vec![1.0, -2.0, 0.5, 3.0]);
        assert_eq!(a.kinship(&a), Kinship::Same);
        assert_eq!(a.kinship(&with(vec![1.01, -1.95, 0.52, 3.0])), Kinship::Sibling);
        assert_eq!(a.kinship(&with(vec![3.0, 0.5, -2.0, 1.0])), Kinship::OtherWeights);
        assert_eq!(a.kinship(&with(vec![0.0; 4])), Kinship::OtherWeights);
        let other = Fingerprint { family: [2; 32], samples: a.samples.clone() };
        assert_eq!(a.kinship(&other), Kinship::OtherFamily);
    }

    #[test]
    fn spread_numbers_are_distinct_and_in_range() {
        for (total, n) in [(1, 8), (7, 8), (8, 8), (1000, 4)] {
            let all: Vec<_> = spread(total, n).collect();
            assert!(all.is_sorted_by(|a, b| a < b) && all.iter().all(|i| *i < total), "{all:?}");
        }
    }
}
