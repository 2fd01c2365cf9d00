//! The FFN: how two shards share a layer's neurons.
//!
//! For one token a layer runs over two [`FfnShard`]s, hot and cold. Both begin; then each adds its part to the same
//! vector, hot first. Contributions are added in the order of slots by whoever owns the output column, so neither
//! threads, nor the size of the hot prefix, nor the neurons that were skipped change a bit of the result.

use super::linear::{Prefill, Scratch, add_neurons, matmul};
use super::matvec::{MatVec, Wanted};
use super::predict::Predictions;
use super::stats::Computed;
use super::sum::NeuronSum;
use crate::cpu::{Activations, Isa, Pool};
use crate::model::{Activation, Down, Model, NeuronGroup, Predictor, Slot};
use anyhow::{Result, bail, ensure};
use std::ops::Range;
use std::str::FromStr;
use std::time::Instant;

/// What is computed of a layer's neurons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every neuron: the reference.
    Dense,
    /// The mask matrix in full, the rest only where the activation is not zero.
    Exact,
    /// The mask matrix only for neurons that a predictor names, the rest only where the activation is not zero. What
    /// the predictor misses is missing.
    Predicted,
}

impl Mode {
    /// Name in flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Exact => "exact",
            Self::Predicted => "predicted",
        }
    }

    /// Whether `model` can be run so.
    ///
    /// # Errors
    /// When it needs a predictor and there is none.
    pub fn check(self, model: &Model) -> Result<()> {
        ensure!(
            self != Self::Predicted || model.has_predictor(),
            "{}: mode predicted: the file has no predictor; powerinfer-profile --predictor fits one, powerinfer-split \
             packs it in",
            model.gguf.source().name()
        );
        Ok(())
    }
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "dense" => Ok(Self::Dense),
            "exact" => Ok(Self::Exact),
            "predicted" => Ok(Self::Predicted),
            _ => bail!("mode \"{name}\" is not known; dense, exact and predicted are"),
        }
    }
}

/// Says which neurons of a shard are active.
pub trait MaskSource: Send + Sync {
    /// Appends the active ones of `slots` to `active`, in rising order. `act` holds their activations: what the mask
    /// matrix (gate, or up where there is no gate) gave, one per slot. Where a shard's slots are a list, these are places
    /// in it.
    fn select(&self, layer: usize, slots: Range<usize>, act: &[f32], active: &mut Vec<Slot>);
}

/// The mask that loses nothing: a neuron is active when its activation is not zero.
pub struct Fired;

impl MaskSource for Fired {
    fn select(&self, _layer: usize, slots: Range<usize>, act: &[f32], active: &mut Vec<Slot>) {
        // Written whether it fires or not, so that nothing has to be guessed: what fires follows no pattern.
        let begin = active.len();
        active.resize(begin + slots.len(), Slot(0));
        let mut n = begin;
        for (slot, a) in slots.zip(act) {
            active[n] = Slot(slot as u32);
            n += usize::from(*a != 0.0);
        }
        active.truncate(n);
    }
}

/// The slots of a shard.
#[derive(Debug, Clone)]
pub enum Slots<'a> {
    /// Consecutive ones, as placements have them.
    Range(Range<usize>),
    /// These, in rising order: a placement by chance, to compare with.
    List(&'a [u32]),
}

impl<'a> Slots<'a> {
    /// Number of neurons.
    pub fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::List(list) => list.len(),
        }
    }

    /// Whether the shard has nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the shard has this slot.
    pub fn contains(&self, slot: u32) -> bool {
        match self {
            Self::Range(range) => range.contains(&(slot as usize)),
            Self::List(list) => list.binary_search(&slot).is_ok(),
        }
    }

    fn wanted(&self) -> Wanted<'a> {
        match self {
            Self::Range(range) => Wanted::Range(range.clone()),
            Self::List(list) => Wanted::List(list),
        }
    }
}

/// What is known of a shard's neurons before it begins.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// Nothing: the shard looks for itself.
    Nothing,
    /// These fire, with these activations; in rising order.
    Fired(&'a [u32], &'a [f32]),
    /// A predictor named these, in rising order.
    Named(&'a [u32]),
}

/// One shard's work for one token in one layer.
pub struct FfnWork<'a> {
    /// Number of the layer.
    pub layer: usize,
    /// Its neurons.
    pub group: &'a NeuronGroup,
    /// The slots that belong to the shard.
    pub slots: Slots<'a>,
    /// The normalised input, one token.
    pub x: &'a Activations,
    /// Activation of the FFN.
    pub activation: Activation,
    /// What to compute.
    pub mode: Mode,
    /// Who is active in [`Mode::Exact`].
    pub mask: &'a dyn MaskSource,
    /// Who may fire in [`Mode::Predicted`]; without it the shard is computed exactly.
    pub predictor: Option<&'a Predictor>,
    /// What another device has found out.
    pub given: Given<'a>,
    /// Threads of the CPU.
    pub pool: &'a Pool,
    /// Its instruction set.
    pub isa: Isa,
}

/// A device's share of the neurons of a layer.
pub trait FfnShard: Send {
    /// Begins with the work; may return before it is done.
    fn begin(&mut self, work: &FfnWork);
    /// Adds the shard's part to `y` (`[n_embd]`) and returns what that took.
    fn add_into(&mut self, work: &FfnWork, y: &mut [f32]) -> Computed;
}

/// A shard computed on the CPU.
#[derive(Default)]
pub struct CpuShard {
    predictions: Predictions,
    products: MatVec,
    sum: NeuronSum,
    computed: Computed,
    act: Vec<f32>,
    active: Vec<Slot>,
    /// Numbers of the active rows.
    rows: Vec<u32>,
    /// What each active neuron multiplies its `down` vector with.
    h: Vec<f32>,
    all_h: Vec<f32>,
    all_h_forms: Activations,
}

impl CpuShard {
    /// The active rows; all slots of the shard in [`Mode::Dense`].
    fn wanted<'a>(rows: &'a [u32], work: &FfnWork<'a>) -> Wanted<'a> {
        match work.mode {
            Mode::Dense => work.slots.wanted(),
            Mode::Exact | Mode::Predicted => Wanted::List(rows),
        }
    }

    /// Activations of all neurons of the shard, and in `rows` and `h` the active ones of them.
    fn mask(&mut self, work: &FfnWork) {
        let FfnWork { group, slots, x, activation, pool, isa, .. } = work;
        let act = self.products.some(pool, *isa, x, group.mask_matrix(), &slots.wanted(), Some(*activation));
        self.act.clear();
        self.act.extend_from_slice(act);
        self.computed.masked = slots.len();
        self.computed.fired = act.iter().filter(|a| **a != 0.0).count();
        if work.mode == Mode::Dense {
            self.h.extend_from_slice(&self.act);
            return;
        }
        self.active.clear();
        let range = match slots {
            Slots::Range(range) => range.clone(),
            Slots::List(list) => 0..list.len(),
        };
        work.mask.select(work.layer, range.clone(), &self.act, &mut self.active);
        self.h.extend(self.active.iter().map(|slot| self.act[slot.0 as usize - range.start]));
        self.rows.extend(self.active.iter().map(|slot| match slots {
            Slots::Range(_) => slot.0,
            Slots::List(list) => list[slot.0 as usize],
        }));
    }

    /// The same for the neurons that the predictor names: of the others nothing is read.
    fn predict(&mut self, work: &FfnWork, predictor: &Predictor) {
        let FfnWork { group, slots, x, pool, isa, .. } = work;
        let range = match slots {
            Slots::Range(range) => range.clone(),
            Slots::List(_) => 0..group.n_ff(),
        };
        let start = Instant::now();
        self.predictions.select(pool, *isa, predictor, x, range.clone(), &mut self.rows);
        self.computed.predictor_time = start.elapsed();
        if let Slots::List(_) = slots {
            self.rows.retain(|row| slots.contains(*row));
        }
        self.computed.predictor_bytes = predictor.bytes_for(range);
        self.named(work);
    }

    /// Keeps in `rows` those that fire, and fills in `h`.
    fn named(&mut self, work: &FfnWork) {
        let FfnWork { group, x, activation, pool, isa, .. } = work;
        let named = Wanted::List(&self.rows);
        let act = self.products.some(pool, *isa, x, group.mask_matrix(), &named, Some(*activation));
        self.h.resize(act.len(), 0.0);
        let mut n = 0;
        for (i, act) in act.iter().enumerate() {
            (self.rows[n], self.h[n]) = (self.rows[i], *act);
            n += usize::from(*act != 0.0);
        }
        self.computed.masked = act.len();
        self.computed.fired = n;
        self.rows.truncate(n);
        self.h.truncate(n);
    }
}

impl FfnShard for CpuShard {
    fn begin(&mut self, work: &FfnWork) {
        let FfnWork { group, slots, x, pool, isa, .. } = work;
        self.rows.clear();
        self.h.clear();
        self.computed = Computed::default();
        if slots.is_empty() {
            return;
        }
        match (work.given, work.predictor) {
            (Given::Fired(rows, act), _) => {
                self.rows.extend_from_slice(rows);
                self.h.extend_from_slice(act);
                self.computed.fired = act.iter().filter(|a| **a != 0.0).count();
            }
            (Given::Named(rows), _) => {
                self.rows.extend_from_slice(rows);
                self.named(work);
            }
            (Given::Nothing, Some(predictor)) => self.predict(work, predictor),
            (Given::Nothing, None) => self.mask(work),
        }
        if group.ffn_gate.is_some() {
            let up = self.products.some(pool, *isa, x, &group.ffn_up, &Self::wanted(&self.rows, work), None);
            self.h.iter_mut().zip(up).for_each(|(h, up)| *h = gated(*h, *up));
        }
    }

    fn add_into(&mut self, work: &FfnWork, y: &mut [f32]) -> Computed {
        if work.slots.is_empty() {
            return self.computed;
        }
        let wanted = Self::wanted(&self.rows, work);
        match &work.group.ffn_down {
            down @ (Down::Rows(_) | Down::Lossless(_)) => {
                self.sum.add(work.pool, work.isa, down, &wanted, &self.h, y);
            }
            Down::Columns(down) => {
                self.all_h.clear();
                self.all_h.resize(down.n_cols, 0.0);
                match &wanted {
                    Wanted::Range(range) => self.all_h[range.clone()].copy_from_slice(&self.h),
                    Wanted::List(rows) => {
                        rows.iter().zip(&self.h).for_each(|(row, h)| self.all_h[*row as usize] = *h);
                    }
                }
                self.all_h_forms.load(&self.all_h, down.n_cols, [work.isa.kernels(down.dtype()).act]);
                let part = self.products.all(work.pool, work.isa, &self.all_h_forms, &[down]);
                y.iter_mut().zip(part).for_each(|(y, part)| *y += part);
            }
        }
        self.computed
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
}

/// What [`batch`] computes.
pub(super) struct BatchWork<'a> {
    /// The neurons.
    pub group: &'a NeuronGroup,
    /// The normalised inputs.
    pub x: &'a Activations,
    /// Activation of the FFN.
    pub activation: Activation,
    /// What may be skipped.
    pub mode: Mode,
}

/// The FFN of many tokens: dense products, but for `down` by rows, which takes what has fired. `y` becomes
/// `[n_tokens][n_embd]`.
pub(super) fn batch(
    cx: &Prefill,
    work: &BatchWork,
    buffers: &mut BatchBuffers,
    scratch: &mut Scratch,
    y: &mut Vec<f32>,
) {
    let BatchBuffers { act, h, h_forms } = buffers;
    let BatchWork { group, x, activation, mode } = *work;
    matmul(cx, group.mask_matrix(), x, scratch, act);
    cx.pool.fill(act, 1024, |_, piece| piece.iter_mut().for_each(|a| *a = activation.apply(*a)));
    if group.ffn_gate.is_some() {
        matmul(cx, &group.ffn_up, x, scratch, h);
        h.iter_mut().zip(&*act).for_each(|(h, a)| *h = gated(*a, *h));
    } else {
        h.clone_from(act);
    }
    match &group.ffn_down {
        Down::Columns(down) => {
            h_forms.load(h, group.n_ff(), [cx.isa.kernels(down.dtype()).act]);
            matmul(cx, down, h_forms, scratch, y);
        }
        down @ (Down::Rows(_) | Down::Lossless(_)) => add_neurons(cx, down, h, mode != Mode::Dense, scratch, y),
    }
}
