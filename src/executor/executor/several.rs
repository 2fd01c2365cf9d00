//! Sequences beside the executor's own: prompts of theirs.

use super::Executor;
use crate::executor::batch::{Batch, Entry};
use crate::executor::device::{Phase, Tokens};
use crate::executor::observer::Unobserved;
use crate::executor::sequence::Sequence;
use crate::units::Bytes;
use anyhow::{Result, ensure};

impl Executor<'_> {
    /// [`Executor::prefill_part`] of another sequence, which gets the bits that the executor's own would: `tokens` are some or all of
    /// a prompt of `whole` tokens.
    ///
    /// # Errors
    /// As [`Executor::prefill`]; when the sequence is not one of [`Executor::new_sequence`], or the device has room for one only.
    pub fn prefill_sequence(&mut self, sequence: &mut Sequence, tokens: &[u32], whole: usize) -> Result<&[f32]> {
        self.device.further_sequences()?;
        ensure!(sequence.is_like(&self.sequence), "the sequence is of another model or of another set-up");
        let mut batch = std::mem::take(&mut self.batch);
        let done = self.prefill_batches(Self::phase(whole), &mut batch, sequence, tokens);
        self.batch = batch;
        done.map(|()| &*self.logits)
    }

    /// Counts what fired while `sequence` was decoded as the executor's own.
    pub fn add_stats(&mut self, sequence: &Sequence) {
        if sequence.is_like(&self.sequence) {
            self.sequence.stats.merge(sequence.stats());
        }
    }

    /// Memory that a sequence takes once it has `n_tokens`.
    pub fn sequence_bytes(&self, n_tokens: usize) -> Bytes {
        Bytes(self.sequence.memory.n_bytes_for(n_tokens) as u64)
    }

    /// Memory that each further sequence does not take for certain, where all begin with the same `n_common` tokens and one has taken
    /// them over from another: [`Sequence::copy_from`].
    pub fn shared_bytes(&self, n_common: usize) -> Bytes {
        Bytes(self.sequence.memory.n_bytes_shared(n_common) as u64)
    }

    fn prefill_batches(
        &mut self,
        phase: Phase,
        batch: &mut Batch,
        sequence: &mut Sequence,
        tokens: &[u32],
    ) -> Result<()> {
        fill(batch, sequence.n_past(), tokens);
        let n_past = sequence.n_past();
        batch.check(|of| (of == 0).then_some(n_past), self.params.n_ctx, self.model.config.n_vocab)?;
        for chunk in tokens.chunks(self.params.n_ubatch) {
            fill(batch, sequence.n_past(), chunk);
            sequence.memory.reserve(sequence.n_past()..sequence.n_past() + chunk.len())?;
            let sequences = std::slice::from_mut(&mut *sequence);
            let mut tokens = Tokens { batch, sequences, observer: &mut Unobserved };
            self.device.run(phase, &mut tokens, &mut self.logits)?;
            self.scale_logits();
            sequence.memory.advance(chunk.len());
        }
        Ok(())
    }
}

/// `batch` becomes `tokens` of one sequence from `first` on, of which the logits of the last are wanted.
fn fill(batch: &mut Batch, first: usize, tokens: &[u32]) {
    batch.clear();
    for (i, token) in tokens.iter().enumerate() {
        let wants_logits = i + 1 == tokens.len();
        batch.push(Entry { sequence: 0, position: first + i, token: *token, wants_logits });
    }
}
