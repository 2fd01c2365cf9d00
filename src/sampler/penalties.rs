//! Repeat, frequency and presence penalty: tokens that were seen recently become less likely.

use super::candidates::Candidates;
use super::step::Step;
use std::collections::{HashMap, VecDeque};

/// Tokens of a window for which there is room from the beginning.
const MOST_FORESEEN: usize = 4096;

/// Weakens the tokens in a window of the last ones. Positive logits are divided by `repeat`, others multiplied; then `frequency`
/// is subtracted for each time that the token is in the window, and `presence` once.
#[derive(Debug)]
pub struct Penalties {
    repeat: f64,
    frequency: f64,
    presence: f64,
    /// Tokens in the window at most; `None` is all.
    last_n: Option<usize>,
    window: VecDeque<u32>,
    /// How often each token is in the window.
    counts: HashMap<u32, u32>,
}

/// Tokens that there is room for: twice as many as are in a window of `last_n`, as what is removed leaves its place unusable for a
/// while.
fn room(last_n: Option<usize>) -> usize {
    2 * last_n.unwrap_or(0).min(MOST_FORESEEN)
}

impl Penalties {
    /// `None` where it would change nothing. `last_n` is a number of tokens, or -1 for all.
    pub fn new(repeat: f32, frequency: f32, presence: f32, last_n: i32) -> Option<Self> {
        if last_n == 0 || (repeat, frequency, presence) == (1.0, 0.0, 0.0) {
            return None;
        }
        let [repeat, frequency, presence] = [repeat, frequency, presence].map(f64::from);
        let last_n = usize::try_from(last_n).ok();
        let counts = HashMap::with_capacity(room(last_n));
        Some(Self { repeat, frequency, presence, last_n, window: VecDeque::new(), counts })
    }
}

impl Step for Penalties {
    fn apply(&mut self, candidates: &mut Candidates, _draw: &mut dyn FnMut() -> f64) {
        let weakened = |logit: f64, count: u32| {
            let logit = if logit > 0.0 { logit / self.repeat } else { logit * self.repeat };
            logit - (f64::from(count) * self.frequency + self.presence)
        };
        let count = |id: u32| self.counts.get(&id).copied();
        // Which is faster depends on how many of either there are, but not what comes out.
        if candidates.in_order_of_ids() {
            candidates.set_logits_of(self.counts.keys().copied(), |c| weakened(c.logit, count(c.id).unwrap_or(0)));
        } else {
            candidates.set_logits(|c| count(c.id).map_or(c.logit, |n| weakened(c.logit, n)));
        }
    }

    fn accept(&mut self, token: u32) {
        if self.last_n == Some(self.window.len())
            && let Some(oldest) = self.window.pop_front()
            && let Some(count) = self.counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
        self.window.push_back(token);
        *self.counts.entry(token).or_default() += 1;
    }

    fn forget(&mut self) {
        self.window.clear();
        self.counts.clear();
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        // Tokens that were removed take some of it for a while; more than at the beginning is new memory.
        let foreseen: HashMap<u32, u32> = HashMap::with_capacity(room(self.last_n));
        self.window.capacity() + self.counts.capacity().max(foreseen.capacity())
    }
}
