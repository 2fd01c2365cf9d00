//! The samplers that look at nothing but the logits before them: top-k, top-p, min-p, top-n-sigma.

use super::candidates::Candidates;
use super::number::exp_of_nonpositive;
use super::step::Step;

/// Keeps the k most likely tokens.
#[derive(Debug)]
pub struct TopK(pub usize);

impl Step for TopK {
    fn apply(&mut self, candidates: &mut Candidates, _draw: &mut dyn FnMut() -> f64) {
        candidates.keep_best(self.0);
    }
}

/// Keeps the fewest most likely tokens whose probabilities reach a sum.
#[derive(Debug)]
pub struct TopP(pub f64);

impl Step for TopP {
    fn apply(&mut self, candidates: &mut Candidates, _draw: &mut dyn FnMut() -> f64) {
        candidates.sort();
        let wanted = self.0 * candidates.weigh();
        let mut sum = 0.0;
        let reached = candidates.weights().iter().position(|w| {
            sum += w;
            sum >= wanted
        });
        if let Some(last) = reached {
            candidates.keep_first(last + 1);
        }
    }
}

/// Keeps the tokens that are at least this probable relative to the most likely one.
#[derive(Debug)]
pub struct MinP(pub f64);

impl Step for MinP {
    fn apply(&mut self, candidates: &mut Candidates, _draw: &mut dyn FnMut() -> f64) {
        let best = candidates.best_logit();
        candidates.keep_where(|logit| exp_of_nonpositive(logit - best) >= self.0);
    }
}

/// Keeps the tokens whose logits are at most this many standard deviations of all logits below the greatest.
/// Source: arXiv 2411.07641.
#[derive(Debug)]
pub struct TopNSigma(pub f64);

impl Step for TopNSigma {
    fn apply(&mut self, candidates: &mut Candidates, _draw: &mut dyn FnMut() -> f64) {
        let n = candidates.list().len() as f64;
        let logits = || candidates.list().iter().map(|c| c.logit);
        let mean = logits().sum::<f64>() / n;
        let deviation = (logits().map(|l| (l - mean) * (l - mean)).sum::<f64>() / n).sqrt();
        let least = candidates.best_logit() - self.0 * deviation;
        candidates.keep_where(|logit| logit >= least);
    }
}
