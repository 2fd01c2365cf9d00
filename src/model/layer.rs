//! A layer: its parts, its groups of neurons, and the steps in which they act.

use super::group::NeuronGroup;
use super::part::{Part, Role};
use super::router::Router;
use super::step::Step;

/// One layer.
#[derive(Clone)]
pub struct Layer {
    /// Its parts, but for those of neurons, each role once.
    pub parts: Vec<Part>,
    /// Its groups of neurons: one in a dense layer, none where the layer has no FFN.
    pub groups: Vec<NeuronGroup>,
    /// Number of its first group among those of all layers.
    pub first_group: usize,
    /// How groups are chosen, where a router does.
    pub router: Option<Router>,
    /// What happens to the residual stream.
    pub steps: Vec<Step>,
}

impl Layer {
    /// The part with that role, where the layer has it.
    pub fn find(&self, role: Role) -> Option<&Part> {
        self.parts.iter().find(|part| part.role == role)
    }

    /// The part with that role.
    ///
    /// # Panics
    /// When the layer has none: what its steps need was checked when it was loaded.
    pub fn part(&self, role: Role) -> &Part {
        self.find(role).unwrap_or_else(|| panic!("the layer has no {}", role.tensor()))
    }

    /// All parts, those of its neurons among them.
    pub fn all_parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().chain(self.groups.iter().flat_map(NeuronGroup::parts))
    }

    /// Whether one of its steps is attention.
    pub fn has_attention(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Attention { .. }))
    }
}
