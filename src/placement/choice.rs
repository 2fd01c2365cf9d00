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
