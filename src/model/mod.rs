//! A model: its description as data, and its weights as views into the file.

mod activation;
pub mod arch;
mod caps;
mod check;
mod cold;
mod config;
mod decoder;
mod down;
mod expert_keys;
mod experts;
mod group;
mod keys;
mod kv_type;
mod layer;
mod load;
mod long_rope;
mod lossless;
mod matrix;
mod mixers;
mod mode;
mod neurons;
mod notes;
mod part;
mod positions;
mod predictor;
mod presence;
mod pwri;
mod refused;
pub mod registry;
mod resolved;
mod router;
mod set_hits;
mod size_class;
pub mod spec;
pub mod step;
mod thresholds;
mod weights;
mod window;

pub use activation::{Activation, Threshold};
pub use arch::Architecture;
pub use check::check_tensors;
pub use cold::ColdQuantiles;
pub use config::{Caps, Config, Mixer, NormKind, Rope, RopeKind, Scales, Ssm, Temperature, Yarn};
pub use decoder::{Defaults, HARMLESS, ONE_MIXER, SCALES};
pub use down::Down;
pub use expert_keys::{EXPERTS, harmless_beside_experts};
pub use experts::Experts;
pub use group::{CHOSEN_KEY, Chosen, GroupAt, NeuronGroup};
pub use keys::Keys;
pub use kv_type::KvType;
pub use layer::Layer;
pub use lossless::LosslessDown;
pub use matrix::Matrix;
pub use mode::Mode;
pub use neurons::{CONSECUTIVE_KEY, CONSECUTIVE_SIZES, NeuronId, NeuronIndex, Slot};
pub use part::{Access, Part, Role, SMALL_ALIGN, Tensor};
pub use positions::Positions;
pub use predictor::{ALWAYS, ActiveShare, INPUT_KEY, Predictor, PredictorInput, Scores, Signs};
pub(crate) use pwri::INDEX_ARCHITECTURE;
pub use resolved::{ResolvedActivation, THRESHOLD};
pub use router::{Gating, Router};
pub use set_hits::SetHits;
pub use step::{Groups, Step, Vector};
pub use thresholds::Thresholds;
pub(crate) use thresholds::{KEY as THRESHOLDS_KEY, rest};
pub use weights::Weights;

use crate::gguf::Gguf;
use anyhow::{Context, Result, ensure};

/// True in files whose weights are random: their speed means something, their text does not.
pub const SYNTHETIC_KEY: &str = "powerinfer.synthetic";

/// SHA-256 of the profile that a variant was made with.
pub const PROFILE_KEY: &str = "powerinfer.profile_sha256";

/// A model that is ready to run: file, configuration and weights agree with each other.
pub struct Model {
    /// The file.
    pub gguf: Gguf,
    /// Sizes and kinds.
    pub config: Config,
    /// Views of the weights.
    pub weights: Weights,
    /// Below which activations neurons may be skipped, where somebody has looked for that.
    pub thresholds: Option<Thresholds>,
    /// What sets of experts hit, by their size; none where nobody has counted.
    pub set_hits: Vec<SetHits>,
    /// What is odd about the file and does not prevent its use; one line each.
    pub notes: Vec<String>,
}

impl Model {
    /// Reads the configuration of a file of a known architecture and checks every tensor against it.
    ///
    /// # Errors
    /// One line naming the file, the key or tensor, and what is wrong.
    pub fn new(gguf: Gguf, activation: Option<Activation>) -> Result<Self> {
        Self::of_architectures(gguf, activation, arch::KNOWN)
    }

    /// The same where the architecture is one of `known`.
    ///
    /// # Errors
    /// As [`Model::new`].
    pub fn of_architectures(gguf: Gguf, activation: Option<Activation>, known: &[&dyn Architecture]) -> Result<Self> {
        let file = gguf.source().name().to_owned();
        let build = || -> Result<_> {
            pwri::refuse_index(&gguf)?;
            let name = gguf.metadata().str("general.architecture")?;
            let arch = arch::find(known, name.context("general.architecture: the key is missing")?)?;
            let n_vocab = weights::vocabulary_size(&gguf)?;
            let keys = Keys::new(&gguf, arch.name(), n_vocab, activation);
            let config = arch.config(&keys)?;
            let weights = Weights::load(&gguf, arch, &config, &|tensor| arch.skips(&keys, &config, tensor))?;
            let found = &config.activation;
            ensure!(
                !found.activation.needs_gate() || weights.groups().all(|(_, group)| group.gate.is_some()),
                "activation {} (from {}) is of gate and up, but the FFN of architecture {} has no gate; --activation gives another",
                found.activation,
                found.from,
                arch.name()
            );
            let thresholds = Thresholds::read(&gguf, weights.group_sizes().len())?;
            let notes = notes::of(&config, &keys.unknown(arch.harmless()));
            Ok((config, weights, thresholds, set_hits::read(&gguf)?, notes))
        };
        let (config, weights, thresholds, set_hits, notes) = build().with_context(|| file)?;
        Ok(Self { gguf, config, weights, thresholds, set_hits, notes })
    }

    /// Whether files of the architecture of this name can be computed, as far as their other keys allow.
    pub fn is_computed(architecture: &str) -> bool {
        arch::find(arch::KNOWN, architecture).is_ok()
    }

    /// Whether `up` has a mask of its own: then fewer neurons fire than rows of `up` are read.
    pub fn has_two_masks(&self) -> bool {
        self.config.activation.activation.has_two_masks()
    }

    /// Whether the neurons lie hot first with transposed `down`, as `split` writes them.
    pub fn is_variant(&self) -> bool {
        self.weights.groups().all(|(_, group)| group.index.is_some())
    }

    /// Whether a predictor was packed in. It may have decided that no layer is worth predicting.
    pub fn has_predictor(&self) -> bool {
        self.gguf.metadata().has("powerinfer.predictor.kinds")
            || self.weights.groups().any(|(_, group)| group.predictor.is_some())
    }

    /// Whether a profile has counted how often the neurons of this variant fire, or a synthetic model was made so that they fire
    /// as often as it says.
    pub fn has_counted_rates(&self) -> bool {
        self.is_variant() && (self.is_synthetic() || self.gguf.metadata().has(PROFILE_KEY))
    }

    /// Whether it has a context of `n_ctx` tokens: with learned positions none is longer than their table.
    ///
    /// # Errors
    /// When it has not.
    pub fn check_context(&self, n_ctx: usize) -> Result<()> {
        let Some(positions) = self.config.positions else { return Ok(()) };
        let n = positions.n;
        ensure!(
            n_ctx <= n,
            "{}: a context of {n_ctx} tokens: position_embd.weight has {n} positions; give a shorter one (-c, or -p and -n of bench)",
            self.gguf.source().name()
        );
        Ok(())
    }

    /// Whether it can be run in `mode`.
    ///
    /// # Errors
    /// When that needs a predictor or thresholds and there are none.
    pub fn check_mode(&self, mode: Mode) -> Result<()> {
        ensure!(
            mode != Mode::Thresholded || self.thresholds.is_some(),
            "{}: mode thresholded: the file has no thresholds; powerinfer-profile --threshold-search finds them, \
             powerinfer-split puts them into a variant",
            self.gguf.source().name()
        );
        let own = self.gguf.metadata().str("powerinfer.activation")?;
        let activation = self.config.activation.activation;
        ensure!(
            mode != Mode::Thresholded || own.is_none_or(|own| own == activation.name()),
            "{}: mode thresholded: the thresholds were searched for with activation {}, not {activation}",
            self.gguf.source().name(),
            own.unwrap_or_default()
        );
        ensure!(
            mode != Mode::Predicted || self.has_predictor(),
            "{}: mode predicted: the file has no predictor; powerinfer-profile --predictor fits one, powerinfer-split \
             packs it in",
            self.gguf.source().name()
        );
        Ok(())
    }

    /// What the activations of a group, by number, must be above to count in `mode`.
    pub fn threshold(&self, mode: Mode, group: usize) -> f32 {
        let thresholds = self.thresholds.as_ref().filter(|_| mode == Mode::Thresholded);
        thresholds.map_or(0.0, |thresholds| thresholds.by_group()[group])
    }

    /// Whether the file says that its weights are random.
    pub fn is_synthetic(&self) -> bool {
        matches!(self.gguf.metadata().bool(SYNTHETIC_KEY), Ok(Some(true)))
    }

    /// Numbers in all tensors.
    pub fn n_params(&self) -> u64 {
        self.gguf.tensors().iter().map(|t| t.dims.iter().map(|n| *n as u64).product::<u64>()).sum()
    }

    /// Bytes of all weights.
    pub fn n_bytes(&self) -> u64 {
        self.gguf.tensors().iter().map(|t| t.data.len() as u64).sum()
    }
}
