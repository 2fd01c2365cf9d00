//! Running one sequence of tokens: what callers see of the forward pass.

use super::engine::{Engine, Phase};
use super::ffn::{MaskSource, Mode};
use super::hybrid::{CardTimes, Hybrid};
use super::kv_cache::{KvCache, KvType};
use super::pass::NormOf;
use super::stats::FfnStats;
use crate::cpu::Isa;
use crate::gpu::Device;
use crate::model::Model;
use crate::placement::Placement;
use crate::placement::plan::Plan;
use crate::units::Bytes;
use anyhow::{Result, ensure};

/// How a model is to be run.
#[derive(Debug, Clone)]
pub struct ExecutorParams {
    /// Threads for computing.
    pub n_threads: usize,
    /// Tokens that the KV cache holds.
    pub n_ctx: usize,
    /// Type of the KV cache.
    pub kv_type: KvType,
    /// What decode computes of the FFN.
    pub mode: Mode,
    /// Tokens that prefill computes at once.
    pub n_ubatch: usize,
    /// Instruction set of the kernels.
    pub isa: Isa,
}

/// Watches a prefill.
pub trait Observer {
    /// `[n_tokens][n_embd]` normalised inputs of a layer's FFN.
    fn ffn_input(&mut self, _layer: usize, _x: &[f32]) {}
    /// `[n_tokens][n_ff]` activations of a layer, and the values that `down` is multiplied with, both by slot.
    fn ffn(&mut self, _layer: usize, _act: &[f32], _h: &[f32]) {}
    /// Whether [`Observer::logits`] is to be called.
    fn wants_logits(&self) -> bool {
        false
    }
    /// The logits after the token at `position` (`[n_vocab]`).
    fn logits(&mut self, _position: usize, _logits: &[f32]) {}
}

pub(super) struct Unobserved;

impl Observer for Unobserved {}

/// Runs one sequence of tokens through a model.
pub struct Executor<'m> {
    engine: Engine<'m>,
    hybrid: Option<Hybrid>,
}

impl<'m> Executor<'m> {
    /// Sets up a run of `model` under `placement`.
    ///
    /// # Errors
    /// When threads or memory cannot be had, or the mode asks for a predictor and there is none.
    pub fn new(model: &'m Model, placement: Placement, params: ExecutorParams) -> Result<Self> {
        ensure!(params.n_ubatch > 0, "-ub 0: a batch needs at least one token");
        params.mode.check(model)?;
        Ok(Self { engine: Engine::new(model, placement, params)?, hybrid: None })
    }

    /// Sets up a run of `model` that `device` and the CPU do together as `plan` says, which was made for the same model,
    /// context and mode.
    ///
    /// # Errors
    /// As [`Executor::new`]; when there are no kernels for a part of the model, or the card has not the memory that
    /// was planned with: what it was for, and what was free.
    pub fn on_card(model: &'m Model, device: &Device, plan: Plan, params: ExecutorParams) -> Result<Self> {
        let mut executor = Self::new(model, Placement::all_cold(model), params)?;
        if !plan.is_cpu_only() {
            executor.hybrid = Some(Hybrid::new(model, device, plan, &executor.engine.params)?);
        }
        Ok(executor)
    }

    /// How the model is divided between card and CPU; `None` where there is no card.
    pub fn plan(&self) -> Option<&Plan> {
        self.hybrid.as_ref().map(Hybrid::plan)
    }

    /// Bytes that were allocated on the card.
    pub fn card_bytes(&self) -> Bytes {
        self.hybrid.as_ref().map_or(Bytes(0), Hybrid::n_bytes)
    }

    /// Time that tokens took with the card; `None` without one.
    pub fn card_times(&self) -> Option<CardTimes> {
        self.hybrid.as_ref().map(Hybrid::times)
    }

    /// Replaces the source of masks in [`Mode::Exact`].
    pub fn set_mask(&mut self, mask: Box<dyn MaskSource>) {
        self.engine.mask = mask;
    }

    /// In [`Mode::Predicted`], computes the full mask of one in `every` tokens beside what is asked for, to count what
    /// the predictors miss; 0 for never.
    pub fn set_audit(&mut self, every: u64) {
        self.engine.audit_every = every;
    }

    /// The KV cache.
    pub fn kv(&self) -> &KvCache {
        &self.engine.kv
    }

    /// Forgets everything after the first `n_past` tokens.
    pub fn truncate(&mut self, n_past: usize) {
        self.engine.kv.truncate(n_past);
    }

    /// How the run was set up.
    pub fn params(&self) -> &ExecutorParams {
        &self.engine.params
    }

    /// What fired during decode so far.
    pub fn stats(&self) -> &FfnStats {
        &self.engine.stats
    }

    /// Forgets what fired.
    pub fn reset_stats(&mut self) {
        self.engine.stats = FfnStats::new(&self.engine.model.config.n_ff);
        if let Some(hybrid) = &mut self.hybrid {
            hybrid.reset_times();
        }
    }

    /// Takes in `tokens` at once and returns the logits after the last one (`[n_vocab]`).
    ///
    /// # Errors
    /// When there are none, one is not in the vocabulary, or they do not fit in the context.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.prefill_observed(tokens, &mut Unobserved)
    }

    /// [`Executor::prefill`], watched. With a card only [`Observer::logits`] is called.
    ///
    /// # Errors
    /// As [`Executor::prefill`].
    pub fn prefill_observed(&mut self, tokens: &[u32], observer: &mut dyn Observer) -> Result<&[f32]> {
        self.check(tokens)?;
        for chunk in tokens.chunks(self.engine.params.n_ubatch) {
            match &mut self.hybrid {
                Some(hybrid) => hybrid.prefill(&mut self.engine, chunk, observer)?,
                None => self.forward(chunk, Phase::Prefill, observer)?,
            }
        }
        Ok(&self.engine.state.logits)
    }

    /// Takes in one token and returns the logits after it (`[n_vocab]`).
    ///
    /// # Errors
    /// When it is not in the vocabulary or the context is full.
    pub fn decode(&mut self, token: u32) -> Result<&[f32]> {
        self.check(&[token])?;
        match &mut self.hybrid {
            Some(hybrid) => hybrid.decode(&mut self.engine, token)?,
            None => self.forward(&[token], Phase::Decode, &mut Unobserved)?,
        }
        Ok(&self.engine.state.logits)
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        ensure!(!tokens.is_empty(), "no tokens to compute");
        let n_vocab = self.engine.model.config.n_vocab;
        if let Some(token) = tokens.iter().find(|t| **t as usize >= n_vocab) {
            anyhow::bail!("token {token} is not in the model's vocabulary of {n_vocab}");
        }
        let kv = &self.engine.kv;
        let (n, n_ctx) = (kv.n_past() + tokens.len(), kv.n_ctx());
        ensure!(n <= n_ctx, "{n} tokens do not fit in a context of {n_ctx}; raise -c");
        Ok(())
    }

    fn forward(&mut self, tokens: &[u32], phase: Phase, observer: &mut dyn Observer) -> Result<()> {
        let engine = &mut self.engine;
        engine.embed(tokens);
        engine.layers(0..engine.model.config.n_layer, phase, observer)?;
        engine.normalize(NormOf::Output);
        let first = engine.kv.n_past();
        engine.kv.advance(tokens.len());
        engine.output(tokens.len(), first, phase, observer);
        if phase == Phase::Decode {
            engine.stats.end_token();
        }
        Ok(())
    }
}
