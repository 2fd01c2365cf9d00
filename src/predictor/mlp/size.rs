//! How many hidden units a layer's predictor gets: guessed from its sparsity and skew, then grown or shrunk.

use super::{HIDDEN_STEP, Mlp, OUTPUT_INIT, Random, SCORED_ROWS, Trained, Trainer, Training};
use crate::progress::Progress;
use anyhow::{Context, Result, ensure};

/// Share of all firings by which skew is measured, as in the profile's report.
const COVERED: f64 = 0.8;
/// The most trainings: the first, and three steps by a factor of two.
const MAX_TRAININGS: usize = 4;
/// Share of the epochs for a predictor that starts from the units of another size.
const RESIZED_EPOCHS: f32 = 0.5;

/// How good a predictor is, by the caller's measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Share of activation mass found.
    pub recall: f64,
    /// What a token costs with it, in any unit; the cheapest of those that reach the target is taken.
    pub cost: f64,
}

/// Hidden units to start with, a multiple of [`HIDDEN_STEP`].
///
/// `density` is the share of (token, neuron) pairs that fire, `skew` the share of neurons that make up 80 % of all
/// firings. As in the paper, a sparser layer gets a smaller predictor, and so does a more skewed one, where the bias
/// alone says most. At density 0.1 and without skew it is an eighth of the lesser of `n_embd` and `n_ff`.
pub fn initial_hidden(n_embd: usize, n_ff: usize, density: f64, skew: f64) -> usize {
    let least = n_embd.min(n_ff) as f64;
    let by_density = (density.clamp(0.0, 1.0) / 0.1).sqrt();
    let by_skew = 0.5 + 0.5 * (skew.clamp(0.0, COVERED) / COVERED);
    let units = (least / 8.0 * by_density * by_skew).min(least);
    ((units / HIDDEN_STEP as f64).round() as usize).max(1) * HIDDEN_STEP
}

/// Trains predictors of different sizes and returns the cheapest one that recalls `target`, or the one with the best
/// recall if none does within `max_bytes` (weights in their stored types and both biases).
///
/// Starts at [`initial_hidden`] and goes by factors of two: up until the target is met; or, if it is met at once, down
/// as long as that is cheaper, or up if down is not. Each size starts from the units of the one before, so it needs
/// half the epochs. `evaluate` may calibrate as it likes: it sees weights as they will be stored.
///
/// # Errors
/// As [`super::train`]; when not even the smallest predictor fits in `max_bytes`; when `evaluate` returns something
/// that is not a number.
pub fn fit_size(
    training: &Training,
    target: f64,
    max_bytes: usize,
    evaluate: &mut dyn FnMut(&Mlp) -> Evaluation,
    progress: &dyn Progress,
) -> Result<Mlp> {
    let trainer = Trainer::new(training)?;
    let most = trainer.most_hidden(max_bytes)?;
    let (density, skew) = trainer.density_and_skew();
    let first = initial_hidden(training.n_embd, training.n_ff, density, skew).min(most);
    let epochs = ((training.epochs as f32 * RESIZED_EPOCHS).ceil() as usize).max(1);

    let mut assess = |trained: &Trained| -> Result<Evaluation> {
        let evaluation = evaluate(&trained.stored);
        let known = evaluation.recall.is_finite() && evaluation.cost.is_finite();
        ensure!(known, "a predictor of {} units has a recall or a cost that is not a number", trained.stored.hidden);
        Ok(evaluation)
    };
    let better = |a: &Evaluation, b: &Evaluation| match (a.recall >= target, b.recall >= target) {
        (true, true) => a.cost < b.cost,
        (false, false) => a.recall > b.recall,
        (met, _) => met,
    };

    let start = trainer.train(trainer.first(first)?, training.epochs, progress)?;
    if training.fired.n_fired() == 0 {
        return Ok(start.stored);
    }
    let mut best = (assess(&start)?, start);
    let mut left = MAX_TRAININGS - 1;
    let met = best.0.recall >= target;
    let ways: &[bool] = if met { &[false, true] } else { &[true] };
    for &up in ways {
        let before = best.1.stored.hidden;
        while left > 0 {
            let hidden = best.1.stored.hidden;
            let next = if up { (2 * hidden).min(most) } else { hidden / 2 / HIDDEN_STEP * HIDDEN_STEP };
            if next == hidden || next == 0 {
                break;
            }
            let begun = trainer.resized(&best.1.master, next);
            let trained = trainer.train(begun, epochs, progress)?;
            left -= 1;
            let evaluation = assess(&trained)?;
            if !better(&evaluation, &best.0) {
                break;
            }
            best = (evaluation, trained);
            if !met && evaluation.recall >= target {
                break;
            }
        }
        if best.1.stored.hidden != before {
            break;
        }
    }
    Ok(best.1.stored)
}

impl Trainer<'_> {
    /// The largest hidden size whose tensors take at most `max_bytes`.
    fn most_hidden(&self, max_bytes: usize) -> Result<usize> {
        let least = self.bytes(HIDDEN_STEP)?;
        let most = self.training.n_embd.max(self.training.n_ff).div_ceil(HIDDEN_STEP);
        let mut sizes = (1..=most).rev().map(|steps| steps * HIDDEN_STEP);
        sizes.find(|h| self.bytes(*h).is_ok_and(|b| b <= max_bytes)).with_context(|| {
            format!("a predictor of {HIDDEN_STEP} units takes {least} bytes, but the limit is {max_bytes}; allow more")
        })
    }

    /// Bytes of a stored predictor.
    fn bytes(&self, hidden: usize) -> Result<usize> {
        let [input, output] = self.roundings(hidden)?;
        let biases = (hidden + self.training.n_ff) * size_of::<f32>();
        Ok(hidden * input.row_bytes() + self.training.n_ff * output.row_bytes() + biases)
    }

    /// Arguments of [`initial_hidden`].
    fn density_and_skew(&self) -> (f64, f64) {
        let mut counts = self.training.fired.totals().0;
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let total: u64 = counts.iter().sum();
        let mut covered = 0;
        let covering = counts.iter().take_while(|c| {
            let more = (covered as f64) < COVERED * total as f64;
            covered += **c;
            more
        });
        let skew = covering.count() as f64 / self.training.n_ff as f64;
        (total as f64 / (self.n as f64 * self.training.n_ff as f64), skew)
    }

    /// A net of another size that starts from the units of `master`: all of them and new ones, or those that matter
    /// most.
    pub(super) fn resized(&self, master: &Mlp, hidden: usize) -> Mlp {
        let (n_embd, old) = (self.training.n_embd, master.hidden);
        let kept = if hidden < old { self.strongest(master, hidden) } else { (0..old).collect() };
        let mut random = Random::new(self.training.seed, (hidden + old) as u64);
        let mut w1: Vec<f32> = kept.iter().flat_map(|u| &master.w1[u * n_embd..][..n_embd]).copied().collect();
        w1.extend(random.normals((hidden - kept.len()) * n_embd, (2.0 / n_embd as f32).sqrt()));
        let mut b1: Vec<f32> = kept.iter().map(|u| master.b1[*u]).collect();
        b1.resize(hidden, 0.0);
        let mut w2 = Vec::with_capacity(self.training.n_ff * hidden);
        for row in master.w2.chunks_exact(old) {
            w2.extend(kept.iter().map(|u| row[*u]));
            w2.extend(random.normals(hidden - kept.len(), OUTPUT_INIT / (hidden as f32).sqrt()));
        }
        Mlp { hidden, w1, b1, w2, b2: master.b2.clone() }
    }

    /// The units that move outputs most, in their order.
    fn strongest(&self, master: &Mlp, n: usize) -> Vec<usize> {
        let (n_embd, old) = (self.training.n_embd, master.hidden);
        let mut moved = vec![0f64; old];
        for x in self.training.x.chunks(SCORED_ROWS * n_embd).take(8) {
            let scaled: Vec<f32> = x
                .chunks_exact(n_embd)
                .flat_map(|x| x.iter().zip(&self.scaling.mean).map(|(v, m)| (v - m) * self.scaling.scale))
                .collect();
            for h in master.hidden_units(&scaled).chunks_exact(old) {
                moved.iter_mut().zip(h).for_each(|(sum, h)| *sum += f64::from(h * h));
            }
        }
        let mut weights = vec![0f64; old];
        for row in master.w2.chunks_exact(old) {
            weights.iter_mut().zip(row).for_each(|(sum, w)| *sum += f64::from(w * w));
        }
        let strength = |unit: &usize| moved[*unit] * weights[*unit];
        let mut units: Vec<usize> = (0..old).collect();
        units.sort_by(|a, b| strength(b).total_cmp(&strength(a)));
        units.truncate(n);
        units.sort_unstable();
        units
    }
}
