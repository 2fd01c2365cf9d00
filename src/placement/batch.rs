//! Where many tokens at once meet a group of neurons that a router chose for them: on the card, to which what is not there
//! must travel first, or on the processor.

use super::hardware::{Bandwidths, Device, Hardware};
use super::workload::{GroupWork, NeuronRows};

/// Tokens that the processor computes a group for in the time in which it reads the group once: a prompt takes a sixth of the
/// time of as many tokens one by one (docs/performance.md: 42 against 6.8 tokens/s, 181 against 30, 238 against 35).
const AT_ONCE: f64 = 6.0;
/// Kernels of a group on the card: activations packed twice, three products.
const KERNELS: f64 = 5.0;

/// A group in a batch.
#[derive(Debug, Clone, Copy)]
pub struct InBatch<'a> {
    /// The group.
    pub group: &'a GroupWork,
    /// Its neurons that are on the card.
    pub n_hot: usize,
    /// For how many tokens it is computed.
    pub n_tokens: usize,
}

/// How fast both sides are.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchCost {
    cpu: Bandwidths,
    device: Device,
}

impl BatchCost {
    /// Of a machine with a card.
    pub fn of(hardware: &Hardware) -> Option<Self> {
        let device = hardware.device.clone()?;
        Some(Self { cpu: hardware.cpu.bandwidth.clone(), device })
    }

    /// Seconds of the card: what is cold comes over the bus, and is computed while the next of it comes.
    fn card(&self, of: &InBatch) -> f64 {
        let hot = (of.group.neuron_bytes() * of.n_hot as u64) as f64;
        let cold = (of.group.neuron_bytes() * (of.group.n_ff() - of.n_hot) as u64) as f64;
        let Device { gpu, bus } = &self.device;
        KERNELS * gpu.kernel + hot / gpu.bandwidth.of(of.group.mask.dtype).stream + cold / bus.bandwidth
    }

    /// Seconds of the processor, for all neurons.
    fn cpu(&self, of: &InBatch) -> f64 {
        let n_ff = of.group.n_ff() as f64;
        let reading = |rows: NeuronRows| n_ff * rows.row_bytes as f64 / self.cpu.of(rows.dtype).stream;
        let rows = [Some(of.group.mask), of.group.up, Some(of.group.down)];
        let once: f64 = rows.into_iter().flatten().map(reading).sum();
        once * (of.n_tokens as f64 / AT_ONCE).max(1.0)
    }

    /// Which of these groups the processor computes: those for which it is faster, if that saves more than it takes to bring
    /// what they give, of `vector_bytes` for all tokens, to the card.
    pub fn on_cpu(&self, groups: &[InBatch], vector_bytes: u64) -> Vec<bool> {
        let saved = |of: &InBatch| self.card(of) - self.cpu(of);
        let all: f64 = groups.iter().map(saved).filter(|saved| *saved > 0.0).sum();
        let bus = &self.device.bus;
        let pays = all > bus.rendezvous + vector_bytes as f64 / bus.bandwidth;
        groups.iter().map(|of| pays && saved(of) > 0.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::workload::NeuronStats;
    use crate::quant::GgmlType;
    use std::sync::Arc;

    const N_FF: usize = 1024;

    /// An expert of 1024 neurons of 6 KiB.
    fn group() -> GroupWork {
        let rows = NeuronRows { row_bytes: 2048, dtype: GgmlType::Q8_0 };
        let stats =
            NeuronStats { rates: vec![0.1; N_FF], mass: vec![0.1; N_FF], open_rates: None, wanted: None, cold: None };
        GroupWork {
            mask: rows,
            up: Some(rows),
            down: rows,
            down_by_columns: false,
            divisible: true,
            routed: true,
            chosen: 0.1,
            stats: Arc::new(stats),
            predictor: None,
        }
    }

    fn cost() -> BatchCost {
        let hardware = Hardware::parse(include_str!("../../hardware/rtx-4090-ddr5.toml")).unwrap();
        BatchCost::of(&hardware).unwrap()
    }

    #[test]
    fn groups_of_few_tokens_are_the_processors_unless_they_are_on_the_card() {
        let (group, cost) = (group(), cost());
        let of = |n_hot, n_tokens| InBatch { group: &group, n_hot, n_tokens };
        // 6 MiB take 252 us on the bus, and 83 us to be read from memory for up to six tokens.
        let groups = [of(0, 1), of(0, 19), of(0, 20), of(N_FF, 1), of(N_FF / 2, 9), of(N_FF / 2, 11)];
        assert_eq!(cost.on_cpu(&groups, 0), [true, true, false, false, true, false]);
    }

    #[test]
    fn the_processor_gets_nothing_where_its_answer_takes_longer_than_it_saves() {
        let (group, cost) = (group(), cost());
        let one = InBatch { group: &group, n_hot: 0, n_tokens: 1 };
        let many = InBatch { n_tokens: 64, ..one };
        // 180 us are saved by each; 8 MiB take 336 us.
        assert_eq!(cost.on_cpu(&[one, many], 8 << 20), [false, false]);
        assert_eq!(cost.on_cpu(&[one, many, one, one], 8 << 20), [true, false, true, true]);
    }
}
