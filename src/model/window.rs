//! Layers that look back on a limited number of tokens only.

use super::keys::Keys;
use anyhow::{Result, ensure};

/// Tokens that a token may look back on, itself among them.
pub(super) const WINDOW: &str = "attention.sliding_window";
/// Which layers are so limited.
pub(super) const PATTERN: &str = "attention.sliding_window_pattern";

impl Keys<'_> {
    /// Of each of `n_layer` layers: tokens that a token looks back on, itself among them; `None` where that is not limited.
    /// Where no key says otherwise they are `usual`, and of each `period` layers the last one has no limit; with 0 all have
    /// one.
    ///
    /// # Errors
    /// When a key is no number of tokens or layers, or has values for another number of layers.
    pub fn windows(&self, n_layer: usize, usual: Option<usize>, period: usize) -> Result<Vec<Option<usize>>> {
        // Of 0 no layer's number is a multiple.
        self.windows_where(n_layer, usual, period, |layer, period| !(layer + 1).is_multiple_of(period))
    }

    /// The same where no key says otherwise how many tokens these are, and of each `period` layers the first one has no limit.
    ///
    /// # Errors
    /// As [`Keys::windows`].
    pub fn windows_behind_first(&self, n_layer: usize, period: usize) -> Result<Vec<Option<usize>>> {
        self.windows_where(n_layer, None, period, |layer, period| period == 0 || !layer.is_multiple_of(period))
    }

    fn windows_where(
        &self,
        n_layer: usize,
        usual: Option<usize>,
        period: usize,
        is_limited: fn(usize, usize) -> bool,
    ) -> Result<Vec<Option<usize>>> {
        let lengths = match self.by_layer(WINDOW, n_layer, "tokens")? {
            None => vec![usual; n_layer],
            // 0 is as good as absent.
            Some(lengths) => lengths.into_iter().map(|n| Some(n).filter(|n| *n != 0)).collect(),
        };
        let limited = |period: usize| move |layer: usize| is_limited(layer, period);
        let limits: Vec<bool> = match self.by_layer(PATTERN, n_layer, "layers")? {
            None => (0..n_layer).map(limited(period)).collect(),
            Some(of_layers) if self.metadata.is_array(&self.name(PATTERN)) => {
                of_layers.into_iter().map(|n| n != 0).collect()
            }
            Some(same) => (0..n_layer).map(limited(same.first().copied().unwrap_or(period))).collect(),
        };
        Ok(lengths.into_iter().zip(limits).map(|(length, limited)| length.filter(|_| limited)).collect())
    }

    /// A number for all layers, or one for each.
    fn by_layer(&self, suffix: &str, n_layer: usize, of: &str) -> Result<Option<Vec<usize>>> {
        let name = self.name(suffix);
        let Some(numbers) = self.numbers(suffix)? else { return Ok(None) };
        let whole = |n: &f64| n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(n);
        if let Some(wrong) = numbers.iter().find(|n| !whole(n)) {
            anyhow::bail!("{name}: {wrong} is not a number of {of}");
        }
        let mut numbers: Vec<usize> = numbers.into_iter().map(|n| n as usize).collect();
        if !self.metadata.is_array(&name) {
            numbers.resize(n_layer, numbers[0]);
        }
        ensure!(numbers.len() == n_layer, "{name}: {} values for {n_layer} layers", numbers.len());
        Ok(Some(numbers))
    }
}
