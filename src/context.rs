//! A text that is longer than the context: its first tokens stay, and the oldest half of the others goes.

use crate::executor::Executor;
use anyhow::Result;

/// What becomes of a full context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    /// Tokens at the beginning that stay.
    pub n_keep: usize,
}

impl Shift {
    /// Drops the older half of what stands behind the tokens that stay. Returns how many tokens that was.
    ///
    /// # Errors
    /// As [`Executor::shift`].
    pub fn make_room(self, executor: &mut Executor) -> Result<usize> {
        let half = executor.n_past().saturating_sub(self.n_keep) / 2;
        executor.shift(self.n_keep, half)
    }
}

/// A text that is told anew as a whole at each turn, of which tokens in its middle are no longer in the context.
#[derive(Debug, Clone, Default)]
pub struct Gap {
    n_keep: usize,
    n_dropped: usize,
}

impl Gap {
    /// How many tokens it has.
    pub fn len(&self) -> usize {
        self.n_dropped
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.n_dropped == 0
    }

    /// A shift that kept `n_keep` tokens has dropped further ones.
    pub fn grow(&mut self, n_keep: usize, n_dropped: usize) {
        *self = Self { n_keep, n_dropped: self.n_dropped + n_dropped };
    }

    /// The whole `text` without the tokens that are no longer there; all of it, and no gap any more, where it ends before.
    pub fn without(&mut self, mut text: Vec<u32>) -> Vec<u32> {
        let Self { n_keep, n_dropped } = *self;
        if text.len() < n_keep + n_dropped {
            *self = Self::default();
        } else {
            text.drain(n_keep..n_keep + n_dropped);
        }
        text
    }
}

/// Has `wanted` fit into the context, where it goes on from what `executor` holds, which are the first ones of `held`: drops the
/// older half of what stands between the tokens that `shift` keeps and the last `n_last`, or more. Returns how many tokens that
/// was; none where more than all of that would have to go: then the prompt does not fit.
///
/// What `executor` holds moves up, unless too little of it stays: then the rest is left to be computed anew.
pub fn fit(
    executor: &mut Executor,
    shift: Shift,
    held: &mut Vec<u32>,
    wanted: &mut Vec<u32>,
    n_last: impl FnOnce() -> usize,
) -> usize {
    let Shift { n_keep } = shift;
    let Some(least) = wanted.len().checked_sub(executor.params().n_ctx).filter(|n| *n > 0) else { return 0 };
    let most = wanted.len().saturating_sub(n_keep.saturating_add(n_last()));
    if least > most {
        return 0;
    }
    let n = least.max(most / 2);
    let agreed = held.iter().zip(&*wanted).take_while(|(a, b)| a == b).count().min(executor.n_past());
    let moved = if n_keep + n <= agreed { executor.shift(n_keep, n).unwrap_or(0) } else { 0 };
    held.drain(n_keep.min(held.len())..(n_keep + moved).min(held.len()));
    if moved < n {
        executor.keep(n_keep);
        held.truncate(n_keep);
    }
    wanted.drain(n_keep..n_keep + n);
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_leaves_out_what_was_dropped_until_the_text_ends_before_it() {
        let mut gap = Gap::default();
        let text: Vec<u32> = (0..10).collect();
        assert_eq!(gap.without(text.clone()), text);
        gap.grow(2, 3);
        gap.grow(2, 1);
        assert_eq!((gap.len(), gap.is_empty()), (4, false));
        assert_eq!(gap.without(text.clone()), [0, 1, 6, 7, 8, 9]);
        assert_eq!(gap.without(text[..6].to_vec()), [0, 1]);
        // Another, shorter text.
        assert_eq!(gap.without(text[..5].to_vec()), &text[..5]);
        assert!(gap.is_empty());
        assert_eq!(gap.without(text.clone()), text);
    }
}
