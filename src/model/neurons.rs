//! The two index spaces of a group's neurons, and the index that a variant stores.

use super::cold::ColdQuantiles;
use anyhow::{Result, bail, ensure};

/// Position of a neuron in the original model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeuronId(pub u32);

/// Position of a neuron in a file: falling activation rate in a variant, the original order elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// Numbers of consecutive tokens for which it is told how many neurons fire for any of them.
pub const CONSECUTIVE_SIZES: [usize; 4] = [2, 4, 8, 16];
/// Key of the array that tells it.
pub const CONSECUTIVE_KEY: &str = "powerinfer.consecutive_unions";

/// What a variant knows of one group's neurons.
#[derive(Debug, Clone, PartialEq)]
pub struct NeuronIndex {
    ids: Vec<NeuronId>,
    /// Share of tokens for which the neuron fired, by slot.
    pub rates: Vec<f32>,
    /// Mean absolute value that the neuron multiplied its `down` vector with, by slot.
    pub mass: Vec<f32>,
    /// Share of tokens for which the neuron's gate was above zero, by slot, where `up` has a mask of its own.
    pub open_rates: Option<Vec<f32>>,
    /// Share of tokens that the group is computed for, where a router chooses it and somebody has counted. Rates and mass are
    /// of all tokens, whether it was chosen or not.
    pub chosen: Option<f32>,
    /// Mean shares of its neurons that fire for any of [`CONSECUTIVE_SIZES`] tokens, where somebody has counted.
    pub consecutive: Option<[f32; CONSECUTIVE_SIZES.len()]>,
    /// Planned size of the hot prefix.
    pub n_hot: usize,
    /// How many neurons behind a prefix fire for a token, where tokens were counted one by one.
    pub cold: Option<ColdQuantiles>,
}

impl NeuronIndex {
    /// Checks and takes the stored index of a group with `ids.len()` neurons, without quantiles.
    ///
    /// # Errors
    /// When the ids are no permutation, rates are no shares or do not fall, or lengths differ.
    pub fn new(ids: Vec<i32>, rates: Vec<f32>, mass: Vec<f32>, n_hot: usize) -> Result<Self> {
        let n = ids.len();
        ensure!(rates.len() == n && mass.len() == n, "{n} ids, {} rates, {} masses", rates.len(), mass.len());
        ensure!(n_hot <= n, "a hot prefix of {n_hot} in {n} neurons");
        let mut seen = vec![false; n];
        for id in &ids {
            let place = usize::try_from(*id).ok().and_then(|i| seen.get_mut(i));
            let fresh = place.is_some_and(|s| !std::mem::replace(s, true));
            ensure!(fresh, "neuron ids are not a permutation: {id} is out of range or there twice");
        }
        Self::check_rates(&rates)?;
        Self::check_mass(&mass)?;
        let ids = ids.into_iter().map(|i| NeuronId(i as u32)).collect();
        Ok(Self { ids, rates, mass, open_rates: None, chosen: None, consecutive: None, n_hot, cold: None })
    }

    /// Whether these may be the rates of neurons, by slot.
    ///
    /// # Errors
    /// When they are no shares, or do not fall.
    pub(super) fn check_rates(rates: &[f32]) -> Result<()> {
        let wrong = rates.iter().find(|rate| !(0.0..=1.0).contains(*rate));
        ensure!(wrong.is_none(), "an activation rate of {} is not between 0 and 1", wrong.unwrap_or(&0.0));
        ensure!(rates.is_sorted_by(|a, b| a >= b), "activation rates do not fall: the file is not hot-first");
        Ok(())
    }

    /// Whether these may be the rates of gates, by slot.
    ///
    /// # Errors
    /// When they are no shares, or a neuron fired more often than its gate was above zero.
    pub(super) fn check_open_rates(open: &[f32], rates: &[f32]) -> Result<()> {
        let wrong = open.iter().zip(rates).find(|(open, rate)| !(**rate..=1.0).contains(*open));
        let Some((open, rate)) = wrong else { return Ok(()) };
        bail!("a gate is above zero for a share of {open} of the tokens: not between 1 and the neuron's rate of {rate}")
    }

    /// Whether these may be the masses of neurons.
    ///
    /// # Errors
    /// When one is negative or not finite.
    pub(super) fn check_mass(mass: &[f32]) -> Result<()> {
        let wrong = mass.iter().find(|mass| !(mass.is_finite() && **mass >= 0.0));
        ensure!(wrong.is_none(), "an activation mass of {} is negative or not finite", wrong.unwrap_or(&0.0));
        Ok(())
    }

    /// Rows of `up` that are read for each neuron that fires: more than 1 where `up` has a mask of its own.
    pub fn opened_per_fired(&self) -> f64 {
        let sum = |rates: &[f32]| rates.iter().map(|rate| f64::from(*rate)).sum::<f64>();
        let fired = sum(&self.rates);
        self.open_rates.as_ref().filter(|_| fired > 0.0).map_or(1.0, |open| sum(open) / fired)
    }

    /// The neuron at `slot`.
    pub fn id(&self, slot: Slot) -> NeuronId {
        self.ids[slot.0 as usize]
    }

    /// All neurons in slot order.
    pub fn ids(&self) -> &[NeuronId] {
        &self.ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_must_be_a_permutation_in_falling_order() {
        let ok = |ids: &[i32], rates: &[f32]| NeuronIndex::new(ids.to_vec(), rates.to_vec(), vec![0.0; ids.len()], 1);
        assert_eq!(ok(&[1, 0], &[0.5, 0.25]).unwrap().id(Slot(0)), NeuronId(1));
        assert!(ok(&[1, 1], &[0.5, 0.25]).is_err());
        assert!(ok(&[0, 2], &[0.5, 0.25]).is_err());
        assert!(ok(&[0, -1], &[0.5, 0.25]).is_err());
        assert!(ok(&[0, 1], &[0.25, 0.5]).is_err());
        assert!(ok(&[0, 1], &[f32::NAN, 0.5]).is_err());
        assert!(ok(&[0, 1], &[1.5, 0.5]).is_err());
    }
}
