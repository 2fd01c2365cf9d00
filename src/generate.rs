//! Generating text: prefill, then decode, sample, print, token by token.

use crate::answer::{Answer, Drawn};
pub use crate::answer::{Limits, Stop};
use crate::executor::Executor;
use crate::progress::Progress;
use crate::sampler::Sampler;
use crate::speculation::Target;
use crate::tokenizer::Tokenizer;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// What a generation did.
#[derive(Debug, Clone)]
pub struct Generated {
    /// Tokens generated, without the one that ended the text, but with those of a stop string.
    pub tokens: Vec<u32>,
    /// Their text, without special tokens and the stop string.
    pub text: String,
    /// Tokens prefilled.
    pub n_prompt: usize,
    /// Time of the prefill.
    pub prefill: Duration,
    /// Tokens decoded, and their time: one fewer than generated, as the first comes out of the prefill.
    pub n_decoded: usize,
    /// Time of decoding and sampling.
    pub decode: Duration,
    /// Tokens that were dropped from the context to go on, behind those that stay.
    pub n_dropped: usize,
    /// Why it ended.
    pub stop: Stop,
}

/// Finds out whether a prompt of `n` tokens can follow what `executor` holds.
///
/// # Errors
/// When it is empty or does not fit in the context.
pub fn check_room(executor: &Executor, n: usize) -> Result<()> {
    let (n_past, n_ctx) = (executor.n_past(), executor.params().n_ctx);
    ensure!(n > 0, "the prompt is empty");
    let advice = match executor.model().config.has_room_beyond(n_ctx) {
        true => "raise -c or shorten it",
        false => "shorten it: the model has no further positions",
    };
    ensure!(
        n_past + n <= n_ctx,
        "prompt: {n} tokens, but the context of {n_ctx} has room for {}; {advice}",
        n_ctx - n_past
    );
    Ok(())
}

/// Continues what the executor of `target` holds by `prompt` and then by generated tokens. `print` gets the text as it comes, whole
/// characters only, and nothing that may become a stop string. Tokens are fed back as soon as they are sampled, so the executor holds all of them afterwards,
/// except for the last one.
///
/// # Errors
/// When the prompt is empty or does not fit in the context, when no token can follow as the sampler's grammar wants, or `print`
/// fails.
pub fn generate<'a, 'm: 'a, 'd: 'a>(
    target: impl Into<Target<'a, 'm, 'd>>,
    tokenizer: &Tokenizer,
    sampler: &mut Sampler,
    prompt: &[u32],
    limits: Limits<'_>,
    user: &dyn Progress,
    print: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Generated> {
    let mut target = target.into();
    let result = generate_tokens(&mut target, tokenizer, sampler, prompt, limits, user, print);
    target.settle()?;
    result
}

fn generate_tokens(
    target: &mut Target,
    tokenizer: &Tokenizer,
    sampler: &mut Sampler,
    prompt: &[u32],
    limits: Limits<'_>,
    user: &dyn Progress,
    print: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Generated> {
    let executor = target.executor()?;
    check_room(executor, prompt.len())?;
    let n_ctx = executor.params().n_ctx;
    let start = Instant::now();
    let mut out = Generated {
        tokens: Vec::new(),
        text: String::new(),
        n_prompt: 0,
        prefill: Duration::ZERO,
        n_decoded: 0,
        decode: Duration::ZERO,
        n_dropped: 0,
        stop: Stop::Interrupted,
    };
    prompt.iter().for_each(|t| sampler.accept(*t));
    // Entries behind the tokens only fill the embedding up.
    let n_tokens = executor.model().config.n_tokens;
    let mut logits = Vec::new();
    match prompt.len() > executor.params().n_ubatch {
        true => user.begin("prompt", prompt.len() as u64),
        false => user.begin_brief("prompt", prompt.len() as u64),
    }
    for chunk in prompt.chunks(executor.params().n_ubatch) {
        if user.cancelled() {
            out.prefill = start.elapsed();
            return Ok(out);
        }
        out.n_prompt += chunk.len();
        logits.clear();
        logits.extend_from_slice(&executor.prefill_part(chunk, prompt.len())?[..n_tokens]);
        user.advance(chunk.len() as u64);
    }
    user.end();
    target.read(prompt);
    out.prefill = start.elapsed();

    let start = Instant::now();
    sampler.begin_answer()?;
    let mut answer = Answer::new(limits);
    out.stop = loop {
        if user.cancelled() {
            break Stop::Interrupted;
        }
        let token = match answer.next(&mut logits, sampler, tokenizer, print)? {
            Drawn::Token(token) => token,
            Drawn::End(stop) => break stop,
        };
        if target.n_past() == n_ctx {
            let executor = target.executor()?;
            match limits.shift.and_then(|shift| shift.make_room(executor).ok()) {
                Some(n) => out.n_dropped += n,
                None => break Stop::ContextFull,
            }
        }
        logits.clear();
        let n_more = limits.n_predict.map_or(usize::MAX, |n| n - answer.tokens.len() - 1);
        logits.extend_from_slice(&target.decode(token, n_more)?[..n_tokens]);
        out.n_decoded += 1;
    };
    answer.finish(tokenizer, print)?;
    (out.tokens, out.text) = (answer.tokens, answer.text);
    out.decode = start.elapsed();
    Ok(out)
}
