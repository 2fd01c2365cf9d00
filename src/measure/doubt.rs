//! Whether a model is run with the activation function that it was trained with.
//!
//! GGUF has no reliable field for it, and a wrong one computes without complaint. Two signs are looked at. Gates of a model
//! trained with ReLU are mostly negative, those of one trained without are not: that costs nothing, but large models differ
//! too much for it to be more than a suspicion. Where there is one, the same tokens are predicted with each other function;
//! the right one makes a text far likelier.

use super::{mean_and_error, negative_log_likelihood};
use crate::executor::{Executor, ExecutorParams, Gates, KvType, Mode, Observer, Worker};
use crate::model::{Activation, Model};
use crate::placement::Placement;
use crate::progress::{self, Progress};
use anyhow::Result;
use std::fmt;

/// Tokens that are predicted where there is a suspicion.
pub const MAX_TOKENS: usize = 64;

/// Functions with which the tokens are predicted.
const CANDIDATES: [Activation; 5] =
    [Activation::Silu, Activation::Gelu, Activation::Relu, Activation::Relu2, Activation::DRelu];

/// Below this share of positive gates in the first layer a model that never rests looks as if trained to rest.
const FEW_POSITIVE: f64 = 0.35;
/// Above these shares in the first layer, or in all, a model that rests looks as if it was not trained to.
const MANY_POSITIVE: [f64; 2] = [0.45, 0.4];
/// A token has to be likelier by so many nats on average, and by so many standard errors.
const LIKELIER: [f64; 2] = [0.25, 3.0];
/// What a text costs with the right function, as a share of what it costs to guess: what is no text decides nothing.
const TEXT: f64 = 0.75;

/// Why a model seems to be run with the wrong function.
#[derive(Debug, Clone)]
pub struct Doubt {
    /// The function it is run with, and where that was found.
    with: (Activation, String),
    /// Nats per token with it.
    nats: f64,
    /// What fits better, with nats per token, and what fits nearly as well as that; the best first.
    better: Vec<(Activation, f64)>,
    /// Share of gates that are positive, and of which.
    positive: (f64, &'static str),
    n_tokens: usize,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { with: (with, from), nats, better, positive: (share, of), n_tokens } = self;
        let each = |text: &dyn Fn(&(Activation, f64)) -> String| better.iter().map(text).collect::<Vec<_>>();
        let costs = each(&|(other, nats)| format!("{nats:.2} with {other}")).join(", ");
        let flags = each(&|(other, _)| format!("--activation {other}")).join(" or ");
        write!(
            f,
            "activation {with} (from {from}) does not fit: {:.0} % of {of} are positive, and the first {n_tokens} tokens cost \
             {nats:.2} nats each, but {costs}; {flags} computes that",
            100.0 * share
        )
    }
}

/// A sign in the gates that `activation` is not that of the training.
fn suspicion(activation: Activation, gates: &Gates) -> Option<(f64, &'static str)> {
    let (first, all) = ((gates.first()?, "the first layer's gates"), (gates.all()?, "all gates"));
    if activation.is_sparse() {
        let [most_first, most_all] = MANY_POSITIVE;
        return if first.0 > most_first { Some(first) } else { Some(all).filter(|all| all.0 > most_all) };
    }
    // With the wrong function the other layers get inputs that they were not trained with.
    Some(first).filter(|first| first.0 < FEW_POSITIVE)
}

/// Doubts the activation function of `model`, given the gates that `tokens`, which begin a text, have had with it.
///
/// Where the gates look as they should, nothing is computed. Where not, the first [`MAX_TOKENS`] of the tokens are computed
/// densely on the CPU, once with each function.
///
/// # Errors
/// When memory cannot be had, or the user stops it.
pub fn of_gates(
    model: &Model,
    gates: &Gates,
    tokens: &[u32],
    worker: &Worker,
    progress: &dyn Progress,
) -> Result<Option<Doubt>> {
    let with = &model.config.activation;
    let tokens = &tokens[..tokens.len().min(MAX_TOKENS)];
    if tokens.len() < Gates::MIN_TOKENS {
        return Ok(None);
    }
    let Some(positive) = suspicion(with.activation, gates) else { return Ok(None) };
    let now = nats(model, tokens, worker)?;
    let mut others = Vec::new();
    for other in CANDIDATES.into_iter().filter(|other| *other != with.activation) {
        progress::check(progress)?;
        // Not every function goes with every form of FFN.
        let Ok(other_model) = Model::new(model.gguf.clone(), Some(other)) else { continue };
        let then = nats(&other_model, tokens, worker)?;
        let (mean, _) = mean_and_error(then.iter().copied());
        let (gain, error) = mean_and_error(now.iter().zip(&then).map(|(now, then)| now - then));
        others.push((other, mean, gain > LIKELIER[0] && gain > LIKELIER[1] * error));
    }
    others.sort_by(|a, b| a.1.total_cmp(&b.1));
    let guessed = (model.config.n_tokens as f64).ln();
    let Some((_, least, _)) = others.first().copied().filter(|(_, nats, sure)| *sure && *nats < TEXT * guessed) else {
        return Ok(None);
    };
    let better = others.iter().filter(|(_, nats, sure)| *sure && nats - least < LIKELIER[0]);
    let better = better.map(|(other, nats, _)| (*other, *nats)).collect();
    let (nats, _) = mean_and_error(now.iter().copied());
    let with = (with.activation, with.from.clone());
    Ok(Some(Doubt { with, nats, better, positive, n_tokens: tokens.len() }))
}

/// The same for tokens whose gates have not been seen: the first [`MAX_TOKENS`] of them are computed for that, too.
///
/// # Errors
/// As [`of_gates`].
pub fn of_text(model: &Model, tokens: &[u32], worker: &Worker, progress: &dyn Progress) -> Result<Option<Doubt>> {
    let tokens = &tokens[..tokens.len().min(MAX_TOKENS)];
    if tokens.len() < Gates::MIN_TOKENS {
        return Ok(None);
    }
    let mut gates = Gates::default();
    executor(model, tokens, worker)?.prefill_observed(tokens, &mut gates)?;
    of_gates(model, &gates, tokens, worker, progress)
}

fn executor<'m>(model: &'m Model, tokens: &[u32], worker: &Worker) -> Result<Executor<'m>> {
    let params = ExecutorParams {
        n_threads: worker.n_threads(),
        n_ctx: tokens.len(),
        kv_type: KvType::F32,
        mode: Mode::Dense,
        n_ubatch: MAX_TOKENS,
        isa: worker.isa(),
    };
    Executor::with_worker(model, Placement::all_cold(model), params, worker)
}

/// What each of `tokens` but the first costs, predicted from those before it.
fn nats(model: &Model, tokens: &[u32], worker: &Worker) -> Result<Vec<f64>> {
    let mut costs = Costs { tokens, n_tokens: model.config.n_tokens, nats: Vec::new() };
    executor(model, tokens, worker)?.prefill_observed(tokens, &mut costs)?;
    Ok(costs.nats)
}

struct Costs<'a> {
    tokens: &'a [u32],
    /// Entries behind the tokens only fill the embedding up.
    n_tokens: usize,
    nats: Vec<f64>,
}

impl Observer for Costs<'_> {
    fn wants_logits(&self) -> bool {
        true
    }

    fn logits(&mut self, position: usize, logits: &[f32]) {
        if let Some(next) = self.tokens.get(position + 1) {
            self.nats.push(negative_log_likelihood(&logits[..self.n_tokens], *next));
        }
    }
}
