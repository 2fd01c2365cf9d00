//! Which neurons of each group are hot, and how that is decided.

pub mod batch;
pub mod budget;
mod choice;
pub mod cost;
pub mod explain;
mod fired;
pub mod hardware;
mod options;
pub mod picture;
pub mod plan;
mod planner;
pub mod probe;
pub mod rates;
mod relaxation;
mod shaped;
pub mod solve;
pub mod union;
pub mod workload;

#[cfg(test)]
mod tests;

use crate::model::Model;
use anyhow::{Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Per group of neurons, the size of the hot prefix: slots `[0, n_hot)` belong to the first shard, the rest to the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    n_hot: Vec<usize>,
    /// By group the hot and the cold slots, where they are chosen by chance.
    scattered: Option<Vec<(Vec<u32>, Vec<u32>)>>,
}

impl Placement {
    /// Everything in the second shard: what a machine without a GPU does, and all that a plain file allows.
    pub fn all_cold(model: &Model) -> Self {
        Self { n_hot: vec![0; model.weights.groups().count()], scattered: None }
    }

    /// What the variant's index plans.
    ///
    /// # Errors
    /// When the file is no variant.
    pub fn planned(model: &Model) -> Result<Self> {
        let planned = model.weights.groups().map(|(_, group)| group.index.as_ref().map(|index| index.n_hot));
        let n_hot: Option<Vec<_>> = planned.collect();
        let n_hot = n_hot.ok_or_else(|| anyhow::anyhow!("{}: {NOT_A_VARIANT}", model.gguf.source().name()))?;
        Ok(Self { n_hot, scattered: None })
    }

    /// The given prefixes.
    ///
    /// # Errors
    /// When they do not fit the model, or the file is no variant and one of them is not 0.
    pub fn new(model: &Model, n_hot: Vec<usize>) -> Result<Self> {
        let sizes = model.weights.group_sizes();
        ensure!(n_hot.len() == sizes.len(), "a placement of {} groups of neurons for {}", n_hot.len(), sizes.len());
        let fits = n_hot.iter().zip(&sizes).all(|(hot, n_ff)| hot <= n_ff);
        ensure!(fits, "a group has fewer neurons than its hot prefix");
        ensure!(model.is_variant() || n_hot.iter().all(|n| *n == 0), "{}: {NOT_A_VARIANT}", model.gguf.source().name());
        Ok(Self { n_hot, scattered: None })
    }

    /// As many hot neurons as planned, but chosen by chance: what a placement is compared with. Sums are then added up
    /// in another order.
    ///
    /// # Errors
    /// When the file is no variant.
    pub fn random(model: &Model, seed: u64) -> Result<Self> {
        let mut placement = Self::planned(model)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sizes = model.weights.group_sizes();
        let groups = placement.n_hot.iter().zip(&sizes).map(|(n_hot, n_ff)| {
            let mut slots: Vec<u32> = (0..*n_ff as u32).collect();
            for i in 0..*n_hot {
                slots.swap(i, i + (rng.next_u64() % (n_ff - i) as u64) as usize);
            }
            let mut cold = slots.split_off(*n_hot);
            slots.sort_unstable();
            cold.sort_unstable();
            (slots, cold)
        });
        placement.scattered = Some(groups.collect());
        Ok(placement)
    }

    /// The hot and the cold slots of a group, by its number, in rising order, where they are chosen by chance.
    pub fn scattered(&self, group: usize) -> Option<(&[u32], &[u32])> {
        self.scattered.as_ref().map(|groups| (&*groups[group].0, &*groups[group].1))
    }

    /// Whether no neuron is hot.
    pub fn is_all_cold(&self) -> bool {
        self.scattered.is_none() && self.n_hot.iter().all(|n| *n == 0)
    }

    /// Size of the hot prefix of a group, by its number.
    pub fn n_hot(&self, group: usize) -> usize {
        self.n_hot[group]
    }
}

const NOT_A_VARIANT: &str = "its neurons are not stored hot first; powerinfer-split makes a variant that does";

/// Smallest prefix of falling `counts` that covers `share` of their sum.
pub fn covering_prefix(counts: &[u64], share: f64) -> usize {
    let total: u128 = counts.iter().map(|c| u128::from(*c)).sum();
    let wanted = (total as f64 * share).ceil() as u128;
    let mut sum = 0u128;
    for (i, count) in counts.iter().enumerate() {
        if sum >= wanted {
            return i;
        }
        sum += u128::from(*count);
    }
    counts.len()
}

#[cfg(test)]
mod prefixes {
    use super::covering_prefix;

    #[test]
    fn the_covering_prefix_is_the_smallest_one() {
        assert_eq!(covering_prefix(&[8, 1, 1], 0.8), 1);
        assert_eq!(covering_prefix(&[7, 2, 1], 0.8), 2);
        assert_eq!(covering_prefix(&[5, 3, 2], 1.0), 3);
        assert_eq!(covering_prefix(&[5, 0, 0], 1.0), 1);
        assert_eq!(covering_prefix(&[0, 0], 0.8), 0);
        assert_eq!(covering_prefix(&[], 0.8), 0);
        assert_eq!(covering_prefix(&[u64::MAX, u64::MAX], 1.0), 2);
    }
}
