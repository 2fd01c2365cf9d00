//! Thresholds of gates for a KL budget: what can be skipped of a model that never rests.
//!
//! Two rules give each group of neurons a threshold by one number for the whole model. By share: the same share of the
//! neurons of each group rests (CATS, arXiv 2404.08763). By energy: what rests has the same share of the squares that a
//! group's `down` vectors are multiplied with, so groups with many small values rest more (as TEAL, arXiv 2408.14690, which
//! looks at the error of each layer). The number is bisected over some windows of text until the budget is used up; of the
//! two rules the one is taken that saves more. Other windows then say what it costs.

use super::kl::kl;
use super::{mean_and_error, negative_log_likelihood};
use crate::executor::{Executor, ExecutorParams, FfnAt, KvType, Mode, Observer, Worker, dense_bytes};
use crate::model::{Model, NeuronGroup, Thresholds};
use crate::placement::Placement;
use crate::progress::{self, Progress};
use anyhow::{Result, ensure};

/// Times that the number of each rule is bisected.
const ROUNDS: usize = 7;
/// Largest share of neurons, and of their squares, that may rest.
const MOST_SHARE: f64 = 0.95;
const MOST_ENERGY: f64 = 0.5;
/// The least share of the squares is this many times smaller than the largest.
const ENERGY_RANGE: f64 = 1e5;
/// What a bucket leaves away of a 32-bit float: all but the exponent and four binary digits, so 16 buckets double a value.
const BUCKET_BITS: u32 = 19;
const N_BUCKETS: usize = 1 << (31 - BUCKET_BITS);
/// Tokens that are computed at once.
const N_UBATCH: usize = 64;
/// Saving less than this share of the weights' bytes does not pay: finding out what rests takes time, too.
const WORTHWHILE: f64 = 0.1;

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// By number of the group.
    pub thresholds: Thresholds,
    /// `share` or `energy`: the rule that saves more.
    pub rule: &'static str,
    /// Nats per token that were allowed.
    pub budget: f64,
    /// Mean KL divergence from dense, in nats per token: over the text that was searched with, and over the rest.
    pub kl: f64,
    /// See `kl`.
    pub held_out: Cost,
    /// Bytes of weights that a token reads of a variant: in exact mode, which is dense where no neuron rests by itself, and with
    /// these thresholds.
    pub bytes: [f64; 2],
}

impl Found {
    /// Share of the bytes of weights that need not be read.
    pub fn saved(&self) -> f64 {
        1.0 - self.bytes[1] / self.bytes[0]
    }

    /// Whether that is enough for `--mode thresholded` to be faster than dense.
    pub fn pays(&self) -> bool {
        self.saved() >= WORTHWHILE
    }
}

/// What skipping costs over a text.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// Mean KL divergence from dense, in nats per token.
    pub kl: f64,
    /// Perplexity in dense mode and with thresholds.
    pub perplexity: [f64; 2],
    /// Share of the neurons of each group that are not at rest, by number.
    pub active: Vec<f64>,
    /// Tokens.
    pub n_tokens: usize,
}

/// What the activations of a group are like, by size.
#[derive(Clone)]
struct Histogram {
    n: Vec<u64>,
    energy: Vec<f64>,
}

fn bucket(act: f32) -> usize {
    (act.abs().to_bits() >> BUCKET_BITS) as usize
}

/// The largest value of a bucket.
fn edge(bucket: usize) -> f32 {
    f32::from_bits(((bucket as u32 + 1) << BUCKET_BITS) - 1)
}

impl Histogram {
    /// The largest threshold below which lies at most `share` of what `of` counts.
    fn threshold<T: Copy + Into<f64>>(values: &[T], share: f64) -> f32 {
        let total: f64 = values.iter().map(|v| (*v).into()).sum();
        let mut below = 0.0;
        let mut threshold = 0.0;
        for (bucket, value) in values.iter().enumerate() {
            below += (*value).into();
            if below > share * total {
                break;
            }
            if (*value).into() > 0.0 {
                threshold = edge(bucket);
            }
        }
        threshold
    }
}

/// Gathers histograms in a dense prefill.
struct Activations(Vec<Histogram>);

impl Observer for Activations {
    fn ffn(&mut self, at: FfnAt, act: &[f32], h: &[f32]) {
        let Histogram { n, energy } = &mut self.0[at.group.number];
        for (act, h) in act.iter().zip(h).filter(|(act, h)| act.is_finite() && h.is_finite()) {
            n[bucket(*act)] += 1;
            energy[bucket(*act)] += f64::from(*h) * f64::from(*h);
        }
    }
}

/// Logits of a batch, and what was active.
struct Seen {
    logits: Vec<Vec<f32>>,
    /// By group: active ones, of how many.
    active: Vec<[u64; 2]>,
}

impl Observer for Seen {
    fn ffn(&mut self, at: FfnAt, act: &[f32], _h: &[f32]) {
        let [active, of] = &mut self.active[at.group.number];
        *active += act.iter().map(|act| u64::from(*act != 0.0)).sum::<u64>();
        *of += act.len() as u64;
    }

    fn wants_logits(&self) -> bool {
        true
    }

    fn logits(&mut self, _position: usize, logits: &[f32]) {
        self.logits.push(logits.to_vec());
    }
}

/// A search.
struct Search<'a> {
    model: &'a Model,
    worker: &'a Worker,
    progress: &'a dyn Progress,
}

/// Finds thresholds that cost at most `budget` nats of KL divergence per token over the even ones of `windows`; says what they
/// cost over the odd ones.
///
/// # Errors
/// When there are fewer than two windows, the budget is not positive, the model computes what is no number, memory cannot be
/// had, or the user stops it.
pub fn search(
    model: &Model,
    windows: &[&[u32]],
    budget: f64,
    worker: &Worker,
    progress: &dyn Progress,
) -> Result<Found> {
    ensure!(budget.is_finite() && budget > 0.0, "a budget of {budget} nats: a number above 0 is wanted");
    let enough = windows.len() >= 2 && windows.iter().all(|window| window.len() >= 2);
    ensure!(enough, "thresholds are searched for over windows of at least two tokens, and measured over others");
    let half = |odd: usize| windows.iter().copied().skip(odd).step_by(2).collect::<Vec<_>>();
    let (searched, held_out) = (half(0), half(1));
    let n_tokens = |windows: &[&[u32]]| windows.iter().map(|w| w.len() as u64).sum::<u64>();
    progress.begin("searching thresholds", (1 + 3 * ROUNDS as u64) * n_tokens(&searched) + 3 * n_tokens(&held_out));
    let search = Search { model, worker, progress };
    let histograms = search.histograms(&searched)?;
    let rules = [Rule::new("share", &histograms), Rule::new("energy", &histograms)];
    let rules = search.bisect(rules, &searched, budget)?;
    let [(first, a), (second, b)] = rules.map(|rule| {
        let bytes = rule.best.as_ref().map_or(f64::INFINITY, |best| search.bytes(&best.1.active));
        (rule, bytes)
    });
    let rule = if a < b { first } else { second };
    let (thresholds, kl) = match rule.best {
        Some((thresholds, cost)) => (thresholds, cost.kl),
        // Not even the least is within the budget.
        None => (vec![0.0; histograms.len()], 0.0),
    };
    let none = vec![0.0; histograms.len()];
    let mut costs = search.costs(&held_out, &[&thresholds, &none])?;
    progress.end();
    // What rests by itself is nothing that thresholds save.
    let bytes = [search.bytes(&costs[1].active), search.bytes(&costs[0].active)];
    let held_out = costs.swap_remove(0);
    let thresholds = Thresholds::new(thresholds, histograms.len())?;
    Ok(Found { thresholds, rule: rule.name, budget, kl, held_out, bytes })
}

/// Gives each group a threshold by one number.
struct Rule<'h> {
    name: &'static str,
    histograms: &'h [Histogram],
    /// Of a number from 0 to 1, which are bisected: what is within the budget, and what is not.
    range: [f64; 2],
    /// The thresholds of the largest number within the budget, and what they cost.
    best: Option<(Vec<f32>, Cost)>,
}

impl<'h> Rule<'h> {
    fn new(name: &'static str, histograms: &'h [Histogram]) -> Self {
        Self { name, histograms, range: [0.0, 1.0], best: None }
    }

    fn middle(&self) -> f64 {
        (self.range[0] + self.range[1]) / 2.0
    }

    fn thresholds(&self, at: f64) -> Vec<f32> {
        let of = |histogram: &Histogram| match self.name {
            "share" => {
                let n: Vec<f64> = histogram.n.iter().map(|n| *n as f64).collect();
                Histogram::threshold(&n, at * MOST_SHARE)
            }
            _ => Histogram::threshold(&histogram.energy, MOST_ENERGY * ENERGY_RANGE.powf(at - 1.0)),
        };
        self.histograms.iter().map(of).collect()
    }
}

impl Search<'_> {
    fn executor<'m>(&self, model: &'m Model, mode: Mode, n_ctx: usize) -> Result<Executor<'m>> {
        let params = ExecutorParams {
            n_threads: self.worker.n_threads(),
            n_ctx,
            kv_type: KvType::F32,
            mode,
            n_ubatch: N_UBATCH,
            isa: self.worker.isa(),
        };
        Executor::with_worker(model, Placement::all_cold(model), params, self.worker)
    }

    fn histograms(&self, windows: &[&[u32]]) -> Result<Vec<Histogram>> {
        let empty = Histogram { n: vec![0; N_BUCKETS], energy: vec![0.0; N_BUCKETS] };
        let mut seen = Activations(vec![empty; self.model.weights.group_sizes().len()]);
        for window in windows {
            let mut executor = self.executor(self.model, Mode::Dense, window.len())?;
            for chunk in window.chunks(N_UBATCH) {
                progress::check(self.progress)?;
                executor.prefill_observed(chunk, &mut seen)?;
                self.progress.advance(chunk.len() as u64);
            }
        }
        Ok(seen.0)
    }

    /// Both at once, so that dense is computed once for them.
    fn bisect<'h>(&self, mut rules: [Rule<'h>; 2], windows: &[&[u32]], budget: f64) -> Result<[Rule<'h>; 2]> {
        for _ in 0..ROUNDS {
            let tried = [rules[0].thresholds(rules[0].middle()), rules[1].thresholds(rules[1].middle())];
            let costs = self.costs(windows, &[&tried[0], &tried[1]])?;
            for ((rule, thresholds), cost) in rules.iter_mut().zip(tried).zip(costs) {
                ensure!(
                    cost.kl.is_finite(),
                    "the model computes values that are not finite numbers; are its weights whole?"
                );
                let within = cost.kl <= budget;
                rule.range[usize::from(!within)] = rule.middle();
                if within {
                    rule.best = Some((thresholds, cost));
                }
            }
        }
        Ok(rules)
    }

    /// What each of several sets of thresholds costs.
    fn costs(&self, windows: &[&[u32]], tried: &[&[f32]]) -> Result<Vec<Cost>> {
        let n_groups = self.model.weights.group_sizes().len();
        let models = tried.iter().map(|thresholds| {
            let mut model = Model::new(self.model.gguf.clone(), Some(self.model.config.activation.activation))?;
            model.thresholds = Some(Thresholds::new(thresholds.to_vec(), n_groups)?);
            Ok(model)
        });
        let models = models.collect::<Result<Vec<_>>>()?;
        let n_tokens = self.model.config.n_tokens;
        let mut costs = vec![Cost { active: vec![0.0; n_groups], ..Cost::default() }; tried.len()];
        let mut nats = vec![[Vec::new(), Vec::new()]; tried.len()];
        let mut active = vec![vec![[0; 2]; n_groups]; tried.len()];
        for window in windows {
            let mut dense = self.executor(self.model, Mode::Dense, window.len())?;
            let others = models.iter().map(|model| self.executor(model, Mode::Thresholded, window.len()));
            let mut others = others.collect::<Result<Vec<_>>>()?;
            for (i, chunk) in window.chunks(N_UBATCH).enumerate() {
                progress::check(self.progress)?;
                let mut reference = Seen { logits: Vec::new(), active: vec![[0; 2]; n_groups] };
                dense.prefill_observed(chunk, &mut reference)?;
                self.progress.advance(chunk.len() as u64);
                for (at, other) in others.iter_mut().enumerate() {
                    let mut seen = Seen { logits: Vec::new(), active: std::mem::take(&mut active[at]) };
                    other.prefill_observed(chunk, &mut seen)?;
                    self.progress.advance(chunk.len() as u64);
                    active[at] = seen.active;
                    for (j, (p, q)) in reference.logits.iter().zip(&seen.logits).enumerate() {
                        let (p, q) = (&p[..n_tokens], &q[..n_tokens]);
                        costs[at].kl += kl(p, q);
                        costs[at].n_tokens += 1;
                        if let Some(next) = window.get(i * N_UBATCH + j + 1) {
                            nats[at][0].push(negative_log_likelihood(p, *next));
                            nats[at][1].push(negative_log_likelihood(q, *next));
                        }
                    }
                }
            }
        }
        for ((cost, nats), active) in costs.iter_mut().zip(nats).zip(active) {
            cost.kl /= cost.n_tokens.max(1) as f64;
            cost.perplexity = nats.map(|nats| mean_and_error(nats.into_iter()).0.exp());
            cost.active = active.iter().map(|[active, of]| *active as f64 / (*of).max(1) as f64).collect();
        }
        Ok(costs)
    }

    /// Bytes of weights that a token reads of a variant where these shares of the neurons of each group are active.
    fn bytes(&self, active: &[f64]) -> f64 {
        let skippable = |group: &NeuronGroup| {
            let up = if group.gate.is_some() { group.ffn_up().n_bytes() } else { 0 };
            (up + group.ffn_down().n_bytes()) as f64
        };
        let skipped =
            self.model.weights.groups().zip(active).map(|((_, group), active)| (1.0 - active) * skippable(group));
        dense_bytes(self.model) as f64 - skipped.sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_has_no_more_below_it_than_it_may() {
        let values = [0.1f32, -0.2, 0.4, -0.8, 1.6];
        let mut n = vec![0.0; N_BUCKETS];
        values.iter().for_each(|v| n[bucket(*v)] += 1.0);
        for (share, wanted) in [(0.1, 0), (0.2, 1), (0.5, 2), (0.99, 4), (1.0, 5)] {
            let threshold = Histogram::threshold(&n, share);
            assert_eq!(values.iter().filter(|v| v.abs() <= threshold).count(), wanted, "{share}: {threshold}");
        }
        assert_eq!(Histogram::threshold(&vec![0.0; N_BUCKETS], 0.5), 0.0);
        assert!(edge(bucket(0.4)) >= 0.4 && edge(bucket(0.4)) < 0.43);
        assert!(bucket(f32::MAX) < N_BUCKETS);
    }
}
