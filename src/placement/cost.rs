//! How long a token takes: seconds per layer, by what is computed where.
//!
//! Decoding reads weights; what a side reads, divided by how fast it reads it, and a fixed cost per piece of work is its
//! time. Where both sides work on a layer it takes as long as the slower one, on average over how many cold neurons
//! fire, and a rendezvous.

mod mixer;
mod routed;

pub(super) use routed::{Routed, SidesTime};

use super::budget::tokens_per_pass;
use super::choice::{GroupChoice, LayerChoice, Place, Run};
use super::fired::{Fired, Sums};
use super::hardware::{Bandwidths, Cpu, Device, Hardware};
use super::workload::{GroupWork, LayerWork, NeuronRows, NeuronStats, Whole, Workload};
use crate::model::Mode;
use crate::quant::GgmlType;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Kernels that name the cold neurons by the card's own mask: the product, and the list that is posted. With a predictor
/// it is the list alone, and without either what posts the input.
const COLD_KERNELS: f64 = 2.0;
/// Kernels of the head: norm, product.
const HEAD_KERNELS: f64 = 2.0;
/// Bytes of an entry in the list of active neurons: its slot and its activation.
const LIST_ENTRY: f64 = 8.0;

/// Seconds that one layer takes for a token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LayerTime {
    /// Attention or another mixer, and the router, wherever they are.
    pub attention: f64,
    /// What the card does before the FFN is divided: the norm, the mask of cold neurons, or the predictor.
    pub before: f64,
    /// The card's part of the FFN, on average.
    pub gpu: f64,
    /// The CPU's part, on average.
    pub cpu: f64,
    /// Both at once, the CPU's part with handing over: the mean of the larger one.
    pub together: f64,
    /// Handing over between the sides while neither computes.
    pub rendezvous: f64,
}

impl LayerTime {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.attention + self.before + self.together + self.rendezvous
    }
}

/// The time model of one model on one machine.
pub struct Cost<'a> {
    hardware: &'a Hardware,
    work: &'a Workload,
    run: &'a Run,
    /// By layer, then group; none of layers with a router.
    fired: Vec<Vec<Fired<'a>>>,
    /// By rates and prefix what was added up already: groups that are alike are many.
    sums: RefCell<HashMap<(*const NeuronStats, usize), Sums>>,
}

/// What a group takes where a card has a part of its layer.
#[derive(Default)]
struct GroupTime {
    before: f64,
    gpu: f64,
    cpu: f64,
    together: f64,
}

/// Kernels of a group of neurons.
#[derive(Default)]
struct GroupKernels {
    /// Until the CPU has its part: the norm, and what names or posts cold neurons, but for the predictor's own.
    before: f64,
    /// For the hot ones.
    hot: f64,
}

impl GroupKernels {
    fn of(group: &GroupWork, choice: &GroupChoice) -> Self {
        let divided = choice.n_hot < group.n_ff();
        let cold = match () {
            () if !divided => 0.0,
            () if choice.mask => COLD_KERNELS,
            () => 1.0,
        };
        // The mask with its list; gate and up are one kernel where they are of one type and all of the mask is not there.
        let apart = |up: NeuronRows| choice.mask || up.dtype != group.mask.dtype;
        let up = f64::from(u8::from(group.up.is_some_and(apart)));
        let down = 1.0;
        Self { before: 1.0 + cold, hot: if choice.n_hot > 0 { 2.0 + up + down } else { 0.0 } }
    }
}

/// Ways of reading weights.
#[derive(Clone, Copy)]
enum Way {
    Dot { listed: bool },
    Add { listed: bool },
}

/// Seconds for reading `bytes` of `dtype` in one of four ways, each of which `tokens` tokens want: with more than one, reading or
/// the arithmetic of all of them, whichever takes longer.
fn seconds(bandwidths: &Bandwidths, dtype: GgmlType, way: Way, bytes: f64, tokens: f64) -> f64 {
    let b = bandwidths.of(dtype);
    let reading = bytes
        / match way {
            Way::Dot { listed: false } => b.stream,
            Way::Dot { listed: true } => b.gather,
            Way::Add { listed: false } => b.add_stream,
            Way::Add { listed: true } => b.add_gather,
        };
    if tokens > 1.0 { reading.max(bytes * tokens / b.several) } else { reading }
}

fn all_of(bandwidths: &Bandwidths, block: Whole, tokens: f64) -> f64 {
    seconds(bandwidths, block.dtype, Way::Dot { listed: false }, block.bytes as f64, tokens)
}

fn rows(bandwidths: &Bandwidths, rows: NeuronRows, way: Way, n: f64, tokens: f64) -> f64 {
    seconds(bandwidths, rows.dtype, way, n * rows.row_bytes as f64, tokens)
}

/// Seconds per neuron that `tokens` tokens want, for so many rows of up and one of down.
fn per_neuron(bandwidths: &Bandwidths, group: &GroupWork, opened: f64, listed: bool, tokens: f64) -> f64 {
    let up = group.up.map_or(0.0, |up| rows(bandwidths, up, Way::Dot { listed }, opened, tokens));
    up + rows(bandwidths, group.down, Way::Add { listed }, 1.0, tokens)
}

impl<'a> Cost<'a> {
    /// The model for running `work` on `hardware`.
    pub fn new(hardware: &'a Hardware, work: &'a Workload, run: &'a Run) -> Self {
        // Groups that a router chooses are added up where they are needed: there may be tens of thousands.
        let of_layer = |l: &'a LayerWork| match l.is_routed() {
            true => Vec::new(),
            false => l.groups.iter().map(|g| Fired::new(&g.stats)).collect(),
        };
        Self { hardware, work, run, fired: work.layers.iter().map(of_layer).collect(), sums: RefCell::default() }
    }

    /// What fires of `group` before and behind its first `n_hot` neurons.
    pub fn sums(&self, group: &'a GroupWork, n_hot: usize) -> Sums {
        let key = (Arc::as_ptr(&group.stats), n_hot);
        *self.sums.borrow_mut().entry(key).or_insert_with(|| Sums::of(&group.stats, n_hot))
    }

    fn cpu(&self) -> &'a Cpu {
        &self.hardware.cpu
    }

    /// Tokens of a pass.
    fn tokens(&self) -> f64 {
        tokens_per_pass(self.hardware.device.is_some(), self.work, self.run) as f64
    }

    /// Seconds of a crossing there and back with `bytes` in all; 0 where there is nothing to cross to.
    fn crossing(&self, bytes: f64) -> f64 {
        self.hardware.device.as_ref().map_or(0.0, |d| d.bus.rendezvous + bytes / d.bus.bandwidth)
    }

    /// Bytes of vectors as long as the residual stream, one of each token, there and back.
    fn vectors(&self) -> f64 {
        8.0 * self.work.n_embd as f64 * self.tokens()
    }

    /// Seconds of layer `i` under `choice` when the residual stream lives at `home`. `scratch` is kept for its memory
    /// only. Groups are computed one after the other, each as long as the slower side of it; those of a router at once.
    pub fn layer(&self, i: usize, choice: &LayerChoice, home: Place, scratch: &mut Vec<f64>) -> LayerTime {
        let layer = &self.work.layers[i];
        if layer.is_routed() {
            return Routed::with(self, i, &choice.groups).time(choice.attention, home);
        }
        let Some(device) = &self.hardware.device else { return self.layer_on_cpu(i, scratch) };
        if !choice.has_ffn() {
            let mut time = self.layer_on_cpu(i, scratch);
            if choice.attention {
                time.attention = self.mixer_on_gpu(device, layer);
            }
            time.rendezvous = self.crossings(layer, choice.attention, home, (false, !layer.groups.is_empty()))
                * self.crossing(self.vectors());
            return time;
        }
        let mut all = GroupTime::default();
        let mut divided = 0;
        for ((group, choice), fired) in layer.groups.iter().zip(&choice.groups).zip(&self.fired[i]) {
            let time = self.group(device, group, choice, fired, scratch);
            divided += usize::from(choice.n_hot < group.n_ff());
            all.before += time.before;
            all.gpu += time.gpu;
            all.cpu += time.cpu;
            all.together += time.together;
        }
        let attention = if choice.attention { self.mixer_on_gpu(device, layer) } else { self.mixer_on_cpu(layer) };
        // Those of divided groups are in the time that both sides take together.
        let crossings =
            self.crossings(layer, choice.attention, home, (true, divided > 0)) - if divided > 0 { 1.0 } else { 0.0 };
        let rendezvous = crossings * self.crossing(self.vectors());
        let GroupTime { before, gpu, cpu, together, .. } = all;
        LayerTime { attention, before, gpu, cpu, together, rendezvous }
    }

    /// A group of a layer of which the card has a part.
    fn group(
        &self,
        device: &Device,
        group: &GroupWork,
        choice: &GroupChoice,
        fired: &Fired,
        scratch: &mut Vec<f64>,
    ) -> GroupTime {
        let (cpu, gpu) = (self.cpu(), &device.gpu);
        let (n_ff, n_hot) = (group.n_ff() as f64, choice.n_hot as f64);
        let n_cold = n_ff - n_hot;
        let dense = self.run.mode == Mode::Dense;
        let predictor = group.predictor.filter(|_| self.run.mode == Mode::Predicted && !choice.mask && n_cold > 0.0);
        let (stream, n) = (Way::Dot { listed: false }, self.tokens());

        let kernels = GroupKernels::of(group, choice);
        let (mut before, mut gpu_part) = (kernels.before * gpu.kernel, kernels.hot * gpu.kernel);
        if choice.mask {
            before += rows(&gpu.bandwidth, group.mask, stream, n_cold, n);
        }
        gpu_part += rows(&gpu.bandwidth, group.mask, stream, n_hot, n);
        let wanted = if dense { n } else { fired.wanted_per_cold(choice.n_hot) };
        let (hot_fired, hot_opened, cold_opened) = match dense {
            true => (n_hot, 1.0, 1.0),
            false => (fired.hot(choice.n_hot), fired.opened_per_hot(choice.n_hot), fired.opened_per_cold(choice.n_hot)),
        };
        gpu_part += hot_fired * per_neuron(&gpu.bandwidth, group, hot_opened, !dense, n);
        let (mut cpu_fixed, mut per_active, mut ratio) = (0.0, 0.0, 0.0);
        if let Some(p) = predictor {
            let scored = p.bytes(group.n_ff(), choice.n_hot) as f64;
            if choice.predictor {
                before += seconds(&gpu.bandwidth, p.dtype, stream, scored, n) + p.regions() * gpu.kernel;
            } else {
                cpu_fixed += seconds(&cpu.bandwidth, p.dtype, stream, scored, n) + p.regions() * cpu.region;
            }
            let each = rows(&cpu.bandwidth, group.mask, Way::Dot { listed: true }, 1.0, wanted);
            (ratio, per_active) = (p.active_per_fired, each);
        } else if !choice.mask {
            cpu_fixed += rows(&cpu.bandwidth, group.mask, stream, n_cold, n);
        }
        let mut time = GroupTime { before, gpu: gpu_part, ..GroupTime::default() };
        if n_cold > 0.0 {
            let regions = f64::from(u8::from(!choice.mask)) + f64::from(u8::from(group.up.is_some())) + 1.0;
            let looked_at = if choice.mask || choice.predictor { 0.0 } else { 3.0 * n_cold };
            cpu_fixed += regions * cpu.region + n * (3.0 * self.work.n_embd as f64 + looked_at) * cpu.value;
            let each = per_neuron(&cpu.bandwidth, group, cold_opened, !dense, wanted);
            if dense {
                scratch.clear();
                scratch.push(n_cold);
            } else {
                fired.cold_quantiles(choice.n_hot, scratch);
            }
            let n_quantiles = scratch.len() as f64;
            let cpu_at = |q: f64| cpu_fixed + q * each + (q * ratio).min(n_cold) * per_active;
            let listed = match () {
                () if choice.mask => LIST_ENTRY * cold_opened * wanted,
                () if choice.predictor => LIST_ENTRY * ratio * wanted,
                () => 0.0,
            };
            // The CPU has the input, and the list, after a while, and the card its answer.
            let away_at = |q: f64| cpu_at(q) + self.crossing(self.vectors() + q * listed);
            time.cpu = scratch.iter().map(|q| cpu_at(*q)).sum::<f64>() / n_quantiles;
            time.together = scratch.iter().map(|q| away_at(*q).max(gpu_part)).sum::<f64>() / n_quantiles;
        } else {
            time.together = gpu_part;
        }
        time
    }

    /// How often a layer crosses from one side to the other and back, whose mixer is on the card or not, and its FFN, too:
    /// on the card, on the CPU, or on both. Nothing where all of it is at home.
    fn crossings(&self, layer: &LayerWork, mixer: bool, home: Place, (ffn_on_gpu, ffn_on_cpu): (bool, bool)) -> f64 {
        let divided = ffn_on_gpu && ffn_on_cpu;
        let mixer_away = mixer != home.is_card() && !layer.blocks.is_empty();
        let ffn_away = if home.is_card() { ffn_on_cpu } else { ffn_on_gpu };
        match (mixer_away, ffn_away) {
            (false, false) => 0.0,
            // A mixer and all of the FFN away is one journey; with the FFN divided it is two.
            (true, true) if divided => 2.0,
            _ => 1.0,
        }
    }

    /// Seconds of layer `i` without a graphics card.
    fn layer_on_cpu(&self, i: usize, scratch: &mut Vec<f64>) -> LayerTime {
        let layer = &self.work.layers[i];
        let groups = layer.groups.iter().zip(&self.fired[i]);
        let ffn = groups.fold(0.0, |sum, (group, fired)| sum + self.group_on_cpu(group, fired, scratch));
        LayerTime { attention: self.mixer_on_cpu(layer), cpu: ffn, together: ffn, ..LayerTime::default() }
    }

    fn group_on_cpu(&self, group: &GroupWork, fired: &Fired, scratch: &mut Vec<f64>) -> f64 {
        let cpu = self.cpu();
        let bandwidth = &cpu.bandwidth;
        let n_ff = group.n_ff() as f64;
        let mode = self.run.mode;
        let predictor = group.predictor.filter(|_| mode == Mode::Predicted);
        let regions = 2.0 + f64::from(u8::from(group.up.is_some())) + predictor.map_or(0.0, |p| p.regions());
        let looked_at = if mode == Mode::Dense { 1.0 } else { 3.0 };
        let n = self.tokens();
        let wanted = if mode == Mode::Dense { n } else { fired.wanted_per_cold(0) };
        let mut ffn = regions * cpu.region + n * (3.0 * self.work.n_embd as f64 + looked_at * n_ff) * cpu.value;
        let active = match (mode, predictor) {
            (Mode::Dense, _) => n_ff,
            (_, Some(p)) => {
                ffn += seconds(bandwidth, p.dtype, Way::Dot { listed: false }, p.bytes(group.n_ff(), 0) as f64, n);
                fired.cold_quantiles(0, scratch);
                let active: f64 = scratch.iter().map(|q| (q * p.active_per_fired).min(n_ff)).sum();
                ffn += rows(bandwidth, group.mask, Way::Dot { listed: true }, active / scratch.len() as f64, wanted);
                fired.cold(0)
            }
            (_, None) => fired.cold(0),
        };
        if predictor.is_none() {
            ffn += rows(bandwidth, group.mask, Way::Dot { listed: false }, n_ff, n);
        }
        let listed = mode != Mode::Dense;
        let opened = if mode == Mode::Dense { 1.0 } else { fired.opened_per_cold(0) };
        let up = group.up.map_or(0.0, |up| rows(bandwidth, up, Way::Dot { listed }, active * opened, wanted));
        let down = if group.down_by_columns {
            rows(bandwidth, group.down, Way::Dot { listed: false }, n_ff, n)
        } else {
            rows(bandwidth, group.down, Way::Add { listed }, active, wanted)
        };
        ffn + (up + down)
    }

    /// Kernels that the card runs for `layer`, one after the other.
    fn kernels(&self, layer: &LayerWork, choice: &LayerChoice) -> f64 {
        let mut n = if choice.attention { mixer::kernels(layer) } else { 0.0 };
        for (group, choice) in layer.groups.iter().zip(&choice.groups).filter(|_| choice.has_ffn()) {
            let GroupKernels { before, hot } = GroupKernels::of(group, choice);
            let asked = self.run.mode == Mode::Predicted && choice.predictor && choice.n_hot < group.n_ff();
            n += before + hot + group.predictor.filter(|_| asked).map_or(0.0, |p| p.regions());
        }
        n
    }

    /// Seconds on the card and on the CPU for reading what layer `i` needs, at the full speed of each memory: the weights
    /// of what fires, without keys and values. The card's kernels take their time beside it.
    pub fn reading(&self, i: usize, choice: &LayerChoice) -> (f64, f64) {
        let layer = &self.work.layers[i];
        let cpu = &self.cpu().bandwidth;
        let gpu = self.hardware.device.as_ref().map_or(cpu, |d| &d.gpu.bandwidth);
        let side = if choice.attention { gpu } else { cpu };
        let attention = layer.blocks.iter().map(|(_, b)| all_of(side, *b, 1.0)).sum::<f64>();
        let (mut on_gpu, mut on_cpu) = if choice.attention { (attention, 0.0) } else { (0.0, attention) };
        if layer.is_routed() {
            let (gpu, cpu) = Routed::with(self, i, &choice.groups).reading(choice.attention);
            return (on_gpu + gpu, on_cpu + cpu);
        }
        on_gpu += self.hardware.device.as_ref().map_or(0.0, |d| self.kernels(layer, choice) * d.gpu.kernel);
        for ((group, choice), fired) in layer.groups.iter().zip(&choice.groups).zip(&self.fired[i]) {
            let stream = Way::Dot { listed: false };
            let n_ff = group.n_ff() as f64;
            let dense = self.run.mode == Mode::Dense;
            let (hot, all) = if dense { (choice.n_hot as f64, n_ff) } else { (fired.hot(choice.n_hot), fired.cold(0)) };
            let cold = all - hot;
            let of = |side: &Bandwidths, n: f64, rows: NeuronRows| {
                seconds(side, rows.dtype, stream, n * rows.row_bytes as f64, 1.0)
            };
            let neurons = |side: &Bandwidths, n: f64, opened: f64| {
                let opened = if dense { 1.0 } else { opened };
                group.up.map_or(0.0, |up| of(side, n * opened, up)) + of(side, n, group.down)
            };
            on_gpu += neurons(gpu, hot, fired.opened_per_hot(choice.n_hot));
            on_cpu += neurons(cpu, cold, fired.opened_per_cold(choice.n_hot));
            let n_mask = if choice.mask { n_ff } else { choice.n_hot as f64 };
            on_gpu += of(gpu, n_mask, group.mask);
            let n_cold = n_ff - n_mask;
            match group.predictor.filter(|_| self.run.mode == Mode::Predicted && !choice.mask && n_cold > 0.0) {
                Some(p) => {
                    let side = if choice.predictor { gpu } else { cpu };
                    let scored = seconds(side, p.dtype, stream, p.bytes(group.n_ff(), choice.n_hot) as f64, 1.0);
                    *(if choice.predictor { &mut on_gpu } else { &mut on_cpu }) += scored;
                    on_cpu += of(cpu, (cold * p.active_per_fired).min(n_cold), group.mask);
                }
                None => on_cpu += of(cpu, n_cold, group.mask),
            }
        }
        (on_gpu, on_cpu)
    }

    /// The same for the head.
    pub fn reading_head(&self, on_gpu: bool) -> (f64, f64) {
        match self.hardware.device.as_ref().filter(|_| on_gpu) {
            Some(device) => {
                (all_of(&device.gpu.bandwidth, self.work.head, 1.0) + HEAD_KERNELS * device.gpu.kernel, 0.0)
            }
            None => (0.0, all_of(&self.cpu().bandwidth, self.work.head, 1.0)),
        }
    }

    /// Seconds of the head, on the card or not, with what brings the residual stream there and the logits back.
    pub fn head(&self, on_gpu: bool, home: Place) -> f64 {
        let cpu = self.cpu();
        let (away, n) = (on_gpu != home.is_card(), self.tokens());
        let crossing = if away { self.crossing(self.vectors()) } else { 0.0 };
        match &self.hardware.device {
            Some(device) if on_gpu => {
                let logits = n * 4.0 * self.work.n_vocab as f64 / device.bus.bandwidth;
                all_of(&device.gpu.bandwidth, self.work.head, n) + HEAD_KERNELS * device.gpu.kernel + logits + crossing
            }
            _ => {
                let values = 3.0 * self.work.n_embd as f64 + self.work.n_vocab as f64;
                all_of(&cpu.bandwidth, self.work.head, n) + cpu.region + n * values * cpu.value + crossing
            }
        }
    }

    /// Seconds per token beside layers and head: the token's embedding goes to the card, if that is home.
    pub fn token(&self, home: Place) -> f64 {
        if home.is_card() { self.crossing(self.vectors()) } else { 0.0 }
    }
}
