//! Thresholds of gates: which neurons of a model that never rests are skipped all the same, for a slightly different result.
//!
//! As in CATS (arXiv 2404.08763): a neuron whose activation is not above its group's threshold counts as zero.

use crate::gguf::Gguf;
use anyhow::{Context, Result, ensure};

/// Array of 32-bit floats, one per group.
pub(crate) const KEY: &str = "powerinfer.gate_thresholds";

/// One threshold per group of neurons.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    by_group: Vec<f32>,
}

impl Thresholds {
    /// Thresholds of `n_groups` groups.
    ///
    /// # Errors
    /// When there are not so many, or one is negative or no finite number.
    pub fn new(by_group: Vec<f32>, n_groups: usize) -> Result<Self> {
        ensure!(by_group.len() == n_groups, "{} thresholds for {n_groups} groups of neurons", by_group.len());
        let bad = by_group.iter().find(|t| !(t.is_finite() && **t >= 0.0));
        ensure!(bad.is_none(), "a threshold of {}: 0 and more are possible", bad.copied().unwrap_or_default());
        Ok(Self { by_group })
    }

    /// Those of a file, where it has any.
    ///
    /// # Errors
    /// When the key holds something else.
    pub(super) fn read(gguf: &Gguf, n_groups: usize) -> Result<Option<Self>> {
        let Some(array) = gguf.metadata().array(KEY)? else { return Ok(None) };
        let values = array.floats().context(KEY)?;
        Self::new(values, n_groups).context(KEY).map(Some)
    }

    /// By number of the group.
    pub fn by_group(&self) -> &[f32] {
        &self.by_group
    }
}

/// Takes what is not above `threshold` for zero; 0 changes nothing, and what is not a number stays so.
pub(crate) fn rest(threshold: f32, act: &mut [f32]) {
    if threshold > 0.0 {
        act.iter_mut().filter(|a| a.abs() <= threshold).for_each(|a| *a = 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_above_the_threshold_rests() {
        let mut act = [0.5, -0.5, 0.6, -0.6, 0.0, f32::NAN];
        rest(0.5, &mut act);
        assert_eq!(act[..5], [0.0, 0.0, 0.6, -0.6, 0.0]);
        assert!(act[5].is_nan());
        let before = act;
        rest(0.0, &mut act);
        assert_eq!(act.map(f32::to_bits), before.map(f32::to_bits));
    }

    #[test]
    fn thresholds_are_numbers_that_are_not_negative_one_per_group() {
        assert!(Thresholds::new(vec![0.0, 1.5], 2).is_ok());
        for bad in [vec![0.0], vec![0.0, -1.0], vec![f32::NAN, 0.0], vec![f32::INFINITY, 0.0]] {
            assert!(Thresholds::new(bad, 2).is_err());
        }
    }
}
