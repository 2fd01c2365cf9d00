//! How long the FFN of a layer takes whose groups of neurons a router chooses.
//!
//! All groups that are chosen for a token are computed at once, with those that every token has: the card what it has of
//! them, the CPU the rest, and there is one handing over. Which groups these are is chance: on average, and by how much the
//! two sides stray from each other, it follows from how often each group is chosen. That a fixed number is chosen makes
//! them stray less than if each were chosen by itself: for their variance Hajek's approximation is used (sampling of a
//! fixed size with unequal probabilities).

use super::{Cost, GroupKernels, LIST_ENTRY, LayerTime, Way, per_neuron, rows, seconds};
use crate::model::Mode;
use crate::placement::choice::{GroupChoice, Place};
use crate::placement::fired::{NORMAL, Sums};
use crate::placement::hardware::Bandwidths;
use crate::placement::workload::{GroupWork, LayerWork, NeuronRows};

/// What a group takes on both sides when it is chosen, in seconds on average.
#[derive(Debug, Clone, Copy, Default)]
pub struct GroupPart {
    /// Of the card, for the mask of cold neurons: until the CPU has its list.
    pub before: f64,
    /// Of the card, for hot neurons.
    pub gpu: f64,
    /// Of the CPU.
    pub cpu: f64,
    /// Variance of the CPU's, by which neurons fire.
    pub variance: f64,
    /// Bytes of the list that the card sends.
    pub listed: f64,
    /// Full reading speed: seconds of the card and of the CPU.
    pub reading: (f64, f64),
}

/// Seconds of both sides of a layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct SidesTime {
    /// While neither waits for the other.
    pub before: f64,
    /// Of the card, and at the same time
    pub gpu: f64,
    /// of the CPU, with handing over.
    pub cpu: f64,
}

/// Speeds at which a side reads the rows of a group, in seconds per neuron.
#[derive(Clone, Copy)]
struct Speed {
    /// A row of the mask.
    mask: f64,
    /// A row of up, one of those that are listed, or of all.
    up: f64,
    /// A row of down, of the same.
    down: f64,
    /// Rows of up, and of down, at full speed.
    full: (f64, f64),
}

impl Speed {
    /// Of a group that so many tokens of a pass that computes it have chosen.
    fn of(bandwidths: &Bandwidths, group: &GroupWork, listed: bool, chosen_by: f64) -> Self {
        let full =
            |rows: NeuronRows| seconds(bandwidths, rows.dtype, Way::Dot { listed: false }, rows.row_bytes as f64, 1.0);
        let wanted = if listed { Sums::of(&group.stats, 0).cold_wanted } else { chosen_by };
        let down = per_neuron(bandwidths, group, 0.0, listed, wanted);
        Self {
            mask: rows(bandwidths, group.mask, Way::Dot { listed: false }, 1.0, chosen_by),
            up: per_neuron(bandwidths, group, 1.0, listed, wanted) - down,
            down,
            full: (group.up.map_or(0.0, full), full(group.down)),
        }
    }

    /// Those of `fired` neurons, for each of which `opened` rows of up are read.
    fn neurons(&self, fired: f64, opened: f64) -> f64 {
        fired * (opened * self.up + self.down)
    }
}

/// How many of the `n` tokens of a pass have chosen a group on average, in a share `computed` of passes that any of them has.
fn chosen_by(computed: f64, n: f64) -> f64 {
    if n == 1.0 || computed <= 0.0 {
        return 1.0;
    }
    n * (1.0 - (1.0 - computed.min(1.0)).powf(1.0 / n)) / computed
}

/// The FFN of a layer with a router, with what the card has of each group.
pub struct Routed<'c, 'a> {
    cost: &'c Cost<'a>,
    layer: &'a LayerWork,
    /// Speeds of the card and of the CPU, by group.
    speeds: Vec<(Speed, Speed)>,
    choices: Vec<GroupChoice>,
    parts: Vec<GroupPart>,
}

impl<'c, 'a> Routed<'c, 'a> {
    /// Layer number `i`, of whose groups the card has nothing.
    pub fn new(cost: &'c Cost<'a>, i: usize) -> Self {
        let layer = &cost.work.layers[i];
        let cpu = &cost.cpu().bandwidth;
        let gpu = cost.hardware.device.as_ref().map_or(cpu, |d| &d.gpu.bandwidth);
        let (listed, n) = (cost.run.mode != Mode::Dense, cost.tokens());
        let mut speeds: Vec<(Speed, Speed)> = Vec::with_capacity(layer.groups.len());
        for (at, group) in layer.groups.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| (&layer.groups[before], speeds[before]));
            let sizes = |g: &GroupWork| (g.mask, g.up, g.down);
            // With several tokens at once it hangs on who chooses a group, too.
            let alike = |a: &GroupWork| sizes(a) == sizes(group) && (n == 1.0 || a.chosen == group.chosen);
            let known = before.filter(|(before, _)| alike(before)).map(|(_, speeds)| speeds);
            let of = |side| Speed::of(side, group, listed, chosen_by(group.chosen, n));
            speeds.push(known.unwrap_or_else(|| (of(gpu), of(cpu))));
        }
        let n = layer.groups.len();
        Self { cost, layer, speeds, choices: vec![GroupChoice::default(); n], parts: vec![GroupPart::default(); n] }
    }

    /// Layer number `i` with these choices.
    pub fn with(cost: &'c Cost<'a>, i: usize, choices: &[GroupChoice]) -> Self {
        let mut routed = Self::new(cost, i);
        for (at, choice) in choices.iter().enumerate() {
            routed.set(at, *choice, &cost.sums(&routed.layer.groups[at], choice.n_hot));
        }
        routed
    }

    /// Gives the card something else of group `at`; `sums` are those of this prefix.
    pub fn set(&mut self, at: usize, choice: GroupChoice, sums: &Sums) {
        (self.choices[at], self.parts[at]) = (choice, self.part(at, choice, sums));
    }

    /// What the card has of group `at`.
    pub fn choice(&self, at: usize) -> GroupChoice {
        self.choices[at]
    }

    /// What group `at` takes with this choice.
    pub fn part(&self, at: usize, choice: GroupChoice, sums: &Sums) -> GroupPart {
        let group = &self.layer.groups[at];
        let (gpu, cpu) = &self.speeds[at];
        let value = self.cost.cpu().value;
        let (n_ff, n_hot) = (group.n_ff() as f64, choice.n_hot as f64);
        let n_cold = n_ff - n_hot;
        let dense = self.cost.run.mode == Mode::Dense;
        let (hot, cold, variance) = if dense { (n_hot, n_cold, 0.0) } else { (sums.hot, sums.cold, sums.variance) };
        let (hot_opened, cold_opened) = if dense { (1.0, 1.0) } else { (sums.hot_opened, sums.cold_opened) };
        let each = cpu.neurons(1.0, cold_opened);
        let masked = if choice.mask { n_ff } else { n_hot };
        let looked_at = if dense { 1.0 } else { 3.0 };
        let on_cpu = (n_ff - masked) * cpu.mask + cold * each;
        let values = if choice.mask { cold * cold_opened } else { looked_at * n_cold };
        let full = |speed: &Speed, n_mask: f64, fired: f64, opened: f64| {
            n_mask * speed.mask + fired * (opened * speed.full.0 + speed.full.1)
        };
        // Columns of down cannot be skipped.
        let (on_cpu, cold_down) = match group.down_by_columns {
            true => ((n_ff - masked) * cpu.mask + cold * cold_opened * cpu.up + n_cold * cpu.full.1, n_cold),
            false => (on_cpu, cold),
        };
        GroupPart {
            before: (masked - n_hot) * gpu.mask,
            gpu: n_hot * gpu.mask + gpu.neurons(hot, hot_opened),
            cpu: on_cpu + chosen_by(group.chosen, self.cost.tokens()) * values * value,
            variance: variance * each * each,
            listed: if choice.mask { cold * cold_opened * sums.cold_wanted * LIST_ENTRY } else { 0.0 },
            reading: (
                full(gpu, masked, hot, hot_opened),
                (n_ff - masked) * cpu.mask + cold * cold_opened * cpu.full.0 + cold_down * cpu.full.1,
            ),
        }
    }

    /// Mean over the router's choices of one kind of what groups take.
    fn mean(&self, of: impl Fn(&GroupPart) -> f64) -> f64 {
        self.layer.groups.iter().zip(&self.parts).map(|(group, part)| group.chosen * of(part)).sum()
    }

    /// Whether the card has a part of a group, and whether the CPU has.
    fn sides(&self) -> (bool, bool) {
        let has_all = |(choice, group): (&GroupChoice, &GroupWork)| choice.n_hot == group.n_ff();
        let on_gpu = self.choices.iter().any(GroupChoice::is_any);
        (on_gpu, !self.choices.iter().zip(&self.layer.groups).all(has_all))
    }

    /// Kernels of the groups, until the CPU has its part and for hot neurons: each computes all groups that are chosen.
    pub fn kernels(&self) -> (f64, f64) {
        let (on_gpu, on_cpu) = self.sides();
        let mut most = GroupKernels::default();
        for (group, choice) in self.layer.groups.iter().zip(&self.choices).filter(|_| on_gpu) {
            let of = GroupKernels::of(group, choice);
            // One norm serves them all.
            (most.before, most.hot) = (most.before.max(of.before - 1.0), most.hot.max(of.hot));
        }
        if on_gpu { (1.0 + most.before.max(f64::from(u8::from(on_cpu))), most.hot) } else { (0.0, 0.0) }
    }

    /// Standard deviation of the difference between what the CPU and the card take for a token.
    fn deviation(&self) -> f64 {
        let (mut weights, mut sum, mut squares, mut fired) = (0.0, 0.0, 0.0, 0.0);
        for (group, part) in self.layer.groups.iter().zip(&self.parts) {
            let weight = group.chosen * (1.0 - group.chosen);
            let difference = part.cpu - part.gpu;
            weights += weight;
            sum += weight * difference;
            squares += weight * difference * difference;
            fired += group.chosen * part.variance;
        }
        let between = if weights > 0.0 { squares - sum * sum / weights } else { 0.0 };
        (between.max(0.0) + fired).sqrt()
    }

    /// Seconds of the CPU for what does not hang on which groups are chosen; the card names all cold neurons or not.
    fn regions(&self, all_masks: bool) -> f64 {
        let cpu = self.cost.cpu();
        let has_up = self.layer.groups.iter().any(|g| g.up.is_some());
        let regions = f64::from(u8::from(!all_masks)) + f64::from(u8::from(has_up)) + 1.0;
        regions * cpu.region + self.cost.tokens() * 3.0 * self.cost.work.n_embd as f64 * cpu.value
    }

    /// Whether the card names all neurons that are cold.
    fn all_masks(&self) -> bool {
        self.layer.groups.iter().zip(&self.choices).all(|(g, c)| c.mask || c.n_hot == g.n_ff())
    }

    /// Seconds of the layer, its mixer and its router on the card or not, when the residual stream lives at `home`.
    pub fn time(&self, mixer: bool, home: Place) -> LayerTime {
        let Cost { hardware, .. } = self.cost;
        let (on_gpu, on_cpu) = self.sides();
        let cpu = if on_cpu { self.regions(self.all_masks()) + self.mean(|part| part.cpu) } else { 0.0 };
        let Some(device) = &hardware.device else {
            let attention = self.cost.mixer_on_cpu(self.layer);
            return LayerTime { attention, cpu, together: cpu, ..LayerTime::default() };
        };
        let attention =
            if mixer { self.cost.mixer_on_gpu(device, self.layer) } else { self.cost.mixer_on_cpu(self.layer) };
        let crossings = self.cost.crossings(self.layer, mixer, home, (on_gpu, on_cpu));
        let crossing = self.cost.crossing(self.cost.vectors());
        if !on_gpu {
            let rendezvous = crossings * crossing;
            return LayerTime { attention, cpu, together: cpu, rendezvous, ..LayerTime::default() };
        }
        let (first, hot) = self.kernels();
        let before = first * device.gpu.kernel + self.mean(|part| part.before);
        let gpu = hot * device.gpu.kernel + self.mean(|part| part.gpu);
        if !on_cpu {
            return LayerTime { attention, before, gpu, together: gpu, rendezvous: crossings * crossing, cpu };
        }
        // The CPU has the input, and the list, after a while, and the card its answer.
        let away = cpu + self.cost.crossing(self.cost.vectors() + self.mean(|part| part.listed));
        let deviation = self.deviation();
        let longer: f64 = NORMAL.iter().map(|z| (away - gpu + z * deviation).max(0.0)).sum();
        let together = gpu + longer / NORMAL.len() as f64;
        LayerTime { attention, before, gpu, cpu, together, rendezvous: (crossings - 1.0) * crossing }
    }

    /// What a divided layer takes beside what its groups add, mixer and router on the card: with the whole mask of a group
    /// there, with those of all that are not hot as a whole, with hot neurons.
    pub fn fixed(&self, home: Place, a_mask: bool, all_masks: bool, hot: bool) -> SidesTime {
        let Some(device) = &self.cost.hardware.device else { return SidesTime::default() };
        let kernel = device.gpu.kernel;
        let apart = |g: &GroupWork| GroupKernels::of(g, &GroupChoice { mask: a_mask, predictor: false, n_hot: 1 });
        let kernels = self.layer.groups.iter().map(apart);
        let least = kernels.map(|k| (k.before, k.hot)).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1))).unwrap_or_default();
        let crossings = self.cost.crossings(self.layer, true, home, (true, true)) - 1.0;
        let crossing = self.cost.crossing(self.cost.vectors());
        SidesTime {
            before: self.cost.mixer_on_gpu(device, self.layer) + least.0 * kernel + crossings * crossing,
            gpu: if hot { least.1 * kernel } else { 0.0 },
            cpu: self.regions(all_masks) + crossing,
        }
    }

    /// What group `at` adds on average, when `part` is what it takes.
    pub fn mean_of(&self, at: usize, part: &GroupPart) -> SidesTime {
        let chosen = self.layer.groups[at].chosen;
        let bus = self.cost.hardware.device.as_ref().map_or(f64::INFINITY, |d| d.bus.bandwidth);
        let cpu = chosen * (part.cpu + part.listed / bus);
        SidesTime { before: chosen * part.before, gpu: chosen * part.gpu, cpu }
    }

    /// Seconds of the card, with its kernels, and of the CPU for reading what the groups need, at full speed.
    pub fn reading(&self, mixer: bool) -> (f64, f64) {
        let (first, hot) = self.kernels();
        let whole = if mixer { super::mixer::kernels(self.layer) } else { 0.0 };
        let kernels = self.cost.hardware.device.as_ref().map_or(0.0, |d| (first + hot + whole) * d.gpu.kernel);
        (kernels + self.mean(|part| part.reading.0), self.mean(|part| part.reading.1))
    }
}
