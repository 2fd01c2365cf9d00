//! Fetching the weights of a neuron as soon as it is known to fire.

use crate::cpu::Which;
use crate::model::{Down, Matrix, NeuronGroup};

/// Bytes of mask matrices in one run up to which what follows is fetched: all that is read between the fetching and the use
/// should leave it in the last cache of a small processor. Where more is read, what fires is longer, too, and the kernels' own
/// fetching has the time to run ahead.
pub(super) const NEAR: usize = 4 << 20;

/// The matrices of which a row will be read where the mask of its neuron is not zero.
#[derive(Clone, Copy)]
pub(super) struct Followed<'a> {
    matrices: [Option<&'a Matrix>; 2],
    /// What masks must be above.
    threshold: f32,
}

impl<'a> Followed<'a> {
    /// Those of `group`.
    pub fn of(group: &'a NeuronGroup, threshold: f32) -> Self {
        let up = group.gate.as_ref().map(|_| group.ffn_up());
        let down = match group.ffn_down() {
            Down::Rows(down) => Some(down),
            Down::Columns(_) | Down::Lossless(_) => None,
        };
        Self { matrices: [up, down], threshold }
    }

    /// Keeps the matrices.
    pub fn keep(&self) -> Kept {
        Kept { matrices: self.matrices.map(|matrix| matrix.cloned()), threshold: self.threshold }
    }
}

/// The same, owned.
pub(super) struct Kept {
    matrices: [Option<Matrix>; 2],
    threshold: f32,
}

impl Kept {
    /// Fetches what follows `masks`, `[neurons][n_tokens]`.
    pub fn fetch(&self, neurons: Which, masks: &[f32], n_tokens: usize) {
        let fires = |mask: &f32| *mask != 0.0 && mask.abs() > self.threshold;
        for matrix in self.matrices.iter().flatten() {
            let rows = matrix.which(neurons);
            for (i, masks) in masks.chunks_exact(n_tokens).enumerate() {
                if masks.iter().any(fires) {
                    rows.fetch(i);
                }
            }
        }
    }
}
