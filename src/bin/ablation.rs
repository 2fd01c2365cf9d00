//! Parts of the engine that `bench` takes away, to see what they are worth.

use anyhow::{Result, bail};
use powerinfer::executor::Mode;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use std::str::FromStr;

/// Seed of [`Hot::Random`].
const SEED: u64 = 1;

/// What to do without.
#[derive(clap::Args)]
pub struct Ablation {
    /// Neurons of the hot shard, which is computed by its true mask: none, profile (as planned in the file) or random (the
    /// same number, chosen at random)
    #[arg(long, value_name = "none|random|profile", default_value = "none")]
    hot: Hot,
    /// Predictor for mode predicted: stored, or none (which makes it exact)
    #[arg(long, value_name = "none|stored", default_value = "stored")]
    predictor: Stored,
}

/// Which neurons are hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hot {
    None,
    Random,
    Profile,
}

impl FromStr for Hot {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "none" => Self::None,
            "random" => Self::Random,
            "profile" => Self::Profile,
            _ => bail!("\"{name}\" is not known; none, random and profile are"),
        })
    }
}

/// Whether the file's predictor is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Used,
    Unused,
}

impl FromStr for Stored {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "stored" => Self::Used,
            "none" => Self::Unused,
            _ => bail!("\"{name}\" is not known; none and stored are"),
        })
    }
}

impl Ablation {
    /// The hot neurons of each layer; none in dense mode, the reference.
    pub fn placement(&self, mode: Mode, model: &Model) -> Result<Placement> {
        match self.hot {
            Hot::Random if mode != Mode::Dense => Placement::random(model, SEED),
            Hot::Profile if mode != Mode::Dense => Placement::planned(model),
            _ => Ok(Placement::all_cold(model)),
        }
    }

    /// Name of what [`Ablation::placement`] gives.
    pub fn hot(&self, mode: Mode) -> &'static str {
        match self.hot {
            Hot::Random if mode != Mode::Dense => "random",
            Hot::Profile if mode != Mode::Dense => "profile",
            _ => "none",
        }
    }

    /// The mode that is left.
    pub fn mode(&self, mode: Mode) -> Mode {
        if mode == Mode::Predicted && self.predictor == Stored::Unused { Mode::Exact } else { mode }
    }
}
