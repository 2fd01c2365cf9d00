//! The words in which a division of a model between devices is said.

use crate::model::{KvType, Mode};

/// How the model is to be run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// Tokens that the KV cache holds.
    pub n_ctx: usize,
    /// Tokens that are attended to in the token that is timed.
    pub n_past: usize,
    /// Types of the KV cache.
    pub kv_type: KvType,
    /// Tokens that prefill computes at once.
    pub n_ubatch: usize,
    /// What is computed of the FFN.
    pub mode: Mode,
    /// What is computed at once, and what there is to be room for on a card. Where sequences are several, what is planned for is
    /// what [`Workload::at_once`](super::workload::Workload::at_once) makes of the model.
    pub room: Room,
}

/// How much a card is to have room for beside one token after the other of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Sequences whose keys, values and states it has.
    pub n_sequences: usize,
    /// Tokens that decode computes at once, where it can: [`tokens_at_once`](super::budget::tokens_at_once).
    pub n_at_once: usize,
}

impl Room {
    /// Tokens that kernels compute at once at the most.
    pub const MOST_AT_ONCE: usize = 8;

    /// For so many sequences, a token of each of which is computed in a pass.
    pub fn of_sequences(n: usize) -> Self {
        Self { n_sequences: n.max(1), n_at_once: n.clamp(1, Self::MOST_AT_ONCE) }
    }

    /// For one sequence, several tokens of which are computed in a pass.
    pub fn of_guesses() -> Self {
        Self { n_sequences: 1, n_at_once: Self::MOST_AT_ONCE }
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::of_sequences(1)
    }
}

/// Where something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Processor and host memory.
    Host,
    /// The graphics card of this number among those that the plan is for.
    Card(usize),
}

impl Place {
    /// Whether it is a card.
    pub fn is_card(self) -> bool {
        matches!(self, Self::Card(_))
    }
}

/// What of a group of neurons is on the card of its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupChoice {
    /// The whole mask matrix; otherwise only its hot rows.
    pub mask: bool,
    /// The predictor of the cold neurons.
    pub predictor: bool,
    /// Slots `[0, n_hot)` of up and down.
    pub n_hot: usize,
}

impl GroupChoice {
    /// Whether the card has a part of the group.
    pub fn is_any(&self) -> bool {
        self.mask || self.predictor || self.n_hot > 0
    }
}

/// What of a layer is on a graphics card.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayerChoice {
    /// Which card that is.
    pub card: usize,
    /// Attention with its part of the KV cache.
    pub attention: bool,
    /// By group of the layer.
    pub groups: Vec<GroupChoice>,
}

impl LayerChoice {
    /// Nothing of a layer with `n_groups` groups.
    pub fn none(n_groups: usize) -> Self {
        Self { groups: vec![GroupChoice::default(); n_groups], ..Self::default() }
    }

    /// Whether the card has a part of the FFN.
    pub fn has_ffn(&self) -> bool {
        self.groups.iter().any(GroupChoice::is_any)
    }

    /// Whether the card looks for itself which of the layer's `n_ff` neurons fire.
    pub fn masks_all(&self, n_ff: usize) -> bool {
        self.groups.iter().all(|group| group.mask) || self.n_hot() == n_ff
    }

    /// Hot neurons of all groups.
    pub fn n_hot(&self) -> usize {
        self.groups.iter().map(|g| g.n_hot).sum()
    }
}
