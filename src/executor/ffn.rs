//! The FFN: how two shards share a layer's neurons.
//!
//! For one token a layer runs over two [`FfnShard`]s, hot and cold. Both begin; then each adds its part to the same
//! vector, hot first. Contributions are added in the order of slots by whoever owns the output column, so neither
//! threads, nor the size of the hot prefix, nor the neurons that were skipped change a bit of the result.

use super::linear::matmul;
use crate::cpu::activations::Activations;
use crate::cpu::{Pool, scalar};
use crate::model::{Activation, Down, NeuronGroup, Slot};
use crate::quant::convert;
use anyhow::{Result, bail};
use std::ops::Range;
use std::str::FromStr;

/// What is computed of a layer's neurons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every neuron: the reference.
    Dense,
    /// The mask matrix in full, the rest only where the activation is not zero.
    Exact,
}

impl Mode {
    /// Name in flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Exact => "exact",
        }
    }
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "dense" => Ok(Self::Dense),
            "exact" => Ok(Self::Exact),
            _ => bail!("mode \"{name}\" is not known; dense and exact are"),
        }
    }
}

/// Says which neurons of a shard are active.
pub trait MaskSource: Send + Sync {
    /// Appends the active ones of `slots` to `active`, in rising order. `act` holds their activations: what the mask
    /// matrix (gate, or up where there is no gate) gave, one per slot.
    fn select(&self, layer: usize, slots: Range<usize>, act: &[f32], active: &mut Vec<Slot>);
}

/// The mask that loses nothing: a neuron is active when its activation is not zero.
pub struct Fired;

impl MaskSource for Fired {
    fn select(&self, _layer: usize, slots: Range<usize>, act: &[f32], active: &mut Vec<Slot>) {
        active.extend(slots.zip(act).filter(|(_, a)| **a != 0.0).map(|(slot, _)| Slot(slot as u32)));
    }
}

/// One shard's work for one token in one layer.
pub struct FfnWork<'a> {
    /// Number of the layer.
    pub layer: usize,
    /// Its neurons.
    pub group: &'a NeuronGroup,
    /// The slots that belong to the shard.
    pub slots: Range<usize>,
    /// The normalised input, one token.
    pub x: &'a Activations,
    /// Activation of the FFN.
    pub activation: Activation,
    /// What to compute.
    pub mode: Mode,
    /// Who is active in [`Mode::Exact`].
    pub mask: &'a dyn MaskSource,
    /// Threads of the CPU.
    pub pool: &'a Pool,
}

/// A device's share of the neurons of a layer.
pub trait FfnShard: Send {
    /// Begins with the work; may return before it is done.
    fn begin(&mut self, work: &FfnWork);
    /// Adds the shard's part to `y` (`[n_embd]`) and returns how many neurons fired.
    fn add_into(&mut self, work: &FfnWork, y: &mut [f32]) -> usize;
}

/// A shard computed on the CPU.
#[derive(Default)]
pub struct CpuShard {
    act: Vec<f32>,
    active: Vec<Slot>,
    /// What each active neuron multiplies its `down` vector with.
    h: Vec<f32>,
    all_h: Vec<f32>,
    all_h_forms: Activations,
}

impl FfnShard for CpuShard {
    fn begin(&mut self, work: &FfnWork) {
        let FfnWork { group, slots, x, activation, pool, .. } = work;
        let x = x.row(0);
        let mask = group.mask_matrix();
        self.act.resize(slots.len(), 0.0);
        pool.fill(&mut self.act, 16, |start, piece| {
            for (i, o) in piece.iter_mut().enumerate() {
                *o = activation.apply((mask.kernels.dot)(mask.row(slots.start + start + i), x));
            }
        });
        self.active.clear();
        match work.mode {
            Mode::Dense => self.active.extend(slots.clone().map(|s| Slot(s as u32))),
            Mode::Exact => work.mask.select(work.layer, slots.clone(), &self.act, &mut self.active),
        }
        self.h.resize(self.active.len(), 0.0);
        let (act, active) = (&self.act, &self.active);
        let act_of = |slot: Slot| act[slot.0 as usize - slots.start];
        match &group.ffn_gate {
            Some(_) => {
                let up = &group.ffn_up;
                pool.fill(&mut self.h, 8, |start, piece| {
                    for (o, slot) in piece.iter_mut().zip(&active[start..]) {
                        let up = (up.kernels.dot)(up.row(slot.0 as usize), x);
                        *o = gated(act_of(*slot), up);
                    }
                });
            }
            None => self.h.iter_mut().zip(active).for_each(|(o, slot)| *o = act_of(*slot)),
        }
    }

    fn add_into(&mut self, work: &FfnWork, y: &mut [f32]) -> usize {
        if work.slots.is_empty() {
            return 0;
        }
        match &work.group.ffn_down {
            Down::Rows(down) => {
                let dtype = down.dtype();
                let grain = dtype.block_len().max(64);
                let (active, h) = (&self.active, &self.h);
                work.pool.fill(y, grain, |start, piece| {
                    let first = start / dtype.block_len() * dtype.block_bytes();
                    for (slot, h) in active.iter().zip(h) {
                        (down.kernels.add_scaled)(&down.row(slot.0 as usize)[first..], *h, piece);
                    }
                });
            }
            Down::Columns(down) => {
                self.all_h.clear();
                self.all_h.resize(down.n_cols, 0.0);
                for (slot, h) in self.active.iter().zip(&self.h) {
                    self.all_h[slot.0 as usize] = *h;
                }
                self.all_h_forms.load(&self.all_h, down.n_cols, [down.kernels.act]);
                let h = self.all_h_forms.row(0);
                work.pool.fill(y, 16, |start, piece| {
                    for (i, o) in piece.iter_mut().enumerate() {
                        *o += (down.kernels.dot)(down.row(start + i), h);
                    }
                });
            }
        }
        self.act.iter().filter(|a| **a != 0.0).count()
    }
}

/// `act * up`, where a neuron that has not fired gives 0 whatever `up` is.
fn gated(act: f32, up: f32) -> f32 {
    if act == 0.0 { 0.0 } else { act * up }
}

/// Buffers of [`batch`].
#[derive(Default)]
pub(super) struct BatchBuffers {
    /// `[n_tokens][n_ff]` activations of the mask matrix.
    pub act: Vec<f32>,
    /// `[n_tokens][n_ff]` values that the `down` vectors are multiplied with.
    pub h: Vec<f32>,
    h_forms: Activations,
    scratch: Vec<f32>,
}

/// The FFN of many tokens: dense products. `y` becomes `[n_tokens][n_embd]`.
pub(super) fn batch(
    group: &NeuronGroup,
    x: &Activations,
    activation: Activation,
    mode: Mode,
    pool: &Pool,
    buffers: &mut BatchBuffers,
    y: &mut Vec<f32>,
) {
    let BatchBuffers { act, h, h_forms, scratch } = buffers;
    matmul(pool, group.mask_matrix(), x, scratch, act);
    act.iter_mut().for_each(|a| *a = activation.apply(*a));
    if group.ffn_gate.is_some() {
        matmul(pool, &group.ffn_up, x, scratch, h);
        h.iter_mut().zip(&*act).for_each(|(h, a)| *h = gated(*a, *h));
    } else {
        h.clone_from(act);
    }
    let n_ff = group.n_ff();
    match &group.ffn_down {
        Down::Columns(down) => {
            h_forms.load(h, n_ff, [down.kernels.act]);
            matmul(pool, down, h_forms, scratch, y);
        }
        Down::Rows(down) => {
            let n_embd = down.n_cols;
            y.clear();
            y.resize(x.n_tokens() * n_embd, 0.0);
            // A type without a reader is refused when the matrix is loaded.
            let Ok(convert) = convert::dequantizer(down.dtype()) else { return };
            pool.fill(y, n_embd, |start, piece| {
                let first = start / n_embd;
                let mut row = vec![0.0; n_embd];
                for slot in 0..n_ff {
                    let mut converted = false;
                    for (token, y) in piece.chunks_exact_mut(n_embd).enumerate() {
                        let h = h[(first + token) * n_ff + slot];
                        if mode == Mode::Exact && h == 0.0 {
                            continue;
                        }
                        if !converted {
                            convert(down.row(slot), &mut row);
                            converted = true;
                        }
                        scalar::add_scaled(&row, h, y);
                    }
                }
            });
        }
    }
}
