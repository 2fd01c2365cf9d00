//! The processor as a device: whole passes, and what another device asks of it in the middle of one.

use super::attention::Rotation;
use super::compute::How;
use super::ffn::shard::Given;
use super::pass::Pass;
use super::recurrent::taps;
use super::request::Request;
use super::setup::Setup;
use super::worker::Worker;
use crate::executor::batch::Batch;
use crate::executor::device::{Backend, Handed, Phase, Tokens};
use crate::executor::mask::{Fired, MaskSource};
use crate::executor::params::ExecutorParams;
use crate::model::{Chosen, Model, Role, Vector};
use crate::placement::Placement;
use crate::quant::convert;
use crate::trace::What;
use anyhow::Result;

/// A model on the processor.
pub(in crate::executor) struct Cpu<'m> {
    setup: Setup<'m>,
    worker: Worker,
}

impl<'m> Cpu<'m> {
    pub fn new(model: &'m Model, placement: Placement, params: ExecutorParams, worker: Worker) -> Self {
        let rotation = |rope| Rotation::new(rope, model.weights.rope_divisors(rope, params.n_ctx));
        let window_rotation = model.config.window_rope.as_ref().map(rotation);
        let rotation = rotation(&model.config.rope);
        let (mask, audit_every, taps) = (Box::new(Fired), 0, taps(model));
        let chosen = model.weights.layers.iter().map(|layer| layer.groups.iter().map(|group| group.chosen).collect());
        let chosen: Vec<Vec<_>> = chosen.collect();
        let routed = chosen.iter().flatten().any(|when| *when != Chosen::Always);
        let setup =
            Setup { model, params, placement, rotation, window_rotation, taps, chosen, routed, mask, audit_every };
        Self { setup, worker }
    }

    pub fn model(&self) -> &'m Model {
        self.setup.model
    }

    pub fn params(&self) -> &ExecutorParams {
        &self.setup.params
    }

    /// The threads that it computes with.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The embeddings of the tokens of `batch`: `x` becomes `[n_tokens][n_embd]`.
    ///
    /// # Errors
    /// When the embedding has a type that cannot be read.
    pub fn embed(&self, batch: &Batch, x: &mut Vec<f32>) -> Result<()> {
        let (token_embd, scale) = (self.setup.model.weights.token_embd(), self.setup.model.config.scales.embedding);
        let convert = convert::dequantizer(token_embd.dtype())?;
        let n_embd = token_embd.n_cols;
        // One row more for those of positions.
        x.resize((batch.len() + 1) * n_embd, 0.0);
        for (x, entry) in x.chunks_exact_mut(n_embd).zip(batch.entries()) {
            convert(token_embd.row(entry.token as usize), x);
            if scale != 1.0 {
                x.iter_mut().for_each(|x| *x *= scale);
            }
        }
        self.add_positions(batch, x)?;
        x.truncate(batch.len() * n_embd);
        Ok(())
    }

    /// Adds the learned embeddings of the positions of `batch` to the rows of `x`, of which the one behind them is free.
    fn add_positions(&self, batch: &Batch, x: &mut [f32]) -> Result<()> {
        let model = self.setup.model;
        let Some(positions) = model.config.positions else { return Ok(()) };
        let position_embd = model.weights.part(Role::PositionEmbd).matrix();
        let convert = convert::dequantizer(position_embd.dtype())?;
        let (x, row) = x.split_at_mut(batch.len() * position_embd.n_cols);
        for (x, entry) in x.chunks_exact_mut(position_embd.n_cols).zip(batch.entries()) {
            convert(position_embd.row(positions.offset + entry.position), row);
            x.iter_mut().zip(&*row).for_each(|(x, position)| *x += position);
        }
        Ok(())
    }

    /// Does what `request` asks for with `x` as its input (`[n_tokens][n_embd]`), and gives the answer, as wide but for that of a
    /// router, to `take`.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn ask(
        &self,
        request: &Request,
        given: Given,
        how: How,
        x: &[f32],
        tokens: &mut Tokens,
        take: impl FnOnce(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let mut hands = self.worker.lock();
        let mut pass = Pass::new(&self.setup, &mut hands, how, tokens);
        take(pass.answer(request, given, x))
    }

    /// Logits of those tokens of `batch` that want them, from the residual streams `x`: `logits` becomes
    /// `[wanted][n_vocab]`.
    pub fn head(&self, how: How, x: &[f32], tokens: &mut Tokens, logits: &mut Vec<f32>) {
        let mut hands = self.worker.lock();
        Pass::new(&self.setup, &mut hands, how, tokens).head(x, logits);
    }
}

impl Backend for Cpu<'_> {
    fn run(&mut self, phase: Phase, tokens: &mut Tokens, logits: &mut Vec<f32>) -> Result<()> {
        let how = match phase {
            Phase::Decode | Phase::ShortPrompt => How::Rows,
            Phase::Prefill => How::Tiles,
        };
        let mut hands = self.worker.lock();
        let what = if phase == Phase::Decode { What::Token } else { What::Prompt };
        let _span = hands.pool.pass(what, tokens.batch.len());
        let kept = (phase == Phase::ShortPrompt).then(|| tokens.sequences[0].stats.clone());
        let mut x = std::mem::take(&mut hands.buffers.streams[Vector::Residual.index()]);
        self.embed(tokens.batch, &mut x)?;
        hands.buffers.streams[Vector::Residual.index()] = x;
        let mut pass = Pass::new(&self.setup, &mut hands, how, tokens);
        if phase == Phase::ShortPrompt {
            pass.predict_nothing();
        }
        pass.layers(0..self.setup.model.config.n_layer);
        pass.head_of_stream(logits);
        drop(hands);
        // Only what is decoded counts.
        if let Some(stats) = kept {
            tokens.sequences[0].stats = stats;
        }
        if phase == Phase::Decode {
            if let Some(entry) = tokens.batch.entries().first() {
                tokens.sequences[entry.sequence].stats.end_pass();
            }
            for entry in tokens.batch.entries() {
                tokens.sequences[entry.sequence].stats.end_token();
            }
        }
        Ok(())
    }

    fn set_mask(&mut self, mask: Box<dyn MaskSource>) {
        self.setup.mask = mask;
    }

    fn set_audit(&mut self, every: u64) {
        self.setup.audit_every = every;
    }

    fn hand_over(&mut self) -> Handed {
        let mask = std::mem::replace(&mut self.setup.mask, Box::new(Fired));
        Handed { mask, audit_every: self.setup.audit_every }
    }
}
