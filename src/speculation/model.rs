//! Drafts by a model: a small one with the same vocabulary, or the same one in a mode that computes less.

use super::drafter::{Drafter, Guess, N_CLASSES};
use crate::executor::Executor;
use anyhow::Result;

/// Tokens from which on a text that is not known yet is computed as a prompt.
const PROMPT: usize = 8;

/// Guesses the token that a model finds most likely.
pub struct ModelDrafter<'m> {
    executor: Executor<'m>,
    name: &'static str,
    least: f32,
    /// Tokens of the vocabulary that it drafts for.
    n_tokens: usize,
    /// Where in the text that begins which the executor holds, and these tokens.
    first: usize,
    held: Vec<u32>,
}

impl<'m> ModelDrafter<'m> {
    /// Drafts by what `executor` runs, called `name` in reports, for a vocabulary of `n_tokens`. What it finds less likely than
    /// `least` is no guess.
    pub fn new(executor: Executor<'m>, name: &'static str, n_tokens: usize, least: f32) -> Self {
        Self { executor, name, least, n_tokens, first: 0, held: Vec::new() }
    }

    fn clear(&mut self, first: usize) {
        self.executor.clear();
        self.held.clear();
        self.first = first;
    }

    /// Takes in what it does not hold yet of the text, with its draft; `None` where there is no room for it.
    fn take_in(&mut self, text: &[u32], draft: &[u32]) -> Result<Option<&[f32]>> {
        let n_ctx = self.executor.params().n_ctx;
        let n = text.len() + draft.len();
        // Of a text that is longer than its context it sees the end.
        if n.saturating_sub(self.first) > n_ctx || self.first >= text.len() {
            self.clear(n.saturating_sub(n_ctx.div_ceil(2)).min(text.len().saturating_sub(1)));
        }
        let wanted: Vec<u32> = text[self.first..].iter().chain(draft).copied().collect();
        if wanted.is_empty() || wanted.len() > n_ctx {
            return Ok(None);
        }
        let same = self.held.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        // The last one always is computed, for its logits.
        let kept = self.executor.keep(same.min(wanted.len() - 1));
        self.held.truncate(kept);
        let missing = &wanted[kept..];
        if missing.len() >= PROMPT {
            self.executor.prefill(missing)?;
        } else {
            for token in missing {
                self.executor.decode(*token)?;
            }
        }
        self.held.extend_from_slice(missing);
        // States of recurrent layers go back to where the draft begins.
        if draft.is_empty() {
            self.executor.remember();
        }
        let n_tokens = self.executor.model().config.n_tokens;
        Ok(Some(&self.executor.last_logits()[..n_tokens]))
    }
}

impl Drafter for ModelDrafter<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn guess(&mut self, text: &[u32], draft: &[u32]) -> Result<Option<Guess>> {
        let (least, n_tokens) = (self.least, self.n_tokens);
        let Some(logits) = self.take_in(text, draft)? else { return Ok(None) };
        let best = (0u32..).zip(logits).max_by(|(_, a), (_, b)| a.total_cmp(b));
        let Some((token, most)) = best.filter(|(token, _)| (*token as usize) < n_tokens) else { return Ok(None) };
        let share = 1.0 / logits.iter().map(|logit| (logit - most).exp()).sum::<f32>();
        // NaN is no guess either.
        if !(share >= least && share > 0.0) {
            return Ok(None);
        }
        Ok(Some(Guess { token, class: ((share * N_CLASSES as f32) as usize).min(N_CLASSES - 1) }))
    }

    fn rewind(&mut self, n: usize) {
        if n < self.first {
            self.clear(0);
        }
    }

    fn is_free(&self) -> bool {
        false
    }

    fn expected(&self, class: usize) -> f64 {
        (class as f64 + 0.5) / N_CLASSES as f64
    }
}
