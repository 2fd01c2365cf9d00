//! Two factors of the mask matrix that keep what decides which neurons fire, in closed form.
//!
//! Of all predictors of rank r, the leading directions of `sqrt(D) W C W^T sqrt(D)` (D: weights, C: covariance of the
//! inputs) have the least sum of `weight * (error of a neuron's pre-activation)^2`: reduced-rank regression. They are
//! found by subspace iteration, through products with `W^T D W` and C, and the inner factor gives uncorrelated
//! coordinates of variance 1. The outer factor is then refitted to the inner one as it is stored.

use super::data::Covariance;
use super::linalg::{self, View, product};
use super::stored::Weights;
use super::tensor::Tensor;
use crate::parallel;
use crate::quant::GgmlType;
use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Ranks are multiples of this: the block of most types.
pub(super) const RANK_STEP: usize = 32;
/// Iterations. On the embedded model a fourth changes the share of active neurons by less than 0.3 % of all neurons.
const ITERATIONS: usize = 3;
/// The most passes that make directions uncorrelated.
const MOST_PASSES: usize = 4;
/// Neurons whose weighted rows are held in memory at a time.
const ROWS: usize = 1024;
/// Every neuron counts with at least this share of the density at 0, so that none is left out.
const FLOOR: f64 = 0.02;

/// Ranks worth trying, ascending. With many inputs, a rank of half of them would read as much as it saves.
pub(super) fn ladder(n_embd: usize) -> Vec<usize> {
    let most = if n_embd >= 1024 { n_embd / 4 } else { n_embd / 2 };
    let mut ranks: Vec<usize> = [(1, 32), (1, 16), (3, 32), (1, 8), (3, 16), (1, 4), (1, 2)]
        .iter()
        .map(|(a, b)| (n_embd * a / b).max(1).next_multiple_of(RANK_STEP).min(n_embd))
        .filter(|r| *r <= most.max(RANK_STEP))
        .collect();
    ranks.dedup();
    ranks
}

/// How much a neuron's error matters, from the mean and variance of its pre-activation and its mass per activation.
///
/// Decisions go wrong where the pre-activation is near 0, as often as its density there says, and cost mask rows in
/// proportion to the error, and mass in proportion to its square.
pub(super) fn importance(mean: f64, variance: f64) -> f64 {
    if variance <= 0.0 {
        return 0.0;
    }
    let density = (-mean * mean / (2.0 * variance)).exp();
    (density + FLOOR) / variance
}

/// A layer's mask matrix, weighted by the spread of inputs and the importance of neurons.
pub(super) struct Weighted {
    /// `[n_ff][n_embd]` mask matrix times the inputs' spread.
    scaled: Vec<f32>,
    /// `[n_embd][n_embd]`: the products of its rows with themselves, times importance.
    gram: Vec<f32>,
    n_embd: usize,
}

impl Weighted {
    /// Weights the mask matrix (by neuron).
    pub fn new(mut mask: Vec<f32>, importance: &[f64], inputs: &Covariance) -> Self {
        let n_embd = inputs.mean.len();
        let spread = |row: &mut [f32]| row.iter_mut().zip(&inputs.spread).for_each(|(w, s)| *w *= s);
        parallel::each(mask.chunks_mut(n_embd), |_, row| spread(row));
        let scaled = mask;
        let largest = importance.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let mut gram = vec![0.0; n_embd * n_embd];
        for (rows, importance) in scaled.chunks(ROWS * n_embd).zip(importance.chunks(ROWS)) {
            let mut rows = rows.to_vec();
            parallel::each(rows.chunks_mut(n_embd).zip(importance), |_, (row, d)| {
                let d = (d / largest).sqrt() as f32;
                row.iter_mut().for_each(|w| *w *= d);
            });
            linalg::add_gram(View::new(&rows, rows.len() / n_embd, n_embd), &mut gram);
        }
        linalg::mirror(&mut gram, n_embd);
        Self { scaled, gram, n_embd }
    }

    /// The first `n` directions: `[n][n_embd]`, of inputs over their spread.
    ///
    /// # Errors
    /// When something is not a finite number.
    pub fn directions(&self, inputs: &Covariance, n: usize, seed: u64) -> Result<Vec<f32>> {
        let n_embd = self.n_embd;
        let gram = View::new(&self.gram, n_embd, n_embd);
        let correlation = View::new(&inputs.correlation, n_embd, n_embd);

        let n = n.min(n_embd);
        let more = (n + (n / 16).max(16)).min(n_embd);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let start: Vec<f32> =
            (0..more * n_embd).map(|_| (random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0).collect();
        let (mut basis, mut seen) = orthonormal(start, correlation, more)?;
        for _ in 0..ITERATIONS {
            let image = product(View::new(&seen, more, n_embd), gram);
            (basis, seen) = orthonormal(image, correlation, more)?;
        }
        // The best directions within the span found (Rayleigh and Ritz).
        let image = product(View::new(&seen, more, n_embd), gram);
        let small = product(View::new(&image, more, n_embd), View::new(&seen, more, n_embd).t());
        let (_, vectors) = linalg::eigen(&small, more)?;
        Ok(product(View::new(&vectors[..n * more], n, more), View::new(&basis, more, n_embd)))
    }

    /// The factors along `directions`, in these types.
    ///
    /// # Errors
    /// When rows are not whole blocks of a type.
    pub fn factors(&self, directions: &[f32], inputs: &Covariance, types: (GgmlType, GgmlType)) -> Result<Weights> {
        let n_embd = self.n_embd;
        let (rank, n_ff) = (directions.len() / n_embd, self.scaled.len() / n_embd);
        let mut rows = directions.to_vec();
        for row in rows.chunks_exact_mut(n_embd) {
            row.iter_mut().zip(&inputs.spread).for_each(|(v, s)| *v = if *s > 0.0 { *v / s } else { 0.0 });
        }
        let inner = Tensor::new(&rows, n_embd, types.0)?;
        let mut stored = inner.values()?;
        for row in stored.chunks_exact_mut(n_embd) {
            row.iter_mut().zip(&inputs.spread).for_each(|(v, s)| *v *= s);
        }
        let stored = View::new(&stored, rank, n_embd);
        let seen = product(stored, View::new(&inputs.correlation, n_embd, n_embd));
        let seen = View::new(&seen, rank, n_embd);
        let inverse = linalg::inverse(&product(seen, stored.t()), rank)?;
        let both = product(View::new(&self.scaled, n_ff, n_embd), seen.t());
        let outer = product(View::new(&both, n_ff, rank), View::new(&inverse, rank, rank));
        Ok(Weights::Factors { inner, inner_bias: None, outer: Tensor::new(&outer, rank, types.1)? })
    }
}

/// Rows with the span of `rows` (`[n][n_embd]`), uncorrelated and of variance 1; and these times the correlations.
fn orthonormal(mut rows: Vec<f32>, correlation: View, n: usize) -> Result<(Vec<f32>, Vec<f32>)> {
    let n_embd = rows.len() / n;
    // At least twice: one pass loses what is small beside the largest direction.
    let mut pass = 0;
    loop {
        pass += 1;
        let seen = product(View::new(&rows, n, n_embd), correlation);
        let gram = product(View::new(&seen, n, n_embd), View::new(&rows, n, n_embd).t());
        let (t, exact) = linalg::whitener(&gram, n)?;
        let t = View::new(&t, n, n);
        rows = product(t, View::new(&rows, n, n_embd));
        if pass >= 2 && exact || pass == MOST_PASSES {
            return Ok((rows, product(t, View::new(&seen, n, n_embd))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| (random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    #[test]
    fn a_mask_matrix_of_low_rank_is_found_exactly() {
        let (n_ff, n_embd, rank) = (200, 96, 32);
        let (a, b) = (random(n_ff * rank, 1), random(rank * n_embd, 2));
        let mask = product(View::new(&a, n_ff, rank), View::new(&b, rank, n_embd));
        let correlation: Vec<f32> =
            (0..n_embd * n_embd).map(|i| if i % (n_embd + 1) == 0 { 1.0 } else { 0.1 }).collect();
        let spread: Vec<f32> = (0..n_embd).map(|i| if i == 5 { 0.0 } else { 0.5 + i as f32 / 50.0 }).collect();
        let inputs = Covariance { mean: vec![0.0; n_embd], spread, correlation };
        let importance: Vec<f64> = (0..n_ff).map(|i| 1.0 + (i % 7) as f64).collect();
        let weighted = Weighted::new(mask.clone(), &importance, &inputs);
        let directions = weighted.directions(&inputs, rank, 3).unwrap();
        let weights = weighted.factors(&directions, &inputs, (GgmlType::F32, GgmlType::F32)).unwrap();
        let n = 50;
        let mut x = random(n * n_embd, 4);
        // A constant input says nothing.
        x.chunks_exact_mut(n_embd).for_each(|x| x[5] = 0.0);
        let truth = product(View::new(&x, n, n_embd), View::new(&mask, n_ff, n_embd).t());
        let scores = weights.scores(&x, n).unwrap();
        let error = scores.iter().zip(&truth).fold(0.0f32, |m, (s, t)| m.max((s - t).abs()));
        assert!(error < 1e-2, "{error}");
    }

    #[test]
    fn ranks_are_whole_blocks_and_rise() {
        assert_eq!(ladder(4096), [128, 256, 384, 512, 768, 1024]);
        // No more directions than inputs.
        assert_eq!((ladder(1), ladder(20)), (vec![1], vec![20]));
        for n_embd in [32, 64, 96, 256, 1000, 5120] {
            let ranks = ladder(n_embd);
            assert!(!ranks.is_empty() && ranks.is_sorted_by(|a, b| a < b), "{n_embd}: {ranks:?}");
            assert!(ranks.iter().all(|r| r.is_multiple_of(RANK_STEP)));
        }
    }
}
