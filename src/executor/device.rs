//! Devices: what runs the steps of a model.

use super::batch::Batch;
use super::mask::MaskSource;
use super::observer::Observer;
use super::seat::Seat;
use super::sequence::Sequence;
use crate::placement::plan::Plan;
use crate::units::Bytes;
use anyhow::Result;
use std::time::Duration;

/// How a batch is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Few tokens: each gets the bits that it gets alone.
    Decode,
    /// Many tokens of one sequence.
    Prefill,
    /// A prompt of few tokens: they are computed as in decode, but for what is not exact there, and not counted.
    ShortPrompt,
}

/// The tokens of a pass, the sequences that they belong to, and the observer.
pub(super) struct Tokens<'a> {
    pub batch: &'a Batch,
    pub sequences: &'a mut [Sequence],
    pub observer: &'a mut dyn Observer,
}

/// Runs the steps of a model for batches of tokens.
pub(super) trait Backend {
    /// Takes the tokens through all layers; `logits` become `[wanted][n_vocab]`. The caller advances the sequences.
    ///
    /// # Errors
    /// When the device fails.
    fn run(&mut self, phase: Phase, tokens: &mut Tokens, logits: &mut Vec<f32>) -> Result<()>;

    /// Has the memory of a sequence know the states of recurrent layers that the device has, so that it can keep them.
    ///
    /// # Errors
    /// When the device fails.
    fn save(&mut self, _sequence: &mut Sequence) -> Result<()> {
        Ok(())
    }

    /// Takes over the states of recurrent layers that the memory of a sequence has gone back to.
    ///
    /// # Errors
    /// When the device fails.
    fn restore(&mut self, _sequence: &Sequence) -> Result<()> {
        Ok(())
    }

    /// Has the memory of a sequence hold the keys and values that the device has.
    ///
    /// # Errors
    /// When the device fails.
    fn save_cache(&mut self, _sequence: &mut Sequence) -> Result<()> {
        Ok(())
    }

    /// Takes over the keys and values that the memory of a sequence holds of layers that are the device's.
    ///
    /// # Errors
    /// When the device fails.
    fn restore_cache(&mut self, _sequence: &Sequence) -> Result<()> {
        Ok(())
    }

    /// Gives the keys and values that it has of the tokens that are in `to` to that sequence, from those of `from`.
    ///
    /// # Errors
    /// When the device fails.
    fn copy_cache(&mut self, _from: &Sequence, _to: &Sequence) -> Result<()> {
        Ok(())
    }

    /// Whether keys and values of a layer are the device's, and not in the memory of sequences.
    fn has_cache(&self, _layer: usize) -> bool {
        false
    }

    /// A place for what it remembers of a further sequence; `None` where that is nothing.
    ///
    /// # Errors
    /// When there is no room.
    fn seat(&self) -> Result<Option<Seat>> {
        Ok(None)
    }

    /// Tokens of decode that it computes at once.
    fn at_once(&self) -> usize {
        usize::MAX
    }

    /// Replaces the source of masks in exact mode.
    fn set_mask(&mut self, mask: Box<dyn MaskSource>);

    /// Sets for one in how many tokens it is counted what predictors miss; 0 for none.
    fn set_audit(&mut self, every: u64);

    /// Gives up what was set on it, for another device to go on with.
    fn hand_over(&mut self) -> Handed;

    /// What a graphics card has of it and does; `None` where there is none.
    fn card(&self) -> Option<CardReport<'_>> {
        None
    }

    /// Begins to count times anew.
    fn reset_times(&mut self) {}
}

/// What is set on a device.
pub(super) struct Handed {
    pub mask: Box<dyn MaskSource>,
    pub audit_every: u64,
}

/// What a graphics card has of a model, and what it did.
#[derive(Clone, Copy)]
pub struct CardReport<'a> {
    /// How the model is divided.
    pub plan: &'a Plan,
    /// Bytes that were allocated there.
    pub allocated: Bytes,
    /// Time that tokens took.
    pub times: CardTimes,
}

/// Time that tokens took so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct CardTimes {
    /// Tokens decoded.
    pub n_tokens: u64,
    /// From the launch to the logits.
    pub total: Duration,
    /// Of that, the CPU's part: tasks, and layers before and behind the card's.
    pub cpu: Duration,
    /// Of that, what the card waited for the CPU.
    pub waited: Duration,
    /// Pieces that the card has handed to the CPU.
    pub n_tasks: u64,
}
