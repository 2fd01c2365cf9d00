//! Several texts at once: each gets the tokens that it gets alone, and one that ends makes room for the next.

mod in_order;
mod prompts;
mod room;

use crate::answer::{Answer, Drawn, Limits, Stop};
use crate::executor::{Batch, Entry, Executor, KvPages, Sequence};
use crate::generate::Generated;
use crate::progress::Progress;
use crate::sampler::Sampler;
use crate::tokenizer::Tokenizer;
use anyhow::{Error, Result};
pub use in_order::InOrder;
pub use prompts::{Format, LinePrompt, read};
pub use room::lacking;
use std::slice;
use std::time::{Duration, Instant};

/// What texts have in common is taken over in steps of so many tokens: layers that recur add up in such chunks, and a prompt that
/// is shorter may be computed in another way than a longer one.
pub const SHARED_STEP: usize = 32;

/// A text to be continued.
pub struct Task<'a> {
    /// Its prompt, which fits in the context.
    pub tokens: Vec<u32>,
    /// Draws its tokens, and was told of none.
    pub sampler: Sampler,
    /// What ends it; nothing is shifted.
    pub limits: Limits<'a>,
    /// Tokens that its prompt has in common with the next one.
    pub n_common: usize,
}

/// What became of a task.
pub struct Outcome {
    /// Its number, among all.
    pub index: usize,
    /// The text as a run of its own prints it.
    pub shown: String,
    /// What was generated. Its times are those that passed, in which others were computed, too.
    pub generated: Generated,
    /// Tokens of its prompt that another text had computed.
    pub n_shared: usize,
    /// The pages of its keys and values when it ended.
    pub pages: KvPages,
    /// Why it could not go on, where something went wrong.
    pub error: Option<Error>,
}

/// What all tasks took together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tokens of prompts that were computed.
    pub n_prompt: usize,
    /// Tokens of prompts that another text had computed.
    pub n_shared: usize,
    /// Time of both.
    pub prefill: Duration,
    /// Tokens that were fed back.
    pub n_decoded: usize,
    /// Passes in which that was done.
    pub n_passes: usize,
    /// Time of these, and of sampling.
    pub decode: Duration,
    /// Pages of all sequences when these took most.
    pub pages: KvPages,
}

impl Totals {
    /// Pages are given up from here on.
    fn count_pages(&mut self, sequences: &[Sequence]) {
        let pages = Sequence::kv_pages(sequences);
        if pages.taken > self.pages.taken {
            self.pages = pages;
        }
    }
}

/// A task that has a sequence.
struct Running<'a> {
    index: usize,
    answer: Answer<'a>,
    sampler: Sampler,
    shown: String,
    /// The token to feed back.
    last: u32,
    n_prompt: usize,
    n_shared: usize,
    prefill: Duration,
    n_decoded: usize,
    began: Instant,
}

impl<'a> Running<'a> {
    /// Draws a token from `logits`; says why that was the last, where it was.
    fn draw(&mut self, logits: &mut [f32], tokenizer: &Tokenizer, is_full: bool) -> Result<Option<Stop>> {
        let shown = &mut self.shown;
        let mut show = |piece: &str| {
            shown.push_str(piece);
            Ok(())
        };
        Ok(match self.answer.next(logits, &mut self.sampler, tokenizer, &mut show)? {
            Drawn::End(stop) => Some(stop),
            Drawn::Token(token) => {
                self.last = token;
                is_full.then_some(Stop::ContextFull)
            }
        })
    }

    /// Ends it, for a reason or an error; `sequence` is its own.
    fn end(mut self, why: Result<Stop>, sequence: &Sequence, tokenizer: &Tokenizer) -> Outcome {
        let shown = &mut self.shown;
        let mut show = |piece: &str| {
            shown.push_str(piece);
            Ok(())
        };
        let finished = self.answer.finish(tokenizer, &mut show);
        let (stop, error) = match why.and_then(|stop| finished.map(|()| stop)) {
            Ok(stop) => (stop, None),
            Err(error) => (Stop::Interrupted, Some(error)),
        };
        let generated = Generated {
            tokens: self.answer.tokens,
            text: self.answer.text,
            n_prompt: self.n_prompt,
            prefill: self.prefill,
            n_decoded: self.n_decoded,
            decode: self.began.elapsed(),
            n_dropped: 0,
            stop,
        };
        let pages = Sequence::kv_pages(slice::from_ref(sequence));
        Outcome { index: self.index, shown: self.shown, generated, n_shared: self.n_shared, pages, error }
    }
}

/// Continues the text of each of `tasks`, as many at once as there are `sequences`: when one ends, the prompt of the next is
/// computed, but for what its beginning has in common with the prompt of one that is still there. `done` gets what became of each,
/// in the order in which they end. Where the user wants to stop, those that have begun are given as far as they are, and no others.
///
/// # Errors
/// When a task cannot be made or computed, or `done` fails. What goes wrong while a token is drawn is that task's own.
pub fn generate_several<'a>(
    executor: &mut Executor,
    tokenizer: &Tokenizer,
    sequences: &mut [Sequence],
    tasks: &mut dyn Iterator<Item = Result<Task<'a>>>,
    user: &dyn Progress,
    done: &mut dyn FnMut(Outcome) -> Result<()>,
) -> Result<Totals> {
    let (n_ctx, n_vocab) = (executor.params().n_ctx, executor.model().config.n_vocab);
    // Entries behind the tokens only fill the embedding up.
    let n_tokens = executor.model().config.n_tokens;
    let (mut totals, mut batch, mut logits) = (Totals::default(), Batch::default(), Vec::new());
    let mut running: Vec<Option<Running>> = sequences.iter().map(|_| None).collect();
    // The prompts that sequences begin with.
    let mut held = vec![Vec::new(); sequences.len()];
    let mut tasks = tasks.enumerate().fuse();
    loop {
        for (number, slot) in running.iter_mut().enumerate() {
            while slot.is_none() && !user.cancelled() {
                let Some((index, task)) = tasks.next() else { break };
                let task = task?;
                totals.count_pages(sequences);
                totals.n_shared += take_over(executor, sequences, &mut held, number, &task.tokens);
                sequences[number].give_up_unused();
                let sequence = &mut sequences[number];
                let (task, end) = begin(executor, (index, task), sequence, (tokenizer, user), &mut totals)?;
                match end {
                    None => *slot = Some(task),
                    Some(why) => done(task.end(why, &sequences[number], tokenizer))?,
                }
            }
        }
        batch.clear();
        for (sequence, task) in running.iter().enumerate() {
            if let Some(Running { last: token, .. }) = task {
                let position = sequences[sequence].n_past();
                batch.push(Entry { sequence, position, token: *token, wants_logits: true });
            }
        }
        if batch.is_empty() || user.cancelled() {
            break;
        }
        let start = Instant::now();
        let rows = executor.decode_batch(&batch, sequences)?;
        totals.n_decoded += batch.len();
        totals.n_passes += 1;
        for (entry, row) in batch.entries().iter().zip(rows.chunks_exact(n_vocab)) {
            let slot = &mut running[entry.sequence];
            let Some(task) = slot else { continue };
            task.n_decoded += 1;
            logits.clear();
            logits.extend_from_slice(&row[..n_tokens]);
            let is_full = sequences[entry.sequence].n_past() == n_ctx;
            let end = task.draw(&mut logits, tokenizer, is_full).transpose();
            if let Some((task, why)) = end.and_then(|why| Some((slot.take()?, why))) {
                done(task.end(why, &sequences[entry.sequence], tokenizer))?;
            }
        }
        totals.decode += start.elapsed();
    }
    totals.count_pages(sequences);
    for (sequence, task) in sequences.iter().zip(running) {
        if let Some(task) = task {
            done(task.end(Ok(Stop::Interrupted), sequence, tokenizer))?;
        }
    }
    Ok(totals)
}

/// Has sequence `number` hold the beginning of `prompt` as far as the prompt of any sequence begins so, which `held` has, and nothing
/// else. Returns how many tokens that is.
fn take_over(
    executor: &mut Executor,
    sequences: &mut [Sequence],
    held: &mut [Vec<u32>],
    number: usize,
    prompt: &[u32],
) -> usize {
    // The last token is computed in any case: its logits are wanted.
    let most = prompt.len().saturating_sub(1);
    let common = |of: &Vec<u32>| {
        let n = of.iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count();
        n / SHARED_STEP * SHARED_STEP
    };
    let found = held.iter().map(common).enumerate().max_by_key(|(i, n)| (*n, *i == number)).filter(|(_, n)| *n > 0);
    held[number] = prompt.to_vec();
    let Some((from, n)) = found else {
        sequences[number].clear();
        return 0;
    };
    let taken = if from == number {
        executor.truncate_sequence(&mut sequences[number], n).is_ok()
    } else if let Ok([to, from]) = sequences.get_disjoint_mut([number, from]) {
        executor.copy_sequence(from, to, n)
    } else {
        false
    };
    if !taken {
        sequences[number].clear();
    }
    sequences[number].n_past()
}

/// Computes what is missing of the prompt of a task and draws its first token; why that was the last, where it was.
fn begin<'a>(
    executor: &mut Executor,
    (index, task): (usize, Task<'a>),
    sequence: &mut Sequence,
    (tokenizer, user): (&Tokenizer, &dyn Progress),
    totals: &mut Totals,
) -> Result<(Running<'a>, Option<Result<Stop>>)> {
    let Task { tokens, mut sampler, limits, n_common } = task;
    let (n_tokens, n_ctx) = (executor.model().config.n_tokens, executor.params().n_ctx);
    let (start, mut logits, mut n_prompt) = (Instant::now(), Vec::new(), 0);
    tokens.iter().for_each(|token| sampler.accept(*token));
    let n_shared = sequence.n_past();
    // Layers that recur can only be taken over from a place that they were told to remember.
    let place = n_common / SHARED_STEP * SHARED_STEP;
    let place = place.clamp(n_shared, tokens.len().max(n_shared));
    let (before, behind) = tokens[n_shared..].split_at(place - n_shared);
    for part in [before, behind] {
        for chunk in part.chunks(executor.params().n_ubatch).take_while(|_| !user.cancelled()) {
            logits.clear();
            logits.extend_from_slice(&executor.prefill_sequence(sequence, chunk, tokens.len())?[..n_tokens]);
            n_prompt += chunk.len();
        }
        if place > 0 && sequence.n_past() == place {
            executor.remember_sequence(sequence);
        }
    }
    let prefill = start.elapsed();
    totals.n_prompt += n_prompt;
    totals.prefill += prefill;
    let (answer, began) = (Answer::new(limits), Instant::now());
    let (shown, last, n_decoded) = (String::new(), 0, 0);
    let mut task = Running { index, answer, sampler, shown, last, n_prompt, n_shared, prefill, n_decoded, began };
    if n_shared + n_prompt < tokens.len() {
        return Ok((task, Some(Ok(Stop::Interrupted))));
    }
    let is_full = sequence.n_past() == n_ctx;
    let began = task.sampler.begin_answer();
    let end = began.and_then(|()| task.draw(&mut logits, tokenizer, is_full)).transpose();
    totals.decode += task.began.elapsed();
    Ok((task, end))
}
