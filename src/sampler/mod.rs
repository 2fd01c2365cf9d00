//! Draws the next token from the logits.
//!
//! What a grammar does not allow is no candidate. Biases come first, then the samplers of the chain in their order, which is llama.cpp's unless the user gives another; then one
//! of the tokens that are left is drawn. With the usual order top-p and min-p see the probabilities before the temperature is
//! applied. Mirostat takes the place of all samplers but the temperature. docs/sampling.md says what each does.

mod bias;
mod breakers;
mod candidates;
mod dry;
mod filters;
#[cfg(test)]
mod golden;
mod kind;
mod mirostat;
mod number;
mod params;
mod penalties;
mod step;
mod temperature;
#[cfg(test)]
mod tests;
mod typical;
mod xtc;

pub use bias::LogitBias;
pub use kind::Kind;
pub use params::SamplerParams;

use crate::grammar::Grammar;
use crate::tokenizer::Tokenizer;
use anyhow::{Result, bail};
use breakers::Breakers;
use candidates::Candidates;
use dry::Dry;
use filters::{MinP, TopK, TopNSigma, TopP};
use mirostat::{Mirostat, Version};
use number::uniform;
use penalties::Penalties;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use step::Step;
use temperature::Temperature;
use typical::Typical;
use xtc::Xtc;

/// One conversation's sampling state: the tokens seen so far and the random stream.
#[derive(Debug)]
pub struct Sampler {
    biases: Vec<LogitBias>,
    chain: Vec<Box<dyn Step>>,
    mirostat: Option<Mirostat>,
    candidates: Candidates,
    /// Whether only one candidate is ever left.
    greedy: bool,
    grammar: Option<Grammar>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler that knows of no vocabulary, so that repetitions of DRY have no breakers.
    ///
    /// # Errors
    /// As [`SamplerParams::validate`].
    pub fn new(params: SamplerParams) -> Result<Self> {
        Self::with_breakers(&params, &Breakers::default())
    }

    /// A sampler for the tokens of `tokenizer`.
    ///
    /// # Errors
    /// As [`SamplerParams::validate`] and [`SamplerParams::check_tokens`].
    pub fn for_tokens(params: &SamplerParams, tokenizer: &Tokenizer) -> Result<Self> {
        params.check_tokens(tokenizer.n_tokens())?;
        // To find the breakers takes a moment with large vocabularies.
        let dry = params.dry_multiplier != 0.0 && params.samplers.contains(&Kind::Dry) && params.mirostat == 0;
        let breakers = if dry { &params.dry_sequence_breakers[..] } else { &[] };
        Self::with_breakers(params, &Breakers::new(breakers, tokenizer))
    }

    fn with_breakers(params: &SamplerParams, breakers: &Breakers) -> Result<Self> {
        params.validate()?;
        let version = [None, Some(Version::One), Some(Version::Two)][usize::from(params.mirostat)];
        let kinds = if version.is_some() { &[Kind::Temperature][..] } else { &params.samplers };
        let mut chain: Vec<Box<dyn Step>> = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            // What keeps the most likely token need not be done where only that one is kept afterwards.
            let then = kinds[at..].iter().find(|kind| !kind.keeps_best());
            if kind.keeps_best() && then == Some(&Kind::Temperature) && is_greedy(params) {
                continue;
            }
            chain.extend(step(*kind, params, breakers));
        }
        Ok(Self {
            biases: params.logit_bias.clone(),
            chain,
            mirostat: version.map(|version| Mirostat::new(version, params.mirostat_tau, params.mirostat_eta)),
            candidates: Candidates::new(),
            greedy: is_greedy(params) && kinds.contains(&Kind::Temperature),
            grammar: None,
            rng: ChaCha8Rng::seed_from_u64(params.seed),
        })
    }

    /// From now on answers follow this grammar; `None` lets them be anything.
    pub fn set_grammar(&mut self, grammar: Option<Grammar>) {
        self.grammar = grammar;
    }

    /// The grammar that answers follow, which they no longer do.
    pub fn take_grammar(&mut self) -> Option<Grammar> {
        self.grammar.take()
    }

    /// An answer begins: the grammar does so, too.
    ///
    /// # Errors
    /// As [`Grammar::restart`].
    pub fn begin_answer(&mut self) -> Result<()> {
        self.grammar.as_mut().map_or(Ok(()), Grammar::restart)
    }

    /// [`Sampler::accept`] of a token of the answer.
    ///
    /// # Errors
    /// As [`Grammar::advance`].
    pub fn accept_answer(&mut self, token: u32) -> Result<()> {
        self.accept(token);
        self.grammar.as_mut().map_or(Ok(()), |grammar| grammar.advance(token))
    }

    /// Whether the grammar has come to its end, so that nothing can follow.
    pub fn is_over(&self) -> bool {
        self.grammar.as_ref().is_some_and(Grammar::is_over)
    }

    /// Tells the samplers about a token, be it of the prompt or a sampled one.
    pub fn accept(&mut self, token: u32) {
        self.chain.iter_mut().for_each(|step| step.accept(token));
    }

    /// Takes back all that [`Sampler::accept`] was told.
    pub fn forget(&mut self) {
        self.chain.iter_mut().for_each(|step| step.forget());
    }

    /// Chooses a token for `logits` (`[n_vocab]`, indexed by token id) without accepting it.
    ///
    /// Once its buffers have grown to the vocabulary, a call allocates nothing.
    ///
    /// # Errors
    /// When a logit is NaN or +inf, or when none is above -inf.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let total = self.filter(logits)?;
        let mut at = 0;
        if !self.greedy {
            let target = uniform(&mut self.rng) * total;
            let mut sum = 0.0;
            let hit = self.candidates.weights().iter().position(|w| {
                sum += w;
                sum > target
            });
            // Both sums run in the same order, so `sum` ends at `total`, which is above `target`.
            at = hit.unwrap_or(0);
        }
        self.learn(at, total);
        Ok(self.candidates.list()[at].id)
    }

    /// The probabilities of all tokens that [`Sampler::sample`] might choose for `logits` now. Where the chain itself draws random
    /// numbers, they are what it has drawn this time.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn probabilities(&mut self, logits: &[f32]) -> Result<Vec<(u32, f64)>> {
        let total = self.filter(logits)?;
        let weights = self.candidates.weights().iter().map(|w| w / total);
        Ok(self.candidates.list().iter().map(|c| c.id).zip(weights).collect())
    }

    /// Leaves the candidates that may be drawn, weighs them, and returns the sum of their weights.
    fn filter(&mut self, logits: &[f32]) -> Result<f64> {
        let grammar = self.grammar.as_ref();
        self.candidates.load(logits, |id| grammar.is_none_or(|grammar| grammar.allows(id)))?;
        bias::apply(&self.biases, &mut self.candidates);
        self.candidates.set_logits(|c| c.logit);
        if self.candidates.list().is_empty() {
            let which = if grammar.is_some() { "that the grammar allows here " } else { "" };
            bail!("no token can be sampled: all {} logits {which}are -inf", logits.len());
        }
        let rng = &mut self.rng;
        let mut draw = || uniform(rng);
        self.chain.iter_mut().for_each(|step| step.apply(&mut self.candidates, &mut draw));
        if let Some(mirostat) = &mut self.mirostat {
            mirostat.apply(&mut self.candidates, logits.len());
        }
        Ok(self.candidates.weigh())
    }

    /// Tells mirostat which of the candidates was chosen.
    fn learn(&mut self, at: usize, total: f64) {
        if let (Some(mirostat), Some(weight)) = (&mut self.mirostat, self.candidates.weights().get(at)) {
            mirostat.learn(*weight, total);
        }
    }
}

fn is_greedy(params: &SamplerParams) -> bool {
    params.temp <= 0.0 && params.dynatemp_range <= 0.0
}

/// The sampler of that kind; `None` where it would change nothing.
fn step(kind: Kind, params: &SamplerParams, breakers: &Breakers) -> Option<Box<dyn Step>> {
    let p = params;
    Some(match kind {
        Kind::Penalties => {
            Box::new(Penalties::new(p.repeat_penalty, p.frequency_penalty, p.presence_penalty, p.repeat_last_n)?)
        }
        Kind::Dry if p.dry_multiplier != 0.0 && p.dry_penalty_last_n != 0 => Box::new(Dry::new(p, breakers.clone())),
        Kind::TopNSigma if p.top_n_sigma > 0.0 => Box::new(TopNSigma(p.top_n_sigma.into())),
        Kind::TopK if p.top_k > 0 => Box::new(TopK(p.top_k as usize)),
        Kind::Typical if p.typical_p < 1.0 => Box::new(Typical(p.typical_p.into())),
        Kind::TopP if p.top_p < 1.0 => Box::new(TopP(p.top_p.into())),
        Kind::MinP if p.min_p > 0.0 => Box::new(MinP(p.min_p.into())),
        Kind::Xtc if p.xtc_probability > 0.0 && p.xtc_threshold <= 0.5 => {
            Box::new(Xtc { probability: p.xtc_probability.into(), threshold: p.xtc_threshold.into() })
        }
        Kind::Temperature => {
            let [temp, range, exponent] = [p.temp, p.dynatemp_range, p.dynatemp_exponent].map(f64::from);
            Box::new(Temperature { temp, range, exponent })
        }
        Kind::Dry | Kind::TopNSigma | Kind::TopK | Kind::Typical | Kind::TopP | Kind::MinP | Kind::Xtc => return None,
    })
}
