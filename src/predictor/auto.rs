//! What a layer's FFN costs per token with a predictor, which decides between kinds and sizes.

use crate::model::{Down, NeuronGroup};

/// Speeds of a machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// Bytes per second when rows are read one after another.
    pub streamed: f64,
    /// Bytes per second when rows are picked out.
    pub gathered: f64,
    /// Seconds that an additional parallel region takes, whatever it reads.
    pub region: f64,
}

impl Default for Costs {
    /// Assumed, not measured: a desktop with two channels of DDR5.
    fn default() -> Self {
        Self { streamed: 60e9, gathered: 45e9, region: 4e-6 }
    }
}

/// Bytes of a layer's neurons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NeuronBytes {
    /// Neurons.
    pub n_ff: f64,
    /// Bytes of one row of the mask matrix.
    pub mask_row: f64,
    /// Bytes of what else is read if a neuron fires.
    pub other_rows: f64,
}

impl NeuronBytes {
    /// Those of a variant, which is where predictors go and where `down` is stored by rows; with so many rows of `up` for
    /// each neuron that fires.
    pub fn new(group: &NeuronGroup, opened_per_fired: f64) -> Self {
        let n_ff = group.n_ff() as f64;
        let down = match group.ffn_down() {
            Down::Columns(down) => down.n_bytes() as f64 / n_ff,
            Down::Rows(_) | Down::Lossless(_) => 0.0,
        };
        let other_rows = group.bytes_for_active(opened_per_fired, 1.0) + down;
        Self { n_ff, mask_row: group.mask_matrix().row_bytes() as f64, other_rows }
    }
}

/// What one token reads of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Bytes of the predictor, without the rows of neurons that are always active.
    pub predictor: f64,
    /// Parallel regions that it takes.
    pub regions: f64,
    /// Share of neurons whose mask row is read; `None` if that is the whole matrix, in order.
    pub active: Option<f64>,
    /// Share of neurons whose other rows are read, too.
    pub fired: f64,
}

impl Costs {
    /// Seconds per token.
    pub(super) fn seconds(&self, bytes: &NeuronBytes, load: &Load) -> f64 {
        let mask = bytes.n_ff * bytes.mask_row;
        let mask = load.active.map_or(mask / self.streamed, |active| active * mask / self.gathered);
        load.predictor / self.streamed
            + load.regions * self.region
            + mask
            + load.fired * bytes.n_ff * bytes.other_rows / self.gathered
    }

    /// If a neuron is inactive for a smaller share of the tokens than this, scoring it (`score_row` bytes) does not
    /// pay.
    pub(super) fn break_even(&self, bytes: &NeuronBytes, score_row: f64) -> f64 {
        (score_row / self.streamed) / (bytes.mask_row / self.gathered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predictor_pays_when_it_reads_less_than_it_saves() {
        let costs = Costs { streamed: 10.0, gathered: 5.0, region: 1.0 };
        let bytes = NeuronBytes { n_ff: 100.0, mask_row: 10.0, other_rows: 20.0 };
        let none = Load { predictor: 0.0, regions: 0.0, active: None, fired: 0.1 };
        assert!((costs.seconds(&bytes, &none) - 140.0).abs() < 1e-9);
        let some = Load { predictor: 100.0, regions: 2.0, active: Some(0.2), fired: 0.1 };
        assert!((costs.seconds(&bytes, &some) - (10.0 + 2.0 + 40.0 + 40.0)).abs() < 1e-9);
        assert!((costs.break_even(&bytes, 4.0) - 0.2).abs() < 1e-9);
    }
}
