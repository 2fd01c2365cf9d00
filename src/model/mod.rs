//! A model: its description as data, and its weights as views into the file.

mod activation;
mod arch;
mod check;
mod cold;
mod config;
mod lossless;
mod matrix;
mod neurons;
mod predictor;
pub mod registry;
pub mod weights;

pub use activation::{Activation, ResolvedActivation};
pub use arch::Arch;
pub use check::check_tensors;
pub use cold::ColdQuantiles;
pub use config::{Config, NormKind, Residual, Rope, RopeKind};
pub use lossless::LosslessDown;
pub use matrix::Matrix;
pub use neurons::{NeuronId, NeuronIndex, Slot};
pub use predictor::{ALWAYS, ActiveShare, Predictor, Scores, Signs};
pub use weights::{Down, Layer, Linear, NeuronGroup, Norm, Weights};

use crate::gguf::Gguf;
use anyhow::{Context, Result};

/// True in files whose weights are random: their speed means something, their text does not.
pub const SYNTHETIC_KEY: &str = "powerinfer.synthetic";

/// A model that is ready to run: file, configuration and weights agree with each other.
pub struct Model {
    /// The file.
    pub gguf: Gguf,
    /// Sizes and kinds.
    pub config: Config,
    /// Views of the weights.
    pub weights: Weights,
}

impl Model {
    /// Reads the configuration and checks every tensor against it.
    ///
    /// # Errors
    /// One line naming the file, the key or tensor, and what is wrong.
    pub fn new(gguf: Gguf, activation: Option<Activation>) -> Result<Self> {
        let file = gguf.source().name().to_owned();
        let build = || -> Result<(Config, Weights)> {
            let n_vocab = weights::vocabulary_size(&gguf)?;
            let config = Config::read(gguf.metadata(), n_vocab, activation)?;
            let weights = Weights::load(&gguf, &config)?;
            Ok((config, weights))
        };
        let (config, weights) = build().with_context(|| file)?;
        Ok(Self { gguf, config, weights })
    }

    /// Whether the neurons lie hot first with transposed `down`, as `split` writes them.
    pub fn is_variant(&self) -> bool {
        self.weights.layers.iter().all(|l| l.ffn.iter().all(|g| g.index.is_some()))
    }

    /// Whether a predictor was packed in. It may have decided that no layer is worth predicting.
    pub fn has_predictor(&self) -> bool {
        self.gguf.metadata().has("powerinfer.predictor.kinds")
            || self.weights.layers.iter().any(|l| l.ffn.iter().any(|g| g.predictor.is_some()))
    }

    /// Whether the file says that its weights are random.
    pub fn is_synthetic(&self) -> bool {
        matches!(self.gguf.metadata().bool(SYNTHETIC_KEY), Ok(Some(true)))
    }

    /// Bytes of all weights.
    pub fn n_bytes(&self) -> u64 {
        self.gguf.tensors().iter().map(|t| t.data.len() as u64).sum()
    }
}
