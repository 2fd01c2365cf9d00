//! Watches a model compute, and counts what fires.

use super::fired_sets::{FiredSets, token_bytes};
use super::reuse::{ReuseCounts, Stack};
use super::routers::{Follower, RouterCounts};
use super::samples::Samples;
use super::unions::{Counted, Firsts, UnionCounts};
use super::{GroupCounts, MASS_ONE};
use crate::executor::{FfnAt, Observer};
use crate::model::{Activation, Model, NeuronId};
use anyhow::Result;
use half::f16;

/// Mass of one neuron for one token is capped here, so that sums over any corpus fit in 64 bits.
pub(super) const MAX_MASS: f64 = 1e6;

/// Which tokens of a window are sampled: pairs of the token, and the place of its key.
#[derive(Default)]
pub(super) struct Marks {
    pub(super) fired_sets: Vec<(usize, usize)>,
    pub(super) samples: Vec<(usize, usize)>,
}

/// Counts over any number of windows: sums of integers, so that their order does not matter.
#[derive(Clone, Default)]
pub(super) struct Counts {
    /// By group; within a group by neuron.
    pub(super) groups: Vec<GroupCounts>,
    /// By group; nothing is counted of those that a router chooses.
    pub(super) reuse: Vec<ReuseCounts>,
    /// Layer by layer, where there are any.
    pub(super) routers: Vec<RouterCounts>,
    pub(super) unions: UnionCounts,
}

impl Counts {
    fn new(model: &Model) -> Self {
        let two_masks = model.has_two_masks();
        let (n_ff, routers) = (model.weights.group_sizes(), RouterCounts::of_model(model));
        Self {
            groups: n_ff.iter().map(|n| GroupCounts::new(*n, two_masks)).collect(),
            reuse: vec![ReuseCounts::default(); n_ff.len()],
            unions: UnionCounts::new(n_ff.len(), routers.len()),
            routers,
        }
    }

    fn clear(&mut self) {
        self.groups.iter_mut().for_each(GroupCounts::clear);
        self.reuse.fill(ReuseCounts::default());
        self.routers.iter_mut().for_each(RouterCounts::clear);
        self.unions.clear();
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.groups.iter_mut().zip(&other.groups).try_for_each(|(a, b)| a.add(b))?;
        self.reuse.iter_mut().zip(&other.reuse).try_for_each(|(a, b)| a.merge(b))?;
        self.routers.iter_mut().zip(&other.routers).try_for_each(|(a, b)| a.merge(b))?;
        self.unions.merge(&other.unions)
    }
}

/// Whether layers have groups of neurons that a router chooses.
pub(super) fn has_routers(model: &Model) -> bool {
    model.weights.groups().any(|(_, group)| group.is_routed())
}

/// Number of neurons of each group, 0 for those that a router chooses: of how many it is said which fired together.
pub(super) fn sizes_computed_always(model: &Model) -> Vec<usize> {
    model.weights.groups().map(|(_, group)| if group.is_routed() { 0 } else { group.n_ff() }).collect()
}

/// All that a job has gathered so far.
pub(super) struct Gathered {
    pub(super) counts: Counts,
    /// The bits of tokens in windows that are not done are zero.
    pub(super) fired_sets: FiredSets,
    /// Likewise.
    pub(super) samples: Option<Samples>,
    /// Whether a counter has taken the counts and goes on from them.
    pub(super) taken: bool,
}

impl Gathered {
    /// Nothing yet; `fired_sets` and `samples` say which tokens are sampled.
    pub(super) fn new(model: &Model, mut fired_sets: FiredSets, mut samples: Option<Samples>) -> Self {
        fired_sets.bits = vec![0; fired_sets.keys.len() * token_bytes(&sizes_computed_always(model))];
        if let Some(samples) = &mut samples {
            let config = &model.config;
            samples.x = vec![vec![f16::ZERO; samples.keys.len() * config.n_embd]; config.n_layer];
        }
        Self { counts: Counts::new(model), fired_sets, samples, taken: false }
    }

    /// Adds what a counter found in one window.
    ///
    /// # Errors
    /// When a count overflows.
    pub(super) fn add(&mut self, window: &mut Counter) -> Result<()> {
        for (sum, n) in window.counts.unions.blocks.iter_mut().zip(window.counted.blocks()) {
            *sum += n;
        }
        match window.goes_on {
            true => (self.counts, self.taken) = (std::mem::take(&mut window.counts), false),
            false => self.counts.add(&window.counts)?,
        }
        let width = window.set_bytes;
        for (place, bits) in &window.fired_sets {
            self.fired_sets.bits[place * width..(place + 1) * width].copy_from_slice(bits);
        }
        for (place, layer, x) in &window.samples {
            if let Some(samples) = &mut self.samples {
                samples.x[*layer][place * x.len()..(place + 1) * x.len()].copy_from_slice(x);
            }
        }
        Ok(())
    }
}

/// What a group did in one batch.
#[derive(Default)]
struct OfBatch {
    fired: Vec<u32>,
    opened: Vec<u32>,
    mass: Vec<u64>,
}

impl OfBatch {
    fn begin(&mut self, n_ff: usize) {
        [&mut self.fired, &mut self.opened].into_iter().for_each(|counts| {
            counts.clear();
            counts.resize(n_ff, 0);
        });
        self.mass.clear();
        self.mass.resize(n_ff, 0);
    }

    fn add_to(&self, counts: &mut GroupCounts) -> Result<()> {
        counts.fired.add(|i| self.fired[i].into())?;
        counts.mass.add(|i| self.mass[i])?;
        counts.opened.add(|i| self.opened[i].into())
    }
}

/// Counts one window after the other.
pub(super) struct Counter<'j> {
    /// By group, then slot: which neuron it is, where slots are not in the model's own order.
    ids: Vec<Option<&'j [NeuronId]>>,
    /// By group: number of neurons.
    n_ff: Vec<usize>,
    /// By group: where its bits begin in a token's set.
    set_starts: Vec<usize>,
    set_bytes: usize,
    n_embd: usize,
    activation: Activation,
    marks: &'j Marks,
    /// Which tokens of the window are counted.
    counted: Counted,
    /// Tokens of the window before the batch that is being computed.
    base: usize,
    second_half: bool,
    /// By group; absent where a router chooses it.
    stacks: Vec<Option<Stack>>,
    /// By group that a router chooses: which router, and the row.
    rows: Vec<Option<(usize, usize)>>,
    /// By router.
    followers: Vec<Follower>,
    batch: OfBatch,
    firsts: Firsts,
    /// Counts of this window, or also of those before it.
    counts: Counts,
    /// Whether `counts` are those of all windows so far: a second set of them would take too much memory.
    goes_on: bool,
    /// Place and set of each sampled token of this window.
    fired_sets: Vec<(usize, Vec<u8>)>,
    /// Place, layer and input.
    samples: Vec<(usize, usize, Vec<f16>)>,
    /// Whether the model computed something that is no number.
    pub(super) not_finite: bool,
    /// Whether a count would not fit.
    pub(super) overflow: bool,
}

impl<'j> Counter<'j> {
    pub(super) fn new(model: &'j Model, marks: &'j Marks) -> Self {
        let n_ff = model.weights.group_sizes();
        let always = sizes_computed_always(model);
        let routers = RouterCounts::of_model(model);
        let mut rows = vec![None; n_ff.len()];
        for (router, counts) in routers.iter().enumerate() {
            counts.groups.iter().enumerate().for_each(|(row, group)| rows[*group as usize] = Some((router, row)));
        }
        let stacks = n_ff.iter().zip(&rows).map(|(n, row)| row.is_none().then(|| Stack::new(*n)));
        let mut set_bytes = 0;
        let starts = always.iter().map(|n| {
            let start = set_bytes;
            set_bytes += token_bytes(&[*n]);
            start
        });
        let goes_on = !routers.is_empty();
        Self {
            ids: model.weights.groups().map(|(_, group)| group.index.as_ref().map(|index| index.ids())).collect(),
            set_starts: starts.collect(),
            set_bytes,
            n_embd: model.config.n_embd,
            activation: model.config.activation.activation,
            marks,
            counted: Counted::default(),
            base: 0,
            second_half: false,
            stacks: stacks.collect(),
            rows,
            followers: routers.iter().map(|router| Follower::new(router.groups.len())).collect(),
            batch: OfBatch::default(),
            firsts: Firsts::default(),
            counts: if goes_on { Counts::default() } else { Counts::new(model) },
            goes_on,
            n_ff,
            fired_sets: Vec::new(),
            samples: Vec::new(),
            not_finite: false,
            overflow: false,
        }
    }

    /// Forgets the last window and begins another.
    pub(super) fn begin(&mut self, counted: Counted, second_half: bool, marks: &'j Marks) {
        (self.counted, self.second_half, self.marks, self.base) = (counted, second_half, marks, 0);
        self.stacks.iter_mut().flatten().for_each(Stack::reset);
        self.followers.iter_mut().for_each(Follower::reset);
        self.counts.clear();
        self.samples.clear();
        self.fired_sets = marks.fired_sets.iter().map(|(_, place)| (*place, vec![0; self.set_bytes])).collect();
    }

    /// Takes the counts of all windows so far, to go on from: for models with more neurons than can be counted twice. Until
    /// [`Gathered::add`] gives them back, a part of a window is in them.
    pub(super) fn go_on_from(&mut self, gathered: &mut Gathered) {
        if self.goes_on {
            self.counts = std::mem::take(&mut gathered.counts);
            gathered.taken = true;
        }
    }

    /// A batch of `n` tokens is over.
    pub(super) fn advance(&mut self, n: usize) {
        let Counts { routers, unions, .. } = &mut self.counts;
        for ((follower, counts), unions) in self.followers.iter_mut().zip(routers).zip(&mut unions.chosen) {
            follower.end_batch(counts, self.second_half, (self.base, self.counted), unions);
        }
        self.base += n;
    }
}

impl Observer for Counter<'_> {
    fn ffn_input(&mut self, layer: usize, x: &[f32]) {
        for (token, place) in &self.marks.samples {
            let Some(at) = (token + self.counted.first).checked_sub(self.base) else { continue };
            let Some(x) = x.chunks_exact(self.n_embd).nth(at) else { continue };
            self.not_finite |= !x.iter().all(|v| v.is_finite());
            // What a half cannot hold becomes its largest value, not infinity.
            let (min, max) = (f16::MIN.to_f32(), f16::MAX.to_f32());
            self.samples.push((*place, layer, x.iter().map(|v| f16::from_f32(v.clamp(min, max))).collect()));
        }
    }

    fn ffn(&mut self, at: FfnAt, act: &[f32], h: &[f32]) {
        let (group, activation) = (at.group.number, self.activation);
        let (n_ff, ids) = (self.n_ff[group], self.ids[group]);
        let id = |slot: usize| ids.map_or(slot, |ids| ids[slot].0 as usize);
        let skipped = self.counted.first.saturating_sub(self.base);
        // A group is computed for some of the tokens of a batch only.
        let skipped = at.tokens.iter().take_while(|token| (**token as usize) < skipped).count();
        let (batch, firsts, stack) = (&mut self.batch, &mut self.firsts, &mut self.stacks[group]);
        batch.begin(n_ff);
        firsts.begin(n_ff);
        let rows = act.chunks_exact(n_ff).zip(h.chunks_exact(n_ff)).zip(at.tokens);
        for ((act, h), position) in rows.skip(skipped) {
            let mut first = firsts.token(self.base + *position as usize);
            for (slot, a) in act.iter().enumerate().filter(|(_, a)| activation.has_two_masks() && **a != 0.0) {
                self.not_finite |= !a.is_finite();
                batch.opened[id(slot)] += 1;
            }
            let mut token = stack.as_mut().map(Stack::token);
            for (slot, (a, h)) in act.iter().zip(h).enumerate() {
                self.not_finite |= !(a.is_finite() && h.is_finite());
                if activation.fires(*a, *h) {
                    let id = id(slot);
                    batch.fired[id] += 1;
                    batch.mass[id] += (f64::from(h.abs()).min(MAX_MASS) * MASS_ONE).round() as u64;
                    token.iter_mut().for_each(|token| token.fires(slot));
                    first.fires(slot);
                }
            }
            first.count(self.counted, &mut self.counts.unions.fired[group]);
            if let Some(stack) = stack {
                let reuse = &mut self.counts.reuse[group];
                stack.count(&mut reuse.buckets, &mut reuse.first);
            }
        }
        self.overflow |= batch.add_to(&mut self.counts.groups[group]).is_err();
        if let Some((router, row)) = self.rows[group] {
            self.followers[router].chose(row, &at.tokens[skipped..]);
            return;
        }
        let computed = at.tokens;
        for ((token, _), (_, bits)) in self.marks.fired_sets.iter().zip(&mut self.fired_sets) {
            let Some(at) = (token + self.counted.first).checked_sub(self.base) else { continue };
            let Ok(row) = computed.binary_search(&(at as u32)) else { continue };
            let of_row = act.chunks_exact(n_ff).zip(h.chunks_exact(n_ff)).nth(row);
            let Some((act, h)) = of_row else { continue };
            let bits = &mut bits[self.set_starts[group]..];
            for (slot, _) in act.iter().zip(h).enumerate().filter(|(_, (a, h))| activation.fires(**a, **h)) {
                bits[id(slot) / 8] |= 1 << (id(slot) % 8);
            }
        }
    }
}
