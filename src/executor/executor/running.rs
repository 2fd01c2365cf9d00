//! Passes on a device, and what becomes of sequences where it fails in the middle of one.

use super::Executor;
use crate::executor::batch::Batch;
use crate::executor::device::{Backend, Phase, Tokens};
use crate::executor::observer::{Observer, Unobserved};
use crate::executor::sequence::Sequence;
use anyhow::{Error, Result};

impl Executor<'_> {
    /// Takes a place on the device for its own sequence, where that has none.
    pub(super) fn sit(&mut self) -> Result<()> {
        if self.device.card().is_none() && self.sequence.seat.take().is_some() {
            // What it had there went with a card that failed while it computed others.
            return self.compute_own_again();
        }
        if self.sequence.seat.is_none() {
            self.sequence.seat = self.device.seat()?;
        }
        Ok(())
    }

    /// Runs the batch, on the CPU where the card fails.
    pub(super) fn run_own(&mut self, phase: Phase, observer: &mut dyn Observer) -> Result<()> {
        self.sit()?;
        // Where this fails, it is not the card.
        self.reserve_own(self.batch.len())?;
        // What a token has added to before it failed is added again.
        let stats = self.fallback.as_ref().map(|_| self.sequence.stats.clone());
        let Err(why) = self.run_batch(phase, observer) else { return Ok(()) };
        let Some(stats) = stats else { return Err(why) };
        self.sequence.stats = stats;
        if let Err(why) = self.leave_card(why) {
            if self.sequence.memory().recurs() {
                self.sequence.recover();
                // Anything but nothing is to be restored. Where that fails nothing is left.
                drop(self.gone_back(usize::MAX));
            }
            return Err(why);
        }
        self.sequence.seat = None;
        self.compute_own_again()?;
        if self.is_tentative {
            // What there was before was on the card.
            self.sequence.memory.mark(self.batch.len());
        }
        self.run_batch(phase, observer)
    }

    /// From now on the CPU is the device, after the card has failed for the reason `why`.
    fn leave_card(&mut self, why: Error) -> Result<()> {
        let Some(mut fallback) = self.fallback.take() else { return Err(why) };
        match fallback.replaces(&mut *self.device, self.model, &self.params, why) {
            Ok(cpu) => self.device = Box::new(cpu),
            Err(why) => {
                self.fallback = Some(fallback);
                return Err(why);
            }
        }
        Ok(())
    }

    /// Computes the tokens of its own sequence again.
    fn compute_own_again(&mut self) -> Result<()> {
        let next = std::mem::take(&mut self.batch);
        let before = self.sequence.tokens.clone();
        self.sequence.clear();
        for chunk in before.chunks(self.params.n_ubatch) {
            self.own_batch(chunk, false);
            self.run_batch(Phase::Prefill, &mut Unobserved)?;
        }
        self.batch = next;
        Ok(())
    }

    /// Has memory for the rows of `n` further tokens of its own sequence.
    pub(super) fn reserve_own(&mut self, n: usize) -> Result<()> {
        let positions = self.n_past()..self.n_past() + n;
        self.sequence.memory.reserve(positions, |layer| self.device.has_cache(layer))
    }

    fn run_batch(&mut self, phase: Phase, observer: &mut dyn Observer) -> Result<()> {
        self.reserve_own(self.batch.len())?;
        let sequences = std::slice::from_mut(&mut self.sequence);
        let mut tokens = Tokens { batch: &self.batch, sequences, observer };
        self.device.run(phase, &mut tokens, &mut self.logits)?;
        self.scale_logits();
        self.sequence.advance(self.batch.entries().iter().map(|entry| entry.token));
        Ok(())
    }

    /// Runs a batch of other sequences, on the CPU where the card fails.
    pub(super) fn run_others(&mut self, phase: Phase, batch: &Batch, sequences: &mut [Sequence]) -> Result<()> {
        sequences.iter_mut().try_for_each(|sequence| self.move_in(sequence))?;
        for entry in batch.entries() {
            let elsewhere = |layer| self.device.has_cache(layer);
            sequences[entry.sequence].memory.reserve(entry.position..entry.position + 1, elsewhere)?;
        }
        let is_in = |i: usize| batch.entries().iter().any(|entry| entry.sequence == i);
        let stats = |(i, sequence): (usize, &Sequence)| is_in(i).then(|| sequence.stats.clone());
        let before: Option<Vec<_>> = self.fallback.as_ref().map(|_| sequences.iter().enumerate().map(stats).collect());
        if let Err(why) = self.run_on_device(phase, batch, sequences) {
            let Some(before) = before else { return Err(why) };
            for (sequence, stats) in sequences.iter_mut().zip(before) {
                if let Some(stats) = stats {
                    sequence.stats = stats;
                }
            }
            if let Err(why) = self.leave_card(why) {
                let failed = sequences.iter_mut().enumerate().filter(|(i, _)| is_in(*i));
                failed.for_each(|(_, sequence)| recover(&mut *self.device, sequence));
                return Err(why);
            }
            sequences.iter_mut().try_for_each(|sequence| self.move_in(sequence))?;
            self.run_on_device(phase, batch, sequences)?;
        }
        self.scale_logits();
        for entry in batch.entries() {
            sequences[entry.sequence].advance([entry.token].into_iter());
        }
        Ok(())
    }

    fn run_on_device(&mut self, phase: Phase, batch: &Batch, sequences: &mut [Sequence]) -> Result<()> {
        let mut tokens = Tokens { batch, sequences, observer: &mut Unobserved };
        self.device.run(phase, &mut tokens, &mut self.logits)
    }

    /// Has another sequence be where the device is: what was on a card that has failed is computed again.
    pub(super) fn move_in(&mut self, sequence: &mut Sequence) -> Result<()> {
        if self.device.card().is_some() || sequence.seat.take().is_none() {
            return Ok(());
        }
        let before = sequence.tokens.clone();
        sequence.clear();
        if before.is_empty() { Ok(()) } else { self.prefill_others(Phase::Prefill, sequence, &before) }
    }
}

/// After a pass that has ended in its middle: states of recurrent layers have taken tokens up that another sequence has not.
fn recover(device: &mut (dyn Backend + '_), sequence: &mut Sequence) {
    if !sequence.memory.recurs() {
        return;
    }
    sequence.recover();
    // Anything but nothing is to be restored. Where that fails nothing is left.
    if sequence.n_past() > 0 && device.restore(sequence).is_err() {
        sequence.clear();
    }
}
