//! What of a layer may be on the card: the options that a plan chooses among.

use super::budget::{self, GRANULE, allocated};
use super::choice::{GroupChoice, LayerChoice, Place, Run};
use super::cost::{Cost, Routed};
use super::fired::Sums;
use super::solve::Item;
use super::workload::{GroupWork, LayerWork, NeuronStats, Workload};
use crate::model::Mode;
use std::sync::Arc;

/// Hot prefixes that are tried per layer, at about even distances.
const STEPS: usize = 448;
/// The same for each group that a router chooses.
const ROUTED_STEPS: usize = 64;
/// Neurons come to the card in blocks of a multiple of this: those of the largest group of a layer, and of the others
/// the same share.
const NEURON_BLOCK: usize = 32;

/// The options of one layer.
pub(super) enum Options {
    /// One by one.
    Listed(Vec<LayerChoice>),
    /// Of groups that a router chooses: these have too many options to list them.
    Ordered(Ordered),
}

/// Nothing; mixer and router; and from there on ever more of the groups, in the order of what a byte saves.
pub(super) struct Ordered {
    n_groups: usize,
    /// A group gets what its choice says in place of what it had.
    steps: Vec<(u32, GroupChoice)>,
    /// How many of the steps are taken in each of the further options.
    marks: Vec<usize>,
}

/// Picoseconds of a time in seconds.
pub(super) fn picoseconds(seconds: f64) -> u64 {
    // Hardware files are checked so that this is a number; an hour is far above any token.
    (seconds * 1e12).round().clamp(0.0, 3.6e15) as u64
}

impl Options {
    /// The options of layer `i`, and what each takes with the residual stream at each of `homes`.
    pub fn new(cost: &Cost, work: &Workload, run: &Run, i: usize, homes: &[Place]) -> (Self, Vec<Vec<Item>>) {
        let layer = &work.layers[i];
        if layer.is_routed() && layer.is_divisible() {
            let mut ordered = Ordered::new(cost, layer, run.mode, i);
            let items = ordered.items(cost, layer, run, i, homes);
            return (Self::Ordered(ordered), items);
        }
        let choices = listed(layer, run.mode);
        let mut scratch = Vec::new();
        let item = |choice: &LayerChoice, home: Place, scratch: &mut Vec<f64>| Item {
            bytes: budget::of_layer(layer, choice, run).sum(),
            cost: picoseconds(cost.layer(i, choice, home, scratch).total()),
        };
        let items = |home: &Place| choices.iter().map(|choice| item(choice, *home, &mut scratch)).collect();
        let items = homes.iter().map(items).collect();
        (Self::Listed(choices), items)
    }

    /// Whether there are others, which a plan does not choose among.
    pub fn are_ordered(&self) -> bool {
        matches!(self, Self::Ordered(_))
    }

    /// Option number `at`.
    pub fn choice(&self, at: usize) -> LayerChoice {
        match self {
            Self::Listed(choices) => choices[at].clone(),
            Self::Ordered(ordered) => {
                let mut choice = LayerChoice { attention: at > 0, ..LayerChoice::none(ordered.n_groups) };
                let n_steps = at.checked_sub(2).map_or(0, |mark| ordered.marks[mark]);
                ordered.steps[..n_steps].iter().for_each(|(group, of)| choice.groups[*group as usize] = *of);
                choice
            }
        }
    }
}

/// The least that anything of layer `layer` takes on the card; 0 where nothing can be there.
pub(super) fn least_bytes(layer: &LayerWork, run: &Run) -> u64 {
    if layer.is_routed() {
        return allocated(budget::beside_groups(layer, true, false, run));
    }
    let bytes = listed(layer, run.mode).into_iter().map(|choice| budget::of_layer(layer, &choice, run).sum());
    bytes.filter(|n| *n > 0).min().unwrap_or(0)
}

/// All options of a layer without a router. Where it has several groups, all have the same share of their neurons hot.
fn listed(layer: &LayerWork, mode: Mode) -> Vec<LayerChoice> {
    let most = layer.groups.iter().map(GroupWork::n_ff).max().unwrap_or(0);
    let step = most.div_ceil(STEPS).next_multiple_of(NEURON_BLOCK);
    let predicted = mode == Mode::Predicted && layer.groups.iter().any(|g| g.predictor.is_some());
    let mut out = Vec::new();
    for attention in [false, true] {
        let mut push = |n_hot: usize, mask: bool, predictor: bool| {
            let of_group = |group: &GroupWork| {
                let n_hot = if group.n_ff() == most { n_hot } else { n_hot * group.n_ff() / most.max(1) };
                GroupChoice { mask, predictor: predictor && group.predictor.is_some(), n_hot }
            };
            out.push(LayerChoice { card: 0, attention, groups: layer.groups.iter().map(of_group).collect() });
        };
        if !layer.is_divisible() || layer.is_routed() {
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

/// Whether a card may have whole masks of groups in layers with a router. It computes hot prefixes there and no more, so a
/// plan with such masks would promise what nothing does.
const WHOLE_MASKS: bool = false;

/// What the card may have of a group that a router chooses, or of one beside such: a prefix, with the whole mask or not.
/// With it what fires before and behind each prefix.
pub(super) struct GroupOptions {
    step: usize,
    n_ff: usize,
    /// Whether the card may have the whole mask.
    masks: bool,
    sums: Arc<Vec<Sums>>,
}

impl GroupOptions {
    /// Those of all groups of a layer; groups that share their rates share the sums.
    pub fn of_layer(layer: &LayerWork, mode: Mode) -> Vec<Self> {
        // Where all is computed, nothing is skipped by it.
        let masks = WHOLE_MASKS && mode != Mode::Dense;
        let mut known: Option<(&Arc<NeuronStats>, Arc<Vec<Sums>>)> = None;
        let mut of_group = |group: &'_ GroupWork, stats| {
            let n_ff = group.n_ff();
            let step = n_ff.div_ceil(ROUTED_STEPS).next_multiple_of(NEURON_BLOCK).max(NEURON_BLOCK);
            let sums = match &known {
                Some((of, sums)) if Arc::ptr_eq(of, stats) => Arc::clone(sums),
                _ => Arc::new(Sums::at_every(stats, step)),
            };
            known = Some((stats, Arc::clone(&sums)));
            Self { step, n_ff, masks, sums }
        };
        layer.groups.iter().map(|group| of_group(group, &group.stats)).collect()
    }

    /// All of them, the one with nothing first.
    pub fn all(&self) -> impl Iterator<Item = (GroupChoice, &Sums)> {
        let at = |place: usize| (place * self.step).min(self.n_ff);
        let prefixes = self.sums.iter().enumerate().map(move |(place, sums)| (at(place), sums));
        prefixes.flat_map(move |(n_hot, sums)| {
            let choice = move |mask| (GroupChoice { mask, predictor: false, n_hot }, sums);
            // All neurons with the whole mask is what all neurons are.
            [false, true].into_iter().filter(move |mask| !mask || (self.masks && n_hot < self.n_ff)).map(choice)
        })
    }

    /// The sums of one of their prefixes.
    pub fn sums(&self, choice: GroupChoice) -> &Sums {
        &self.sums[choice.n_hot.div_ceil(self.step)]
    }
}

/// Slopes closer than this are one.
const SLOPES_ALIKE: f64 = 1e-9;

impl Ordered {
    fn new(cost: &Cost, layer: &LayerWork, mode: Mode, i: usize) -> Self {
        let routed = Routed::new(cost, i);
        let mut steps: Vec<(f64, u32, GroupChoice)> = Vec::new();
        let mut hull: Vec<(u64, f64, GroupChoice)> = Vec::new();
        for (at, (group, options)) in layer.groups.iter().zip(GroupOptions::of_layer(layer, mode)).enumerate() {
            let mut all: Vec<(u64, f64, GroupChoice)> = Vec::new();
            for (choice, sums) in options.all() {
                let saved = -group.chosen * routed.part(at, choice, sums).cpu;
                all.push((budget::of_group(group, choice), saved, choice));
            }
            all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            upper_hull(&all, &mut hull);
            let worth =
                |from: &(u64, f64, GroupChoice), to: &(u64, f64, GroupChoice)| (to.1 - from.1) / (to.0 - from.0) as f64;
            steps.extend(hull.windows(2).map(|pair| (worth(&pair[0], &pair[1]), at as u32, pair[1].2)));
        }
        steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let steps = steps.into_iter().map(|(_, group, choice)| (group, choice)).collect();
        Self { n_groups: layer.groups.len(), steps, marks: Vec::new() }
    }

    /// Marks the options, and says what each takes.
    fn items(&mut self, cost: &Cost, layer: &LayerWork, run: &Run, i: usize, homes: &[Place]) -> Vec<Vec<Item>> {
        let mut routed = Routed::new(cost, i);
        let options = GroupOptions::of_layer(layer, run.mode);
        for (at, of) in options.iter().enumerate() {
            routed.set(at, GroupChoice::default(), of.sums(GroupChoice::default()));
        }
        let mut items: Vec<Vec<Item>> = vec![Vec::new(); homes.len()];
        let mut push = |routed: &Routed, bytes: u64, mixer: bool| {
            for (items, home) in items.iter_mut().zip(homes) {
                items.push(Item { bytes: allocated(bytes), cost: picoseconds(routed.time(mixer, *home).total()) });
            }
        };
        push(&routed, 0, false);
        push(&routed, budget::beside_groups(layer, true, false, run), true);
        let mut bytes = budget::beside_groups(layer, true, true, run);
        let all = layer.groups.iter().map(|g| g.neuron_bytes() * g.n_ff() as u64).sum::<u64>();
        // What is allocated is filled as far as it goes.
        let unit = (all / STEPS as u64).next_multiple_of(GRANULE).max(GRANULE);
        for (n, (at, choice)) in self.steps.iter().enumerate() {
            let (at, group) = (*at as usize, &layer.groups[*at as usize]);
            let more = bytes + budget::of_group(group, *choice) - budget::of_group(group, routed.choice(at));
            if n > 0 && more.div_ceil(unit) > bytes.div_ceil(unit) {
                self.marks.push(n);
                push(&routed, bytes, true);
            }
            bytes = more;
            routed.set(at, *choice, options[at].sums(*choice));
        }
        self.marks.push(self.steps.len());
        push(&routed, bytes, true);
        items
    }
}

/// The points of `all`, which come by rising bytes, that lie on the hull above them: each step of it saves less per byte
/// than the one before, but something.
fn upper_hull(all: &[(u64, f64, GroupChoice)], hull: &mut Vec<(u64, f64, GroupChoice)>) {
    hull.clear();
    for point in all {
        if hull.last().is_some_and(|last| point.1 <= last.1) {
            continue;
        }
        while let [.., a, b] = hull[..] {
            let slope =
                |from: (u64, f64, GroupChoice), to: (u64, f64, GroupChoice)| (to.1 - from.1) / (to.0 - from.0) as f64;
            if slope(a, b) > slope(b, *point) * (1.0 + SLOPES_ALIKE) {
                break;
            }
            hull.pop();
        }
        hull.push(*point);
    }
}
