//! From scores to decisions: a bias per neuron with which a layer keeps its share of activation mass at the least cost.
//!
//! All neurons of a layer cost the same, so it is best to fetch those whose expected mass, given their score, is above
//! one common limit. The expectation follows from a model of each neuron: pre-activation = slope * score + offset +
//! normal noise, fitted to all tokens and not only to those where it fires, so that neurons that rarely fire get a
//! sound threshold, too. The limit is then found from measured mass, not from the model.

use super::data::{Truth, by_neuron};
use crate::model::Activation;
use crate::parallel;

/// Bias of neurons that are active for every token.
pub const ALWAYS: f32 = 1e30;
/// Bias of neurons that are active for none.
pub const NEVER: f32 = -1e30;
/// A score this many standard deviations from its mean counts as out of reach.
const OUT_OF_REACH: f64 = 8.0;
/// A neuron's noise counts as at least this share of its spread.
const LEAST_NOISE: f64 = 1e-3;
/// Correlation of score and pre-activation below which the score says nothing.
const USELESS: f64 = 0.02;

/// The expectation of an activation whose pre-activation is normal with variance 1, by its mean.
pub(super) struct Expected {
    /// Its logarithm to base 2, at [`LOW`] + i / [`STEPS`].
    log: Vec<f64>,
    /// 2 if the activation is squared.
    power: i32,
}

/// Anything less counts as this.
const LOW: f64 = -12.0;
/// From here on the activation is the pre-activation.
const HIGH: f64 = 8.0;
/// Table entries per unit.
const STEPS: f64 = 32.0;

impl Expected {
    /// The table of an activation.
    pub fn new(activation: Activation) -> Self {
        let power = if activation == Activation::Relu2 { 2 } else { 1 };
        let n = ((HIGH - LOW) * STEPS) as usize + 1;
        let at = |i: usize| LOW + i as f64 / STEPS;
        Self { log: parallel::map(0..n, |_, i| integral(at(i), power).log2()), power }
    }

    /// At mean `t`.
    fn log(&self, t: f64) -> f64 {
        if t >= HIGH {
            return f64::from(self.power) * t.log2();
        }
        let place = (t.max(LOW) - LOW) * STEPS;
        let i = (place as usize).min(self.log.len() - 2);
        let part = place - i as f64;
        self.log[i] * (1.0 - part) + self.log[i + 1] * part
    }

    /// The mean at which it is `log`.
    fn mean(&self, log: f64) -> f64 {
        let i = self.log.partition_point(|l| *l < log);
        match i {
            0 => LOW,
            i if i == self.log.len() => (log / f64::from(self.power)).exp2().max(HIGH),
            i => {
                let (below, above) = (self.log[i - 1], self.log[i]);
                LOW + (i as f64 - 1.0 + (log - below) / (above - below)) / STEPS
            }
        }
    }
}

/// The integral of `u^power` over the normal density around `t`, from 0 on: all terms are positive, so none cancel.
fn integral(t: f64, power: i32) -> f64 {
    const N: usize = 4000;
    let end = t.max(0.0) + 12.0;
    let step = end / N as f64;
    let value = |i: usize| {
        let u = i as f64 * step;
        let weight = if i == N { 1.0 } else { [2.0, 4.0][i % 2] };
        weight * u.powi(power) * (-(u - t).powi(2) / 2.0).exp()
    };
    (0..=N).map(value).sum::<f64>() * step / 3.0 / (2.0 * std::f64::consts::PI).sqrt()
}

/// One neuron: its pre-activation divided by `noise` is normal with variance 1 and mean `slope * score + offset`.
#[derive(Debug, Clone, Copy)]
struct Neuron {
    slope: f64,
    offset: f64,
    /// Logarithm of the expected mass where [`Expected::log`] is 0.
    log_scale: f64,
    /// Mean and standard deviation of the score.
    score: (f64, f64),
}

impl Neuron {
    /// Logarithm of the mass expected at a score.
    fn log_mass(&self, score: f64, expected: &Expected) -> f64 {
        self.log_scale + expected.log(self.slope * score + self.offset)
    }
}

/// Fits all neurons by least squares.
fn neurons(scores: &[f32], truth: &Truth, expected: &Expected) -> Vec<Neuron> {
    let n = truth.n as f64;
    by_neuron(truth.n_ff, |range| {
        let mut sums = vec![[0.0f64; 5]; range.len()];
        for (s, z) in scores.chunks_exact(truth.n_ff).zip(truth.z.chunks_exact(truth.n_ff)) {
            for (sums, (s, z)) in sums.iter_mut().zip(s[range.clone()].iter().zip(&z[range.clone()])) {
                let (s, z) = (f64::from(*s), f64::from(*z));
                for (sum, v) in sums.iter_mut().zip([s, z, s * s, z * z, s * z]) {
                    *sum += v;
                }
            }
        }
        let neuron = |([s, z, ss, zz, sz], gain): ([f64; 5], &f32)| {
            let (s, z) = (s / n, z / n);
            let (var_s, var_z, both) = ((ss / n - s * s).max(0.0), (zz / n - z * z).max(0.0), sz / n - s * z);
            let product = (var_s * var_z).sqrt();
            let useful = product > 0.0 && both / product > USELESS;
            let slope = if useful { both / var_s } else { 0.0 };
            let spread = var_z.sqrt().max(1e-6 * z.abs()).max(1e-20);
            let rest = if useful { (var_z - slope * both).max(0.0).sqrt() } else { spread };
            let noise = rest.max(LEAST_NOISE * spread);
            let log_scale = f64::from(gain.max(f32::MIN_POSITIVE)).log2() + f64::from(expected.power) * noise.log2();
            Neuron { slope: slope / noise, offset: (z - slope * s) / noise, log_scale, score: (s, var_s.sqrt()) }
        };
        sums.into_iter().zip(&truth.gain[range.clone()]).map(neuron).collect()
    })
}

/// Bins of [`Limit::find`] per factor of 2, and how many factors of 2 they cover.
const BINS: f64 = 64.0;
const OCTAVES: f64 = 80.0;

/// Finds the highest limit (a logarithm) that keeps `target` of the mass, where neurons in `always` are fetched anyway.
fn limit(scores: &[f32], truth: &Truth, neurons: &[Neuron], expected: &Expected, always: &[bool], target: f64) -> f64 {
    let n_bins = (OCTAVES * BINS) as usize;
    let highest = neurons.iter().map(|n| n.log_mass(n.score.0 + OUT_OF_REACH * n.score.1, expected));
    let top = highest.fold(f64::NEG_INFINITY, f64::max);
    let parts = parallel::map((0..truth.n).step_by(TOKENS), |_, start| {
        let mut bins = vec![0.0f64; n_bins];
        for token in start..(start + TOKENS).min(truth.n) {
            let row = token * truth.n_ff..(token + 1) * truth.n_ff;
            for (i, (mass, score)) in truth.mass[row.clone()].iter().zip(&scores[row]).enumerate() {
                if *mass > 0.0 {
                    let down = (top - neurons[i].log_mass(f64::from(*score), expected)) * BINS;
                    // Rounded down: everything in a bin is above its lower edge.
                    let bin = if always[i] { 0 } else { (down.max(0.0) as usize).min(n_bins - 1) };
                    bins[bin] += f64::from(*mass);
                }
            }
        }
        bins
    });
    let mut bins = vec![0.0; n_bins];
    for part in parts {
        bins.iter_mut().zip(part).for_each(|(b, p)| *b += p);
    }
    let wanted = target * bins.iter().sum::<f64>();
    if wanted <= 0.0 {
        // If nothing was seen to fire, nothing is known about what does.
        return f64::NEG_INFINITY;
    }
    let mut kept = 0.0;
    for (i, mass) in bins.iter().enumerate() {
        kept += mass;
        if kept >= wanted && i + 1 < n_bins {
            return top - (i + 1) as f64 / BINS;
        }
    }
    // All of the mass: every neuron, however little is expected of it.
    f64::NEG_INFINITY
}

/// Tokens summed in one piece.
const TOKENS: usize = 64;

/// A bias per neuron, such that `target` (0 to 1) of the activation mass of these tokens is in neurons with
/// score + bias >= 0.
///
/// `scores`: `[n][n_ff]`. A neuron becomes [`ALWAYS`] active if it would be inactive for less than `break_even` of the
/// tokens: scoring it would cost more than its mask row.
pub(super) fn calibrate(scores: &[f32], truth: &Truth, expected: &Expected, target: f64, break_even: f64) -> Vec<f32> {
    let neurons = neurons(scores, truth, expected);
    let mut always = vec![false; truth.n_ff];
    let found = limit(scores, truth, &neurons, expected, &always, target);
    let bias = biases(&neurons, expected, found);
    let n = truth.n as f64;
    always = by_neuron(truth.n_ff, |range| {
        let mut active = vec![0u32; range.len()];
        for s in scores.chunks_exact(truth.n_ff) {
            for (active, (s, b)) in active.iter_mut().zip(s[range.clone()].iter().zip(&bias[range.clone()])) {
                *active += u32::from(s + b >= 0.0);
            }
        }
        active.into_iter().map(|a| f64::from(a) >= (1.0 - break_even) * n).collect()
    });
    let found = limit(scores, truth, &neurons, expected, &always, target);
    let mut bias = biases(&neurons, expected, found);
    bias.iter_mut().zip(&always).filter(|(_, always)| **always).for_each(|(b, _)| *b = ALWAYS);
    bias
}

fn biases(neurons: &[Neuron], expected: &Expected, limit: f64) -> Vec<f32> {
    let bias = |n: &Neuron| {
        if limit == f64::NEG_INFINITY {
            return ALWAYS;
        }
        if n.slope <= 0.0 {
            // The score says nothing: the decision is the same for all tokens.
            return if n.log_mass(n.score.0, expected) >= limit { ALWAYS } else { NEVER };
        }
        let threshold = (expected.mean(limit - n.log_scale) - n.offset) / n.slope;
        if threshold < n.score.0 - OUT_OF_REACH * n.score.1 { ALWAYS } else { (-threshold) as f32 }
    };
    neurons.iter().map(bias).collect()
}

/// What a predictor does on some tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Measured {
    /// Pairs of token and neuron.
    pub pairs: f64,
    /// Pairs that are active.
    pub active: f64,
    /// Pairs that fired.
    pub fired: f64,
    /// Pairs that are active and fired.
    pub hit: f64,
    /// Mass of all pairs.
    pub mass: f64,
    /// Mass of active pairs.
    pub mass_hit: f64,
}

/// Counts what biases do on the tokens of `truth`. `scores`: `[n][n_ff]`.
pub(super) fn measure(scores: &[f32], truth: &Truth, bias: &[f32]) -> Measured {
    let (step, n_ff) = (TOKENS * truth.n_ff, truth.n_ff);
    let pieces = scores.chunks(step).zip(truth.z.chunks(step)).zip(truth.mass.chunks(step));
    let parts = parallel::map(pieces, |_, ((scores, z), mass)| {
        let (mut active, mut fired, mut hit) = (0u64, 0u64, 0u64);
        let (mut all, mut kept) = (0.0f64, 0.0f64);
        for ((scores, z), mass) in scores.chunks(n_ff).zip(z.chunks(n_ff)).zip(mass.chunks(n_ff)) {
            for (((s, b), z), m) in scores.iter().zip(bias).zip(z).zip(mass) {
                let (a, f) = (s + b >= 0.0, *z > 0.0);
                active += u64::from(a);
                fired += u64::from(f);
                hit += u64::from(a & f);
                all += f64::from(*m);
                kept += if a { f64::from(*m) } else { 0.0 };
            }
        }
        let pairs = scores.len() as f64;
        Measured { pairs, active: active as f64, fired: fired as f64, hit: hit as f64, mass: all, mass_hit: kept }
    });
    parts.into_iter().fold(Measured::default(), |a, b| Measured {
        pairs: a.pairs + b.pairs,
        active: a.active + b.active,
        fired: a.fired + b.fired,
        hit: a.hit + b.hit,
        mass: a.mass + b.mass,
        mass_hit: a.mass_hit + b.mass_hit,
    })
}

fn ratio(part: f64, whole: f64, empty: f64) -> f32 {
    (if whole > 0.0 { part / whole } else { empty }) as f32
}

impl Measured {
    /// Share of the mass that is kept.
    pub fn recall(&self) -> f32 {
        ratio(self.mass_hit, self.mass, 1.0)
    }

    /// Share of the firings that are active.
    pub fn recall_count(&self) -> f32 {
        ratio(self.hit, self.fired, 1.0)
    }

    /// Share of the active neurons that fired.
    pub fn precision(&self) -> f32 {
        ratio(self.hit, self.active, 1.0)
    }

    /// Share of neurons that are active.
    pub fn active(&self) -> f32 {
        ratio(self.active, self.pairs, 0.0)
    }

    /// Share of neurons that fired.
    pub fn fired(&self) -> f32 {
        ratio(self.fired, self.pairs, 0.0)
    }

    /// Share of neurons that are active and fired: their other rows are read.
    pub fn hit(&self) -> f32 {
        ratio(self.hit, self.pairs, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal numbers, by summing uniform ones.
    fn normals(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f32 / (1u64 << 31) as f32 - 0.5
        };
        (0..n).map(|_| (0..12).map(|_| next()).sum()).collect()
    }

    fn truth(scores: &[f32], noise: f32, n_ff: usize, seed: u64) -> Truth {
        let n = scores.len() / n_ff;
        let noises = normals(scores.len(), seed);
        let z: Vec<f32> =
            scores.iter().zip(noises).enumerate().map(|(i, (s, e))| s + noise * e - (i % n_ff) as f32 / 10.0).collect();
        let mass = z.iter().map(|z| z.max(0.0)).collect();
        Truth { n, n_ff, z, mass, gain: vec![1.0; n_ff], opened_per_fired: 1.0 }
    }

    #[test]
    fn expectations_are_those_of_the_normal_distribution() {
        let e = Expected::new(Activation::Relu);
        assert!((e.log(0.0).exp2() - 0.398_942_28).abs() < 1e-6);
        assert!((e.log(2.0).exp2() - 2.008_490_7).abs() < 1e-4);
        assert!((e.log(-4.0).exp2() / 7.145e-6 - 1.0).abs() < 1e-2, "{}", e.log(-4.0).exp2());
        for t in [-11.0, -3.3, 0.01, 2.0, 7.9, 30.0] {
            assert!((e.mean(e.log(t)) - t).abs() < 1e-6, "{t}");
        }
        assert!((Expected::new(Activation::Relu2).log(0.0).exp2() - 0.5).abs() < 1e-6);
    }

    #[test]
    fn the_target_holds_on_tokens_that_were_not_seen() {
        let n_ff = 24;
        let expected = Expected::new(Activation::Relu);
        let (known, unseen) = (normals(n_ff * 4000, 1), normals(n_ff * 4000, 2));
        for target in [0.9, 0.99, 0.999] {
            let bias = calibrate(&known, &truth(&known, 0.4, n_ff, 3), &expected, target, 0.0);
            let measured = measure(&unseen, &truth(&unseen, 0.4, n_ff, 4), &bias);
            assert!(
                (f64::from(measured.recall()) - target).abs() < 0.1 * (1.0 - target) + 2e-3,
                "{target}: {measured:?}"
            );
            assert!(measured.precision() > 0.2);
        }
    }

    #[test]
    fn a_neuron_that_is_nearly_always_active_is_not_scored() {
        let n_ff = 2;
        let scores = normals(n_ff * 1000, 1);
        let mut truth = truth(&scores, 0.1, n_ff, 2);
        for z in truth.z.chunks_exact_mut(n_ff) {
            z[0] += 2.0;
        }
        truth.mass = truth.z.iter().map(|z| z.max(0.0)).collect();
        let bias = calibrate(&scores, &truth, &Expected::new(Activation::Relu), 0.99, 0.1);
        assert!(bias[0] >= ALWAYS && bias[1] < ALWAYS, "{bias:?}");
        assert!(calibrate(&scores, &truth, &Expected::new(Activation::Relu), 1.0, 0.0).iter().all(|b| b.is_finite()));
    }
}
