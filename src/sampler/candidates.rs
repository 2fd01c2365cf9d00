//! The tokens that may still be chosen.

use super::number::exp_of_nonpositive;
use anyhow::{Result, ensure};
use std::cmp::Ordering;

/// A token that may be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its logit, as far as it has been changed.
    pub logit: f64,
}

/// What is known of the order of the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Ids,
    FallingLogits,
    Unknown,
}

/// Larger logits than any that a model gives; nothing is computed beyond them, so that no step makes infinities of finite ones.
const LIMIT: f64 = 1e100;

/// The tokens that may still be chosen, at least one once [`Candidates::load`] has succeeded. Once its buffers have grown to the
/// vocabulary, nothing is allocated.
#[derive(Debug)]
pub struct Candidates {
    list: Vec<Candidate>,
    order: Order,
    /// Unnormalised probability of each candidate, after [`Candidates::weigh`].
    weights: Vec<f64>,
}

impl Candidates {
    /// None yet.
    pub fn new() -> Self {
        Self { list: Vec::new(), order: Order::Ids, weights: Vec::new() }
    }

    /// Begins anew with all tokens of `logits` (`[n_vocab]`, indexed by token id) that are `allowed`.
    ///
    /// # Errors
    /// When a logit is NaN or +inf.
    pub fn load(&mut self, logits: &[f32], allowed: impl Fn(u32) -> bool) -> Result<()> {
        let bad = logits.iter().filter(|l| l.is_nan() || **l == f32::INFINITY).count();
        ensure!(bad == 0, "no token can be sampled: {bad} of {} logits are NaN or +inf", logits.len());
        self.list.clear();
        let all = (0u32..).zip(logits).filter(|(id, _)| allowed(*id));
        self.list.extend(all.map(|(id, &logit)| Candidate { id, logit: f64::from(logit) }));
        self.order = Order::Ids;
        Ok(())
    }

    /// The candidates, in the order in which they are drawn from.
    pub fn list(&self) -> &[Candidate] {
        &self.list
    }

    /// What [`Candidates::weigh`] has found, for each of [`Candidates::list`].
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Gives each candidate the logit that `of` makes of it. Those that get -inf are no candidates any more.
    pub fn set_logits(&mut self, mut of: impl FnMut(Candidate) -> f64) {
        self.list.retain_mut(|c| {
            c.logit = of(*c).min(LIMIT);
            let stays = c.logit > f64::NEG_INFINITY;
            c.logit = c.logit.max(-LIMIT);
            stays
        });
        self.reordered();
    }

    /// As [`Candidates::set_logits`], for a few tokens; those that are no candidates are left out.
    pub fn set_logits_of(&mut self, tokens: impl Iterator<Item = u32>, mut of: impl FnMut(Candidate) -> f64) {
        let mut lost = false;
        for id in tokens {
            let found = match self.order {
                Order::Ids => self.list.binary_search_by_key(&id, |c| c.id).ok(),
                _ => self.list.iter().position(|c| c.id == id),
            };
            if let Some(c) = found.and_then(|at| self.list.get_mut(at)) {
                c.logit = of(*c).min(LIMIT);
                lost |= c.logit == f64::NEG_INFINITY;
            }
        }
        if lost {
            self.list.retain(|c| c.logit > f64::NEG_INFINITY);
        }
        self.reordered();
    }

    fn reordered(&mut self) {
        if self.order == Order::FallingLogits {
            self.order = Order::Unknown;
        }
    }

    /// Whether the candidates are in the order of their ids.
    pub fn in_order_of_ids(&self) -> bool {
        self.order == Order::Ids
    }

    /// The most likely candidate, the one with the lowest id on ties.
    pub fn best(&self) -> Option<Candidate> {
        self.list.iter().copied().min_by(by_falling_logit)
    }

    /// The logit of the most likely candidate.
    pub fn best_logit(&self) -> f64 {
        self.best().map_or(0.0, |c| c.logit)
    }

    /// The most likely first.
    pub fn sort(&mut self) {
        if self.order != Order::FallingLogits {
            self.list.sort_unstable_by(by_falling_logit);
            self.order = Order::FallingLogits;
        }
    }

    /// Keeps the `n` most likely and sorts them.
    pub fn keep_best(&mut self, n: usize) {
        if (1..self.list.len()).contains(&n) {
            if self.order != Order::FallingLogits {
                self.list.select_nth_unstable_by(n - 1, by_falling_logit);
                self.order = Order::Unknown;
            }
            self.list.truncate(n);
        }
        self.sort();
    }

    /// Keeps the first `n`, at least one.
    pub fn keep_first(&mut self, n: usize) {
        self.list.truncate(n.max(1));
    }

    /// Drops the first `n`, all but one at most.
    pub fn drop_first(&mut self, n: usize) {
        self.list.drain(..n.min(self.list.len().saturating_sub(1)));
    }

    /// Keeps those with a logit for which `stays` holds, which must hold for the greatest.
    pub fn keep_where(&mut self, stays: impl Fn(f64) -> bool) {
        self.list.retain(|c| stays(c.logit));
    }

    /// Sorts by what `score` says of a logit, the lowest first; equal ones as [`Candidates::sort`] does.
    pub fn sort_by_score(&mut self, score: impl Fn(f64) -> f64) {
        let scores = |a: &Candidate, b: &Candidate| score(a.logit).total_cmp(&score(b.logit));
        self.list.sort_unstable_by(|a, b| scores(a, b).then_with(|| by_falling_logit(a, b)));
        self.order = Order::Unknown;
    }

    /// Finds the probability of each candidate relative to the most likely one, and returns their sum.
    pub fn weigh(&mut self) -> f64 {
        let best = self.best_logit();
        self.weights.clear();
        self.weights.extend(self.list.iter().map(|c| exp_of_nonpositive(c.logit - best)));
        self.weights.iter().sum()
    }

    /// What the buffers can hold.
    #[cfg(test)]
    pub fn capacities(&self) -> (usize, usize) {
        (self.list.capacity(), self.weights.capacity())
    }
}

/// The more likely candidate first, the lower id first on ties.
fn by_falling_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}
