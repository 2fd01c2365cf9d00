//! What `powerinfer-run` does where the context is full.

use crate::common::terminal::tell;
use anyhow::{Result, bail};
use clap::Args;
use powerinfer::context::{Gap, Shift, fit};
use powerinfer::executor::Executor;
use powerinfer::generate::Limits;
use powerinfer::tokenizer::Tokenizer;

/// Flags that say so.
#[derive(Args)]
#[command(next_help_heading = "Context")]
pub struct ContextArgs {
    /// Where the context is full, drop the older half of the text and go on [default in conversations]
    #[arg(long, overrides_with = "no_context_shift")]
    context_shift: bool,
    /// Where the context is full, end the text [default outside conversations]
    #[arg(long, overrides_with = "context_shift")]
    no_context_shift: bool,
    /// Tokens at the beginning that a context shift keeps, beside the one that begins a text; -1: the whole prompt [default:
    /// 0; with a chat template what comes before the user's first words, such as the system prompt]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keep: Option<i64>,
}

/// What a context shift keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// So many tokens, beside BOS.
    Tokens(usize),
    /// The first prompt.
    Prompt,
    /// What comes before the user's first words.
    Opening,
}

impl ContextArgs {
    /// What a context shift is to keep; `None` where there is to be none. `talk` is whether it is a conversation.
    pub fn kept(&self, talk: bool) -> Result<Option<Kept>> {
        let kept = match self.keep {
            None => Kept::Opening,
            Some(-1) => Kept::Prompt,
            Some(n) => match usize::try_from(n) {
                Ok(n) => Kept::Tokens(n),
                Err(_) => bail!("--keep {n}: a number of tokens, or -1 for the whole prompt"),
            },
        };
        Ok(Some(kept).filter(|_| self.context_shift || talk && !self.no_context_shift))
    }
}

/// Tokens that `kept` means of a text that begins with `prompt`, of which `n_opening` are said by nobody.
fn n_kept(kept: Kept, prompt: &[u32], n_opening: usize, tokenizer: &Tokenizer) -> usize {
    let bos = usize::from(prompt.first().is_some_and(|first| tokenizer.bos() == Some(*first)));
    match kept {
        Kept::Tokens(n) => (n + bos).min(prompt.len()),
        Kept::Prompt => prompt.len(),
        Kept::Opening => n_opening.max(bos),
    }
}

/// The shift of a text that is continued once. Where it is not possible with this model, says why.
pub fn shift(kept: Option<Kept>, executor: &Executor, prompt: &[u32], tokenizer: &Tokenizer) -> Option<Shift> {
    let n_keep = n_kept(kept?, prompt, 0, tokenizer);
    if let Err(why) = executor.check_shift() {
        tell!("note: no context shift, so the text ends where the context does: {why}");
        return None;
    }
    Some(Shift { n_keep })
}

/// The context of a conversation.
pub struct Room {
    kept: Option<Kept>,
    n_keep: Option<usize>,
    gap: Gap,
    /// Tokens that were dropped since the last turn.
    n_dropped: usize,
}

impl Room {
    /// Of a conversation in which nothing was said yet.
    pub fn new(kept: Option<Kept>) -> Self {
        Self { kept, n_keep: None, gap: Gap::default(), n_dropped: 0 }
    }

    /// A new conversation begins.
    pub fn clear(&mut self) {
        *self = Self::new(self.kept);
    }

    /// The tokens of a whole conversation without those that were dropped.
    pub fn without_dropped(&mut self, tokens: Vec<u32>) -> Vec<u32> {
        self.gap.without(tokens)
    }

    /// Tokens that a whole conversation may have: those that were dropped, and as many again as the context has for what is
    /// new, where it can be shifted.
    pub fn most_tokens(&self, n_ctx: usize) -> usize {
        if self.kept.is_some() { self.gap.len().saturating_add(n_ctx.saturating_mul(2)) } else { n_ctx }
    }

    /// Of the tokens that `executor` holds, those that another text may have in common with it: where nothing of the text is
    /// missing, what was moved does not count.
    pub fn usable(&self, executor: &Executor) -> usize {
        if self.gap.is_empty() { executor.n_unmoved() } else { executor.n_past() }
    }

    /// Makes room for `wanted`, which goes on from the tokens `held` of the executor; `n_opening` counts those that come before
    /// anything a user says, `n_last` those of the last message. Returns the limits of the answer.
    pub fn make<'a>(
        &mut self,
        executor: &mut Executor,
        (held, wanted): (&mut Vec<u32>, &mut Vec<u32>),
        tokenizer: &Tokenizer,
        limits: Limits<'a>,
        (n_opening, n_last): (impl FnOnce() -> usize, impl FnOnce() -> usize),
    ) -> Limits<'a> {
        let Some(kept) = self.kept.filter(|_| executor.check_shift().is_ok()) else { return limits };
        let n_keep = *self.n_keep.get_or_insert_with(|| n_kept(kept, wanted, n_opening(), tokenizer));
        let shift = Shift { n_keep };
        let n = fit(executor, shift, held, wanted, n_last);
        self.dropped(n);
        // An answer that nobody stops ends once it is as long as the context.
        let n_predict = limits.n_predict.or(Some(executor.params().n_ctx));
        Limits { n_predict, shift: Some(shift), ..limits }
    }

    /// An answer has dropped `n` further tokens: takes them out of `held`, which has them still.
    pub fn dropped_of(&mut self, held: &mut Vec<u32>, n: usize) {
        let n_keep = self.n_keep.unwrap_or(0);
        held.drain(n_keep.min(held.len())..(n_keep + n).min(held.len()));
        self.dropped(n);
    }

    fn dropped(&mut self, n: usize) {
        self.gap.grow(self.n_keep.unwrap_or(0), n);
        self.n_dropped += n;
    }

    /// Says what a turn has dropped.
    pub fn tell_dropped(&mut self) {
        if self.n_dropped > 0 {
            tell!("(the context was full: the oldest {} tokens are forgotten)", self.n_dropped);
        }
        self.n_dropped = 0;
    }

    /// Says why a full context was the end, where it was not to be.
    pub fn tell_why_full(&self, executor: &mut Executor) {
        let Some(n_keep) = self.n_keep.or(self.kept.map(|_| 0)) else { return };
        if let Err(why) = (Shift { n_keep }).make_room(executor) {
            tell!("note: no context shift: {why}");
        }
    }
}
