//! What fired while decoding, and what it cost in bytes.

use super::bytes::outside_ffn;
use super::journal::Journal;
use crate::model::{Model, NeuronGroup};
use std::ops::Range;
use std::time::Duration;

/// What one shard computed for one token in one group.
#[derive(Debug, Clone, Copy, Default)]
pub struct Computed {
    /// Neurons that fired.
    pub fired: usize,
    /// Neurons whose row of `up` was read, where there is a gate: more than fired, where `up` has a mask of its own.
    pub opened: usize,
    /// Neurons whose row of the mask matrix was read.
    pub masked: usize,
    /// Bytes of the predictor that were read.
    pub predictor_bytes: usize,
    /// Time that it took.
    pub predictor_time: Duration,
}

/// What the tokens of one pass have in common: neurons of a shard, each counted once, whichever of them it is of.
#[derive(Debug, Clone, Copy, Default)]
pub struct United {
    /// Neurons whose row of the mask matrix was read.
    pub masked: usize,
    /// Neurons whose row of `up` was read, where there is a gate.
    pub opened: usize,
    /// Neurons that fired.
    pub fired: usize,
}

impl Computed {
    /// So many gates are above zero. All of their neurons fire, as long as `up` has no mask of its own.
    pub(super) fn opens(&mut self, n: usize) {
        (self.opened, self.fired) = (n, n);
    }
}

/// What of the neurons that fired was computed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Recall {
    /// Neurons that fired.
    pub fired: u64,
    /// Those that were computed.
    pub found: u64,
    /// Mass of the neurons that fired: `|activation * up|`, or `|activation|` where there is no gate.
    pub mass: f64,
    /// That of those that were computed.
    pub found_mass: f64,
}

impl Recall {
    pub(super) fn add(&mut self, mass: f64, found: bool) {
        self.fired += 1;
        self.mass += mass;
        if found {
            self.found += 1;
            self.found_mass += mass;
        }
    }

    fn merge(&mut self, other: Self) {
        self.fired += other.fired;
        self.found += other.found;
        self.mass += other.mass;
        self.found_mass += other.found_mass;
    }

    /// Share of the neurons that fired; 1 where none did.
    pub fn by_count(&self) -> f64 {
        if self.fired == 0 { 1.0 } else { self.found as f64 / self.fired as f64 }
    }

    /// Share of their mass; 1 where there is none.
    pub fn by_mass(&self) -> f64 {
        if self.mass > 0.0 { self.found_mass / self.mass } else { 1.0 }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct GroupStats {
    n_ff: usize,
    /// Tokens that it was computed for.
    chosen: u64,
    fired: u64,
    opened: u64,
    masked: u64,
    predictor_bytes: u64,
    predictor_time: Duration,
    recall: Recall,
    /// Passes that computed it for any token, and what their tokens had in common.
    passes: u64,
    united_masked: u64,
    united_opened: u64,
    united_fired: u64,
}

/// Something that was counted of a group, by its number.
#[derive(Debug, Clone, Copy)]
enum Event {
    Computed(usize, Computed),
    Chosen(usize),
    /// What predictors miss of it was looked at.
    Audited(usize, Recall),
}

/// Counts over all tokens decoded so far.
#[derive(Debug, Clone)]
pub struct FfnStats {
    groups: Vec<GroupStats>,
    n_tokens: u64,
    n_passes: u64,
    /// Of tokens that may be taken back.
    journal: Journal<Event>,
}

impl FfnStats {
    /// Nothing counted yet, for groups of `n_ff` neurons.
    pub fn new(n_ff: &[usize]) -> Self {
        let groups = n_ff.iter().map(|n_ff| GroupStats { n_ff: *n_ff, ..GroupStats::default() }).collect();
        Self { groups, n_tokens: 0, n_passes: 0, journal: Journal::default() }
    }

    /// Adds what `other`, of groups of the same sizes, has counted.
    pub(super) fn merge(&mut self, other: &Self) {
        for (own, other) in self.groups.iter_mut().zip(&other.groups) {
            own.chosen += other.chosen;
            own.fired += other.fired;
            own.opened += other.opened;
            own.masked += other.masked;
            own.predictor_bytes += other.predictor_bytes;
            own.predictor_time += other.predictor_time;
            own.recall.merge(other.recall);
            own.passes += other.passes;
            own.united_masked += other.united_masked;
            own.united_opened += other.united_opened;
            own.united_fired += other.united_fired;
        }
        self.n_tokens += other.n_tokens;
        self.n_passes += other.n_passes;
    }

    /// Whether it counts groups of the same sizes.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.groups.iter().map(|g| g.n_ff).eq(other.groups.iter().map(|g| g.n_ff))
    }

    /// What is added next is of this token of the batch.
    pub(super) fn turn_to(&mut self, token: u32) {
        self.journal.token = token;
    }

    /// The tokens of the next batch may be taken back.
    pub(super) fn begin_journal(&mut self) {
        self.journal.is_open = true;
    }

    /// Counts the first `n` of the batch's `n_tokens`, and not the others.
    pub(super) fn end_journal(&mut self, n: usize, n_tokens: usize) {
        let mut journal = std::mem::take(&mut self.journal);
        for (_, event) in journal.events.drain(..).filter(|(token, _)| (*token as usize) < n) {
            match event {
                Event::Computed(group, computed) => self.add(group, computed),
                Event::Chosen(group) => self.choose(group),
                Event::Audited(group, recall) => self.add_recall(group, recall),
            }
        }
        journal.is_open = false;
        self.journal = journal;
        // With a card tokens of mode dense are not counted.
        self.n_tokens = self.n_tokens.saturating_sub((n_tokens - n) as u64);
    }

    /// Adds what was computed of a group, by its number.
    pub(super) fn add(&mut self, group: usize, computed: Computed) {
        if self.journal.takes(Event::Computed(group, computed)) {
            return;
        }
        let group = &mut self.groups[group];
        group.fired += computed.fired as u64;
        group.opened += computed.opened as u64;
        group.masked += computed.masked as u64;
        group.predictor_bytes += computed.predictor_bytes as u64;
        group.predictor_time += computed.predictor_time;
    }

    /// A group is computed for a token.
    pub(super) fn choose(&mut self, group: usize) {
        if !self.journal.takes(Event::Chosen(group)) {
            self.groups[group].chosen += 1;
        }
    }

    pub(super) fn add_recall(&mut self, group: usize, recall: Recall) {
        if !self.journal.takes(Event::Audited(group, recall)) {
            self.groups[group].recall.merge(recall);
        }
    }

    pub(super) fn end_token(&mut self) {
        self.n_tokens += 1;
    }

    /// Adds what the tokens of a pass have in common in a shard of a group; `is_first` is whether it is the first shard of it.
    pub(super) fn unite(&mut self, group: usize, united: United, is_first: bool) {
        let group = &mut self.groups[group];
        group.passes += u64::from(is_first);
        group.united_masked += united.masked as u64;
        group.united_opened += united.opened as u64;
        group.united_fired += united.fired as u64;
    }

    pub(super) fn end_pass(&mut self) {
        self.n_passes += 1;
    }

    /// Passes in which tokens were decoded; one in which tokens of several sequences were is counted by one of them.
    pub fn n_passes(&self) -> u64 {
        self.n_passes
    }

    /// Share of all neurons that fired for any token of a pass; `None` before the first pass. In
    /// [`Mode::Dense`](crate::model::Mode::Dense) nobody looks.
    pub fn union_density(&self) -> Option<f64> {
        let possible = self.n_passes * self.groups.iter().map(|g| g.n_ff as u64).sum::<u64>();
        (possible > 0).then(|| self.groups.iter().map(|g| g.united_fired).sum::<u64>() as f64 / possible as f64)
    }

    /// Mean bytes of weights that one decoded token touched where each row that several tokens of a pass need is counted once.
    pub fn shared_bytes_per_token(&self, model: &Model) -> Option<f64> {
        let n_passes = self.n_passes as f64;
        (self.n_passes > 0 && self.n_tokens > 0).then(|| {
            let of_group = |((_, weights), stats): ((usize, &NeuronGroup), &GroupStats)| {
                let [masked, opened, fired, passes] =
                    [stats.united_masked, stats.united_opened, stats.united_fired, stats.passes]
                        .map(|n| n as f64 / n_passes);
                let mask = masked * weights.mask_matrix().row_bytes() as f64;
                mask + passes * weights.bytes_always() as f64 + weights.bytes_for_active(opened, fired)
            };
            let ffn: f64 = model.weights.groups().zip(&self.groups).map(of_group).sum();
            let per_pass = ffn + outside_ffn(model) as f64;
            per_pass * n_passes / self.n_tokens as f64 + self.predictor_bytes_per_token()
        })
    }

    /// Tokens decoded.
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    fn share(&self, groups: &[GroupStats], of: fn(&GroupStats) -> u64) -> Option<f64> {
        let possible = self.n_tokens * groups.iter().map(|g| g.n_ff as u64).sum::<u64>();
        (possible > 0).then(|| groups.iter().map(of).sum::<u64>() as f64 / possible as f64)
    }

    /// Share of a group's neurons that were computed and fired; `None` before the first token.
    pub fn group_density(&self, group: usize) -> Option<f64> {
        self.share(self.groups.get(group..=group)?, |g| g.fired)
    }

    /// Share of these groups' neurons that fired, over the tokens for which each group was computed; `None` where none was.
    pub fn density_where_computed(&self, groups: Range<usize>) -> Option<f64> {
        let groups = &self.groups[groups];
        let possible: u64 = groups.iter().map(|g| g.n_ff as u64 * g.chosen).sum();
        (possible > 0).then(|| groups.iter().map(|g| g.fired).sum::<u64>() as f64 / possible as f64)
    }

    /// Share of tokens for which a group was computed; `None` before the first token.
    pub fn share_computed(&self, group: usize) -> Option<f64> {
        let computed = self.groups[group].chosen;
        (self.n_tokens > 0).then(|| computed as f64 / self.n_tokens as f64)
    }

    /// Share of all neurons that were computed and fired; `None` before the first token.
    pub fn density(&self) -> Option<f64> {
        self.share(&self.groups, |g| g.fired)
    }

    /// Share of a group's neurons whose row of `up` was read, where there is a gate; `None` before
    /// the first token.
    pub fn group_opened(&self, group: usize) -> Option<f64> {
        self.share(self.groups.get(group..=group)?, |g| g.opened)
    }

    /// The same share of all neurons.
    pub fn opened(&self) -> Option<f64> {
        self.share(&self.groups, |g| g.opened)
    }

    /// Share of a group's neurons whose row of the mask matrix was read; `None` before the first token.
    pub fn group_masked(&self, group: usize) -> Option<f64> {
        self.share(self.groups.get(group..=group)?, |g| g.masked)
    }

    /// Share of all neurons whose row of the mask matrix was read; `None` before the first token.
    pub fn masked(&self) -> Option<f64> {
        self.share(&self.groups, |g| g.masked)
    }

    /// What a group's predictor found in the tokens that were looked at; `None` where none were.
    pub fn group_recall(&self, group: usize) -> Option<Recall> {
        Some(self.groups[group].recall).filter(|r| r.fired > 0)
    }

    /// What all predictors found in the tokens that were looked at; `None` where none were.
    pub fn recall(&self) -> Option<Recall> {
        let mut all = Recall::default();
        self.groups.iter().for_each(|g| all.merge(g.recall));
        Some(all).filter(|r| r.fired > 0)
    }

    /// Mean bytes of predictors that one token touched.
    pub fn predictor_bytes_per_token(&self) -> f64 {
        let bytes: u64 = self.groups.iter().map(|g| g.predictor_bytes).sum();
        bytes as f64 / self.n_tokens.max(1) as f64
    }

    /// Mean time that predictors took for one token.
    pub fn predictor_time_per_token(&self) -> Duration {
        let total: Duration = self.groups.iter().map(|g| g.predictor_time).sum();
        total.div_f64(self.n_tokens.max(1) as f64)
    }

    /// Mean bytes of weights of the FFN, predictors among them, that one decoded token touched when only neurons that
    /// fired were computed.
    pub fn ffn_bytes_per_token(&self, model: &Model) -> Option<f64> {
        let n_tokens = self.n_tokens as f64;
        (self.n_tokens > 0).then(|| {
            let of_group = |((_, weights), stats): ((usize, &NeuronGroup), &GroupStats)| {
                let [fired, opened, masked, predictor] =
                    [stats.fired, stats.opened, stats.masked, stats.predictor_bytes].map(|n| n as f64 / n_tokens);
                let mask = masked * weights.mask_matrix().row_bytes() as f64;
                let share = if weights.is_routed() { stats.chosen as f64 / n_tokens } else { 1.0 };
                predictor + (mask + share * weights.bytes_always() as f64 + weights.bytes_for_active(opened, fired))
            };
            model.weights.groups().zip(&self.groups).map(of_group).sum()
        })
    }

    /// Mean bytes of weights that one decoded token touched when only neurons that fired were computed.
    pub fn bytes_per_token(&self, model: &Model) -> Option<f64> {
        Some(self.ffn_bytes_per_token(model)? + outside_ffn(model) as f64)
    }
}
