//! Temperature, fixed or after how sure the model is.

use super::candidates::Candidates;
use super::number::{ln, power};
use super::step::Step;

/// Divides the logits; at 0 only the most likely token stays.
#[derive(Debug)]
pub struct Temperature {
    /// In the middle of the range.
    pub temp: f64,
    /// How far up and down it may go; 0 is not at all.
    pub range: f64,
    /// Power of the entropy, which says where in the range it is.
    pub exponent: f64,
}

impl Step for Temperature {
    fn apply(&mut self, candidates: &mut Candidates, _draw: &mut dyn FnMut() -> f64) {
        let temp = if self.range > 0.0 { self.dynamic(candidates) } else { self.temp };
        if temp > 0.0 {
            if temp != 1.0 {
                candidates.set_logits(|c| c.logit / temp);
            }
        } else {
            candidates.keep_best(1);
        }
    }
}

impl Temperature {
    /// The lower end of the range where the model is sure, the upper end where all candidates are equally likely.
    fn dynamic(&self, candidates: &mut Candidates) -> f64 {
        let n = candidates.list().len();
        if n <= 1 {
            return 1.0;
        }
        let (least, most) = ((self.temp - self.range).max(0.0), self.temp + self.range);
        let total = candidates.weigh();
        let best = candidates.best_logit();
        let shared = candidates.list().iter().zip(candidates.weights());
        let entropy = ln(total) - shared.map(|(c, w)| w * (c.logit - best)).sum::<f64>() / total;
        // Rounding may leave it a little outside.
        let share = (entropy / ln(n as f64)).clamp(0.0, 1.0);
        least + (most - least) * power(share, self.exponent)
    }
}
