//! Kullback-Leibler divergence between the predictions of two models with one vocabulary.

use super::log_sum_exp;
use crate::executor::{Executor, Observer};
use crate::progress::{self, Progress};
use anyhow::{Result, ensure};

/// Tokens whose logits are held at a time.
const CHUNK: usize = 32;

#[derive(Default)]
struct Logits(Vec<Vec<f32>>);

impl Observer for Logits {
    fn wants_logits(&self) -> bool {
        true
    }

    fn logits(&mut self, _position: usize, logits: &[f32]) {
        self.0.push(logits.to_vec());
    }
}

/// Mean KL(reference || other) in nats over the predictions after each of `tokens`, both models prefilling the same
/// text from an empty context.
///
/// # Errors
/// When vocabularies differ, the tokens do not fit, or the user stops it.
pub fn mean_kl(reference: &mut Executor, other: &mut Executor, tokens: &[u32], progress: &dyn Progress) -> Result<f64> {
    ensure!(!tokens.is_empty(), "no tokens to compare over");
    reference.clear();
    other.clear();
    let mut sum = 0.0;
    for chunk in tokens.chunks(CHUNK) {
        progress::check(progress)?;
        let (mut a, mut b) = (Logits::default(), Logits::default());
        reference.prefill_observed(chunk, &mut a)?;
        other.prefill_observed(chunk, &mut b)?;
        for (p, q) in a.0.iter().zip(&b.0) {
            ensure!(p.len() == q.len(), "vocabularies of {} and {} tokens cannot be compared", p.len(), q.len());
            sum += kl(p, q);
        }
        progress.advance(chunk.len() as u64);
    }
    Ok(sum / tokens.len() as f64)
}

/// KL(p || q) of two logit vectors, in nats.
pub fn kl(p: &[f32], q: &[f32]) -> f64 {
    kl_normed((p, log_sum_exp(p)), (q, log_sum_exp(q)))
}

/// [`kl`] of logits whose [`log_sum_exp`] is known.
pub(super) fn kl_normed((p, p_norm): (&[f32], f64), (q, q_norm): (&[f32], f64)) -> f64 {
    let terms = p.iter().zip(q).map(|(p, q)| {
        let (log_p, log_q) = (f64::from(*p) - p_norm, f64::from(*q) - q_norm);
        log_p.exp() * (log_p - log_q)
    });
    let sum = terms.sum::<f64>();
    // Rounding may give less than zero. NaN stays: `max` would make a broken model a perfect one.
    if sum < 0.0 { 0.0 } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_zero_for_equal_and_right_for_known_distributions() {
        assert_eq!(kl(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]), 0.0);
        assert!(kl(&[1.0, 2.0, 3.0], &[2.0, 3.0, 4.0]).abs() < 1e-12);
        // p = (1/2, 1/2), q = (3/4, 1/4)
        let expected = 0.5 * (0.5f64 / 0.75).ln() + 0.5 * (0.5f64 / 0.25).ln();
        assert!((kl(&[0.0, 0.0], &[3f32.ln(), 0.0]) - expected).abs() < 1e-7);
    }

    #[test]
    fn logits_that_are_not_numbers_are_not_taken_for_agreement() {
        assert!(kl(&[f32::NAN, 1.0], &[1.0, 1.0]).is_nan());
        assert!(kl(&[1.0, 1.0], &[1.0, f32::NAN]).is_nan());
    }
}
