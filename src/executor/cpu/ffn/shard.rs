//! A shard: some neurons of a group, computed for a few tokens. What it multiplies, `few` multiplies for all shards of a
//! layer at once.

use super::super::active::{Active, WantedBy};
use super::super::compute::Compute;
use super::super::followed::Followed;
use super::super::matvec::{Piece, of_token, untangle};
use super::super::predict::Predictions;
use super::super::sum::Neurons;
use crate::cpu::{Activations, Which};
use crate::executor::mask::MaskSource;
use crate::executor::stats::{Computed, United};
use crate::model::{Activation, GroupAt, Mode, NeuronGroup, Predictor, Slot, rest};
use std::time::Instant;

/// What is known of a shard's neurons before it begins.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor) enum Given<'a> {
    /// Nothing: the shard looks for itself.
    Nothing,
    /// Of each token these fire, with these activations; in rising order.
    Fired(&'a [(&'a [u32], &'a [f32])]),
    /// A predictor named these of the one token, in rising order.
    Named(&'a [u32]),
    /// A router has chosen these of its rows for the one token, with these weights.
    Chosen(&'a [u32], &'a [f32]),
}

/// What the shards of a layer have in common.
#[derive(Clone, Copy)]
pub(in crate::executor::cpu) struct FewWork<'a> {
    /// The normalised inputs of all tokens.
    pub x: &'a Activations,
    /// Activation of the FFN.
    pub activation: Activation,
    /// What to compute.
    pub mode: Mode,
    /// Which neurons are active in [`Mode::Exact`].
    pub mask: &'a dyn MaskSource,
    /// Threads and instruction set.
    pub cx: Compute<'a>,
}

/// One shard's work.
#[derive(Clone, Copy)]
pub(in crate::executor::cpu) struct Share<'a> {
    /// Which group it is of.
    pub at: GroupAt,
    /// The group.
    pub group: &'a NeuronGroup,
    /// The slots that belong to the shard.
    pub slots: Which<'a>,
    /// Numbers of the tokens that it is computed for, rising.
    pub tokens: &'a [u32],
    /// What the group counts for each of them; `None` for 1.
    pub weights: Option<&'a [f32]>,
    /// What activations must be above to count.
    pub threshold: f32,
    /// Which neurons may fire in [`Mode::Predicted`]; without it the shard is computed exactly.
    pub predictor: Option<&'a Predictor>,
    /// What the predictor looks at, of all tokens.
    pub predictor_x: &'a Activations,
    /// What another device has found out.
    pub given: Given<'a>,
}

/// A shard, with the memory that it keeps from call to call.
#[derive(Default)]
pub(in crate::executor::cpu) struct Shard {
    look: Look,
    /// By token.
    computed: Vec<Computed>,
    /// Of all tokens.
    united: United,
    /// `[n_tokens][slots]`.
    act: Vec<f32>,
    /// Active ones of one token.
    found: Vec<Slot>,
    /// The active rows of each token; not used in [`Mode::Dense`].
    active: Active,
    /// What each active neuron multiplies its `down` vector with, in the order of the rows of `active`; of all slots,
    /// token by token, in [`Mode::Dense`].
    h: Vec<f32>,
}

/// For which neurons the mask matrix is multiplied.
#[derive(Default, Clone, Copy, PartialEq)]
enum Look {
    /// None: what fires is known.
    #[default]
    Nothing,
    /// All slots.
    Slots,
    /// Those that are named in `active`.
    Named,
}

impl Shard {
    /// Begins, with what is known beforehand.
    pub fn begin(&mut self, work: &FewWork, share: &Share, predictions: &mut Predictions) {
        self.active.clear();
        self.h.clear();
        self.computed.clear();
        self.computed.resize(share.tokens.len(), Computed::default());
        self.look = Look::Nothing;
        self.united = United::default();
        if share.slots.is_empty() {
            return;
        }
        match (share.given, share.predictor) {
            (Given::Fired(of_tokens), _) => {
                for ((rows, act), computed) in of_tokens.iter().zip(&mut self.computed) {
                    self.active.push(rows.iter().copied());
                    self.h.extend_from_slice(act);
                    computed.opens(act.iter().filter(|a| **a != 0.0).count());
                }
            }
            (Given::Named(rows), _) => {
                self.active.push(rows.iter().copied());
                self.look = Look::Named;
            }
            (Given::Nothing | Given::Chosen(..), Some(predictor)) => {
                self.predict(work, share, predictor, predictions);
                self.look = Look::Named;
            }
            (Given::Nothing | Given::Chosen(..), None) => self.look = Look::Slots,
        }
        self.active.unite();
    }

    /// Names in `active` what the predictor does: of the other neurons nothing is read.
    fn predict(&mut self, work: &FewWork, share: &Share, predictor: &Predictor, predictions: &mut Predictions) {
        let range = match share.slots {
            Which::Range { first, len } => first..first + len,
            Which::List(_) => 0..share.group.n_ff(),
        };
        let start = Instant::now();
        predictions.select(work.cx, predictor, share.predictor_x, share.tokens, range.clone(), &mut self.active);
        let time = start.elapsed() / share.tokens.len() as u32;
        if let Which::List(_) = share.slots {
            self.active.keep(|row| share.slots.contains(row));
        }
        for computed in &mut self.computed {
            (computed.predictor_time, computed.predictor_bytes) = (time, predictor.bytes_for(range.clone()));
        }
    }

    /// Rows of the mask matrix that it needs.
    pub fn masked<'a>(&'a self, work: &FewWork, share: &Share<'a>) -> Option<Piece<'a>> {
        let rows = match self.look {
            Look::Nothing => return None,
            Look::Slots => WantedBy::All(share.slots),
            Look::Named => WantedBy::Each(&self.active),
        };
        let piece = Piece::of(share.group.mask(), rows, share.tokens);
        let followed = (work.mode != Mode::Dense).then(|| Followed::of(share.group, share.threshold));
        Some(Piece { followed, ..piece })
    }

    /// Takes their products, through the activation: `active` and `h` become those of what fires.
    pub fn take_masked(&mut self, work: &FewWork, share: &Share, products: &[f32]) {
        match self.look {
            Look::Nothing => {}
            Look::Slots => {
                self.united.masked = share.slots.len();
                self.select(work, share, products);
            }
            Look::Named => {
                self.united.masked = self.active.union().len();
                self.keep_named(products);
            }
        }
        self.active.unite();
        self.united.opened = self.active.union().len();
    }

    /// Of all slots the active ones.
    fn select(&mut self, work: &FewWork, share: &Share, products: &[f32]) {
        untangle(products, share.tokens.len(), &mut self.act);
        rest(share.threshold, &mut self.act);
        let range = match share.slots {
            Which::Range { first, len } => first..first + len,
            Which::List(list) => 0..list.len(),
        };
        for (act, computed) in self.act.chunks_exact(share.slots.len()).zip(&mut self.computed) {
            computed.masked = act.len();
            computed.opens(act.iter().filter(|a| **a != 0.0).count());
            if work.mode == Mode::Dense {
                self.h.extend_from_slice(act);
                continue;
            }
            self.found.clear();
            work.mask.select(share.at, range.clone(), act, &mut self.found);
            self.h.extend(self.found.iter().map(|slot| act[slot.0 as usize - range.start]));
            self.active.push(self.found.iter().map(|slot| match share.slots {
                Which::Range { .. } => slot.0,
                Which::List(list) => list[slot.0 as usize],
            }));
        }
    }

    /// Of those that are named the ones that fire.
    fn keep_named(&mut self, products: &[f32]) {
        self.h.resize(self.active.rows().len(), 0.0);
        self.active.gather(products, &mut self.h, |h, act| *h = act);
        for (token, computed) in self.computed.iter_mut().enumerate() {
            computed.masked = self.active.of(token).len();
        }
        self.active.keep_fired(&mut self.h);
        for (token, computed) in self.computed.iter_mut().enumerate() {
            computed.opens(self.active.of(token).len());
        }
    }

    /// Rows of `up` that it needs beside the mask.
    pub fn opened<'a>(&'a self, work: &FewWork, share: &Share<'a>) -> Option<Piece<'a>> {
        if share.slots.is_empty() || share.group.gate.is_none() {
            return None;
        }
        let rows = if work.mode == Mode::Dense { WantedBy::All(share.slots) } else { WantedBy::Each(&self.active) };
        Some(Piece::of(&share.group.up, rows, share.tokens))
    }

    /// Takes their products: `h` becomes what the `down` vectors are multiplied with, but for the group's weights.
    pub fn take_opened(&mut self, work: &FewWork, share: &Share, ups: &[f32]) {
        let (n, activation) = (share.tokens.len(), work.activation);
        if work.mode == Mode::Dense {
            for (token, h) in self.h.chunks_exact_mut(share.slots.len()).enumerate() {
                of_token(ups, token, n, h, |h, up| *h = activation.gated(*h, up));
            }
        } else {
            self.active.gather(ups, &mut self.h, |h, up| *h = activation.gated(*h, up));
        }
    }

    /// Takes the group's weights into account.
    pub fn end(&mut self, work: &FewWork, share: &Share) {
        if share.slots.is_empty() {
            return;
        }
        if work.activation.has_two_masks() {
            self.keep_fired(work, share);
        }
        self.united.fired = self.active.union().len();
        let Some(weights) = share.weights else { return };
        for (token, weight) in weights.iter().enumerate() {
            let range = match work.mode {
                Mode::Dense => token * share.slots.len()..(token + 1) * share.slots.len(),
                Mode::Exact | Mode::Predicted | Mode::Thresholded => self.active.range(token),
            };
            self.h[range].iter_mut().for_each(|h| *h *= weight);
        }
    }

    /// Of the neurons whose gates are above zero, those that fire.
    fn keep_fired(&mut self, work: &FewWork, share: &Share) {
        if work.mode == Mode::Dense {
            for (h, computed) in self.h.chunks_exact(share.slots.len()).zip(&mut self.computed) {
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

    /// Which neurons are added, each times what [`Shard::h`] has.
    pub fn added<'a>(&'a self, work: &FewWork, share: &Share<'a>) -> Neurons<'a> {
        match work.mode {
            Mode::Dense => Neurons::All(share.slots),
            Mode::Exact | Mode::Predicted | Mode::Thresholded => Neurons::Each(&self.active),
        }
    }

    /// What neurons are multiplied with, in the order of [`Shard::added`].
    pub fn h(&self) -> &[f32] {
        &self.h
    }

    /// Writes what neurons are multiplied with to their places in `all`, `[tokens][n_ff]`.
    pub fn spread(&self, work: &FewWork, share: &Share, all: &mut [f32]) {
        for (token, all) in all.chunks_exact_mut(share.group.n_ff()).enumerate() {
            match (work.mode, share.slots) {
                (Mode::Dense, Which::Range { first, len }) => {
                    all[first..first + len].copy_from_slice(&self.h[token * len..][..len]);
                }
                (Mode::Dense, Which::List(list)) => {
                    let h = &self.h[token * list.len()..][..list.len()];
                    list.iter().zip(h).for_each(|(row, h)| all[*row as usize] = *h);
                }
                (Mode::Exact | Mode::Predicted | Mode::Thresholded, _) => {
                    if !share.slots.is_empty() {
                        let h = &self.h[self.active.range(token)];
                        self.active.of(token).iter().zip(h).for_each(|(row, h)| all[*row as usize] = *h);
                    }
                }
            }
        }
    }

    /// What its tokens have in common; nothing in [`Mode::Dense`], where nobody looks.
    pub fn united(&self) -> United {
        self.united
    }

    /// What it took, by token.
    pub fn computed(&self) -> &[Computed] {
        &self.computed
    }
}
