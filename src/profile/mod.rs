//! Activation profiles: which neurons fire on a calibration text, how often, and how strongly.

pub mod checkpoint;
mod choice;
pub mod collect;
pub mod compare;
pub mod corpus;
mod counter;
mod counts_file;
pub mod experts;
mod file;
mod fingerprint;
mod fired_sets;
mod header;
mod json;
pub mod plot;
mod pools;
pub mod report;
mod reuse;
mod routers;
pub mod samples;
mod sections;
mod setup;
mod tally;
pub mod together;
mod unions;
mod windows;

pub use file::{Profile, ProfiledText};
pub use fingerprint::{Fingerprint, Kinship, hex};
pub use fired_sets::FiredSets;
pub use json::json;
pub use pools::Pool;
pub use reuse::{N_BUCKETS, ReuseCounts};
pub use routers::RouterCounts;
pub use tally::Tally;
pub use unions::UnionCounts;

use anyhow::Result;

/// Unit of [`GroupCounts::mass`]: 2^-16.
pub const MASS_ONE: f64 = 65536.0;

/// What the neurons of one group did, by [`crate::model::NeuronId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCounts {
    /// Tokens for which each neuron fired.
    pub fired: Tally,
    /// Sum over tokens of the absolute value that each neuron multiplied its `down` vector with, each rounded to
    /// 1 / [`MASS_ONE`]: an integer, so that sums do not depend on their order. In groups that a router chooses it is the
    /// value before the router's weight.
    pub mass: Tally,
    /// Tokens for which each neuron's gate was above zero, where `up` has a mask of its own; empty elsewhere, where all of
    /// these neurons fired.
    pub opened: Tally,
}

impl GroupCounts {
    /// Nothing counted yet, of neurons that have two masks or one.
    pub fn new(n_ff: usize, two_masks: bool) -> Self {
        Self { fired: Tally::new(n_ff), mass: Tally::new(n_ff), opened: Tally::new(if two_masks { n_ff } else { 0 }) }
    }

    /// Adds the counts of `other`, of as many neurons.
    pub(super) fn add(&mut self, other: &Self) -> Result<()> {
        self.fired.add(|i| other.fired.get(i))?;
        self.mass.add(|i| other.mass.get(i))?;
        self.opened.add(|i| other.opened.get(i))
    }

    fn clear(&mut self) {
        [&mut self.fired, &mut self.mass, &mut self.opened].into_iter().for_each(Tally::clear);
    }
}
