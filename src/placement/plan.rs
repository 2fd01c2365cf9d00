//! The plan: what is computed where, so that a token takes least time within a budget of device memory.

use super::budget::{self, Account, capacity};
use super::cost::{Cost, LayerTime};
use super::hardware::{Bandwidths, Device, Gpu, Hardware};
use super::solve::{Item, Problem, Solution};
use super::workload::{GroupWork, LayerWork, NeuronStats, Workload};
use crate::model::Mode;
use crate::units::Bytes;
use anyhow::{Result, bail, ensure};

pub use super::choice::{GroupChoice, LayerChoice, Place, Run};

/// One layer of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedLayer {
    /// What is computed where.
    pub choice: LayerChoice,
    /// Bytes on the card.
    pub account: Account,
    /// Seconds.
    pub time: LayerTime,
    /// Neurons.
    pub n_ff: usize,
    /// Share of firings that the hot prefix covers.
    pub firings_covered: f64,
    /// Share of activation mass that it covers.
    pub mass_covered: f64,
}

/// A plan with its proof.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Layers by number.
    pub layers: Vec<PlannedLayer>,
    /// Where the head is.
    pub head: Place,
    /// Where the residual stream lives between layers.
    pub home: Place,
    /// Picoseconds per token: what was minimised.
    pub objective: u64,
    /// Picoseconds below which no plan of this model comes.
    pub bound: u64,
    /// All bytes on each card.
    pub accounts: Vec<Account>,
    /// What they had to fit in, by card; none without one.
    pub budgets: Vec<Bytes>,
}

impl Plan {
    /// Seconds per token.
    pub fn seconds(&self) -> f64 {
        self.objective as f64 * 1e-12
    }

    /// Tokens per second.
    pub fn tokens_per_second(&self) -> f64 {
        1.0 / self.seconds()
    }

    /// How far the plan may be from the best one, as a share of it; 0 where it is proved to be the best.
    pub fn gap(&self) -> f64 {
        (self.objective - self.bound) as f64 / self.bound.max(1) as f64
    }

    /// Bytes on all cards.
    pub fn account(&self) -> Account {
        let mut all = Account::default();
        self.accounts.iter().for_each(|account| all.add(account));
        all
    }

    /// What cards had to give in all; `None` without one.
    pub fn budget(&self) -> Option<Bytes> {
        (!self.budgets.is_empty()).then(|| Bytes(self.budgets.iter().map(|b| b.0).sum()))
    }

    /// Whether nothing is on a card.
    pub fn is_cpu_only(&self) -> bool {
        self.account() == Account::default()
    }

    /// Sizes of the hot prefixes, by group.
    pub fn n_hot(&self) -> Vec<usize> {
        self.layers.iter().flat_map(|l| &l.choice.groups).map(|g| g.n_hot).collect()
    }

    /// Share of all neurons that are hot.
    pub fn hot_share(&self) -> f64 {
        let n: usize = self.layers.iter().map(|l| l.n_ff).sum();
        self.layers.iter().map(|l| l.choice.n_hot()).sum::<usize>() as f64 / n.max(1) as f64
    }

    /// Mean over layers of the share of activation mass that is hot.
    pub fn mass_covered(&self) -> f64 {
        self.layers.iter().map(|l| l.mass_covered).sum::<f64>() / self.layers.len().max(1) as f64
    }
}

/// Hot prefixes that are tried per layer, at about even distances.
const STEPS: usize = 448;
/// Neurons come to the card in blocks of a multiple of this: those of the largest group of a layer, and of the others
/// the same share.
const NEURON_BLOCK: usize = 32;
/// The card that is planned for: hardware files describe one.
const CARD: Place = Place::Card(0);

/// Everything that a plan is made from.
#[derive(Clone, Copy)]
pub struct Planner<'a> {
    /// The machine.
    pub hardware: &'a Hardware,
    /// The model.
    pub work: &'a Workload,
    /// How it is run.
    pub run: &'a Run,
}

fn picoseconds(seconds: f64) -> u64 {
    // Hardware files are checked so that this is a number; an hour is far above any token.
    (seconds * 1e12).round().clamp(0.0, 3.6e15) as u64
}

impl<'a> Planner<'a> {
    /// Works out what every option of every layer takes: what plans for all budgets share.
    pub fn prepare(self) -> Prepared<'a> {
        let cost = Cost::new(self.hardware, self.work, self.run);
        let choices: Vec<_> = (0..self.work.layers.len()).map(|i| self.choices(i)).collect();
        let homes = match &self.hardware.device {
            Some(_) => vec![
                (CARD, self.problem(&cost, &choices, CARD)),
                (Place::Host, self.problem(&cost, &choices, Place::Host)),
            ],
            None => Vec::new(),
        };
        Prepared { planner: self, cost, choices, homes }
    }

    /// [`Prepared::plan`] for one budget only.
    ///
    /// # Errors
    /// The same.
    pub fn plan(self, budget: Option<Bytes>) -> Result<Plan> {
        self.prepare().plan(budget)
    }

    /// The fastest plan within `budget`, which the card may have or not, and is enough for something.
    pub fn within(self, budget: Bytes) -> Plan {
        self.prepare().within(budget)
    }

    /// The least budget with which anything can be computed on the card.
    pub fn least(&self) -> Bytes {
        let scratch = budget::scratch(self.work, self.run).sum();
        let options = (0..self.work.layers.len()).flat_map(|i| {
            self.choices(i).into_iter().map(move |c| budget::of_layer(&self.work.layers[i], &c, self.run).sum())
        });
        let part = options.chain([budget::of_head(self.work).sum()]).filter(|n| *n > 0).min().unwrap_or(0);
        Bytes(scratch + part)
    }

    /// All options of a layer. Where it has several groups, all have the same share of their neurons hot.
    fn choices(&self, i: usize) -> Vec<LayerChoice> {
        let layer = &self.work.layers[i];
        let most = layer.groups.iter().map(GroupWork::n_ff).max().unwrap_or(0);
        let step = most.div_ceil(STEPS).next_multiple_of(NEURON_BLOCK);
        let predicted = self.run.mode == Mode::Predicted && layer.groups.iter().any(|g| g.predictor.is_some());
        let mut out = Vec::new();
        for attention in [false, true] {
            let mut push = |n_hot: usize, mask: bool, predictor: bool| {
                let of_group = |group: &GroupWork| {
                    let n_hot = if group.n_ff() == most { n_hot } else { n_hot * group.n_ff() / most.max(1) };
                    GroupChoice { mask, predictor: predictor && group.predictor.is_some(), n_hot }
                };
                out.push(LayerChoice { card: 0, attention, groups: layer.groups.iter().map(of_group).collect() });
            };
            if !layer.is_divisible() {
                push(0, false, false);
                continue;
            }
            for n_hot in (0..most).step_by(step.max(1)) {
                push(n_hot, false, false);
                push(n_hot, true, false);
                if predicted {
                    push(n_hot, false, true);
                }
            }
            push(most, false, false);
        }
        out
    }

    /// The options with the residual stream at `home`: the layers, then the head.
    fn problem(&self, cost: &Cost, choices: &[Vec<LayerChoice>], home: Place) -> Problem {
        let mut scratch = Vec::new();
        let mut classes: Vec<Vec<Item>> = Vec::new();
        let layers = &self.work.layers;
        for (i, layer) in layers.iter().enumerate() {
            let item = |choice: &LayerChoice| Item {
                bytes: budget::of_layer(layer, choice, self.run).sum(),
                cost: picoseconds(cost.layer(i, choice, home, &mut scratch).total()),
            };
            // Layers of a shape are all alike.
            let known = classes.last().filter(|_| layer == &layers[i - 1]).cloned();
            classes.push(known.unwrap_or_else(|| choices[i].iter().map(item).collect()));
        }
        let head_bytes = budget::of_head(self.work).sum();
        classes.push(vec![
            Item { bytes: 0, cost: picoseconds(cost.head(false, home)) },
            Item { bytes: head_bytes, cost: picoseconds(cost.head(true, home)) },
        ]);
        Problem::new(&classes)
    }

    /// The plan that makes these choices, by layer, whatever they cost; its bound is its own time.
    ///
    /// # Errors
    /// When they are not possible: not one per layer, or more neurons than there are.
    pub fn of_choices(&self, choices: &[LayerChoice], head: Place) -> Result<Plan> {
        let layers = &self.work.layers;
        ensure!(choices.len() == layers.len(), "{} choices for {} layers", choices.len(), layers.len());
        for (i, (choice, layer)) in choices.iter().zip(layers).enumerate() {
            ensure!(choice.groups.len() == layer.groups.len(), "layer {i}: {} groups", choice.groups.len());
            for (choice, group) in choice.groups.iter().zip(&layer.groups) {
                let possible = choice.n_hot <= group.n_ff() && (group.divisible || !choice.is_any());
                ensure!(possible, "layer {i}: {} of {} neurons hot", choice.n_hot, group.n_ff());
            }
        }
        let cost = Cost::new(self.hardware, self.work, self.run);
        Ok(self.describe(&cost, choices, head, CARD, None))
    }

    /// Seconds per token below which `plan` cannot come: both memories are read at their full speed, at the same time,
    /// the card's kernels follow each other, and nothing else takes any. Keys and values do not count.
    pub fn least_seconds(&self, plan: &Plan) -> f64 {
        let (gpu, cpu) = self.reading(plan);
        gpu.max(cpu)
    }

    /// Seconds per token for reading what `plan` has on the card as fast as its data sheet promises; `None` where that is
    /// not known, or nothing is there. Keys and values do not count.
    pub fn data_sheet_seconds(&self, plan: &Plan) -> Option<f64> {
        let device = self.hardware.device.as_ref()?;
        let bandwidth = Bandwidths::uniform(device.gpu.data_sheet?);
        let gpu = Gpu { bandwidth, kernel: 0.0, ..device.gpu.clone() };
        let hardware = Hardware { device: Some(Device { gpu, bus: device.bus }), ..self.hardware.clone() };
        let (gpu, _) = Planner { hardware: &hardware, ..*self }.reading(plan);
        Some(gpu).filter(|seconds| *seconds > 0.0)
    }

    /// Seconds per token of each side for what it reads, the card's with its kernels.
    fn reading(&self, plan: &Plan) -> (f64, f64) {
        let cost = Cost::new(self.hardware, self.work, self.run);
        let layers = plan.layers.iter().enumerate().map(|(i, l)| cost.reading(i, &l.choice));
        let both = layers.chain([cost.reading_head(plan.head.is_card())]);
        both.fold((0.0, 0.0), |(g, c), (gpu, cpu)| (g + gpu, c + cpu))
    }

    /// The plan without a card.
    pub fn cpu_only(&self, budget: Option<Bytes>) -> Plan {
        let cost = Cost::new(self.hardware, self.work, self.run);
        let layers: Vec<_> = self.work.layers.iter().map(|l| LayerChoice::none(l.groups.len())).collect();
        self.describe(&cost, &layers, Place::Host, Place::Host, budget)
    }

    /// Times and bytes of given choices; its bound is its objective.
    fn describe(&self, cost: &Cost, choices: &[LayerChoice], head: Place, home: Place, budget: Option<Bytes>) -> Plan {
        let mut scratch = Vec::new();
        let mut account = Account::default();
        // The sum of nothing is a negative zero, which would be shown.
        let sum = |v: &[f32]| v.iter().fold(0.0, |sum, x| sum + f64::from(*x));
        let share = |layer: &LayerWork, choice: &LayerChoice, of: fn(&NeuronStats) -> &[f32]| {
            let all: f64 = layer.groups.iter().map(|g| sum(of(&g.stats))).sum();
            let groups = layer.groups.iter().zip(&choice.groups);
            let hot = groups.fold(0.0, |hot, (g, choice)| hot + sum(&of(&g.stats)[..choice.n_hot]));
            if all > 0.0 { hot / all } else { 0.0 }
        };
        let layers: Vec<PlannedLayer> = choices
            .iter()
            .enumerate()
            .map(|(i, choice)| {
                let layer = &self.work.layers[i];
                let of_layer = budget::of_layer(layer, choice, self.run);
                account.add(&of_layer);
                PlannedLayer {
                    choice: choice.clone(),
                    account: of_layer,
                    time: cost.layer(i, choice, home, &mut scratch),
                    n_ff: layer.n_ff(),
                    firings_covered: share(layer, choice, |stats| &stats.rates),
                    mass_covered: share(layer, choice, |stats| &stats.mass),
                }
            })
            .collect();
        if head.is_card() {
            account.add(&budget::of_head(self.work));
        }
        if home.is_card() || account.sum() > 0 {
            account.add(&budget::scratch(self.work, self.run));
        }
        let sum: u64 = layers.iter().map(|l| picoseconds(l.time.total())).sum();
        let objective = sum + picoseconds(cost.head(head.is_card(), home)) + picoseconds(cost.token(home));
        let (accounts, budgets) = (vec![account], budget.into_iter().collect());
        Plan { layers, head, home, objective, bound: objective, accounts, budgets }
    }

    /// llama.cpp's way, for comparison: as many whole layers as fit are on the card, the last ones and the head first;
    /// everything is computed, and the residual stream crosses once.
    pub fn layer_offload(&self, budget: Option<Bytes>) -> (usize, Plan) {
        let run = Run { mode: Mode::Dense, ..*self.run };
        let dense = Planner { run: &run, ..*self };
        let cost = Cost::new(self.hardware, self.work, &run);
        let Some(device) = &self.hardware.device else { return (0, dense.cpu_only(None)) };
        let budget = budget.unwrap_or(Bytes(device.gpu.vram.0 - device.gpu.context.0));
        let n = self.work.layers.len();
        let whole = |i: usize| {
            let all = |g: &GroupWork| GroupChoice { n_hot: g.n_ff(), ..GroupChoice::default() };
            LayerChoice { card: 0, attention: true, groups: self.work.layers[i].groups.iter().map(all).collect() }
        };
        let mut left = capacity(budget).saturating_sub(budget::scratch(self.work, &run).sum());
        let mut choices: Vec<_> = self.work.layers.iter().map(|l| LayerChoice::none(l.groups.len())).collect();
        let mut n_gpu = 0;
        for i in (0..n).rev() {
            let bytes = budget::of_layer(&self.work.layers[i], &whole(i), &run).sum();
            let Some(rest) = left.checked_sub(bytes) else { break };
            (left, choices[i], n_gpu) = (rest, whole(i), n_gpu + 1);
        }
        let head_fits = n_gpu > 0 && budget::of_head(self.work).sum() <= left;
        let head = if head_fits { CARD } else { Place::Host };
        let mut plan = dense.describe(&cost, &choices, head, Place::Host, Some(budget));
        let mut scratch = Vec::new();
        // Layers that follow each other on one side hand over nothing: each is at home there.
        for (i, layer) in plan.layers.iter_mut().enumerate() {
            let home = if layer.choice.attention { CARD } else { Place::Host };
            layer.time = cost.layer(i, &layer.choice, home, &mut scratch);
        }
        let sum: f64 = plan.layers.iter().map(|l| l.time.total()).sum();
        let end = if n_gpu > 0 { CARD } else { Place::Host };
        plan.objective = picoseconds(sum + cost.head(head_fits, end) + cost.token(end));
        plan.bound = plan.objective;
        (n_gpu, plan)
    }
}

/// A planner that has worked out what every option takes.
pub struct Prepared<'a> {
    /// What it was made from.
    pub planner: Planner<'a>,
    cost: Cost<'a>,
    /// Options by layer.
    choices: Vec<Vec<LayerChoice>>,
    /// What is to be solved for each home of the residual stream; nothing without a card.
    homes: Vec<(Place, Problem)>,
}

impl Prepared<'_> {
    /// The fastest plan within `budget` bytes of device memory. Without a graphics card `budget` must be `None`; with
    /// one `None` means all that the card has beside the driver's own.
    ///
    /// # Errors
    /// When there is a budget and no card, or the budget is above the card's memory or below the least that can be used:
    /// says what is missing.
    pub fn plan(&self, budget: Option<Bytes>) -> Result<Plan> {
        let Planner { hardware, work, .. } = self.planner;
        ensure!(!work.layers.is_empty(), "a model without layers");
        let name = &hardware.name;
        let Some(device) = &hardware.device else {
            ensure!(budget.is_none(), "--vram-budget: {name} has no graphics card; describe one with --hardware FILE");
            return Ok(self.planner.cpu_only(None));
        };
        let budget = budget.unwrap_or(Bytes(device.gpu.vram.0 - device.gpu.context.0));
        let card = device.gpu.vram;
        ensure!(budget <= card, "--vram-budget: {budget} are more than the {card} of {name}");
        let least = self.planner.least();
        if budget < least {
            bail!(
                "--vram-budget: {budget} are too few: {} for the batch and the smallest part of a layer need {least}, {} more; \
                 raise the budget, lower -ub, or leave it away to compute on the CPU",
                work.name,
                Bytes(least.0 - budget.0)
            );
        }
        Ok(self.within(budget))
    }

    /// The fastest plan within `budget`, whether the card has that much or not.
    pub(super) fn within(&self, budget: Bytes) -> Plan {
        let mut best = self.planner.cpu_only(Some(budget));
        let mut bound = best.bound;
        for (home, problem) in &self.homes {
            let Some(plan) = self.plan_at(*home, problem, budget, best.objective) else { continue };
            bound = bound.min(plan.bound);
            if plan.objective < best.objective {
                best = plan;
            }
        }
        best.bound = bound.min(best.objective);
        best
    }

    /// The best plan with the residual stream at `home`; `None` where it cannot be below `known` picoseconds.
    fn plan_at(&self, home: Place, problem: &Problem, budget: Bytes, known: u64) -> Option<Plan> {
        let Planner { work, run, .. } = self.planner;
        let room = capacity(budget).checked_sub(budget::scratch(work, run).sum())?;
        let token = picoseconds(self.cost.token(home));
        if problem.lower_bound(room)? + token >= known {
            return None;
        }
        let Solution { chosen, bound, .. } = problem.solve(room)?;
        let layers = chosen.iter().zip(&self.choices).map(|(at, options)| options[*at].clone()).collect::<Vec<_>>();
        let head = if chosen[layers.len()] == 1 { CARD } else { Place::Host };
        let mut plan = self.planner.describe(&self.cost, &layers, head, home, Some(budget));
        plan.bound = (bound + token).min(plan.objective);
        Some(plan)
    }
}
