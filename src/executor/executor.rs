//! Executors: a model ready to be computed, with a sequence of its own.

mod running;
mod several;
mod shift;
mod stored;
mod tentative;

use super::batch::{Batch, Entry};
use super::cpu::{Cpu, Worker};
use super::device::{Backend, CardReport, Phase};
use super::fallback::Fallback;
use super::gates::Gates;
use super::hybrid::Hybrid;
use super::mask::MaskSource;
use super::memory::Memory;
use super::observer::{Observer, Unobserved};
use super::params::ExecutorParams;
use super::seat::Seat;
use super::sequence::Sequence;
use super::stats::FfnStats;
use crate::gpu;
use crate::model::{Caps, Model};
use crate::placement::Placement;
use crate::placement::plan::Plan;
use anyhow::{Error, Result, ensure};
pub use stored::{Put, Take};

/// Runs a model: its own sequence token by token or many at once, and others in batches.
pub struct Executor<'m> {
    model: &'m Model,
    params: ExecutorParams,
    device: Box<dyn Backend + 'm>,
    /// Where a card has a part.
    fallback: Option<Fallback<'m>>,
    sequence: Sequence,
    /// Tokens that shifts have dropped since it was empty.
    n_dropped: usize,
    /// Tokens at the beginning that none of them has moved.
    n_unmoved: usize,
    /// Tokens of the prompt that is being taken in, as far as is known.
    n_prompt: usize,
    /// Where a prompt stops for a moment.
    remember_at: Option<usize>,
    batch: Batch,
    /// Tokens of the last batch that may be taken back, and whether those that are being computed may.
    n_tentative: usize,
    is_tentative: bool,
    logits: Vec<f32>,
    /// Where they are watched.
    gates: Option<Gates>,
}

impl<'m> Executor<'m> {
    /// Tokens of the longest prompt that is computed row by row on the CPU: for more, tiles take less time, although they have
    /// to be unpacked. On Zen 5 cores with AVX-512 the two meet between 5 (Q3_K) and 8 tokens, but at 10 for floats.
    pub const SHORT_PROMPT: usize = 6;

    /// Sets up a run of `model` under `placement`, with threads of its own.
    ///
    /// # Errors
    /// When threads or memory cannot be had, or the mode asks for a predictor and there is none.
    pub fn new(model: &'m Model, placement: Placement, params: ExecutorParams) -> Result<Self> {
        let worker = Worker::new(params.n_threads, params.isa)?;
        Self::with_worker(model, placement, params, &worker)
    }

    /// The same with the threads and the instruction set of `worker`.
    ///
    /// # Errors
    /// When memory cannot be had, or the mode asks for a predictor and there is none.
    pub fn with_worker(
        model: &'m Model,
        placement: Placement,
        params: ExecutorParams,
        worker: &Worker,
    ) -> Result<Self> {
        check(model, &params)?;
        let params = ExecutorParams { n_threads: worker.n_threads(), isa: worker.isa(), ..params };
        let cpu = Cpu::new(model, placement, params.clone(), worker.clone());
        Self::on(model, Box::new(cpu), params)
    }

    /// Sets up a run of `model` that `device` and the CPU, with the threads of `worker`, do together as `plan` says, which
    /// was made for the same model, context and mode.
    ///
    /// # Errors
    /// As [`Executor::with_worker`]; when there are no kernels for a part of the model, or the card has not the memory that
    /// was planned with: what it was for, and what was free.
    pub fn on_card(
        model: &'m Model,
        device: &gpu::Device,
        plan: Plan,
        params: ExecutorParams,
        worker: &Worker,
    ) -> Result<Self> {
        let placement = Placement::all_cold(model);
        if plan.is_cpu_only() {
            return Self::with_worker(model, placement, params, worker);
        }
        check(model, &params)?;
        let params = ExecutorParams { n_threads: worker.n_threads(), isa: worker.isa(), ..params };
        let cpu = Cpu::new(model, placement, params.clone(), worker.clone());
        let mut executor = Self::on(model, Box::new(Hybrid::new(cpu, device, plan)?), params)?;
        executor.fallback = Some(Fallback::new(worker));
        Ok(executor)
    }

    fn on(model: &'m Model, device: Box<dyn Backend + 'm>, params: ExecutorParams) -> Result<Self> {
        // A place on the device is taken with the first token: where there are other sequences it may never have one.
        let sequence = new_sequence(model, &params, None)?;
        let (batch, logits) = (Batch::default(), Vec::new());
        let (fallback, n_dropped, n_unmoved, n_prompt, remember_at, gates) = (None, 0, usize::MAX, 0, None, None);
        Ok(Self {
            model,
            params,
            device,
            fallback,
            sequence,
            n_dropped,
            n_unmoved,
            n_prompt,
            remember_at,
            batch,
            n_tentative: 0,
            is_tentative: false,
            logits,
            gates,
        })
    }

    /// When the card fails from now on, `tell` gets to know why, and the CPU goes on: it computes the tokens of the
    /// executor's own sequence again, which takes as long as a prompt, and then those that the card has not. Nothing is
    /// asked of the card any more, and [`Executor::card`] is `None`. Where there is no card this does nothing.
    pub fn go_on_without_card(&mut self, tell: impl FnOnce(&Error) + 'm) {
        if let Some(fallback) = &mut self.fallback {
            fallback.tell = Some(Box::new(tell));
        }
    }

    /// What a graphics card has of the model and did; `None` where there is none.
    pub fn card(&self) -> Option<CardReport<'_>> {
        self.device.card()
    }

    /// Replaces the source of masks in [`Mode::Exact`](crate::model::Mode::Exact).
    pub fn set_mask(&mut self, mask: Box<dyn MaskSource>) {
        self.device.set_mask(mask);
    }

    /// In [`Mode::Predicted`](crate::model::Mode::Predicted), computes the full mask of one in `every` tokens beside what
    /// is asked for, to count what the predictors miss; 0 for never.
    pub fn set_audit(&mut self, every: u64) {
        self.device.set_audit(every);
    }

    /// Looks at the gates of [`Executor::prefill`], as far as the CPU does it, until there are enough.
    pub fn watch_gates(&mut self) {
        self.gates = Some(Gates::default());
    }

    /// The gates that were seen since [`Executor::watch_gates`], once there are enough.
    pub fn take_gates(&mut self) -> Option<Gates> {
        self.gates.take_if(|gates| gates.are_enough())
    }

    /// The executor's own sequence.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// Tokens of its own sequence that are in.
    pub fn n_past(&self) -> usize {
        self.sequence.n_past()
    }

    /// Tokens of its own sequence that [`Executor::shift`] has dropped since it was empty.
    pub fn n_dropped(&self) -> usize {
        self.n_dropped
    }

    /// Forgets all tokens of its own sequence.
    pub fn clear(&mut self) {
        self.sequence.clear();
        (self.n_dropped, self.n_unmoved, self.n_prompt) = (0, usize::MAX, 0);
    }

    /// Forgets everything after the first `n_past` tokens of its own sequence.
    ///
    /// # Errors
    /// When the memory cannot forget just these: then [`Executor::clear`] it and compute the others again.
    pub fn truncate(&mut self, n_past: usize) -> Result<()> {
        let before = self.n_past();
        self.sequence.truncate(n_past)?;
        self.gone_back(before)
    }

    /// Forgets everything after the first `n_past` tokens of its own sequence, and as few of these as it must. Returns how
    /// many are left.
    pub fn keep(&mut self, n_past: usize) -> usize {
        let before = self.n_past();
        self.sequence.keep(n_past);
        // What the device cannot go back to is forgotten.
        drop(self.gone_back(before));
        self.n_past()
    }

    /// The sequence, which had `before` tokens, may have gone back: so does what the device remembers of it.
    fn gone_back(&mut self, before: usize) -> Result<()> {
        let n_past = self.n_past();
        if n_past <= self.n_unmoved {
            self.n_unmoved = usize::MAX;
        }
        if n_past == 0 || n_past >= before || !self.sequence.memory().recurs() {
            return Ok(());
        }
        self.device.restore(&self.sequence).inspect_err(|_| self.clear())
    }

    /// Makes it possible to go back to where its own sequence is now: [`Memory::remember`].
    pub fn remember(&mut self) {
        // A device that fails here is no reason to stop: what comes next says so.
        if self.device.save(&mut self.sequence).is_ok() {
            self.sequence.remember();
        }
    }

    /// Has a prompt that comes to `n_past` tokens, and goes on from there, remember that place: [`Memory::remember`]. Such
    /// a place is forgotten once it is passed.
    pub fn remember_at(&mut self, n_past: usize) {
        if n_past > 0 && n_past == self.n_past() {
            self.remember();
        }
        self.remember_at = Some(n_past).filter(|_| self.sequence.memory().recurs());
    }

    /// What is run.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// How the run was set up.
    pub fn params(&self) -> &ExecutorParams {
        &self.params
    }

    /// What fired while its own sequence was decoded.
    pub fn stats(&self) -> &FfnStats {
        &self.sequence.stats
    }

    /// Forgets what fired, and how long tokens took.
    pub fn reset_stats(&mut self) {
        self.sequence.stats = FfnStats::new(&self.model.weights.group_sizes());
        self.device.reset_times();
    }

    /// A further sequence, with nothing in it.
    ///
    /// # Errors
    /// When a card has no room for it, or memory cannot be had.
    pub fn new_sequence(&self) -> Result<Sequence> {
        new_sequence(self.model, &self.params, self.device.seat()?)
    }

    /// What is taken in until the next token is decoded is of a prompt of `n` tokens, of which some may be there already: so
    /// that [`Executor::prefill_part`] computes the rest as it would have computed all of it.
    pub fn expect_prompt(&mut self, n: usize) {
        self.n_prompt = self.n_prompt.max(n);
    }

    /// Takes in `tokens`, which are some or all of a prompt of `whole` tokens, and returns the logits after the last one
    /// (`[n_vocab]`). A short prompt is computed as [`Executor::decode`] computes tokens, which takes less time, and a longer
    /// one as [`Executor::prefill`] does: no bit depends on the parts.
    ///
    /// # Errors
    /// As [`Executor::prefill`].
    pub fn prefill_part(&mut self, tokens: &[u32], whole: usize) -> Result<&[f32]> {
        match Self::phase(self.n_prompt.max(whole)) {
            Phase::ShortPrompt => self.prefill_as(Phase::ShortPrompt, tokens, &mut Unobserved)?,
            Phase::Prefill | Phase::Decode => return self.prefill(tokens),
        }
        Ok(&self.logits)
    }

    /// How a prompt of `whole` tokens is computed.
    fn phase(whole: usize) -> Phase {
        if whole > Self::SHORT_PROMPT { Phase::Prefill } else { Phase::ShortPrompt }
    }

    /// Takes in `tokens` at once and returns the logits after the last one (`[n_vocab]`).
    ///
    /// # Errors
    /// When there are none, one is not in the vocabulary, or they do not fit in the context.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        let Some(mut gates) = self.gates.take_if(|gates| !gates.are_enough()) else {
            return self.prefill_observed(tokens, &mut Unobserved);
        };
        self.prefill_observed(tokens, &mut gates)?;
        gates.advance(tokens.len());
        self.gates = Some(gates);
        Ok(&self.logits)
    }

    /// [`Executor::prefill`], watched. With a card only [`Observer::logits`] is called.
    ///
    /// # Errors
    /// As [`Executor::prefill`].
    pub fn prefill_observed(&mut self, tokens: &[u32], observer: &mut dyn Observer) -> Result<&[f32]> {
        self.prefill_as(Phase::Prefill, tokens, observer)?;
        Ok(&self.logits)
    }

    fn prefill_as(&mut self, phase: Phase, tokens: &[u32], observer: &mut dyn Observer) -> Result<()> {
        // All of them before the first is computed.
        self.own_batch(tokens, false);
        self.check_batch()?;
        let mut rest = tokens;
        while !rest.is_empty() {
            let chunk;
            (chunk, rest) = rest.split_at(self.chunk(rest.len()));
            let first = self.own_batch(chunk, observer.wants_logits());
            self.run_own(phase, observer)?;
            if self.remember_at.take_if(|at| *at <= first + chunk.len()) == Some(first + chunk.len()) {
                self.remember();
            }
            let n_vocab = self.model.config.n_vocab;
            if observer.wants_logits() {
                for (i, logits) in self.logits.chunks_exact(n_vocab).enumerate() {
                    observer.logits(first + i, logits);
                }
                self.logits.drain(..self.logits.len() - n_vocab);
            }
        }
        Ok(())
    }

    /// Takes in one token and returns the logits after it (`[n_vocab]`).
    ///
    /// # Errors
    /// When it is not in the vocabulary or the context is full.
    pub fn decode(&mut self, token: u32) -> Result<&[f32]> {
        self.n_prompt = 0;
        self.own_batch(&[token], false);
        self.check_batch()?;
        self.run_own(Phase::Decode, &mut Unobserved)?;
        Ok(&self.logits)
    }

    /// Takes in several tokens of its own sequence as [`Executor::decode`] would one after the other: each gets the bits
    /// that it gets alone. Returns the logits after each (`[n_tokens][n_vocab]`).
    ///
    /// # Errors
    /// As [`Executor::prefill`].
    pub fn decode_several(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.n_prompt = 0;
        self.own_batch(tokens, true);
        self.check_batch()?;
        self.run_own(Phase::Decode, &mut Unobserved)?;
        Ok(&self.logits)
    }

    /// Takes in the tokens of `batch`, of several sequences: each gets the bits that it gets alone. Returns the logits of
    /// those that want them (`[wanted][n_vocab]`).
    ///
    /// # Errors
    /// When there are none, one is not in the vocabulary, does not fit in the context or does not go on where its sequence
    /// was, or a sequence is not one of [`Executor::new_sequence`]; when a card fails, and nothing is to go on without it.
    pub fn decode_batch(&mut self, batch: &Batch, sequences: &mut [Sequence]) -> Result<&[f32]> {
        let n_past = |sequence: usize| sequences.get(sequence).map(Sequence::n_past);
        batch.check(n_past, self.params.n_ctx, self.model.config.n_vocab)?;
        let fit = sequences.iter().all(|sequence| sequence.is_like(&self.sequence));
        ensure!(fit, "a sequence is of another model or of another set-up");
        self.run_others(Phase::Decode, batch, sequences)?;
        Ok(&self.logits)
    }

    /// The next batch is of `tokens` of its own sequence; logits of the last one are wanted, or of all. Returns the
    /// position of the first.
    fn own_batch(&mut self, tokens: &[u32], all_logits: bool) -> usize {
        let first = self.sequence.n_past();
        self.batch.clear();
        for (i, token) in tokens.iter().enumerate() {
            let wants_logits = all_logits || i + 1 == tokens.len();
            self.batch.push(Entry { sequence: 0, position: first + i, token: *token, wants_logits });
        }
        first
    }

    /// Tokens of a prompt of `n` that are computed at once: no further than to a place that is to be remembered.
    fn chunk(&self, n: usize) -> usize {
        let up_to = self.remember_at.and_then(|at| at.checked_sub(self.sequence.n_past())).filter(|n| *n > 0);
        n.min(self.params.n_ubatch).min(up_to.unwrap_or(n))
    }

    fn check_batch(&self) -> Result<()> {
        let n_past = |sequence: usize| (sequence == 0).then(|| self.sequence.n_past());
        self.batch.check(n_past, self.params.n_ctx, self.model.config.n_vocab)
    }

    /// What a device leaves of the head.
    fn scale_logits(&mut self) {
        let scale = self.model.config.scales.logits;
        if scale != 1.0 {
            self.logits.iter_mut().for_each(|logit| *logit *= scale);
        }
        if let Some(cap) = self.model.config.caps.logits {
            Caps::apply(cap, &mut self.logits);
        }
    }
}

fn check(model: &Model, params: &ExecutorParams) -> Result<()> {
    ensure!(params.n_ubatch > 0, "-ub 0: a batch needs at least one token");
    model.check_context(params.n_ctx)?;
    model.check_mode(params.mode)
}

fn new_sequence(model: &Model, params: &ExecutorParams, seat: Option<Seat>) -> Result<Sequence> {
    let memory = Memory::new(model, params)?;
    Ok(Sequence::new(memory, FfnStats::new(&model.weights.group_sizes()), seat))
}
