//! The share of neurons that fire during a prefill.

use crate::executor::{FfnAt, Observer};

/// Counts over everything it has watched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Density {
    fired: u64,
    possible: u64,
}

impl Density {
    /// Share of (token, neuron) pairs that fired; `None` before the first.
    pub fn share(&self) -> Option<f64> {
        (self.possible > 0).then(|| self.fired as f64 / self.possible as f64)
    }
}

impl Observer for Density {
    fn ffn(&mut self, _at: FfnAt, act: &[f32], _h: &[f32]) {
        self.fired += act.iter().filter(|a| **a != 0.0).count() as u64;
        self.possible += act.len() as u64;
    }
}
