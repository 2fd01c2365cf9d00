//! The share of neurons that fire during a prefill.

use crate::executor::{FfnAt, Observer};
use crate::model::{Activation, Layer, Model};

/// Counts over everything it has watched.
#[derive(Debug, Clone)]
pub struct Density {
    activation: Activation,
    /// By group: how many groups one that is computed for a token stands for, those among them that a router did not choose.
    stands_for: Vec<f64>,
    fired: u64,
    opened: u64,
    possible: f64,
}

impl Density {
    /// Nothing watched yet of this model.
    pub fn new(model: &Model) -> Self {
        let of_layer = |layer: &Layer| {
            let n_routed = layer.groups.iter().filter(|group| group.is_routed()).count();
            let of_chosen = layer.router.map_or(1.0, |router| n_routed as f64 / router.n_used as f64);
            let of = |is_routed: bool| if is_routed { of_chosen } else { 1.0 };
            layer.groups.iter().map(|group| of(group.is_routed())).collect::<Vec<_>>()
        };
        let stands_for = model.weights.layers.iter().flat_map(of_layer).collect();
        Self { activation: model.config.activation.activation, stands_for, fired: 0, opened: 0, possible: 0.0 }
    }

    /// Share of (token, neuron) pairs that fired, those of experts that were not chosen among them, as
    /// [`FfnStats::density`](crate::executor::FfnStats::density) counts while decoding; `None` before the first.
    pub fn share(&self) -> Option<f64> {
        self.of(self.fired)
    }

    /// Share of pairs whose gate was above zero: more, where `up` has a mask of its own; `None` before the first.
    pub fn opened(&self) -> Option<f64> {
        self.of(self.opened)
    }

    fn of(&self, n: u64) -> Option<f64> {
        (self.possible > 0.0).then(|| n as f64 / self.possible)
    }
}

impl Observer for Density {
    fn ffn(&mut self, at: FfnAt, act: &[f32], h: &[f32]) {
        self.opened += act.iter().filter(|a| **a != 0.0).count() as u64;
        self.fired += act.iter().zip(h).filter(|(a, h)| self.activation.fires(**a, **h)).count() as u64;
        self.possible += act.len() as f64 * self.stands_for[at.group.number];
    }
}
