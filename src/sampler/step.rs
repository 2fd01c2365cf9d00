//! What a sampler of the chain does.

use super::candidates::Candidates;
use std::fmt::Debug;

/// A sampler of the chain.
pub trait Step: Debug + Send {
    /// Changes the candidates, of which it must leave one at least. `draw` gives random numbers, uniform in 0..1.
    fn apply(&mut self, candidates: &mut Candidates, draw: &mut dyn FnMut() -> f64);

    /// Hears of a token, be it of the prompt or a chosen one.
    fn accept(&mut self, _token: u32) {}

    /// Forgets all that it has heard of.
    fn forget(&mut self) {}

    /// What its buffers can hold.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        0
    }
}
