//! Locally typical sampling: tokens about as surprising as is to be expected here.

use super::candidates::Candidates;
use super::step::Step;

/// Keeps the tokens whose surprise is nearest to the expected one, as few as have more than this probability together.
/// The most likely token may be none of them. Source: arXiv 2202.00666.
#[derive(Debug)]
pub struct Typical(pub f64);

impl Step for Typical {
    fn apply(&mut self, candidates: &mut Candidates, _draw: &mut dyn FnMut() -> f64) {
        let total = candidates.weigh();
        let best = candidates.best_logit();
        // Surprise is ln(total) + best - logit. What is the same for all tokens cancels in the difference from its mean.
        let shared = candidates.list().iter().zip(candidates.weights());
        let mean = shared.map(|(c, w)| w * (c.logit - best)).sum::<f64>() / total;
        candidates.sort_by_score(|logit| (logit - best - mean).abs());
        let wanted = self.0 * candidates.weigh();
        let mut sum = 0.0;
        let reached = candidates.weights().iter().position(|w| {
            sum += w;
            sum > wanted
        });
        if let Some(last) = reached {
            candidates.keep_first(last + 1);
        }
    }
}
