//! `kernels/route.cu`: which groups of neurons a router chooses, and the message that says so.

use super::token::Job;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::model::{Gating, Router};
use anyhow::{Result, ensure};

/// Threads of the block that chooses, and the most groups that it chooses among.
pub const MAX_GROUPS: usize = 1024;
/// Threads of the block that posts.
const POST_THREADS: u32 = 512;

/// The groups that are chosen, in rising order of their rows in the router, and what each counts.
#[derive(Debug, Clone, Copy)]
pub struct Routes {
    /// `[n_used]` `u32`.
    pub chosen: Ptr,
    /// `[n_used]` `f32`.
    pub weights: Ptr,
    /// How many.
    pub n_used: usize,
}

/// What [`route`] chooses by.
#[derive(Debug, Clone, Copy)]
pub struct Scored {
    /// `f32[n_groups]`.
    pub scores: Ptr,
    /// `f32[n_groups]` that is added for the choice only, or [`Ptr::NULL`].
    pub bias: Ptr,
    /// At most [`MAX_GROUPS`].
    pub n_groups: usize,
}

/// Where it is counted which groups are chosen.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// The index of the layer ([`super::experts`]).
    pub index: Ptr,
    /// Two `u32` for each group of the layer, or [`Ptr::NULL`].
    pub counts: Ptr,
}

/// What the first of the two counts of a group is that is not chosen.
pub const NOT_CHOSEN: u32 = u32::MAX;

/// Enqueues the choice of `router`.
///
/// # Errors
/// When there are too many groups, or the card has failed.
pub fn route(
    kernels: &Kernels,
    stream: &Stream,
    router: &Router,
    scored: &Scored,
    counted: &Counted,
    to: &Routes,
) -> Result<()> {
    let Scored { scores, bias, n_groups } = *scored;
    ensure!(n_groups <= MAX_GROUPS, "a router of {n_groups} groups; up to {MAX_GROUPS} are possible on a card");
    let n_used = to.n_used;
    ensure!((1..=n_groups).contains(&n_used), "{n_used} of {n_groups} groups chosen");
    let gating = match router.gating {
        Gating::Softmax => 0,
        Gating::Sigmoid => 1,
        Gating::SoftmaxOfChosen => 2,
    };
    let args = Args::new().ptr(scores).ptr(bias).n(n_groups).n(n_used).i32(gating);
    let args = args.i32(router.normalised.into()).f32(router.scale);
    let args = args.ptr(counted.index).ptr(to.chosen).ptr(to.weights).ptr(counted.counts);
    kernels.launch(stream, "route", [1, 1, 1], [MAX_GROUPS as u32, 1, 1], args)
}

/// What the processor gets to compute of groups that a router has chosen.
#[derive(Debug, Clone, Copy)]
pub struct PostChosen {
    /// What the groups read: `[n]` on the card.
    pub x: Ptr,
    /// A multiple of 4.
    pub n: usize,
    /// `[n]` in the mailbox.
    pub post_x: Ptr,
    /// Rows of the router, in the mailbox.
    pub post_list: Ptr,
    /// Their weights, in the mailbox.
    pub post_weights: Ptr,
    /// The exchange.
    pub job: Job,
}

/// Enqueues posting the chosen groups and what they read. Nothing is posted once a wait of this token has run out.
///
/// # Errors
/// When `n` is not a multiple of 4; when the card has failed.
pub fn post_chosen(kernels: &Kernels, stream: &Stream, routes: &Routes, to: &PostChosen) -> Result<()> {
    let PostChosen { x, n, post_x, post_list, post_weights, job } = *to;
    ensure!(n.is_multiple_of(4), "vectors of {n}; multiples of 4 cross to the processor");
    let args = Args::new().ptr(routes.chosen).ptr(routes.weights).n(routes.n_used).ptr(x).n(n);
    let args = args.ptr(post_x).ptr(post_list).ptr(post_weights).ptr(job.mailbox).ptr(job.token).u32(job.number);
    kernels.launch(stream, "post_chosen", [1, 1, 1], [POST_THREADS, 1, 1], args)
}
