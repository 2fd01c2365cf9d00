//! The plan: what is computed where, so that a token takes least time within a budget of device memory.

use super::batch::BatchCost;
use super::budget::{self, Account, capacity, tokens_per_pass};
use super::cost::{Cost, LayerTime};
use super::fired::Sums;
use super::hardware::{Bandwidths, Device, Gpu, Hardware};
use super::options::{Options, least_bytes, picoseconds};
pub use super::planner::Planner;
use super::relaxation;
use super::solve::{Item, Problem, Solution};
use super::workload::{GroupWork, LayerWork};
use crate::model::Mode;
use crate::units::Bytes;
use anyhow::{Result, bail, ensure};
use std::sync::Arc;

pub use super::choice::{GroupChoice, LayerChoice, Place, Room, Run};

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
    /// Picoseconds per pass, which is a token of each sequence: what was minimised.
    pub objective: u64,
    /// Picoseconds below which no plan of this model comes.
    pub bound: u64,
    /// All bytes on each card.
    pub accounts: Vec<Account>,
    /// What they had to fit in, by card; none without one.
    pub budgets: Vec<Bytes>,
    /// What decides, batch by batch, where experts are computed; `None` without a card.
    pub batch: Option<BatchCost>,
    /// What there is room for on the card.
    pub room: Room,
    /// Tokens of a pass, one of each of so many sequences.
    pub per_pass: usize,
}

impl Plan {
    /// Seconds per pass.
    pub fn seconds(&self) -> f64 {
        self.objective as f64 * 1e-12
    }

    /// Tokens per second, of all sequences.
    pub fn tokens_per_second(&self) -> f64 {
        self.per_pass as f64 / self.seconds()
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

    /// Mean over layers with neurons of the share of activation mass that is hot.
    pub fn mass_covered(&self) -> f64 {
        let with_neurons = || self.layers.iter().filter(|l| l.n_ff > 0);
        with_neurons().map(|l| l.mass_covered).sum::<f64>() / with_neurons().count().max(1) as f64
    }
}

/// The card that is planned for: hardware files describe one.
const CARD: Place = Place::Card(0);

impl<'a> Planner<'a> {
    /// Works out what every option of every layer takes: what plans for all budgets share.
    pub fn prepare(self) -> Prepared<'a> {
        let Self { hardware, work, run } = self;
        let cost = Cost::new(hardware, work, run);
        let homes = if hardware.device.is_some() { vec![CARD, Place::Host] } else { Vec::new() };
        let mut options: Vec<Arc<Options>> = Vec::new();
        let mut classes: Vec<Vec<Vec<Item>>> = vec![Vec::new(); homes.len()];
        let mut like: Vec<usize> = Vec::new();
        for (i, layer) in work.layers.iter().enumerate() {
            // Layers of a shape are alike, but for their kind.
            let known = (0..i).filter(|j| like[*j] == *j).find(|j| work.layers[*j] == *layer);
            like.push(known.unwrap_or(i));
            if let Some(known) = known {
                options.push(Arc::clone(&options[known]));
                classes.iter_mut().for_each(|classes| classes.push(classes[known].clone()));
                continue;
            }
            let (of_layer, items) = Options::new(&cost, work, run, i, &homes);
            options.push(Arc::new(of_layer));
            classes.iter_mut().zip(items).for_each(|(classes, items)| classes.push(items));
        }
        let head_bytes = budget::of_head(work).sum();
        let homes = homes.into_iter().zip(classes).map(|(home, mut classes)| {
            classes.push(vec![
                Item { bytes: 0, cost: picoseconds(cost.head(false, home)) },
                Item { bytes: head_bytes, cost: picoseconds(cost.head(true, home)) },
            ]);
            (home, Problem::new(&classes))
        });
        let homes = homes.collect();
        Prepared { planner: self, cost, options, like, homes }
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
        let layers = self.work.layers.iter().map(|layer| least_bytes(layer, self.run));
        let part = layers.chain([budget::of_head(self.work).sum()]).filter(|n| *n > 0).min().unwrap_or(0);
        Bytes(scratch + part)
    }

    /// The budget that comes nearest to giving a card so many of the model's layers, as programs count them that give it whole
    /// layers, with the output as one more: so many parts of what a plan takes that has room for everything. `None` where that
    /// is all of it.
    pub fn of_layers(&self, n: u64) -> Option<Bytes> {
        let all = self.work.layers.len() as u64 + 1;
        if n >= all || self.hardware.device.is_none() {
            return None;
        }
        let (least, most) = (self.least().0, self.within(Bytes(u64::MAX / 4)).account().taken().0);
        let more = u128::from(most.saturating_sub(least)) * u128::from(n) / u128::from(all);
        Some(Bytes(least + u64::try_from(more).unwrap_or(u64::MAX - least)))
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
    fn describe(
        &self,
        cost: &Cost<'a>,
        choices: &[LayerChoice],
        head: Place,
        home: Place,
        budget: Option<Bytes>,
    ) -> Plan {
        let mut scratch = Vec::new();
        let mut account = Account::default();
        let share = |layer: &'a LayerWork, choice: &LayerChoice, of: fn(Sums) -> (f64, f64)| {
            let groups = layer.groups.iter().zip(&choice.groups);
            let (hot, all) = groups.fold((0.0, 0.0), |(hot, all), (g, choice)| {
                let (of_hot, of_all) = of(cost.sums(g, choice.n_hot));
                (hot + g.chosen * of_hot, all + g.chosen * of_all)
            });
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
                    firings_covered: share(layer, choice, |sums| (sums.hot, sums.hot + sums.cold)),
                    mass_covered: share(layer, choice, |sums| sums.mass),
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
        let batch = BatchCost::of(self.hardware);
        let (room, per_pass) = (self.run.room, tokens_per_pass(self.hardware.device.is_some(), self.work, self.run));
        Plan { layers, head, home, objective, bound: objective, accounts, budgets, batch, room, per_pass }
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

    /// llama.cpp's other way (`--n-cpu-moe`), for comparison: all but the groups that routers choose is on the card, and
    /// these of as many layers as fit, the last ones first; everything is computed. Layers whose groups are on the CPU, and
    /// the plan; `None` where there is no card, no router, or no room for the rest of the model.
    pub fn expert_offload(&self, budget: Option<Bytes>) -> Option<(usize, Plan)> {
        let device = self.hardware.device.as_ref()?;
        let run = Run { mode: Mode::Dense, ..*self.run };
        let dense = Planner { run: &run, ..*self };
        let budget = budget.unwrap_or(Bytes(device.gpu.vram.0 - device.gpu.context.0));
        let routed: Vec<usize> = (0..self.work.layers.len()).filter(|i| self.work.layers[*i].is_routed()).collect();
        let whole = |layer: &LayerWork, routed: bool| {
            let of_group = |g: &GroupWork| if g.routed && !routed { 0 } else { g.n_ff() };
            let groups = layer.groups.iter().map(|g| GroupChoice { n_hot: of_group(g), ..GroupChoice::default() });
            LayerChoice { card: 0, attention: true, groups: groups.collect() }
        };
        let mut choices: Vec<_> = self.work.layers.iter().map(|layer| whole(layer, false)).collect();
        let bytes = |i: usize, choice: &LayerChoice| budget::of_layer(&self.work.layers[i], choice, &run).sum();
        let layers: u64 = choices.iter().enumerate().map(|(i, choice)| bytes(i, choice)).sum();
        let rest = layers + budget::of_head(self.work).sum() + budget::scratch(self.work, &run).sum();
        let mut left = capacity(budget).checked_sub(rest)?;
        let mut n_cpu = Some(routed.len()).filter(|n| *n > 0)?;
        for i in routed.into_iter().rev() {
            let all = whole(&self.work.layers[i], true);
            let Some(rest) = left.checked_sub(bytes(i, &all) - bytes(i, &choices[i])) else { break };
            (left, choices[i], n_cpu) = (rest, all, n_cpu - 1);
        }
        let cost = Cost::new(self.hardware, self.work, &run);
        Some((n_cpu, dense.describe(&cost, &choices, CARD, CARD, Some(budget))))
    }
}

/// A planner that has worked out what every option takes.
pub struct Prepared<'a> {
    /// What it was made from.
    pub planner: Planner<'a>,
    cost: Cost<'a>,
    /// Options by layer.
    options: Vec<Arc<Options>>,
    /// By layer the first one that it is like.
    like: Vec<usize>,
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
                 raise the budget, lower -ub, or leave it out to compute on the CPU",
                work.name,
                Bytes(least.0 - budget.0)
            );
        }
        Ok(self.within(budget))
    }

    /// The fastest plan within `budget`, whether the card has that much or not, and the proof.
    pub(super) fn within(&self, budget: Bytes) -> Plan {
        let mut best = self.best(budget);
        if self.options.iter().any(|options| options.are_ordered()) {
            // Only plans that take experts in one order were looked at. Others may be faster, but not than this.
            let at = |(home, problem): &(Place, Problem)| {
                let room = self.room(budget)?;
                let least = relaxation::least(&self.cost, self.planner, &self.like, *home, problem, room)?;
                Some(least + picoseconds(self.cost.token(*home)))
            };
            let least = self.homes.iter().filter_map(at).min().unwrap_or(best.objective);
            best.bound = least.min(self.planner.cpu_only(None).objective).min(best.objective);
        }
        best
    }

    /// The fastest plan within `budget`. Where a router chooses, its bound holds only for plans that take groups in order.
    pub(super) fn best(&self, budget: Bytes) -> Plan {
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

    /// What all layers and the head may take together.
    fn room(&self, budget: Bytes) -> Option<u64> {
        capacity(budget).checked_sub(budget::scratch(self.planner.work, self.planner.run).sum())
    }

    /// The best plan with the residual stream at `home`; `None` where it cannot be below `known` picoseconds.
    fn plan_at(&self, home: Place, problem: &Problem, budget: Bytes, known: u64) -> Option<Plan> {
        let room = self.room(budget)?;
        let token = picoseconds(self.cost.token(home));
        if problem.relaxed(room)?.bound + token >= known {
            return None;
        }
        let Solution { chosen, bound, .. } = problem.solve(room)?;
        let layers = self.options.iter().zip(&chosen).map(|(options, at)| options.choice(*at)).collect::<Vec<_>>();
        let head = if chosen[layers.len()] == 1 { CARD } else { Place::Host };
        let mut plan = self.planner.describe(&self.cost, &layers, head, home, Some(budget));
        plan.bound = (bound + token).min(plan.objective);
        Some(plan)
    }
}
