//! The beginning and end of a token, and the vectors that cross between card and processor.

use crate::gpu::{Args, Kernels, Ptr, Stream};
use anyhow::{Result, ensure};

/// Threads of a block.
const THREADS: u32 = 512;
/// Floats that a block of [`finish`] copies.
const COPIED_BY_BLOCK: usize = 8 * THREADS as usize;
/// The most blocks of [`finish`].
const MAX_BLOCKS: usize = 64;

/// Bytes of a token's state on the card, which is zeroed before the first token.
pub const TOKEN_BYTES: u64 = 256;

/// One exchange between card and processor.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Beginning of the mailbox.
    pub mailbox: Ptr,
    /// State of the token, of [`TOKEN_BYTES`].
    pub token: Ptr,
    /// Number of the job in the token, from 0 on.
    pub number: u32,
}

/// What the processor answers to a job.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The answer `[n]` in the mailbox.
    pub reply: Ptr,
    /// The job.
    pub job: Job,
    /// How long to wait for it.
    pub limit_ms: u32,
}

fn check(n: usize) -> Result<()> {
    ensure!(n.is_multiple_of(4), "vectors of {n}; multiples of 4 cross to the card");
    Ok(())
}

/// Enqueues the beginning of a token: its ticket and position, and `in_x` (`[n]`, or [`Ptr::NULL`]), from the mailbox
/// to the card. Nothing is posted yet, and no wait has run out.
///
/// # Errors
/// When `n` is not a multiple of 4; when the card has failed.
pub fn begin_token(
    kernels: &Kernels,
    stream: &Stream,
    mailbox: Ptr,
    token: Ptr,
    in_x: Ptr,
    x: Ptr,
    n: usize,
) -> Result<()> {
    check(n)?;
    let args = Args::new().ptr(mailbox).ptr(token).ptr(in_x).ptr(x).n(n);
    kernels.launch(stream, "begin_token", [1, 1, 1], [THREADS, 1, 1], args)
}

/// Enqueues posting `src` (`[n]`) as `post_x` in the mailbox. Nothing is posted once a wait of this token has run out.
///
/// # Errors
/// As [`begin_token`].
pub fn post_x(kernels: &Kernels, stream: &Stream, src: Ptr, post_x: Ptr, n: usize, job: &Job) -> Result<()> {
    check(n)?;
    let args = Args::new().ptr(src).ptr(post_x).n(n).ptr(job.mailbox).ptr(job.token).u32(job.number);
    kernels.launch(stream, "post_x", [1, 1, 1], [THREADS, 1, 1], args)
}

/// Enqueues waiting for an answer and copying it to `dst` (`[n]`), which stays as it is if there is no answer.
///
/// # Errors
/// As [`begin_token`].
pub fn take_reply(kernels: &Kernels, stream: &Stream, dst: Ptr, n: usize, answer: &Answer) -> Result<()> {
    check(n)?;
    let Answer { reply, job, limit_ms } = answer;
    let args = Args::new().ptr(dst).ptr(*reply).n(n).ptr(job.mailbox).ptr(job.token).u32(job.number);
    kernels.launch(stream, "take_reply", [1, 1, 1], [THREADS, 1, 1], args.n(*limit_ms as usize))
}

/// What [`finish`] sends: `n` values from the card into the mailbox.
#[derive(Debug, Clone, Copy)]
pub struct Copied {
    /// On the card.
    pub from: Ptr,
    /// In the mailbox.
    pub to: Ptr,
    /// How many, of 4 bytes each.
    pub n: usize,
}

/// Enqueues the end of a token: `x` (the logits, or what the processor makes them from) and `counts` go to the mailbox,
/// then `done` gets the ticket of `job`, whose number is that of the last job plus one.
///
/// # Errors
/// When the card has failed.
pub fn finish(kernels: &Kernels, stream: &Stream, x: &Copied, counts: &Copied, job: &Job) -> Result<()> {
    let blocks = x.n.max(counts.n).div_ceil(COPIED_BY_BLOCK).clamp(1, MAX_BLOCKS);
    let args = Args::new().ptr(x.from).ptr(x.to).n(x.n).ptr(counts.from).ptr(counts.to).n(counts.n);
    let args = args.ptr(job.mailbox).ptr(job.token).u32(job.number);
    kernels.launch(stream, "finish", [blocks as u32, 1, 1], [THREADS, 1, 1], args)
}
