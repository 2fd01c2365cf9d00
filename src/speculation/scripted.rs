//! Drafts that are right as often as is said, of a text that is known: for tests and measurements.

use super::drafter::{Drafter, Guess};
use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Knows the text that will come, and guesses each of its tokens with the same probability.
pub struct Scripted {
    text: Vec<u32>,
    share: f64,
    rng: ChaCha8Rng,
}

impl Scripted {
    /// Guesses at `text`, prompt and all, of which `share` come true on average; which ones, the seed says.
    pub fn new(text: Vec<u32>, share: f64, seed: u64) -> Self {
        Self { text, share, rng: ChaCha8Rng::seed_from_u64(seed) }
    }
}

impl Drafter for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn guess(&mut self, text: &[u32], draft: &[u32]) -> Result<Option<Guess>> {
        let Some(token) = self.text.get(text.len() + draft.len()) else { return Ok(None) };
        let is_right = f64::from(self.rng.next_u32()) < self.share * 2f64.powi(32);
        // Any other token.
        let token = if is_right { *token } else { token ^ 1 };
        Ok(Some(Guess { token, class: 0 }))
    }

    fn rewind(&mut self, _n: usize) {}

    fn is_free(&self) -> bool {
        true
    }

    fn expected(&self, _class: usize) -> f64 {
        // As any other drafter it does not know how good it is.
        0.5
    }
}
