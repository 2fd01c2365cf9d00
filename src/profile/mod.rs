//! Activation profiles: which neurons fire on a calibration text, how often, and how strongly.

mod canvas;
pub mod checkpoint;
mod choice;
pub mod collect;
pub mod compare;
pub mod corpus;
mod counter;
mod file;
mod fingerprint;
mod fired_sets;
mod font;
mod header;
pub mod plot;
pub mod report;
mod reuse;
pub mod samples;
mod sections;
mod setup;
mod windows;

pub use file::{Profile, ProfiledText};
pub use fingerprint::{Fingerprint, Kinship, hex};
pub use fired_sets::FiredSets;
pub use reuse::{N_BUCKETS, ReuseCounts};

/// Unit of [`GroupCounts::mass`]: 2^-16.
pub const MASS_ONE: f64 = 65536.0;

/// What the neurons of one group did, by [`crate::model::NeuronId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCounts {
    /// Tokens for which each neuron fired.
    pub fired: Vec<u64>,
    /// Sum over tokens of the absolute value that each neuron multiplied its `down` vector with, each rounded to
    /// 1 / [`MASS_ONE`]: an integer, so that sums do not depend on their order.
    pub mass: Vec<u64>,
    /// Tokens for which each neuron's gate was above zero, where `up` has a mask of its own; empty elsewhere, where all of
    /// these neurons fired.
    pub opened: Vec<u64>,
}

impl GroupCounts {
    /// Nothing counted yet, of neurons that have two masks or one.
    pub fn new(n_ff: usize, two_masks: bool) -> Self {
        Self { fired: vec![0; n_ff], mass: vec![0; n_ff], opened: vec![0; if two_masks { n_ff } else { 0 }] }
    }
}
