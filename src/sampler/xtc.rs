//! XTC: at random, the most likely tokens are left out where a less likely one would do.

use super::candidates::Candidates;
use super::step::Step;

/// Leaves out all tokens that have at least the threshold's probability, except for the least likely of them.
/// Source: github.com/oobabooga/text-generation-webui, pull request 6335.
#[derive(Debug)]
pub struct Xtc {
    /// How often it does so.
    pub probability: f64,
    /// Probability of a token that would do.
    pub threshold: f64,
}

impl Step for Xtc {
    fn apply(&mut self, candidates: &mut Candidates, draw: &mut dyn FnMut() -> f64) {
        if candidates.list().len() < 2 || draw() > self.probability {
            return;
        }
        candidates.sort();
        let wanted = self.threshold * candidates.weigh();
        let n = candidates.weights().iter().take_while(|w| **w >= wanted).count();
        candidates.drop_first(n.saturating_sub(1));
    }
}
