//! The words of a mailbox and small arrays behind them, for kernels that post to it and wait at it, one at a time.

use super::memory::Memory;
use crate::gpu::Ptr;
use crate::gpu::mailbox::{DONE, FAILED, POST_N, POSTED, REPLIED, STOP, TOKEN, WAITED};
use crate::gpu::ops::token::{Job, TOKEN_BYTES};
use anyhow::{Result, ensure};
use std::sync::atomic::Ordering::{Acquire, Release};

/// The first ticket: tickets wrap at job 2.
pub(super) const FIRST: u32 = u32::MAX - 1;
/// Where the token is in the text.
pub(super) const POSITION: u32 = 5;

/// Behind the words: an array in the memory that both sides see.
#[derive(Debug, Clone, Copy)]
pub(super) enum Array {
    /// The input that is posted.
    X,
    /// The list that is posted.
    List,
    /// The activations that are posted.
    Act,
    /// What the processor answers, or gives at first.
    Given,
    /// What the card sends at the end.
    Sent,
    /// The counts that it sends.
    Counts,
}

impl Array {
    /// Bytes from the beginning.
    fn offset(self) -> usize {
        const FIRST: usize = 4 << 10;
        const EACH: usize = 24 << 10;
        FIRST + EACH * self as usize
    }
}

/// Bytes of all of it.
pub(super) const SHARED: usize = 256 << 10;

/// A token that is being computed.
pub(super) struct Exchange {
    /// Its state on the card.
    pub token: Ptr,
}

impl Exchange {
    /// Nothing is posted, and nothing answered. `skip` as the state has it: whether there is nothing to wait for.
    pub fn new(m: &mut Memory, skip: bool) -> Result<Self> {
        m.wait()?;
        for offset in [POSTED, DONE, STOP, FAILED, POST_N, WAITED] {
            m.shared.word(offset).store(0, Release);
        }
        m.shared.word(TOKEN).store(FIRST, Release);
        m.shared.word(TOKEN + 4).store(POSITION, Release);
        m.shared.word(REPLIED).store(FIRST.wrapping_sub(1), Release);
        let mut state = vec![0u32; TOKEN_BYTES as usize / size_of::<u32>()];
        state[..4].copy_from_slice(&[FIRST, POSITION, 0, u32::from(skip)]);
        Ok(Self { token: m.put(&state)? })
    }

    /// Job `number`.
    pub fn job(&self, m: &Memory, number: u32) -> Job {
        Job { mailbox: m.shared.ptr(), token: self.token, number }
    }

    /// Fails unless the card has raised `word` to the ticket of job `number`.
    pub fn check_ticket(&self, m: &Memory, word: usize, number: u32) -> Result<()> {
        let (got, ticket) = (m.shared.word(word).load(Acquire), FIRST.wrapping_add(number));
        ensure!(got == ticket, "the ticket is {got}, {ticket} expected");
        Ok(())
    }

    /// Fails unless the state has these first words: first ticket, position, dead, skip.
    pub fn check_state(&self, m: &mut Memory, skip: u32) -> Result<()> {
        let got = m.get::<u32>(self.token, 4)?;
        let expected = [FIRST, POSITION, 0, skip];
        ensure!(got == expected, "the token's state is {got:?}, {expected:?} expected");
        Ok(())
    }
}

/// Where `array` is for kernels.
pub(super) fn at(m: &Memory, array: Array) -> Ptr {
    m.shared.ptr().offset(array.offset() as u64)
}

/// Stores `values` there.
pub(super) fn give(m: &Memory, array: Array, values: &[f32]) {
    for (i, value) in values.iter().enumerate() {
        m.shared.word(array.offset() + size_of::<u32>() * i).store(value.to_bits(), Release);
    }
}

/// `n` words that are there. Nothing runs on the card.
pub(super) fn words(m: &Memory, array: Array, n: usize) -> Vec<u32> {
    (0..n).map(|i| m.shared.word(array.offset() + size_of::<u32>() * i).load(Acquire)).collect()
}

/// `n` floats that are there.
pub(super) fn floats(m: &Memory, array: Array, n: usize) -> Vec<f32> {
    words(m, array, n).into_iter().map(f32::from_bits).collect()
}

/// Answers job `number` with `values`, before it is waited for.
pub(super) fn answer(m: &Memory, number: u32, values: &[f32]) {
    give(m, Array::Given, values);
    m.shared.word(REPLIED).store(FIRST.wrapping_add(number), Release);
}
