//! Normalisation, the merge of a layer's parts into the residual stream, and quantization of activations.

use super::token::Answer;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::model::NormKind;
use crate::quant::blocks::QK;
use anyhow::{Result, ensure};

/// Threads of a block.
const THREADS: u32 = 1024;
/// Elements of the longest vector that a norm supports.
pub const MAX_NORM: usize = 16384;
/// Elements that a block quantizes.
const QUANTIZED_BY_BLOCK: usize = 4 * THREADS as usize;

/// Bytes of the quantized form of `n` activations (a multiple of 32): `n` bytes, `n / 32` scales, and as many products
/// of scale and sum. Consecutive tokens lie this far apart.
pub fn x8_bytes(n: usize) -> u64 {
    (n + n / 4) as u64
}

/// Where activations go; [`Ptr::NULL`] for a form that is not needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Acts {
    /// `[n_tokens][n]` floats.
    pub f32: Ptr,
    /// `[n_tokens]` quantized vectors of [`x8_bytes`].
    pub x8: Ptr,
}

/// A norm, with its weights on the card.
#[derive(Debug, Clone, Copy)]
pub struct Norm {
    /// What it divides by.
    pub kind: NormKind,
    /// Added to the mean square.
    pub eps: f32,
    /// `[n]`.
    pub weight: Ptr,
    /// `[n]`, or [`Ptr::NULL`].
    pub bias: Ptr,
}

/// The kernels' code for a kind.
pub(super) fn code(kind: NormKind) -> i32 {
    match kind {
        NormKind::Rms => 0,
        NormKind::Layer => 1,
    }
}

/// Checks that the kernels of this file support vectors of `n`.
fn check(n: usize) -> Result<()> {
    let fits = n > 0 && n <= MAX_NORM && n.is_multiple_of(QK);
    ensure!(fits, "a norm over {n} values; multiples of {QK} up to {MAX_NORM} are possible on the card");
    Ok(())
}

/// Enqueues the norm of `[n_tokens][n]` values `x`, which may go where they are.
///
/// # Errors
/// When `n` is not a multiple of 32 or above [`MAX_NORM`]; when the card has failed.
pub fn norm(
    kernels: &Kernels,
    stream: &Stream,
    x: Ptr,
    n: usize,
    n_tokens: usize,
    norm: &Norm,
    out: Acts,
) -> Result<()> {
    check(n)?;
    let args = Args::new().ptr(x).ptr(norm.weight).ptr(norm.bias).n(n).i32(code(norm.kind)).f32(norm.eps);
    let grid = [u32::try_from(n_tokens)?, 1, 1];
    kernels.launch(stream, "norm", grid, [THREADS, 1, 1], args.ptr(out.f32).ptr(out.x8))
}

/// What [`merge_norm`] adds to the residual streams.
#[derive(Debug, Clone, Copy)]
pub struct Merge {
    /// The residual streams `[n_tokens][n]`, changed in place; [`Ptr::NULL`] counts as zeros, and stays.
    pub x: Ptr,
    /// Length of all vectors.
    pub n: usize,
    /// Number of tokens.
    pub n_tokens: usize,
    /// Added first: `[n_tokens][n]`, or [`Ptr::NULL`].
    pub a: Ptr,
    /// Times this.
    pub a_scale: f32,
    /// Added next, together with the shift and the answer: `[n_tokens][n]`, or [`Ptr::NULL`].
    pub b: Ptr,
    /// The same for every token: `[n]`, or [`Ptr::NULL`].
    pub shift: Ptr,
    /// What these three are multiplied by.
    pub b_scale: f32,
    /// The processor's part, if one may be due: `[n_tokens][n]`.
    pub answer: Option<Answer>,
}

impl Merge {
    /// Nothing, added to `[n]` values `x` of one token.
    pub fn nothing(x: Ptr, n: usize) -> Self {
        let (a, b, shift) = (Ptr::NULL, Ptr::NULL, Ptr::NULL);
        Self { x, n, n_tokens: 1, a, a_scale: 1.0, b, shift, b_scale: 1.0, answer: None }
    }
}

/// Enqueues `x = (x + a_scale * a) + b_scale * ((b + shift) + answer)`, waiting for the answer, then the norm of the new
/// `x` if one is given, which may go where `b` is. The answer is left out if nothing was posted or it does not arrive in
/// time.
///
/// # Errors
/// As [`norm`].
pub fn merge_norm(kernels: &Kernels, stream: &Stream, merge: &Merge, norm: Option<&Norm>, out: Acts) -> Result<()> {
    check(merge.n)?;
    let n_tokens = merge.n_tokens;
    let args = Args::new().ptr(merge.x).ptr(merge.a).f32(merge.a_scale);
    let args = args.ptr(merge.b).ptr(merge.shift).f32(merge.b_scale);
    let args = match &merge.answer {
        Some(Answer { reply, job, limit_ms }) => {
            args.ptr(*reply).ptr(job.mailbox).ptr(job.token).u32(job.number).n(*limit_ms as usize)
        }
        None => args.ptr(Ptr::NULL).ptr(Ptr::NULL).ptr(Ptr::NULL).u32(0).n(0),
    };
    let (weight, bias) = norm.map_or((Ptr::NULL, Ptr::NULL), |n| (n.weight, n.bias));
    let (kind, eps) = norm.map_or((0, 0.0), |n| (code(n.kind), n.eps));
    let args = args.ptr(weight).ptr(bias).n(merge.n).i32(kind).f32(eps).ptr(out.f32).ptr(out.x8);
    kernels.launch(stream, "merge_norm", [u32::try_from(n_tokens)?, 1, 1], [THREADS, 1, 1], args)
}

/// Enqueues the quantization of `[n_tokens][n]` values, bit for bit as on the processor.
///
/// # Errors
/// When `n` is not a multiple of 32; when the card has failed.
pub fn quantize(kernels: &Kernels, stream: &Stream, x: Ptr, n: usize, n_tokens: usize, x8: Ptr) -> Result<()> {
    ensure!(n > 0 && n.is_multiple_of(QK), "{n} values are not whole blocks of {QK}");
    let grid = [u32::try_from(n.div_ceil(QUANTIZED_BY_BLOCK))?, u32::try_from(n_tokens)?, 1];
    kernels.launch(stream, "quantize", grid, [THREADS, 1, 1], Args::new().ptr(x).ptr(x8).n(n))
}
