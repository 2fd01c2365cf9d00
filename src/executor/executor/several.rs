//! Sequences beside the executor's own: prompts of theirs, and where they go back or take tokens over.

use super::Executor;
use crate::executor::batch::{Batch, Entry};
use crate::executor::device::Phase;
use crate::executor::sequence::Sequence;
use crate::units::Bytes;
use anyhow::{Result, ensure};

impl Executor<'_> {
    /// [`Executor::prefill_part`] of another sequence, which gets the bits that the executor's own would: `tokens` are some or all of
    /// a prompt of `whole` tokens.
    ///
    /// # Errors
    /// As [`Executor::prefill`]; when the sequence is not one of [`Executor::new_sequence`].
    pub fn prefill_sequence(&mut self, sequence: &mut Sequence, tokens: &[u32], whole: usize) -> Result<&[f32]> {
        ensure!(sequence.is_like(&self.sequence), "the sequence is of another model or of another set-up");
        self.prefill_others(Self::phase(whole), sequence, tokens)?;
        Ok(&self.logits)
    }

    /// Has `to` hold the first `n` tokens of `from`, and nothing else. `false` where it is of another model or set-up, has fewer
    /// tokens or has given up what is needed to go on behind these: then it holds nothing. Counts stay.
    pub fn copy_sequence(&mut self, from: &mut Sequence, to: &mut Sequence, n: usize) -> bool {
        let copied = self.take_over(from, to, n);
        if !copied {
            to.clear();
        }
        copied
    }

    fn take_over(&mut self, from: &mut Sequence, to: &mut Sequence, n: usize) -> bool {
        to.clear();
        if self.move_in(from).is_err() || self.move_in(to).is_err() {
            return false;
        }
        let recurs = from.memory().recurs();
        if recurs && n == from.n_past() && self.device.save(from).is_err() {
            return false;
        }
        to.copy_from(from, n, |layer| self.device.has_cache(layer))
            && self.device.copy_cache(from, to).is_ok()
            && (!recurs || self.device.restore(to).is_ok())
    }

    /// Has `sequence` forget everything after its first `n_past` tokens.
    ///
    /// # Errors
    /// When its memory cannot forget just these, or a card fails: then [`Sequence::clear`] it and compute the others again.
    pub fn truncate_sequence(&mut self, sequence: &mut Sequence, n_past: usize) -> Result<()> {
        if n_past >= sequence.n_past() {
            return Ok(());
        }
        sequence.truncate(n_past)?;
        if n_past > 0 && sequence.memory().recurs() { self.device.restore(sequence) } else { Ok(()) }
    }

    /// Makes it possible for `sequence` to go back to where it is now, and for others to begin there:
    /// [`Memory::remember`](crate::executor::Memory::remember).
    pub fn remember_sequence(&mut self, sequence: &mut Sequence) {
        // A device that fails here is no reason to stop: what comes next says so.
        if sequence.memory().recurs() && self.move_in(sequence).and_then(|()| self.device.save(sequence)).is_ok() {
            sequence.remember();
        }
    }

    /// Counts what fired while `sequence` was decoded as the executor's own.
    pub fn add_stats(&mut self, sequence: &Sequence) {
        if sequence.is_like(&self.sequence) {
            self.sequence.stats.merge(sequence.stats());
        }
    }

    /// Memory of the processor that a sequence takes once it has `n_tokens`.
    pub fn sequence_bytes(&self, n_tokens: usize) -> Bytes {
        Bytes(self.sequence.memory.n_bytes_for(n_tokens, |layer| self.device.has_cache(layer)) as u64)
    }

    pub(super) fn prefill_others(&mut self, phase: Phase, sequence: &mut Sequence, tokens: &[u32]) -> Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        let done = self.prefill_batches(phase, &mut batch, sequence, tokens);
        self.batch = batch;
        done
    }

    /// Memory that each further sequence does not take for certain, where all begin with the same `n_common` tokens and one has taken
    /// them over from another: [`Executor::copy_sequence`].
    pub fn shared_bytes(&self, n_common: usize) -> Bytes {
        Bytes(self.sequence.memory.n_bytes_shared(n_common, |layer| self.device.has_cache(layer)) as u64)
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
            self.run_others(phase, batch, std::slice::from_mut(&mut *sequence))?;
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
