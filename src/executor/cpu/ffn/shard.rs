//! A shard: some neurons of a group, computed for a few tokens.

use super::super::active::Active;
use super::super::compute::Compute;
use super::super::matvec::{MatVec, of_token, untangle};
use super::super::predict::Predictions;
use super::super::sum::{NeuronSum, Neurons};
use crate::cpu::{Activations, Which};
use crate::executor::mask::MaskSource;
use crate::executor::stats::Computed;
use crate::model::{Activation, Down, GroupAt, Mode, NeuronGroup, Predictor, Slot, rest};
use std::time::Instant;

/// What is known of a shard's neurons before it begins: of one token.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor) enum Given<'a> {
    /// Nothing: the shard looks for itself.
    Nothing,
    /// These fire, with these activations; in rising order.
    Fired(&'a [u32], &'a [f32]),
    /// A predictor named these, in rising order.
    Named(&'a [u32]),
}

/// One shard's work.
pub(in crate::executor::cpu) struct ShardWork<'a> {
    /// Which group it is of.
    pub at: GroupAt,
    /// The group.
    pub group: &'a NeuronGroup,
    /// The slots that belong to the shard.
    pub slots: Which<'a>,
    /// The normalised inputs.
    pub x: &'a Activations,
    /// What the predictor looks at.
    pub predictor_x: &'a Activations,
    /// What the group counts, by token; `None` for 1.
    pub weights: Option<&'a [f32]>,
    /// Activation of the FFN.
    pub activation: Activation,
    /// What to compute.
    pub mode: Mode,
    /// What activations must be above to count.
    pub threshold: f32,
    /// Which neurons are active in [`Mode::Exact`].
    pub mask: &'a dyn MaskSource,
    /// Which neurons may fire in [`Mode::Predicted`]; without it the shard is computed exactly.
    pub predictor: Option<&'a Predictor>,
    /// What another device has found out.
    pub given: Given<'a>,
    /// Threads and instruction set.
    pub cx: Compute<'a>,
}

/// A shard, with the memory that it keeps from call to call.
#[derive(Default)]
pub(in crate::executor::cpu) struct Shard {
    predictions: Predictions,
    products: MatVec,
    sum: NeuronSum,
    /// By token.
    computed: Vec<Computed>,
    /// `[n_tokens][slots]`.
    act: Vec<f32>,
    /// Active ones of one token.
    found: Vec<Slot>,
    /// The active rows of each token; not used in [`Mode::Dense`].
    active: Active,
    /// What each active neuron multiplies its `down` vector with, in the order of the rows of `active`; of all slots,
    /// token by token, in [`Mode::Dense`].
    h: Vec<f32>,
    all_h: Vec<f32>,
    all_h_forms: Activations,
}

impl Shard {
    /// Activations of all neurons of the shard, and in `active` and `h` the active ones of them.
    fn mask(&mut self, work: &ShardWork) {
        let n = work.x.n_tokens();
        let (mask, activation) = (work.group.mask(), Some(work.activation));
        untangle(self.products.some(work.cx, work.x, mask, work.slots, activation), n, &mut self.act);
        rest(work.threshold, &mut self.act);
        let range = match work.slots {
            Which::Range { first, len } => first..first + len,
            Which::List(list) => 0..list.len(),
        };
        for (act, computed) in self.act.chunks_exact(work.slots.len()).zip(&mut self.computed) {
            computed.masked = act.len();
            computed.opens(act.iter().filter(|a| **a != 0.0).count());
            if work.mode == Mode::Dense {
                self.h.extend_from_slice(act);
                continue;
            }
            self.found.clear();
            work.mask.select(work.at, range.clone(), act, &mut self.found);
            self.h.extend(self.found.iter().map(|slot| act[slot.0 as usize - range.start]));
            self.active.push(self.found.iter().map(|slot| match work.slots {
                Which::Range { .. } => slot.0,
                Which::List(list) => list[slot.0 as usize],
            }));
        }
    }

    /// The same for the neurons that the predictor names: of the others nothing is read.
    fn predict(&mut self, work: &ShardWork, predictor: &Predictor) {
        let range = match work.slots {
            Which::Range { first, len } => first..first + len,
            Which::List(_) => 0..work.group.n_ff(),
        };
        let start = Instant::now();
        self.predictions.select(work.cx, predictor, work.predictor_x, range.clone(), &mut self.active);
        let time = start.elapsed() / work.x.n_tokens() as u32;
        if let Which::List(_) = work.slots {
            self.active.keep(|row| work.slots.contains(row));
        }
        for computed in &mut self.computed {
            (computed.predictor_time, computed.predictor_bytes) = (time, predictor.bytes_for(range.clone()));
        }
        self.named(work);
    }

    /// Keeps those of `active` that fire, and fills in `h`.
    fn named(&mut self, work: &ShardWork) {
        self.active.unite();
        let (mask, activation) = (work.group.mask(), Some(work.activation));
        let act = self.products.each(work.cx, work.x, mask, &self.active, activation);
        self.h.resize(self.active.rows().len(), 0.0);
        self.active.gather(act, &mut self.h, |h, act| *h = act);
        for (token, computed) in self.computed.iter_mut().enumerate() {
            computed.masked = self.active.of(token).len();
        }
        self.active.keep_fired(&mut self.h);
        for (token, computed) in self.computed.iter_mut().enumerate() {
            computed.opens(self.active.of(token).len());
        }
    }

    /// Begins with the work: finds what is active, and what it multiplies its `down` vectors with.
    pub fn begin(&mut self, work: &ShardWork) {
        let n = work.x.n_tokens();
        self.active.clear();
        self.h.clear();
        self.computed.clear();
        self.computed.resize(n, Computed::default());
        if work.slots.is_empty() {
            return;
        }
        match (work.given, work.predictor) {
            (Given::Fired(rows, act), _) => {
                self.active.push(rows.iter().copied());
                self.h.extend_from_slice(act);
                self.computed[0].opens(act.iter().filter(|a| **a != 0.0).count());
            }
            (Given::Named(rows), _) => {
                self.active.push(rows.iter().copied());
                self.named(work);
            }
            (Given::Nothing, Some(predictor)) => self.predict(work, predictor),
            (Given::Nothing, None) => self.mask(work),
        }
        self.active.unite();
        if work.group.gate.is_some() {
            self.times_up(work);
        }
        if work.activation.has_two_masks() {
            self.keep_fired(work);
        }
        if let Some(weights) = work.weights {
            for (token, weight) in weights.iter().enumerate() {
                let range = match work.mode {
                    Mode::Dense => token * work.slots.len()..(token + 1) * work.slots.len(),
                    Mode::Exact | Mode::Predicted | Mode::Thresholded => self.active.range(token),
                };
                self.h[range].iter_mut().for_each(|h| *h *= weight);
            }
        }
    }

    fn times_up(&mut self, work: &ShardWork) {
        let (n, up, h, activation) = (work.x.n_tokens(), &work.group.up, &mut self.h, work.activation);
        if work.mode == Mode::Dense {
            let ups = self.products.some(work.cx, work.x, up, work.slots, None);
            for (token, h) in h.chunks_exact_mut(work.slots.len()).enumerate() {
                of_token(ups, token, n, h, |h, up| *h = activation.gated(*h, up));
            }
        } else {
            let ups = self.products.each(work.cx, work.x, up, &self.active, None);
            self.active.gather(ups, h, |h, up| *h = activation.gated(*h, up));
        }
    }

    /// Of the neurons whose gates are above zero, those that fire.
    fn keep_fired(&mut self, work: &ShardWork) {
        if work.mode == Mode::Dense {
            for (h, computed) in self.h.chunks_exact(work.slots.len()).zip(&mut self.computed) {
                computed.fired = h.iter().filter(|h| **h != 0.0).count();
            }
            return;
        }
        self.active.keep_fired(&mut self.h);
        self.active.unite();
        for (token, computed) in self.computed.iter_mut().enumerate() {
            computed.fired = self.active.of(token).len();
        }
    }

    /// Adds the shard's part to `y` (`[n_tokens][n_embd]`) and returns what that took, by token.
    pub fn add_into(&mut self, work: &ShardWork, y: &mut [f32]) -> &[Computed] {
        if work.slots.is_empty() {
            return &self.computed;
        }
        match work.group.ffn_down() {
            down @ (Down::Rows(_) | Down::Lossless(_)) => {
                let added = match work.mode {
                    Mode::Dense => Neurons::All(work.slots),
                    Mode::Exact | Mode::Predicted | Mode::Thresholded => Neurons::Each(&self.active),
                };
                self.sum.add(work.cx, down, added, &self.h, y);
            }
            Down::Columns(down) => {
                let (n, n_ff) = (work.x.n_tokens(), down.n_cols);
                self.all_h.clear();
                self.all_h.resize(n * n_ff, 0.0);
                for (token, all) in self.all_h.chunks_exact_mut(n_ff).enumerate() {
                    match work.mode {
                        Mode::Dense => {
                            let h = &self.h[token * work.slots.len()..][..work.slots.len()];
                            match work.slots {
                                Which::Range { first, len } => all[first..first + len].copy_from_slice(h),
                                Which::List(list) => list.iter().zip(h).for_each(|(row, h)| all[*row as usize] = *h),
                            }
                        }
                        Mode::Exact | Mode::Predicted | Mode::Thresholded => {
                            let h = &self.h[self.active.range(token)];
                            self.active.of(token).iter().zip(h).for_each(|(row, h)| all[*row as usize] = *h);
                        }
                    }
                }
                self.all_h_forms.load(&self.all_h, n_ff, [work.cx.isa.kernels(down.dtype()).act]);
                let part = self.products.all(work.cx, &self.all_h_forms, &[down]);
                for (token, y) in y.chunks_exact_mut(down.n_rows).enumerate() {
                    of_token(part, token, n, y, |y, part| *y += part);
                }
            }
        }
        &self.computed
    }
}
