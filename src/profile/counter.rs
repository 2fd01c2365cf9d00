//! Watches a model compute, and counts what fires.

use super::fired_sets::{FiredSets, token_bytes};
use super::reuse::{ReuseCounts, Stack};
use super::samples::Samples;
use super::{GroupCounts, MASS_ONE};
use crate::executor::{FfnAt, Observer};
use crate::model::{Activation, Model, NeuronId};
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
#[derive(Clone)]
pub(super) struct Counts {
    /// By group; within a group by neuron.
    pub(super) groups: Vec<GroupCounts>,
    /// By group.
    pub(super) reuse: Vec<ReuseCounts>,
}

impl Counts {
    fn new(n_ff: &[usize], activation: Activation) -> Self {
        Self {
            groups: n_ff.iter().map(|n| GroupCounts::new(*n, activation.has_two_masks())).collect(),
            reuse: vec![ReuseCounts::default(); n_ff.len()],
        }
    }

    fn clear(&mut self) {
        self.groups
            .iter_mut()
            .flat_map(|g| [&mut g.fired, &mut g.mass, &mut g.opened])
            .for_each(|counts| counts.fill(0));
        self.reuse.fill(ReuseCounts::default());
    }

    fn add(&mut self, other: &Self) {
        for (a, b) in self.groups.iter_mut().zip(&other.groups) {
            a.fired.iter_mut().zip(&b.fired).for_each(|(a, b)| *a += b);
            a.mass.iter_mut().zip(&b.mass).for_each(|(a, b)| *a += b);
            a.opened.iter_mut().zip(&b.opened).for_each(|(a, b)| *a += b);
        }
        for (a, b) in self.reuse.iter_mut().zip(&other.reuse) {
            a.buckets.iter_mut().zip(&b.buckets).for_each(|(a, b)| *a += b);
            a.first += b.first;
        }
    }
}

/// All that a job has gathered so far.
pub(super) struct Gathered {
    pub(super) counts: Counts,
    /// The bits of tokens in windows that are not done are zero.
    pub(super) fired_sets: FiredSets,
    /// Likewise.
    pub(super) samples: Option<Samples>,
}

impl Gathered {
    /// Nothing yet; `fired_sets` and `samples` say which tokens are sampled.
    pub(super) fn new(
        n_ff: &[usize],
        activation: Activation,
        mut fired_sets: FiredSets,
        mut samples: Option<Samples>,
        n_layer: usize,
        n_embd: usize,
    ) -> Self {
        fired_sets.bits = vec![0; fired_sets.keys.len() * token_bytes(n_ff)];
        if let Some(samples) = &mut samples {
            samples.x = vec![vec![f16::ZERO; samples.keys.len() * n_embd]; n_layer];
        }
        Self { counts: Counts::new(n_ff, activation), fired_sets, samples }
    }

    /// Adds what a counter found in one window.
    pub(super) fn add(&mut self, window: &Counter) {
        self.counts.add(&window.counts);
        let width = window.set_bytes;
        for (place, bits) in &window.fired_sets {
            self.fired_sets.bits[place * width..(place + 1) * width].copy_from_slice(bits);
        }
        for (place, layer, x) in &window.samples {
            if let Some(samples) = &mut self.samples {
                samples.x[*layer][place * x.len()..(place + 1) * x.len()].copy_from_slice(x);
            }
        }
    }
}

/// Counts one window after the other.
pub(super) struct Counter<'j> {
    /// By group, then slot: which neuron it is.
    ids: Vec<Vec<NeuronId>>,
    /// By group: where its bits begin in a token's set.
    set_starts: Vec<usize>,
    set_bytes: usize,
    n_embd: usize,
    activation: Activation,
    marks: &'j Marks,
    /// Leading tokens of the window that are not counted.
    skipped: usize,
    /// Tokens of the window before the batch that is being computed.
    base: usize,
    stacks: Vec<Stack>,
    /// Counts of this window.
    counts: Counts,
    /// Place and set of each sampled token of this window.
    fired_sets: Vec<(usize, Vec<u8>)>,
    /// Place, layer and input.
    samples: Vec<(usize, usize, Vec<f16>)>,
    /// Whether the model computed something that is no number.
    pub(super) not_finite: bool,
}

impl<'j> Counter<'j> {
    pub(super) fn new(model: &Model, marks: &'j Marks) -> Self {
        let n_ff = &*model.weights.group_sizes();
        let ids = model.weights.groups().map(|(_, group)| match &group.index {
            Some(index) => index.ids().to_vec(),
            None => (0..group.n_ff() as u32).map(NeuronId).collect(),
        });
        Self {
            ids: ids.collect(),
            set_starts: (0..n_ff.len()).map(|group| token_bytes(&n_ff[..group])).collect(),
            set_bytes: token_bytes(n_ff),
            n_embd: model.config.n_embd,
            activation: model.config.activation.activation,
            marks,
            skipped: 0,
            base: 0,
            stacks: n_ff.iter().map(|n| Stack::new(*n)).collect(),
            counts: Counts::new(n_ff, model.config.activation.activation),
            fired_sets: Vec::new(),
            samples: Vec::new(),
            not_finite: false,
        }
    }

    /// Forgets the last window and begins another, of which the first `skipped` tokens are not counted.
    pub(super) fn begin(&mut self, skipped: usize, marks: &'j Marks) {
        (self.skipped, self.marks, self.base) = (skipped, marks, 0);
        self.stacks.iter_mut().for_each(Stack::reset);
        self.counts.clear();
        self.samples.clear();
        self.fired_sets = marks.fired_sets.iter().map(|(_, place)| (*place, vec![0; self.set_bytes])).collect();
    }

    /// A batch of `n` tokens is over.
    pub(super) fn advance(&mut self, n: usize) {
        self.base += n;
    }
}

impl Observer for Counter<'_> {
    fn ffn_input(&mut self, layer: usize, x: &[f32]) {
        for (token, place) in &self.marks.samples {
            let Some(at) = (token + self.skipped).checked_sub(self.base) else { continue };
            let Some(x) = x.chunks_exact(self.n_embd).nth(at) else { continue };
            self.not_finite |= !x.iter().all(|v| v.is_finite());
            // What a half cannot hold becomes its largest value, not infinity.
            let (min, max) = (f16::MIN.to_f32(), f16::MAX.to_f32());
            self.samples.push((*place, layer, x.iter().map(|v| f16::from_f32(v.clamp(min, max))).collect()));
        }
    }

    fn ffn(&mut self, at: FfnAt, act: &[f32], h: &[f32]) {
        let (group, activation) = (at.group.number, self.activation);
        let (counts, ids, stack) = (&mut self.counts.groups[group], &self.ids[group], &mut self.stacks[group]);
        let n_ff = ids.len();
        let skipped = self.skipped.saturating_sub(self.base);
        // A group is computed for some of the tokens of a batch only.
        let skipped = at.tokens.iter().take_while(|token| (**token as usize) < skipped).count();
        for (act, h) in act.chunks_exact(n_ff).zip(h.chunks_exact(n_ff)).skip(skipped) {
            for (a, id) in act.iter().zip(ids).filter(|(a, _)| activation.has_two_masks() && **a != 0.0) {
                self.not_finite |= !a.is_finite();
                counts.opened[id.0 as usize] += 1;
            }
            let mut token = stack.token();
            for (slot, ((a, h), id)) in act.iter().zip(h).zip(ids).enumerate() {
                self.not_finite |= !(a.is_finite() && h.is_finite());
                if activation.fires(*a, *h) {
                    let id = id.0 as usize;
                    counts.fired[id] += 1;
                    counts.mass[id] += (f64::from(h.abs()).min(MAX_MASS) * MASS_ONE).round() as u64;
                    token.fires(slot);
                }
            }
            stack.count(&mut self.counts.reuse[group]);
        }
        let computed = at.tokens;
        for ((token, _), (_, bits)) in self.marks.fired_sets.iter().zip(&mut self.fired_sets) {
            let Some(at) = (token + self.skipped).checked_sub(self.base) else { continue };
            let Ok(row) = computed.binary_search(&(at as u32)) else { continue };
            let of_row = act.chunks_exact(n_ff).zip(h.chunks_exact(n_ff)).nth(row);
            let Some((act, h)) = of_row else { continue };
            let bits = &mut bits[self.set_starts[group]..];
            for (_, id) in act.iter().zip(h).zip(ids).filter(|((a, h), _)| activation.fires(**a, **h)) {
                bits[id.0 as usize / 8] |= 1 << (id.0 % 8);
            }
        }
    }
}
