//! Trains the two-layer predictor of PowerInfer (arXiv 2312.12456, section 5.1).
//!
//! Scores are `w2 . relu(w1 . x + b1)`, and a neuron is active if its score plus `b2` is not negative. The loss is the
//! binary cross-entropy of "fires", in which each firing is weighted by its mass: outputs therefore rank neurons by the
//! mass expected of them, which is what a target of recalled mass needs.
//!
//! The same training gives the same bytes for any number of threads: batches, blocks of rows, and the order in which their
//! parts are added up are fixed.
//!
//! Memory, beyond the inputs: some `32 * hidden * (n_embd + n_ff)` bytes for weights with their state, and `batch * (8
//! * n_ff + 8 * n_embd + 140 * hidden)` for a batch of at most 512 samples; 0.4 GB for 7B models at 512 hidden units.

mod firings;
mod net;
mod rounding;
mod size;
#[cfg(test)]
mod tests;

pub use firings::Firings;
pub use size::{Evaluation, fit_size, initial_hidden};

use super::linalg::{View, multiply_into};
use crate::parallel;
use crate::progress::{self, Progress};
use crate::quant::GgmlType;
use anyhow::{Result, bail, ensure};
use net::{Net, Scaling, Update};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rounding::Rounding;

/// Hidden sizes are multiples of this, the block of most types.
pub const HIDDEN_STEP: usize = 32;
/// The most samples per step; fewer if that would leave fewer than [`STEPS_PER_EPOCH`].
const MAX_BATCH: usize = 512;
/// See [`MAX_BATCH`].
const STEPS_PER_EPOCH: usize = 64;
/// The most held-out samples that decide when training stops.
const MAX_HELD: usize = 2048;
/// Rows scored at a time.
const SCORED_ROWS: usize = 128;
/// Epochs without improvement on the held-out samples after which training stops.
const PATIENCE: usize = 2;
/// Learning rate of a layer's weights, relative to their initial size: `1 / sqrt(inputs)`.
const RATE: f32 = 0.05;
/// Learning rate of biases.
const BIAS_RATE: f32 = 0.01;
/// Share of the learning rate by which weights shrink in each step.
const DECAY: f32 = 0.01;
/// Share of the steps in which the learning rate rises.
const WARM_UP: f32 = 0.05;
/// The last learning rate, relative to the greatest.
const LAST_RATE: f32 = 0.02;
/// Output weights begin at this share of what preserves variance, so that the first scores follow the biases.
const OUTPUT_INIT: f32 = 0.1;

/// What a predictor of one layer is trained on, and how it will be stored.
pub struct Training<'a> {
    /// Length of an input.
    pub n_embd: usize,
    /// Neurons.
    pub n_ff: usize,
    /// `[samples][n_embd]`.
    pub x: &'a [f32],
    /// What fired at these samples.
    pub fired: &'a Firings,
    /// As `x`, of samples that are not trained on but decide when to stop.
    pub held_x: &'a [f32],
    /// What fired at the held-out samples.
    pub held_fired: &'a Firings,
    /// Type in which `w1` will be stored.
    pub in_type: GgmlType,
    /// Type in which `w2` will be stored.
    pub out_type: GgmlType,
    /// The most passes over the samples. Six are enough for 50,000.
    pub epochs: usize,
    /// Seed of the first weights and of the order of samples.
    pub seed: u64,
}

/// A two-layer predictor.
///
/// What [`train`] and [`fit_size`] return is already rounded to its stored types: writing it loses nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    /// Hidden units, a multiple of [`HIDDEN_STEP`].
    pub hidden: usize,
    /// `[hidden][n_embd]`.
    pub w1: Vec<f32>,
    /// `[hidden]`.
    pub b1: Vec<f32>,
    /// `[n_ff][hidden]`.
    pub w2: Vec<f32>,
    /// `[n_ff]`: with it, outputs are log odds weighted by mass. A calibration replaces it.
    pub b2: Vec<f32>,
}

impl Mlp {
    /// Scores of inputs `[n][n_embd]`, without `b2`: `[n][n_ff]`. One thread.
    pub fn scores(&self, x: &[f32]) -> Vec<f32> {
        let (n_embd, n_ff) = (self.w1.len() / self.hidden, self.b2.len());
        let n = x.len() / n_embd;
        let (h, mut scores) = (self.hidden_units(x), vec![0.0; n * n_ff]);
        let w2 = View::new(&self.w2, n_ff, self.hidden);
        multiply_into(View::new(&h, n, self.hidden), w2.t(), &mut scores);
        scores
    }

    /// `relu(w1 . x + b1)`: `[n][hidden]`.
    fn hidden_units(&self, x: &[f32]) -> Vec<f32> {
        let n_embd = self.w1.len() / self.hidden;
        let n = x.len() / n_embd;
        let mut h = vec![0.0; n * self.hidden];
        let w1 = View::new(&self.w1, self.hidden, n_embd);
        multiply_into(View::new(x, n, n_embd), w1.t(), &mut h);
        for h in h.chunks_exact_mut(self.hidden) {
            h.iter_mut().zip(&self.b1).for_each(|(h, b)| *h = (*h + b).max(0.0));
        }
        h
    }
}

/// Trains a predictor of `hidden` units. If nothing fires, the result says so without training. `progress` is only
/// asked whether to continue, as a layer is one step of longer work.
///
/// # Errors
/// When sizes disagree, inputs are not finite, rows are not whole blocks of a type, training diverges, or the user
/// wants to stop.
pub fn train(training: &Training, hidden: usize, progress: &dyn Progress) -> Result<Mlp> {
    let trainer = Trainer::new(training)?;
    let trained = trainer.train(trainer.first(hidden)?, training.epochs, progress)?;
    Ok(trained.stored)
}

/// A training that has been checked, with what nets of all sizes share.
struct Trainer<'a> {
    training: &'a Training<'a>,
    scaling: Scaling,
    mean_mass: f32,
    n: usize,
    n_held: usize,
}

/// A predictor with the weights it was rounded from, which expect scaled inputs.
struct Trained {
    master: Mlp,
    stored: Mlp,
}

impl<'a> Trainer<'a> {
    fn new(training: &'a Training<'a>) -> Result<Self> {
        let (n_embd, n_ff) = (training.n_embd, training.n_ff);
        ensure!(
            n_embd > 0 && n_ff > 0 && training.epochs > 0,
            "a predictor needs inputs, neurons and epochs; one is 0"
        );
        for (what, x, fired) in
            [("training", training.x, training.fired), ("held-out", training.held_x, training.held_fired)]
        {
            let n = fired.len();
            ensure!(n > 0, "no {what} samples to fit a predictor to; profile more text");
            ensure!(
                n <= u32::MAX as usize && x.len() == n * n_embd && fired.n_ff() == n_ff,
                "{what} samples: {} inputs and {n} x {} activations for {n_embd} x {n_ff}",
                x.len(),
                fired.n_ff()
            );
            if let Some(i) = x.iter().position(|x| !x.is_finite()) {
                bail!("{what} sample {}: input {} is {}, not a finite number", i / n_embd, i % n_embd, x[i]);
            }
        }
        let mass: f64 = training.fired.totals().1.iter().sum();
        Ok(Self {
            training,
            scaling: Scaling::of(training),
            mean_mass: (mass / training.fired.n_fired().max(1) as f64).max(f64::from(f32::MIN_POSITIVE)) as f32,
            n: training.fired.len(),
            n_held: training.held_fired.len().min(MAX_HELD),
        })
    }

    fn roundings(&self, hidden: usize) -> Result<[Rounding; 2]> {
        let (training, whole) = (self.training, hidden > 0 && hidden.is_multiple_of(HIDDEN_STEP));
        ensure!(whole, "{hidden} hidden units, but a predictor has a multiple of {HIDDEN_STEP}");
        Ok([Rounding::new(training.in_type, training.n_embd)?, Rounding::new(training.out_type, hidden)?])
    }

    /// Initial weights; with the biases alone, outputs are the log odds of each neuron (weighted as in the loss).
    fn first(&self, hidden: usize) -> Result<Mlp> {
        self.roundings(hidden)?;
        let (n_embd, n_ff) = (self.training.n_embd, self.training.n_ff);
        let mut firing = vec![0f64; n_ff];
        let mut silent = vec![self.n as f64; n_ff];
        for sample in 0..self.n {
            for (i, mass) in self.training.fired.sample(sample) {
                firing[i] += f64::from(net::weight(mass, self.mean_mass));
                silent[i] -= 1.0;
            }
        }
        // Plus half a firing: a neuron that never fired in so few samples may still fire.
        let log_odds = firing.iter().zip(&silent).map(|(f, s)| ((f + 0.5) / (s + 1.0)).ln() as f32);
        let mut random = Random::new(self.training.seed, hidden as u64);
        Ok(Mlp {
            hidden,
            w1: random.normals(hidden * n_embd, (2.0 / n_embd as f32).sqrt()),
            b1: vec![0.0; hidden],
            w2: random.normals(n_ff * hidden, OUTPUT_INIT / (hidden as f32).sqrt()),
            b2: log_odds.collect(),
        })
    }

    /// Continues training from `start`, and keeps what was best on the held-out samples.
    fn train(&self, start: Mlp, epochs: usize, progress: &dyn Progress) -> Result<Trained> {
        let (training, hidden) = (self.training, start.hidden);
        let roundings = self.roundings(hidden)?;
        if training.fired.n_fired() == 0 {
            return Ok(self.nothing(start));
        }
        let batch = (self.n / STEPS_PER_EPOCH).next_power_of_two().clamp(HIDDEN_STEP, MAX_BATCH).min(self.n);
        let per_epoch = self.n / batch;
        let steps = epochs * per_epoch;
        let rates = [RATE / (training.n_embd as f32).sqrt(), RATE / (hidden as f32).sqrt(), BIAS_RATE];
        let mut random = Random::new(training.seed, u64::MAX - hidden as u64);
        let mut order: Vec<u32> = (0..self.n as u32).collect();
        let mut net = Net::new(training, &self.scaling, self.mean_mass, &start);
        let mut best: Option<(f64, usize, Trained)> = None;
        for epoch in 0..epochs {
            random.shuffle(&mut order);
            // Rounding noise does not help while weights are still far from their final values.
            let rounding = (epoch >= epochs / 2).then_some(&roundings);
            for (i, samples) in order.chunks_exact(batch).enumerate() {
                progress::check(progress)?;
                let step = epoch * per_epoch + i;
                let share = rate_at(step, steps);
                net.step(
                    samples,
                    rounding,
                    &Update { step: step as i32, rates: rates.map(|r| r * share), decay: DECAY },
                );
            }
            let master = net.master();
            let stored = self.store(&master, &roundings);
            let loss = self.held_loss(&stored);
            ensure!(loss.is_finite(), "training a predictor of {hidden} units diverged in epoch {epoch}");
            match &best {
                Some((least, at, _)) if loss >= *least => {
                    if epoch - at >= PATIENCE {
                        break;
                    }
                }
                _ => best = Some((loss, epoch, Trained { master, stored })),
            }
        }
        let Some((.., trained)) = best else { bail!("no epoch to train a predictor in") };
        Ok(trained)
    }

    /// The predictor of a layer in which nothing fires.
    fn nothing(&self, start: Mlp) -> Trained {
        let silent = Mlp { w1: vec![0.0; start.w1.len()], w2: vec![0.0; start.w2.len()], ..start };
        Trained { master: silent.clone(), stored: silent }
    }

    /// The predictor as the file will hold it, for unscaled inputs.
    fn store(&self, master: &Mlp, roundings: &[Rounding; 2]) -> Mlp {
        let (scale, n_embd) = (self.scaling.scale, self.training.n_embd);
        let round = |weights: &[f32], rounding: &Rounding, row: usize| {
            let mut rounded = vec![0.0; weights.len()];
            let rows = weights.chunks(64 * row).zip(rounded.chunks_mut(64 * row));
            parallel::each(rows, |_, (w, o)| rounding.round(w, o));
            rounded
        };
        let w1 = round(&master.w1.iter().map(|w| w * scale).collect::<Vec<_>>(), &roundings[0], n_embd);
        // Centring moves into the bias, computed with the stored weights so that rounding them does not shift it.
        let shift =
            |w: &[f32]| w.iter().zip(&self.scaling.mean).map(|(w, m)| f64::from(*w) * f64::from(*m)).sum::<f64>();
        let b1 = w1.chunks_exact(n_embd).zip(&master.b1).map(|(w, b)| (f64::from(*b) - shift(w)) as f32).collect();
        Mlp { w1, b1, w2: round(&master.w2, &roundings[1], master.hidden), ..master.clone() }
    }

    /// Mean loss of a held-out sample.
    fn held_loss(&self, mlp: &Mlp) -> f64 {
        let (n_embd, n_ff) = (self.training.n_embd, self.training.n_ff);
        let chunks = self.training.held_x[..self.n_held * n_embd].chunks(SCORED_ROWS * n_embd);
        let losses = parallel::map(chunks, |chunk, x| {
            let mut loss = 0.0;
            for (i, scores) in mlp.scores(x).chunks_exact_mut(n_ff).enumerate() {
                scores.iter_mut().zip(&mlp.b2).for_each(|(s, b)| *s += b);
                loss += scores.iter().map(|z| f64::from(softplus(*z))).sum::<f64>();
                for (neuron, mass) in self.training.held_fired.sample(chunk * SCORED_ROWS + i) {
                    let z = scores[neuron];
                    loss += f64::from(net::weight(mass, self.mean_mass) * softplus(-z) - softplus(z));
                }
            }
            loss
        });
        losses.iter().sum::<f64>() / self.n_held as f64
    }
}

/// `ln(1 + exp(x))`: the loss of an output `x` if the neuron does not fire.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + net::exp(-x.abs()).ln_1p()
}

/// Learning rate of a step, relative to the greatest: a short rise, then half a cosine.
fn rate_at(step: usize, steps: usize) -> f32 {
    let rise = ((step + 1) as f32 / (WARM_UP * steps as f32 + 1.0)).min(1.0);
    let fall = 0.5 + 0.5 * (std::f32::consts::PI * step as f32 / steps as f32).cos();
    rise * (LAST_RATE + (1.0 - LAST_RATE) * fall)
}

/// Random numbers of one purpose.
struct Random(ChaCha8Rng);

impl Random {
    fn new(seed: u64, purpose: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(purpose);
        Self(random)
    }

    /// Nearly normal numbers: the sums of four uniform ones.
    fn normals(&mut self, n: usize, deviation: f32) -> Vec<f32> {
        // Variance of a sum of four: a third of 65,536 squared.
        let unit = deviation * 3f32.sqrt() / 65_536.0;
        let mut normal = || {
            let bits = self.0.next_u64();
            let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
            (sum as f32 - 2.0 * 65_535.0) * unit
        };
        (0..n).map(|_| normal()).collect()
    }

    fn shuffle(&mut self, order: &mut [u32]) {
        for i in (1..order.len()).rev() {
            order.swap(i, (self.0.next_u64() % (i as u64 + 1)) as usize);
        }
    }
}
