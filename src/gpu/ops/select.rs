//! Ordered lists of active slots; the cold ones are posted.

use super::several::Several;
use super::token::Job;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use anyhow::{Result, ensure};

/// Threads of a block, and the slots it decides on.
const THREADS: u32 = 1024;

/// Where the active hot slots go.
#[derive(Debug, Clone, Copy)]
pub struct HotList {
    /// `[n_hot]` `u32`: slots in ascending order.
    pub list: Ptr,
    /// `u32`: how many.
    pub n: Ptr,
}

/// Where the active cold slots go, and what goes with them.
#[derive(Debug, Clone, Copy)]
pub struct Posting {
    /// The normalised input `[n_embd]` on the card, of each token.
    pub x: Ptr,
    /// A multiple of 4.
    pub n_embd: usize,
    /// `[n_embd]` in the mailbox.
    pub post_x: Ptr,
    /// `[n_ff]` `u32` in the mailbox.
    pub post_list: Ptr,
    /// `[n_ff]` in the mailbox; not written by [`select_score`].
    pub post_act: Ptr,
    /// The exchange.
    pub job: Job,
}

/// The slots of a layer: hot below `n_hot`, cold from there on.
#[derive(Debug, Clone, Copy)]
pub struct HotAndCold {
    /// How many are hot.
    pub n_hot: usize,
    /// How many there are.
    pub n_ff: usize,
    /// `[2]` `u32`, or [`Ptr::NULL`]: how many turn out to be active, hot, then cold.
    pub counts: Ptr,
}

fn grid(n: usize) -> Result<[u32; 3]> {
    Ok([u32::try_from(n.div_ceil(THREADS as usize).max(1))?, 1, 1])
}

fn check(slots: HotAndCold, posting: &Posting) -> Result<()> {
    ensure!(slots.n_hot < slots.n_ff, "{} of {} slots hot: none is cold", slots.n_hot, slots.n_ff);
    let n_embd = posting.n_embd;
    ensure!(n_embd.is_multiple_of(4), "vectors of {n_embd}; multiples of 4 cross to the processor");
    Ok(())
}

/// Enqueues the list of active hot slots by their activations `act` (`[n_hot]`): active is what is not 0, or everything
/// if `dense`.
///
/// # Errors
/// When the card has failed.
pub fn select_hot(
    kernels: &Kernels,
    stream: &Stream,
    act: Ptr,
    dense: bool,
    slots: HotAndCold,
    hot: &HotList,
) -> Result<()> {
    select_hot_of(kernels, stream, act, dense, slots, hot, Several::ONE)
}

/// The same of several tokens: the list has those that are active for any of them, and each has how many are for it counted.
///
/// # Errors
/// As [`select_hot`].
pub fn select_hot_of(
    kernels: &Kernels,
    stream: &Stream,
    act: Ptr,
    dense: bool,
    slots: HotAndCold,
    hot: &HotList,
    of: Several,
) -> Result<()> {
    let args = Args::new().ptr(act).i32(dense.into()).n(slots.n_hot).ptr(hot.list).ptr(hot.n).ptr(slots.counts);
    let args = args.n(of.acts).n(of.counts);
    let [x, ..] = grid(slots.n_hot)?;
    // One row of the grid is for what they have together.
    let y = if of.n_tokens > 1 { of.n_tokens + 1 } else { 1 };
    kernels.launch(stream, "select_hot", [x, u32::try_from(y)?, 1], [THREADS, 1, 1], args)
}

/// Enqueues the selection of cold slots by activations `act` (`[n_ff]`, by slot), as [`select_hot`] does it, and posts the
/// list with the activations. There must be cold slots; only those are looked at and counted.
///
/// # Errors
/// When the sizes are not possible; when the card has failed.
pub fn select_act(
    kernels: &Kernels,
    stream: &Stream,
    act: Ptr,
    dense: bool,
    slots: HotAndCold,
    posting: &Posting,
) -> Result<()> {
    select_act_of(kernels, stream, act, dense, slots, posting, Several::ONE)
}

/// The same of several tokens: each has a list of its own, and all are posted at once.
///
/// # Errors
/// As [`select_act`].
pub fn select_act_of(
    kernels: &Kernels,
    stream: &Stream,
    act: Ptr,
    dense: bool,
    slots: HotAndCold,
    posting: &Posting,
    of: Several,
) -> Result<()> {
    check(slots, posting)?;
    let HotAndCold { n_hot, n_ff, counts } = slots;
    let args = Args::new().ptr(act).i32(dense.into()).n(n_hot).n(n_ff).ptr(counts);
    let n_x = of.n_tokens * posting.n_embd;
    let args = args.ptr(posting.x).n(n_x).ptr(posting.post_x).ptr(posting.post_list).ptr(posting.post_act);
    let args = args.ptr(posting.job.mailbox).ptr(posting.job.token).u32(posting.job.number);
    let [x, ..] = grid(n_ff - n_hot)?;
    let args = args.n(of.acts).n(of.lists);
    kernels.launch(stream, "select_act", [x, u32::try_from(of.n_tokens)?, 1], [THREADS, 1, 1], args)
}

/// What a predictor says about the slots.
#[derive(Debug, Clone, Copy)]
pub struct Scored {
    /// `[n_ff]`, by slot; only those of cold slots from `n_always` on are read.
    pub scores: Ptr,
    /// `[n_ff]`, by slot.
    pub bias: Ptr,
    /// Slots below this are active, whatever their score.
    pub n_always: usize,
}

/// Enqueues the selection of cold slots by `score + bias >= 0`, and posts the list, without activations. There must be
/// cold slots; only those are counted.
///
/// # Errors
/// When the sizes are not possible; when the card has failed.
pub fn select_score(
    kernels: &Kernels,
    stream: &Stream,
    scored: &Scored,
    slots: HotAndCold,
    posting: &Posting,
) -> Result<()> {
    check(slots, posting)?;
    let HotAndCold { n_hot, n_ff, counts } = slots;
    let args = Args::new().ptr(scored.scores).ptr(scored.bias).n(scored.n_always).n(n_hot).n(n_ff).ptr(counts);
    let args = args.ptr(posting.x).n(posting.n_embd).ptr(posting.post_x).ptr(posting.post_list);
    let args = args.ptr(posting.job.mailbox).ptr(posting.job.token).u32(posting.job.number);
    kernels.launch(stream, "select_score", grid(n_ff - n_hot)?, [THREADS, 1, 1], args)
}
