//! A step of training: forward, gradients and Adam, divided into blocks of rows that do not depend on the threads.
//!
//! Everything that belongs to a batch is stored with samples innermost (`[unit][sample]`), so that a block of rows of a
//! weight matrix produces one contiguous piece of it.

use super::firings::Firings;
use super::rounding::Rounding;
use super::{Mlp, Training};
use crate::parallel;
use crate::predictor::linalg::{View, multiply_into};

/// Blocks of the output layer: a multiple of common core counts.
const OUTPUT_BLOCKS: usize = 32;
/// The fewest neurons, and the number of hidden units, of a block; products of fewer rows spend their time on packing.
const BLOCK_ROWS: usize = 32;
/// Decay of the first moment.
const BETA_1: f32 = 0.9;
/// Decay of the second moment: faster than the usual 0.999, as there are only some hundred steps.
const BETA_2: f32 = 0.98;
/// A firing of this many times the mean mass weighs as much as any stronger one.
const MAX_WEIGHT: f32 = 32.0;

/// How far a step goes.
#[derive(Clone, Copy)]
pub(super) struct Update {
    /// Steps done so far.
    pub step: i32,
    /// Learning rates of hidden weights, output weights, and biases.
    pub rates: [f32; 3],
    /// Share of the learning rate by which weights shrink.
    pub decay: f32,
}

/// The scaling of samples before the net sees them: centred, and of unit size overall.
pub(super) struct Scaling {
    pub mean: Vec<f32>,
    pub scale: f32,
}

impl Scaling {
    /// The scaling for the inputs of a training.
    pub fn of(training: &Training) -> Self {
        let n = training.x.len() / training.n_embd;
        let mut sums = vec![0f64; training.n_embd];
        let mut square = 0f64;
        for x in training.x.chunks_exact(training.n_embd) {
            for (s, v) in sums.iter_mut().zip(x) {
                *s += f64::from(*v);
                square += f64::from(*v).powi(2);
            }
        }
        let mean: Vec<f64> = sums.iter().map(|s| s / n as f64).collect();
        let variance = square / n as f64 - mean.iter().map(|m| m * m).sum::<f64>();
        let rms = (variance.max(0.0) / training.n_embd as f64).sqrt() as f32;
        // Identical inputs leave nothing to scale.
        let scale = if rms > f32::MIN_POSITIVE && rms.recip().is_finite() { rms.recip() } else { 1.0 };
        Self { mean: mean.iter().map(|m| *m as f32).collect(), scale }
    }
}

/// Rows of a layer with their state in training.
struct RowBlock {
    first: usize,
    /// `[rows][n_in]`.
    weights: Vec<f32>,
    bias: Vec<f32>,
    moments: [Vec<f32>; 2],
    bias_moments: [Vec<f32>; 2],
    /// Weights as they will be stored, for steps that use those.
    rounded: Vec<f32>,
    gradient: Vec<f32>,
    bias_gradient: Vec<f32>,
    /// `[rows][batch]`: first the outputs, then the gradient of the loss with respect to them.
    outputs: Vec<f32>,
    /// `[n_in][batch]`: the block's part of the gradient of the loss with respect to its inputs.
    inputs_gradient: Vec<f32>,
}

impl RowBlock {
    fn layer(weights: &[f32], bias: &[f32], rows: usize) -> Vec<Self> {
        let n_in = weights.len() / bias.len();
        let pieces = weights.chunks(rows * n_in).zip(bias.chunks(rows)).enumerate();
        pieces
            .map(|(i, (w, b))| Self {
                first: i * rows,
                weights: w.to_vec(),
                bias: b.to_vec(),
                moments: [vec![0.0; w.len()], vec![0.0; w.len()]],
                bias_moments: [vec![0.0; b.len()], vec![0.0; b.len()]],
                rounded: Vec::new(),
                gradient: vec![0.0; w.len()],
                bias_gradient: vec![0.0; b.len()],
                outputs: Vec::new(),
                inputs_gradient: Vec::new(),
            })
            .collect()
    }

    /// Writes the products of the weights and `inputs`, `[n_in][batch]`, to `out`, `[rows][batch]`.
    fn forward(&mut self, inputs: View, rounding: Option<&Rounding>, out: &mut [f32]) {
        if let Some(rounding) = rounding {
            self.rounded.resize(self.weights.len(), 0.0);
            rounding.round(&self.weights, &mut self.rounded);
        }
        let weights = if rounding.is_some() { &self.rounded } else { &self.weights };
        multiply_into(View::new(weights, self.bias.len(), weights.len() / self.bias.len()), inputs, out);
    }

    /// Moves the weights against their gradient.
    fn update(&mut self, update: &Update, rate: f32) {
        let [m, v] = &mut self.moments;
        adam(&mut self.weights, &self.gradient, m, v, update, rate, update.decay);
        let [m, v] = &mut self.bias_moments;
        adam(&mut self.bias, &self.bias_gradient, m, v, update, update.rates[2], 0.0);
    }
}

/// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).
fn adam(p: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32], update: &Update, rate: f32, decay: f32) {
    let (correct_1, correct_2) = (1.0 - BETA_1.powi(update.step + 1), 1.0 - BETA_2.powi(update.step + 1));
    let keep = 1.0 - rate * decay;
    for (((p, g), m), v) in p.iter_mut().zip(gradient).zip(m).zip(v) {
        *m = BETA_1 * *m + (1.0 - BETA_1) * g;
        *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
        *p = keep * *p - rate * (*m / correct_1) / ((*v / correct_2).sqrt() + 1e-8);
    }
}

/// A two-layer net in training.
pub(super) struct Net<'a> {
    training: &'a Training<'a>,
    scaling: &'a Scaling,
    mean_mass: f32,
    hidden: Vec<RowBlock>,
    output: Vec<RowBlock>,
    /// `[batch][n_embd]`.
    x: Vec<f32>,
    /// `[hidden][batch]`.
    h: Vec<f32>,
    /// The same as `[n_embd][batch]` and `[batch][hidden]`: the products of many blocks read them, and a product whose
    /// right-hand side has contiguous rows spends far less time on packing.
    x_transposed: Vec<f32>,
    h_transposed: Vec<f32>,
    h_gradient: Vec<f32>,
}

impl<'a> Net<'a> {
    /// Begins with these weights, which expect scaled inputs.
    pub fn new(training: &'a Training<'a>, scaling: &'a Scaling, mean_mass: f32, start: &Mlp) -> Self {
        let rows = training.n_ff.div_ceil(OUTPUT_BLOCKS).max(BLOCK_ROWS);
        Self {
            training,
            scaling,
            mean_mass,
            hidden: RowBlock::layer(&start.w1, &start.b1, BLOCK_ROWS),
            output: RowBlock::layer(&start.w2, &start.b2, rows),
            x: Vec::new(),
            h: Vec::new(),
            x_transposed: Vec::new(),
            h_transposed: Vec::new(),
            h_gradient: Vec::new(),
        }
    }

    /// One step on these samples. With `rounding` (of the hidden and the output layer) the step uses the weights as
    /// they will be stored, and gradients pass straight through the rounding.
    pub fn step(&mut self, samples: &[u32], rounding: Option<&[Rounding; 2]>, update: &Update) {
        let (n, n_embd) = (samples.len(), self.training.n_embd);
        let n_hidden: usize = self.hidden.iter().map(|b| b.bias.len()).sum();
        self.x.resize(n * n_embd, 0.0);
        self.h.resize(n_hidden * n, 0.0);
        self.h_gradient.resize(n_hidden * n, 0.0);

        parallel::each(self.x.chunks_mut(n_embd).zip(samples), |_, (to, sample)| {
            let from = &self.training.x[*sample as usize * n_embd..][..n_embd];
            for ((to, v), mean) in to.iter_mut().zip(from).zip(&self.scaling.mean) {
                *to = (v - mean) * self.scaling.scale;
            }
        });
        transpose_into(&self.x, n_embd, &mut self.x_transposed);
        let (x, x_transposed) = (View::new(&self.x, n, n_embd), View::new(&self.x_transposed, n_embd, n));

        parallel::each(self.hidden.iter_mut().zip(self.h.chunks_mut(BLOCK_ROWS * n)), |_, (block, h)| {
            block.forward(x_transposed, rounding.map(|r| &r[0]), h);
            for (h, bias) in h.chunks_exact_mut(n).zip(&block.bias) {
                h.iter_mut().for_each(|h| *h = (*h + bias).max(0.0));
            }
        });
        transpose_into(&self.h, n, &mut self.h_transposed);
        let (h, h_transposed) = (View::new(&self.h, n_hidden, n), View::new(&self.h_transposed, n, n_hidden));

        let fired = Fired { firings: self.training.fired, samples, mean_mass: self.mean_mass };
        parallel::each(self.output.iter_mut(), |_, block| {
            let rows = block.bias.len();
            let mut outputs = std::mem::take(&mut block.outputs);
            outputs.resize(rows * n, 0.0);
            block.forward(h, rounding.map(|r| &r[1]), &mut outputs);
            fired.loss_gradient(block.first, &block.bias, &mut outputs);
            for (g, z) in block.bias_gradient.iter_mut().zip(outputs.chunks_exact(n)) {
                *g = z.iter().sum();
            }
            let z = View::new(&outputs, rows, n);
            multiply_into(z, h_transposed, &mut block.gradient);
            block.inputs_gradient.resize(n_hidden * n, 0.0);
            let weights = if rounding.is_some() { &block.rounded } else { &block.weights };
            multiply_into(View::new(weights, rows, n_hidden).t(), z, &mut block.inputs_gradient);
            block.outputs = outputs;
            block.update(update, update.rates[1]);
        });

        let output = &self.output;
        let pieces = self.h_gradient.chunks_mut(BLOCK_ROWS * n).zip(self.h.chunks(BLOCK_ROWS * n));
        parallel::each(self.hidden.iter_mut().zip(pieces), |_, (block, (gradient, h))| {
            gradient.fill(0.0);
            // In the order of blocks, whichever thread computed them.
            for part in output {
                let part = &part.inputs_gradient[block.first * n..][..gradient.len()];
                gradient.iter_mut().zip(part).for_each(|(g, p)| *g += p);
            }
            gradient.iter_mut().zip(h).for_each(|(g, h)| *g = if *h > 0.0 { *g } else { 0.0 });
            for (g, z) in block.bias_gradient.iter_mut().zip(gradient.chunks_exact(n)) {
                *g = z.iter().sum();
            }
            multiply_into(View::new(gradient, block.bias.len(), n), x, &mut block.gradient);
            block.update(update, update.rates[0]);
        });
    }

    /// The weights, which expect scaled inputs.
    pub fn master(&self) -> Mlp {
        let b1 = join(&self.hidden, |b| &b.bias);
        Mlp {
            hidden: b1.len(),
            w1: join(&self.hidden, |b| &b.weights),
            b1,
            w2: join(&self.output, |b| &b.weights),
            b2: join(&self.output, |b| &b.bias),
        }
    }

    /// The gradients of the first step, from the first moments: of hidden weights and biases, then of output ones.
    #[cfg(test)]
    pub fn first_gradients(&self) -> [Vec<f32>; 4] {
        let unscaled = |moments: Vec<f32>| moments.into_iter().map(|m| m / (1.0 - BETA_1)).collect();
        [
            unscaled(join(&self.hidden, |b| &b.moments[0])),
            unscaled(join(&self.hidden, |b| &b.bias_moments[0])),
            unscaled(join(&self.output, |b| &b.moments[0])),
            unscaled(join(&self.output, |b| &b.bias_moments[0])),
        ]
    }
}

/// One field of all blocks, concatenated.
fn join(blocks: &[RowBlock], part: fn(&RowBlock) -> &[f32]) -> Vec<f32> {
    blocks.iter().flat_map(part).copied().collect()
}

/// Transposes a matrix whose rows have `n_columns`.
fn transpose_into(from: &[f32], n_columns: usize, to: &mut Vec<f32>) {
    let n_rows = from.len() / n_columns;
    to.resize(from.len(), 0.0);
    // Several columns at a time, so that whole cache lines of `from` are used.
    parallel::each(to.chunks_mut(BLOCK_ROWS * n_rows), |chunk, to| {
        for (i, row) in from.chunks_exact(n_columns).enumerate() {
            for (to, v) in to.chunks_exact_mut(n_rows).zip(&row[chunk * BLOCK_ROWS..]) {
                to[i] = *v;
            }
        }
    });
}

/// What fired at the samples of a batch.
struct Fired<'a> {
    firings: &'a Firings,
    samples: &'a [u32],
    mean_mass: f32,
}

impl Fired<'_> {
    /// Replaces outputs `[rows][batch]`, without their bias, by the gradient of the loss with respect to them. The loss
    /// is the mean over samples of the sum over neurons.
    fn loss_gradient(&self, first: usize, bias: &[f32], outputs: &mut [f32]) {
        let n = self.samples.len();
        let share = 1.0 / n as f32;
        for (z, bias) in outputs.chunks_exact_mut(n).zip(bias) {
            z.iter_mut().for_each(|z| *z = share * sigmoid(*z + bias));
        }
        for (i, sample) in self.samples.iter().enumerate() {
            for (neuron, mass) in self.firings.among(*sample as usize, first..first + bias.len()) {
                let z = &mut outputs[(neuron - first) * n + i];
                *z = weight(mass, self.mean_mass) * (*z - share);
            }
        }
    }
}

/// Weight of a firing in the loss; not firing has weight 1.
pub(super) fn weight(mass: f32, mean_mass: f32) -> f32 {
    (mass / mean_mass).min(MAX_WEIGHT)
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `exp`, with a relative error below 1e-5, in operations that compilers vectorise; clamped to the range of f32.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let t = x.clamp(-86.0, 88.0) * std::f32::consts::LOG2_E;
    let rounded = t + ROUND;
    let r = (t - (rounded - ROUND)) * std::f32::consts::LN_2;
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let p = series.into_iter().fold(0.0, |p, c| p * r + c);
    f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_that_of_the_standard_library() {
        for i in -8600..8800 {
            let x = i as f32 / 100.0;
            let (got, want) = (exp(x), x.exp());
            assert!((got / want - 1.0).abs() < 1e-5, "{x}: {got} {want}");
        }
        assert!(sigmoid(1e9) == 1.0 && sigmoid(-1e9) < 1e-30);
    }
}
