//! Modes: what is computed of the FFN.

use anyhow::{Result, bail};
use std::str::FromStr;

/// What is computed of a layer's neurons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every neuron: the reference.
    Dense,
    /// The mask matrix in full, the rest only where the activation is not zero.
    Exact,
    /// The mask matrix only for neurons that a predictor names (in full where there is none), the rest only where the
    /// activation is not zero. What the predictor misses is missing.
    Predicted,
    /// As exact, but what is not above the threshold of its group counts as zero, too. What that was is missing.
    Thresholded,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Dense, Self::Exact, Self::Predicted, Self::Thresholded];

    /// Name in flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Exact => "exact",
            Self::Predicted => "predicted",
            Self::Thresholded => "thresholded",
        }
    }
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|mode| mode.name() == name) {
            Some(mode) => Ok(mode),
            None => bail!("mode \"{name}\" is not known; dense, exact, predicted and thresholded are"),
        }
    }
}
