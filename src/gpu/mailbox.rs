//! The mailbox: how the card hands a piece of work to the processor in the middle of a token, and gets the answer.
//!
//! A token is one launch on the card, in which **jobs** have fixed numbers 0, 1, ... For job `j` of a token the card may
//! post data and raise `posted` to the job's ticket, `first_ticket + j` (wrapping); the processor computes, stores
//! its reply and raises `replied` to the same ticket. Only then does the card go on to later jobs, so one set of arrays
//! serves all of them. A job that has nothing to compute is not posted: a later ticket, or `done`, tells. `done` is the
//! ticket behind the last job. The next token begins one further, so that no ticket means two things.
//!
//! Words lie on lines of their own. Each is written by one side only; data before the word that announces them.

#![allow(unsafe_code, reason = "reads and writes memory that the card uses, too; the protocol orders them")]

#[cfg(test)]
mod stand_in;

use super::memory::{Mapped, Ptr};
use crate::placement::budget::aligned;
use crate::placement::plan::Room;
use anyhow::{Result, bail, ensure};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(test)]
pub use stand_in::StandIn;

/// Bytes between words: a line of both caches.
const LINE: usize = 128;
/// Offsets of the words in bytes, as `kernels/common.cuh` has them. Card: ticket of the job that waits for a reply.
pub const POSTED: usize = 0;
/// Card: ticket behind the last job of the token that is finished.
pub const DONE: usize = LINE;
/// Processor: ticket of the last job that was answered.
pub const REPLIED: usize = 2 * LINE;
/// Processor: not 0 ends all waits of the card.
pub const STOP: usize = 3 * LINE;
/// Card: a wait ran out; 1 + number of its job.
pub const FAILED: usize = 4 * LINE;
/// Processor, before the launch: `{u32 first_ticket; i32 position[MAX_TOKENS]; i32 sequence[MAX_TOKENS]}`.
pub const TOKEN: usize = 5 * LINE;
/// Card: numbers in the list that is posted, token by token.
pub const POST_N: usize = 6 * LINE;
/// Card, at the end of a token: how long it has waited for replies, in units of 64 ns.
pub const WAITED: usize = 7 * LINE;
/// Tokens that are computed at once at the most.
pub const MAX_TOKENS: usize = Room::MOST_AT_ONCE;
/// Behind the words.
const WORDS: u64 = 8 * LINE as u64;

/// Where a token belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenAt {
    /// Its position in its sequence.
    pub position: usize,
    /// Which of the sequences that the card remembers that is.
    pub sequence: usize,
}

/// Sizes of the model that the arrays are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Numbers of the residual stream.
    pub n_embd: usize,
    /// Neurons of the group that has most.
    pub n_ff: usize,
    /// Tokens of the vocabulary.
    pub n_vocab: usize,
    /// Groups of neurons in all layers.
    pub n_groups: usize,
    /// Tokens that are computed at once, at most [`MAX_TOKENS`]: of each array there are as many, one behind the other.
    pub n_tokens: usize,
}

/// Where the arrays begin: offsets in bytes, multiples of 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    sizes: Sizes,
    in_x: usize,
    post_x: usize,
    post_list: usize,
    post_act: usize,
    reply: usize,
    logits: usize,
    counts: usize,
    /// Bytes of all of it.
    pub bytes: usize,
}

impl Layout {
    /// The mailbox for a model of these sizes.
    pub fn new(sizes: Sizes) -> Self {
        const WORD: usize = 4;
        let mut end = aligned(WORDS) as usize;
        let mut next = |n: usize| {
            let at = end;
            end += aligned((n * sizes.n_tokens * WORD) as u64) as usize;
            at
        };
        let Sizes { n_embd, n_ff, n_vocab, n_groups, .. } = sizes;
        let (in_x, post_x, post_list, post_act) = (next(n_embd), next(n_embd), next(n_ff), next(n_ff));
        let (reply, logits, counts) = (next(n_embd), next(n_vocab), next(2 * n_groups));
        Self { sizes, in_x, post_x, post_list, post_act, reply, logits, counts, bytes: end }
    }
}

/// The same places as kernels see them: those of the first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Where the words begin.
    pub base: Ptr,
    /// `f32[n_embd]`, to the card: the embedding of the token.
    pub in_x: Ptr,
    /// `f32[n_embd]`, from the card.
    pub post_x: Ptr,
    /// `u32[n_ff]`, from the card: slots.
    pub post_list: Ptr,
    /// `f32[n_ff]`, from the card: activations of these slots.
    pub post_act: Ptr,
    /// `f32[n_embd]`, to the card.
    pub reply: Ptr,
    /// `f32[n_vocab]`, from the card.
    pub logits: Ptr,
    /// `u32[2 * n_groups]`, from the card: what the kernels counted.
    pub counts: Ptr,
    /// Words from a token's list, or its activations, to those of the next one.
    pub list_stride: usize,
}

/// How long to wait for the other side, and what to ask meanwhile.
#[derive(Clone, Copy)]
pub struct Wait<'a> {
    /// After this time the other side is taken for dead.
    pub limit: Duration,
    /// Asked about every millisecond: fails where the other side is known to have failed, or the user wants to stop.
    pub alive: &'a dyn Fn() -> Result<()>,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is posted, and the card waits for the reply.
    Posted,
    /// It had nothing to compute; a later job is posted.
    Skipped,
    /// It had nothing to compute; the token is finished.
    Done,
}

/// What the token is at, as the processor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// None runs; the results of one that has finished may be read.
    Idle,
    Running,
    /// The card waits for the reply to this job.
    Holding(u32),
}

/// The processor's side.
pub struct Mailbox {
    shared: Arc<Mapped>,
    layout: Layout,
    /// First ticket and jobs of the token that runs, or ran last, and how many tokens that is.
    first: u32,
    n_jobs: u32,
    n_tokens: usize,
    state: State,
}

impl Mailbox {
    /// A mailbox in `memory`, which is all zeros and has at least [`Layout::bytes`].
    ///
    /// # Errors
    /// When it is too small.
    pub fn new(memory: Mapped, layout: Layout) -> Result<Self> {
        Self::starting_at(memory, layout, 0)
    }

    /// The same, where the token before the first had ticket `last`.
    fn starting_at(memory: Mapped, layout: Layout, last: u32) -> Result<Self> {
        ensure!(memory.len() >= layout.bytes, "mailbox: {} bytes for {}", memory.len(), layout.bytes);
        let n_tokens = layout.sizes.n_tokens;
        ensure!((1..=MAX_TOKENS).contains(&n_tokens), "mailbox: {n_tokens} tokens at once");
        for word in [POSTED, DONE, REPLIED] {
            memory.word(word).store(last, Relaxed);
        }
        Ok(Self { shared: Arc::new(memory), layout, first: last, n_jobs: 0, n_tokens: 1, state: State::Idle })
    }

    /// Where everything is, as kernels see it.
    pub fn addresses(&self) -> Addresses {
        let (base, l) = (self.shared.ptr(), &self.layout);
        let at = |offset: usize| base.offset(offset as u64);
        Addresses {
            base,
            in_x: at(l.in_x),
            post_x: at(l.post_x),
            post_list: at(l.post_list),
            post_act: at(l.post_act),
            reply: at(l.reply),
            logits: at(l.logits),
            counts: at(l.counts),
            list_stride: l.sizes.n_ff,
        }
    }

    /// The card's side for a thread that stands in for it.
    #[cfg(test)]
    pub fn stand_in(&self) -> StandIn {
        StandIn::new(Arc::clone(&self.shared), self.layout)
    }

    fn load(&self, word: usize) -> u32 {
        self.shared.word(word).load(Acquire)
    }

    /// Writes down the token that is launched next, of the first sequence: its number of jobs, its position, and its embedding,
    /// `[n_embd]`, or nothing where the card has it.
    ///
    /// # Errors
    /// When the token before has not finished, a wait of it failed, or sizes are wrong.
    pub fn begin_token(&mut self, n_jobs: u32, position: usize, in_x: &[f32]) -> Result<()> {
        self.begin_tokens(n_jobs, &[TokenAt { position, sequence: 0 }], in_x)
    }

    /// The same of tokens that are launched together, which share their jobs; `in_x` is `[n_tokens][n_embd]`.
    ///
    /// # Errors
    /// As [`Mailbox::begin_token`].
    pub fn begin_tokens(&mut self, n_jobs: u32, tokens: &[TokenAt], in_x: &[f32]) -> Result<()> {
        ensure!(self.state == State::Idle, "mailbox: the token before has not finished");
        self.other_side()?;
        let (n_embd, n_tokens) = (self.layout.sizes.n_embd, tokens.len());
        ensure!((1..=self.layout.sizes.n_tokens).contains(&n_tokens), "mailbox: {n_tokens} tokens");
        let fits = in_x.is_empty() || in_x.len() == n_tokens * n_embd;
        ensure!(fits, "mailbox: {} numbers for n_embd = {n_embd}, {n_tokens} tokens", in_x.len());
        // One further than `done`.
        self.first = self.first.wrapping_add(self.n_jobs).wrapping_add(1);
        (self.n_jobs, self.n_tokens) = (n_jobs, n_tokens);
        // SAFETY: the card reads this between its launch, which follows, and the end of the token.
        unsafe { self.shared.store(self.layout.in_x, in_x) };
        for (t, token) in tokens.iter().enumerate() {
            let (position, sequence) = (i32::try_from(token.position)?, i32::try_from(token.sequence)?);
            let word = |number: usize| self.shared.word(TOKEN + size_of::<u32>() * (1 + number));
            word(t).store(position.cast_unsigned(), Relaxed);
            word(MAX_TOKENS + t).store(sequence.cast_unsigned(), Relaxed);
        }
        self.shared.word(TOKEN).store(self.first, Release);
        self.state = State::Running;
        Ok(())
    }

    /// Waits for job `job` of the token that runs. Jobs are waited for in rising order.
    ///
    /// # Errors
    /// When the card gave up waiting, `wait` runs out or says that the card has failed, and after [`Mailbox::stop`].
    pub fn wait_job(&mut self, job: u32, wait: Wait) -> Result<Arrival> {
        ensure!(self.state == State::Running, "mailbox: job {job} while {:?}", self.state);
        ensure!(job < self.n_jobs, "mailbox: job {job} of {}", self.n_jobs);
        let ticket = self.first.wrapping_add(job);
        let found = wait_until(
            wait,
            || format!("the card did not come to job {job}"),
            || {
                self.other_side()?;
                // In this order: what was posted before `done` is then seen.
                let (done, posted) = (self.load(DONE), self.load(POSTED));
                Ok(match posted {
                    _ if posted == ticket => Some(Arrival::Posted),
                    _ if reached(posted, ticket) => Some(Arrival::Skipped),
                    _ if reached(done, ticket) => Some(Arrival::Done),
                    _ => None,
                })
            },
        )?;
        if found == Arrival::Posted {
            self.state = State::Holding(job);
        }
        Ok(found)
    }

    /// Waits until the token is finished: logits and counts may then be read.
    ///
    /// # Errors
    /// As [`Mailbox::wait_job`].
    pub fn wait_done(&mut self, wait: Wait) -> Result<()> {
        ensure!(self.state == State::Running, "mailbox: waiting for the end while {:?}", self.state);
        let ticket = self.first.wrapping_add(self.n_jobs);
        wait_until(
            wait,
            || "the card did not finish the token".to_owned(),
            || {
                let done = reached(self.load(DONE), ticket);
                // Looked at afterwards: a wait that ran out is told before `done`.
                self.other_side()?;
                Ok(done.then_some(()))
            },
        )?;
        self.state = State::Idle;
        Ok(())
    }

    /// Whether the other side is still at work, as far as it says so here.
    fn other_side(&self) -> Result<()> {
        let failed = self.load(FAILED);
        if failed != 0 {
            bail!("the card gave up waiting for the answer to job {}", failed - 1);
        }
        ensure!(self.load(STOP) == 0, "the token was stopped");
        Ok(())
    }

    fn posted<T: super::Plain>(&self, offset: usize, n: usize) -> &[T] {
        assert!(matches!(self.state, State::Holding(_)), "nothing is posted");
        // SAFETY: a job is posted, and the card writes nothing before the reply, for which `self` must be mutable.
        unsafe { self.shared.values(offset, n) }
    }

    /// `[n_tokens][n_embd]` that was posted.
    ///
    /// # Panics
    /// When no job is posted.
    pub fn post_x(&self) -> &[f32] {
        self.posted(self.layout.post_x, self.n_tokens * self.layout.sizes.n_embd)
    }

    /// The slots that were posted for token number `token`, in rising order.
    ///
    /// # Errors
    /// When there are more than a layer has.
    ///
    /// # Panics
    /// When no job is posted.
    pub fn post_list(&self, token: usize) -> Result<&[u32]> {
        Ok(self.posted(self.layout.post_list + self.list_bytes(token), self.post_n(token)?))
    }

    /// The activations of these slots.
    ///
    /// # Errors
    /// When there are more than a layer has.
    ///
    /// # Panics
    /// When no job is posted.
    pub fn post_act(&self, token: usize) -> Result<&[f32]> {
        Ok(self.posted(self.layout.post_act + self.list_bytes(token), self.post_n(token)?))
    }

    /// Bytes from the first token's list to that of another.
    fn list_bytes(&self, token: usize) -> usize {
        size_of::<u32>() * token * self.layout.sizes.n_ff
    }

    fn post_n(&self, token: usize) -> Result<usize> {
        ensure!(token < self.n_tokens, "the list of token {token} of {}", self.n_tokens);
        let (n, n_ff) = (self.load(POST_N + size_of::<u32>() * token) as usize, self.layout.sizes.n_ff);
        ensure!(n <= n_ff, "the card posted {n} slots of {n_ff}");
        Ok(n)
    }

    /// Answers job `job` with `[n_tokens][n_embd]`, or fewer values where the card waits for fewer.
    ///
    /// # Errors
    /// When this job is not posted, or there are too many values.
    pub fn reply(&mut self, job: u32, values: &[f32]) -> Result<()> {
        ensure!(self.state == State::Holding(job), "mailbox: reply to job {job} while {:?}", self.state);
        let (n_embd, n_tokens) = (self.layout.sizes.n_embd, self.n_tokens);
        let fits = values.len() <= n_tokens * n_embd;
        ensure!(fits, "mailbox: {} numbers for n_embd = {n_embd}, {n_tokens} tokens", values.len());
        // SAFETY: the card reads this after `replied` has the job's ticket only, and it waits for that.
        unsafe { self.shared.store(self.layout.reply, values) };
        self.shared.word(REPLIED).store(self.first.wrapping_add(job), Release);
        self.state = State::Running;
        Ok(())
    }

    /// Ends all waits of the card. What runs there ends soon, and its results are not to be used.
    pub fn stop(&self) {
        self.shared.word(STOP).store(1, Release);
    }

    /// Makes ready for another token after a stop or a failure. Only when nothing runs on the other side.
    pub fn restart(&mut self) {
        for word in [STOP, FAILED] {
            self.shared.word(word).store(0, Release);
        }
        self.state = State::Idle;
    }

    fn result<T: super::Plain>(&self, offset: usize, n: usize) -> &[T] {
        assert!(self.state == State::Idle, "the token has not finished");
        // SAFETY: nothing runs on the card before the next token, for which `self` must be mutable.
        unsafe { self.shared.values(offset, n) }
    }

    /// `[n_tokens][n_vocab]` of what is finished: logits, or what the kernels put there.
    ///
    /// # Panics
    /// When a token runs.
    pub fn logits(&self) -> &[f32] {
        self.result(self.layout.logits, self.n_tokens * self.layout.sizes.n_vocab)
    }

    /// How long the card has waited for replies in the token that is finished.
    ///
    /// # Panics
    /// When a token runs.
    pub fn waited(&self) -> Duration {
        assert!(self.state == State::Idle, "the token has not finished");
        Duration::from_nanos(64 * u64::from(self.load(WAITED)))
    }

    /// `[n_tokens][2 * n_groups]` of what is finished: what the kernels counted.
    ///
    /// # Panics
    /// When a token runs.
    pub fn counts(&self) -> &[u32] {
        self.result(self.layout.counts, self.n_tokens * 2 * self.layout.sizes.n_groups)
    }
}

/// Whether `at` is `ticket` or a later one, at most half the numbers later.
fn reached(at: u32, ticket: u32) -> bool {
    at.wrapping_sub(ticket) as i32 >= 0
}

/// Looks again and again: at full speed for a while, then giving the core to others between looks.
fn wait_until<T>(wait: Wait, what: impl Fn() -> String, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    /// Looks between looks at the clock.
    const LOOKS: usize = 64;
    /// Longer than the card needs for a layer.
    const SPIN: Duration = Duration::from_micros(200);
    const ASK_EVERY: Duration = Duration::from_millis(1);
    let begin = Instant::now();
    let mut asked = begin;
    loop {
        for _ in 0..LOOKS {
            if let Some(found) = look()? {
                return Ok(found);
            }
            std::hint::spin_loop();
        }
        let now = Instant::now();
        if now - asked >= ASK_EVERY {
            (wait.alive)()?;
            asked = now;
        }
        let waited = now - begin;
        ensure!(waited < wait.limit, "{} within {:?}", what(), wait.limit);
        if waited > SPIN {
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests;
