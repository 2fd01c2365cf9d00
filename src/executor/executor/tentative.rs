//! Tokens that are taken in and may be taken back, as if they had never been there.

use super::Executor;
use anyhow::{Result, ensure};

impl Executor<'_> {
    /// Whether it computes several tokens at once and can take them back: not where a card computes one after the other.
    pub fn can_take_back(&self) -> bool {
        self.device.at_once() > 1
    }

    /// Tokens at the most that it computes at once and can take back.
    pub fn most_tentative(&self) -> usize {
        self.device.at_once().min(self.params.n_ubatch)
    }

    /// Takes in several tokens of its own sequence as [`Executor::decode_several`] does. Until [`Executor::settle`] says how
    /// many of them stay, nothing else may be done with the sequence. [`Executor::logits_of`] has the logits.
    ///
    /// # Errors
    /// As [`Executor::prefill`]; when they are more than [`Executor::most_tentative`]. None of them is there then.
    pub fn decode_tentatively(&mut self, tokens: &[u32]) -> Result<()> {
        let (n, most) = (tokens.len(), self.most_tentative());
        let by = if most == self.params.n_ubatch { "-ub" } else { "a card's" };
        ensure!(n <= most, "{n} tokens at once are more than {by} {most}");
        self.settle(usize::MAX)?;
        self.own_batch(tokens, true);
        self.check_batch()?;
        self.reserve_own(tokens.len())?;
        self.sequence.memory.mark(tokens.len());
        self.sequence.stats.begin_journal();
        let first = self.n_past();
        self.is_tentative = true;
        let done = self.decode_several(tokens).map(drop);
        self.is_tentative = false;
        match &done {
            Ok(()) => self.n_tentative = tokens.len(),
            Err(_) => {
                self.sequence.memory.take_back(first, first);
                self.sequence.forget_tokens();
                self.sequence.stats.end_journal(0, 0);
            }
        }
        done
    }

    /// The first `n` of the tokens that may be taken back stay, or all where there are fewer. The others are as if they had
    /// never been there: not in the memory of the sequence, and not in what is counted.
    ///
    /// # Errors
    /// When the device fails: layers that recur compute those that stay again.
    pub fn settle(&mut self, n: usize) -> Result<()> {
        let n_tentative = std::mem::take(&mut self.n_tentative);
        if n_tentative == 0 {
            return Ok(());
        }
        let n = n.min(n_tentative);
        let first = self.n_past() - n_tentative;
        self.sequence.memory.take_back(first, first + n);
        self.sequence.forget_tokens();
        self.sequence.stats.end_journal(n, n_tentative);
        if self.n_past() < first + n {
            let stays: Vec<u32> = self.batch.entries()[..n].iter().map(|entry| entry.token).collect();
            let counted = self.sequence.stats.clone();
            let done = self.decode_several(&stays).map(drop);
            self.sequence.stats = counted;
            done?;
        }
        Ok(())
    }

    /// Logits after the last token that was computed (`[n_vocab]`).
    ///
    /// # Panics
    /// Before the first.
    pub fn last_logits(&self) -> &[f32] {
        &self.logits[self.logits.len() - self.model.config.n_vocab..]
    }

    /// Logits after the `i`th token of the last batch, where those of all were wanted (`[n_vocab]`).
    ///
    /// # Panics
    /// When the batch had no such token.
    pub fn logits_of(&self, i: usize) -> &[f32] {
        let n_vocab = self.model.config.n_vocab;
        &self.logits[i * n_vocab..][..n_vocab]
    }
}
