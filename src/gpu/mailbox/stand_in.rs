//! The card's side of the mailbox in Rust, for a thread that stands in for the card.
#![allow(unsafe_code, reason = "reads and writes memory that another thread uses, too; the protocol orders them")]

use super::{DONE, FAILED, Layout, POST_N, POSTED, REPLIED, STOP, TOKEN, Wait, reached, wait_until};
use crate::gpu::memory::Mapped;
use anyhow::{Result, bail, ensure};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

/// Does what the kernels do. One exists at a time, in place of the card.
pub struct StandIn {
    shared: Arc<Mapped>,
    layout: Layout,
    first: u32,
    /// A wait of this token ran out: further ones return at once.
    dead: bool,
}

impl StandIn {
    pub(super) fn new(shared: Arc<Mapped>, layout: Layout) -> Self {
        Self { shared, layout, first: 0, dead: false }
    }

    /// Reads the token that was launched: its embedding into `x` (`[n_embd]`, or empty), and its position.
    ///
    /// # Errors
    /// When the size is wrong.
    pub fn begin_token(&mut self, x: &mut [f32]) -> Result<usize> {
        ensure!(x.is_empty() || x.len() == self.layout.sizes.n_embd, "stand-in: {} numbers", x.len());
        self.first = self.shared.word(TOKEN).load(Acquire);
        self.dead = false;
        // SAFETY: the processor wrote it before the launch, and writes the next after the end of this token.
        x.copy_from_slice(unsafe { self.shared.values(self.layout.in_x, x.len()) });
        Ok(self.shared.word(TOKEN + 4).load(Relaxed) as usize)
    }

    /// Posts job `job`: what is given of a vector `[n_embd]`, a list of slots, and their activations.
    ///
    /// # Errors
    /// When a size is wrong.
    pub fn post(&mut self, job: u32, x: &[f32], list: &[u32], act: &[f32]) -> Result<()> {
        let sizes = &self.layout.sizes;
        let fits = x.len() <= sizes.n_embd && list.len() <= sizes.n_ff && (act.is_empty() || act.len() == list.len());
        ensure!(fits, "stand-in: {} numbers, {} slots, {} activations", x.len(), list.len(), act.len());
        if self.dead {
            return Ok(());
        }
        // SAFETY: the processor reads these after `posted` only, and has answered all jobs before.
        unsafe {
            self.shared.store(self.layout.post_x, x);
            self.shared.store(self.layout.post_list, list);
            self.shared.store(self.layout.post_act, act);
        }
        self.shared.word(POST_N).store(list.len() as u32, Relaxed);
        self.shared.word(POSTED).store(self.first.wrapping_add(job), Release);
        Ok(())
    }

    /// Waits for the reply to job `job`, `[n_embd]`.
    ///
    /// # Errors
    /// When the processor stopped the token, or does not answer in time: then the mailbox says so to the processor, too,
    /// and all further waits of the token fail at once.
    pub fn wait_reply(&mut self, job: u32, limit: Duration, reply: &mut [f32]) -> Result<()> {
        ensure!(!self.dead, "stand-in: job {job}: a wait has failed before");
        let ticket = self.first.wrapping_add(job);
        let word = |at: usize| self.shared.word(at).load(Acquire);
        let wait = Wait { limit, alive: &|| Ok(()) };
        let answered = wait_until(
            wait,
            || format!("no answer to job {job}"),
            || {
                let stopped = word(STOP) != 0;
                Ok((stopped || reached(word(REPLIED), ticket)).then_some(!stopped))
            },
        );
        match answered {
            Ok(true) => {
                // SAFETY: the processor has written it, and writes again after the next post only.
                reply.copy_from_slice(unsafe { self.shared.values(self.layout.reply, reply.len()) });
                Ok(())
            }
            Ok(false) => {
                self.dead = true;
                bail!("stand-in: job {job}: stopped")
            }
            Err(error) => {
                self.dead = true;
                self.shared.word(FAILED).store(1 + job, Release);
                Err(error)
            }
        }
    }

    /// Ends the token after `n_jobs` jobs: `[n_vocab]` and `[2 * n_groups]`, or the part of them that is given.
    ///
    /// # Errors
    /// When a size is wrong.
    pub fn finish(&mut self, n_jobs: u32, logits: &[f32], counts: &[u32]) -> Result<()> {
        let sizes = &self.layout.sizes;
        let fits = logits.len() <= sizes.n_vocab && counts.len() <= 2 * sizes.n_groups;
        ensure!(fits, "stand-in: {} logits, {} counts", logits.len(), counts.len());
        // SAFETY: the processor reads these after `done` only.
        unsafe {
            self.shared.store(self.layout.logits, logits);
            self.shared.store(self.layout.counts, counts);
        }
        self.shared.word(DONE).store(self.first.wrapping_add(n_jobs), Release);
        Ok(())
    }
}
