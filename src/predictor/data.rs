//! What a layer's predictor is fitted to: weights, sampled inputs, and the neurons' response to them.

use super::linalg::{self, View};
use crate::model::{Activation, Matrix, Model, NeuronGroup, Part};
use crate::parallel;
use crate::profile::samples::{SampleKey, Samples};
use crate::quant::convert;
use anyhow::{Result, ensure};
use half::f16;
use half::slice::HalfFloatSliceExt;
use sha2::{Digest, Sha256};

/// Tokens added to a covariance at a time: 64 MiB of floats for a width of 4096.
pub(super) const BLOCK: usize = 4096;
/// The most tokens that thresholds are found on, and the most that the result is measured on: for an `n_ff` of 11,008
/// the true values of both take 720 MB.
const MOST_TOLD: usize = 4096;
/// Positions of a text that stay together when it is divided, coarsest first: neighbours are alike, so held-out ones
/// would prove little if their neighbours were trained on.
const STRETCHES: [u64; 4] = [512, 64, 8, 1];
/// The fewest stretches to divide into.
const ENOUGH_STRETCHES: usize = 64;
/// With fewer samples, figures mean nothing.
const LEAST_SAMPLES: usize = 256;
/// Neurons decoded and multiplied at a time.
const NEURONS: usize = 512;

/// Samples divided by text, as indices of samples.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// For covariances and training.
    pub train: Vec<usize>,
    /// For thresholds.
    pub calibration: Vec<usize>,
    /// Used for measuring only.
    pub held_out: Vec<usize>,
}

impl Split {
    /// One eighth of the text is held out, two are for thresholds, the rest is for training.
    ///
    /// # Errors
    /// When there are too few samples.
    pub fn new(keys: &[SampleKey]) -> Result<Self> {
        ensure!(
            keys.len() >= LEAST_SAMPLES,
            "{} samples are too few to fit predictors to; take at least {LEAST_SAMPLES} (better 20000)",
            keys.len()
        );
        let mut stretches = Vec::new();
        for positions in STRETCHES {
            stretches = keys.iter().map(|k| stretch(k, positions)).collect();
            stretches.sort_unstable();
            stretches.dedup();
            if stretches.len() >= ENOUGH_STRETCHES {
                stretches = keys.iter().map(|k| stretch(k, positions)).collect();
                break;
            }
        }
        let mut sorted = stretches.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let mut split = Self { train: Vec::new(), calibration: Vec::new(), held_out: Vec::new() };
        for (i, of) in stretches.iter().enumerate() {
            // By place in the order of hashes: as even as possible, and random.
            let list = match sorted.partition_point(|s| s < of) % 8 {
                0 if split.held_out.len() < MOST_TOLD => &mut split.held_out,
                1 | 5 if split.calibration.len() < MOST_TOLD => &mut split.calibration,
                0 => continue,
                _ => &mut split.train,
            };
            list.push(i);
        }
        let all = [&split.train, &split.calibration, &split.held_out];
        ensure!(all.iter().all(|l| !l.is_empty()), "the samples are of too few places; sample more text");
        Ok(split)
    }
}

fn stretch(key: &SampleKey, positions: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(key.text);
    hash.update((key.position / positions).to_le_bytes());
    let hash = hash.finalize();
    u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}

/// Some of the sampled inputs of one layer.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    x: &'a [f16],
    /// Width.
    pub n_embd: usize,
    which: &'a [usize],
}

impl<'a> Inputs<'a> {
    /// Those of `samples` whose indices are in `which`.
    pub fn new(samples: &'a Samples, layer: usize, n_embd: usize, which: &'a [usize]) -> Self {
        Self { x: &samples.x[layer], n_embd, which }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.which.len()
    }

    /// `n` tokens from `first` on: `[n][n_embd]`.
    pub fn block(&self, first: usize, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n * self.n_embd];
        parallel::each(out.chunks_mut(self.n_embd).zip(&self.which[first..first + n]), |_, (out, i)| {
            self.x[i * self.n_embd..][..self.n_embd].convert_to_f32_slice(out);
        });
        out
    }

    /// All of them: `[len][n_embd]`.
    pub fn all(&self) -> Vec<f32> {
        self.block(0, self.len())
    }
}

/// Checks that the samples have `model`'s shape and are finite numbers.
///
/// # Errors
/// Names what differs.
pub(super) fn check_samples(model: &Model, samples: &Samples) -> Result<()> {
    let (n_layer, n_embd) = (model.config.n_layer, model.config.n_embd);
    ensure!(samples.x.len() == n_layer, "the samples are of {} layers, the model has {n_layer}", samples.x.len());
    for (i, x) in samples.x.iter().enumerate() {
        let wanted = samples.len() * n_embd;
        ensure!(x.len() == wanted, "the samples of layer {i} are {} values, not {wanted}", x.len());
        let finite = parallel::all(x, |v| v.is_finite());
        ensure!(finite, "the samples of layer {i} hold something that is no finite number");
    }
    Ok(())
}

/// The rows of `matrix` as floats, by neuron.
///
/// # Errors
/// When a weight is not a finite number.
pub(super) fn weights(group: &NeuronGroup, matrix: &Matrix) -> Result<Vec<f32>> {
    let slots: Vec<usize> = slots(group);
    rows(matrix, &slots)
}

/// The slot of each neuron.
pub(super) fn slots(group: &NeuronGroup) -> Vec<usize> {
    let mut slots: Vec<usize> = (0..group.n_ff()).collect();
    if let Some(index) = &group.index {
        index.ids().iter().enumerate().for_each(|(slot, id)| slots[id.0 as usize] = slot);
    }
    slots
}

fn rows(matrix: &Matrix, which: &[usize]) -> Result<Vec<f32>> {
    let dequantize = convert::dequantizer(matrix.dtype())?;
    let mut out = vec![0.0; which.len() * matrix.n_cols];
    parallel::each(out.chunks_mut(matrix.n_cols).zip(which), |_, (out, row)| dequantize(matrix.row(*row), out));
    let finite = parallel::all(&out, |v| v.is_finite());
    ensure!(finite, "{}: holds something that is no finite number", matrix.name());
    Ok(out)
}

/// What the neurons of a layer do for some tokens, by neuron.
pub(super) struct Truth {
    /// Tokens.
    pub n: usize,
    /// Neurons.
    pub n_ff: usize,
    /// `[n][n_ff]` pre-activations: how far above the point from which on it fires each product with the mask matrix is.
    pub z: Vec<f32>,
    /// `[n][n_ff]` absolute factors of the `down` vectors: what is lost with a neuron.
    pub mass: Vec<f32>,
    /// `[n_ff]` mass per activation.
    pub gain: Vec<f32>,
    /// Rows of `up` that are read for each neuron that fires: more than 1 where `up` has a mask of its own.
    pub opened_per_fired: f64,
}

impl Truth {
    /// Computes it for the tokens of `x` (`[n][n_embd]`). `mask`: the mask matrix by neuron.
    ///
    /// # Errors
    /// When something is not a finite number.
    pub fn new(group: &NeuronGroup, mask: &[f32], x: &[f32], activation: Activation) -> Result<Self> {
        let (n_ff, n_embd) = (group.n_ff(), group.ffn_up().n_cols);
        let n = x.len() / n_embd;
        let x = View::new(x, n, n_embd);
        let slots = slots(group);
        let (mut z, mut mass, mut gain) = (vec![0.0; n * n_ff], vec![0.0; n * n_ff], vec![1.0; n_ff]);
        // Of tokens: for how many the gate of each neuron is above zero, and for how many it fires.
        let mut counts = vec![(0u32, 0u32); n_ff];
        for first in (0..n_ff).step_by(NEURONS) {
            let width = NEURONS.min(n_ff - first);
            let w = &mask[first * n_embd..][..width * n_embd];
            let these = &slots[first..first + width];
            let mut products = linalg::product(x, View::new(w, width, n_embd).t());
            add_bias(group.mask(), these, &mut products);
            let up = match &group.gate {
                Some(_) => {
                    let up = rows(group.ffn_up(), these)?;
                    let mut up = linalg::product(x, View::new(&up, width, n_embd).t());
                    add_bias(&group.up, these, &mut up);
                    Some(up)
                }
                None => None,
            };
            let pieces = z.chunks_mut(n_ff).zip(mass.chunks_mut(n_ff)).zip(products.chunks(width));
            parallel::each(pieces, |token, ((z, mass), products)| {
                let neurons = z[first..first + width].iter_mut().zip(&mut mass[first..first + width]);
                for (i, ((z, m), product)) in neurons.zip(products).enumerate() {
                    let up = up.as_ref().map_or(1.0, |up| up[token * width + i]);
                    *z = activation.margin(*product, up);
                    *m = activation.gated(activation.apply(*product), up).abs();
                }
            });
            let neurons = gain[first..first + width].iter_mut().zip(&mut counts[first..first + width]);
            parallel::each(neurons, |i, (gain, (opened, fired))| {
                let (mut acts, mut ups, mut masses) = (0.0f64, 0.0f64, 0.0f64);
                for token in 0..n {
                    let product = products[token * width + i];
                    let up = up.as_ref().map_or(1.0, |up| up[token * width + i]);
                    let act = activation.apply(product);
                    let gated = activation.gated(act, up);
                    acts += expected(activation, activation.margin(product, up));
                    ups += f64::from(up.abs());
                    masses += f64::from(act.abs()) * f64::from(if gated == 0.0 { 0.0 } else { up.abs() });
                    *opened += u32::from(act != 0.0);
                    *fired += u32::from(activation.fires(act, gated));
                }
                // If a neuron rarely fired, its `up` over all tokens tells more.
                let prior = PRIOR * acts / f64::from((*fired).max(1));
                let mean_up = ups / n.max(1) as f64;
                *gain = if acts > 0.0 { (masses + prior * mean_up) / (acts + prior) } else { mean_up } as f32;
            });
        }
        let finite = parallel::all(&z, |v| v.is_finite()) && parallel::all(&mass, |v| v.is_finite());
        ensure!(finite, "the model computes values that are not finite numbers; are its weights whole?");
        let sum = |of: fn(&(u32, u32)) -> u32| counts.iter().map(|n| f64::from(of(n))).sum::<f64>();
        let (opened, fired) = (sum(|(opened, _)| *opened), sum(|(_, fired)| *fired));
        let opened_per_fired = if fired > 0.0 { opened / fired } else { 1.0 };
        Ok(Self { n, n_ff, z, mass, gain, opened_per_fired })
    }

    /// Mean and variance of each neuron's pre-activation.
    pub fn moments(&self) -> Vec<(f64, f64)> {
        by_neuron(self.n_ff, |range| {
            let mut sums = vec![(0.0f64, 0.0f64); range.len()];
            for z in self.z.chunks_exact(self.n_ff) {
                for ((sum, square), z) in sums.iter_mut().zip(&z[range.clone()]) {
                    let z = f64::from(*z);
                    *sum += z;
                    *square += z * z;
                }
            }
            let n = self.n as f64;
            let moments = |(sum, square): (f64, f64)| (sum / n, (square / n - (sum / n).powi(2)).max(0.0));
            sums.into_iter().map(moments).collect()
        })
    }
}

/// Adds the bias of `part`, where there is one, to products (`[n][slots]`) with its rows in `slots`.
fn add_bias(part: &Part, slots: &[usize], products: &mut [f32]) {
    let Some(bias) = &part.bias else { return };
    for products in products.chunks_exact_mut(slots.len()) {
        products.iter_mut().zip(slots).for_each(|(p, slot)| *p += bias[*slot]);
    }
}

/// What thresholds are found with for an activation, by how far above zero it is.
fn expected(activation: Activation, margin: f32) -> f64 {
    let above = f64::from(margin.max(0.0));
    if activation == Activation::Relu2 { above * above } else { above }
}

/// How many firings a neuron's mean `up` counts as.
const PRIOR: f64 = 8.0;

/// Runs `of` over ranges of neurons in parallel and joins what it returns, one value per neuron.
pub(super) fn by_neuron<T: Send>(n_ff: usize, of: impl Fn(std::ops::Range<usize>) -> Vec<T> + Sync) -> Vec<T> {
    let starts = (0..n_ff).step_by(NEURONS);
    parallel::map(starts, |_, s| of(s..(s + NEURONS).min(n_ff))).into_iter().flatten().collect()
}

/// Mean, spread and correlation of the inputs.
pub(super) struct Covariance {
    /// `[n_embd]`.
    pub mean: Vec<f32>,
    /// `[n_embd]` standard deviations; 0 where an input is constant.
    pub spread: Vec<f32>,
    /// `[n_embd][n_embd]` correlations, shrunk towards the identity.
    pub correlation: Vec<f32>,
}

impl Covariance {
    /// Estimates it from `x`, shrinking as Ledoit and Wolf do ("A well-conditioned estimator for large-dimensional
    /// covariance matrices", 2004): the more uncertain the measured correlations, the more; with few samples nearly
    /// all.
    ///
    /// # Errors
    /// When there is only one token.
    pub fn estimate(x: &Inputs) -> Result<Self> {
        let (n, n_embd) = (x.len(), x.n_embd);
        ensure!(n > 1, "{n} tokens have no covariance");
        let (mut sum, mut square) = (vec![0.0f64; n_embd], vec![0.0f64; n_embd]);
        for first in (0..n).step_by(BLOCK) {
            let block = x.block(first, BLOCK.min(n - first));
            for row in block.chunks_exact(n_embd) {
                for ((sum, square), v) in sum.iter_mut().zip(&mut square).zip(row) {
                    *sum += f64::from(*v);
                    *square += f64::from(*v).powi(2);
                }
            }
        }
        let n_tokens = n as f64;
        let mean: Vec<f64> = sum.iter().map(|s| s / n_tokens).collect();
        let variance = |(square, mean): (&f64, &f64)| (square / n_tokens - mean * mean).max(0.0);
        // Sums of squares lose a variance far below the squared mean.
        let constant = |v: f64, m: f64| v <= 1e-9 * m * m;
        let spread: Vec<f64> = square
            .iter()
            .zip(&mean)
            .map(|(s, m)| if constant(variance((s, m)), *m) { 0.0 } else { variance((s, m)).sqrt() })
            .collect();
        let (mut correlation, mut fourth) = (vec![0.0f32; n_embd * n_embd], 0.0f64);
        for first in (0..n).step_by(BLOCK) {
            let mut block = x.block(first, BLOCK.min(n - first));
            let squares = parallel::map(block.chunks_mut(n_embd), |_, row| {
                for ((v, m), s) in row.iter_mut().zip(&mean).zip(&spread) {
                    *v = if *s > 0.0 { ((f64::from(*v) - m) / s) as f32 } else { 0.0 };
                }
                row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()
            });
            fourth += squares.iter().map(|s| s * s).sum::<f64>();
            linalg::add_gram(View::new(&block, block.len() / n_embd, n_embd), &mut correlation);
        }
        linalg::mirror(&mut correlation, n_embd);
        parallel::each(correlation.chunks_mut(n_embd), |_, row| row.iter_mut().for_each(|v| *v /= n as f32));
        // The distance to the identity and its expected error, both as sums of squares.
        let norms = parallel::map(correlation.chunks(n_embd), |i, row| {
            let square: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
            (square, square - f64::from(row[i]).powi(2))
        });
        let (whole, distance) = norms.iter().fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        let error = (fourth / n_tokens - whole).max(0.0) / n_tokens;
        let shrunk = if distance > 0.0 { (error / distance).min(1.0) } else { 1.0 };
        parallel::each(correlation.chunks_mut(n_embd), |i, row| {
            row.iter_mut().for_each(|v| *v *= (1.0 - shrunk) as f32);
            row[i] = 1.0;
        });
        let floats = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect();
        Ok(Self { mean: floats(mean), spread: floats(spread), correlation })
    }
}

/// The neurons of a layer that a predictor may be for: its only group, if every token needs it. Where a router chooses, each
/// group is small, and a fraction of the samples would tell of it.
pub(super) fn group(model: &Model, layer: usize) -> Option<&NeuronGroup> {
    let [group] = &model.weights.layers[layer].groups[..] else { return None };
    Some(group).filter(|group| !group.is_routed() && group.width() == model.config.n_embd)
}
