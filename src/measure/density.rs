//! The share of neurons that fire during a prefill.

use crate::executor::{FfnAt, Observer};
use crate::model::Activation;

/// Counts over everything it has watched.
#[derive(Debug, Clone, Copy)]
pub struct Density {
    activation: Activation,
    fired: u64,
    opened: u64,
    possible: u64,
}

impl Density {
    /// Nothing watched yet, of a model with this activation.
    pub fn new(activation: Activation) -> Self {
        Self { activation, fired: 0, opened: 0, possible: 0 }
    }

    /// Share of (token, neuron) pairs that fired; `None` before the first.
    pub fn share(&self) -> Option<f64> {
        self.of(self.fired)
    }

    /// Share of pairs whose gate was above zero: more, where `up` has a mask of its own; `None` before the first.
    pub fn opened(&self) -> Option<f64> {
        self.of(self.opened)
    }

    fn of(&self, n: u64) -> Option<f64> {
        (self.possible > 0).then(|| n as f64 / self.possible as f64)
    }
}

impl Observer for Density {
    fn ffn(&mut self, _at: FfnAt, act: &[f32], h: &[f32]) {
        self.opened += act.iter().filter(|a| **a != 0.0).count() as u64;
        self.fired += act.iter().zip(h).filter(|(a, h)| self.activation.fires(**a, **h)).count() as u64;
        self.possible += act.len() as u64;
    }
}
