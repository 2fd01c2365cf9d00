//! How long attention takes, or a recurrent mixer, and what else of a layer is read as a whole.

use super::{Cost, Way, all_of, seconds};
use crate::model::{KvType, Role};
use crate::placement::hardware::{Bandwidths, Device};
use crate::placement::workload::LayerWork;
use crate::quant::GgmlType;

/// Kernels of attention on the card: norm, query/key/value, rotation with the cache, scores and sums, output.
const ATTENTION_KERNELS: f64 = 5.0;
/// Pieces of work on the CPU: query/key/value together, scores and sums, output.
const ATTENTION_REGIONS: f64 = 3.0;
/// Kernels of a recurrent mixer on the card: norm, input, convolution, state, norm by groups, output.
const RECURRENT_KERNELS: f64 = 6.0;
/// Its pieces of work on the CPU: input, convolution with the state, output.
const RECURRENT_REGIONS: f64 = 3.0;
/// Kernels of a router on the card: its product, and the choice.
const ROUTER_KERNELS: f64 = 2.0;

/// Matrices that lead to groups of another width and back.
fn n_projections(layer: &LayerWork) -> f64 {
    let leads = |role: &Role| matches!(role, Role::LatentDown | Role::LatentUp);
    layer.blocks.iter().filter(|(role, _)| leads(role)).count() as f64
}

/// Kernels that the card runs for what is read as a whole.
pub(super) fn kernels(layer: &LayerWork) -> f64 {
    let attention = if layer.n_q > 0 { ATTENTION_KERNELS } else { 0.0 };
    let recurrent = if layer.recurrence.is_some() { RECURRENT_KERNELS } else { 0.0 };
    let router = if layer.is_routed() { ROUTER_KERNELS } else { 0.0 };
    attention + recurrent + router + n_projections(layer)
}

/// Pieces of work that it is on the CPU.
fn regions(layer: &LayerWork) -> f64 {
    let attention = if layer.n_q > 0 { ATTENTION_REGIONS } else { 0.0 };
    let recurrent = if layer.recurrence.is_some() { RECURRENT_REGIONS } else { 0.0 };
    let router = if layer.is_routed() { 1.0 } else { 0.0 };
    attention + recurrent + router + n_projections(layer)
}

impl Cost<'_> {
    /// Seconds of what layer `layer` reads as a whole, on the CPU.
    pub(super) fn mixer_on_cpu(&self, layer: &LayerWork) -> f64 {
        let cpu = self.cpu();
        let n = self.tokens();
        let weights: f64 = layer.blocks.iter().map(|(_, b)| all_of(&cpu.bandwidth, *b, n)).sum();
        let attention = if layer.n_q > 0 { 3 * self.work.n_embd + 2 * layer.n_q + 3 * layer.n_kv } else { 0 };
        let recurrent = layer.recurrence.map_or(0, |r| 3 * self.work.n_embd + 2 * r.n_values);
        let memory = self.memory_seconds(&cpu.bandwidth, layer);
        weights + memory + regions(layer) * cpu.region + n * (attention + recurrent) as f64 * cpu.value
    }

    /// The same on the card.
    pub(super) fn mixer_on_gpu(&self, device: &Device, layer: &LayerWork) -> f64 {
        let gpu = &device.gpu;
        let weights: f64 = layer.blocks.iter().map(|(_, b)| all_of(&gpu.bandwidth, *b, self.tokens())).sum();
        weights + self.memory_seconds(&gpu.bandwidth, layer) + kernels(layer) * gpu.kernel
    }

    /// Seconds for what each sequence remembers: keys and values are read, a state is read and written.
    fn memory_seconds(&self, bandwidths: &Bandwidths, layer: &LayerWork) -> f64 {
        let state = layer.recurrence.map_or(0.0, |r| 2.0 * r.state_bytes as f64);
        let state = seconds(bandwidths, GgmlType::F32, Way::Add { listed: false }, state, 1.0);
        let KvType { k, v } = self.run.kv_type;
        let n_seen = layer.window.map_or(self.run.n_past, |window| window.min(self.run.n_past));
        let of = |dtype: GgmlType, way| {
            let bytes = dtype.row_bytes(layer.n_kv).unwrap_or(4 * layer.n_kv) as f64 * n_seen as f64;
            seconds(bandwidths, dtype, way, bytes, 1.0)
        };
        self.tokens() * (state + of(k, Way::Dot { listed: false }) + of(v, Way::Add { listed: false }))
    }
}
