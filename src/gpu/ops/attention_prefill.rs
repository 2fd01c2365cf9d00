//! `kernels/attention_prefill.cu`: attention of many tokens over the cache.

use super::attention::window_of;
use super::gemm::Tokens;
use super::rope::KvLayer;
use crate::gpu::{Args, Kernels, Stream};
use crate::quant::GgmlType;
use anyhow::{Result, ensure};

/// Rows (a token with one of the query heads that share keys) and threads of a block.
const ROWS: usize = 32;
const THREADS: u32 = 128;
/// Floats stored at once.
const TOGETHER: usize = 4;

/// What [`attention_prefill`] works on.
#[derive(Debug, Clone, Copy)]
pub struct AttendMany {
    /// `[n_head][head_dim]` per token, rotated.
    pub q: Tokens,
    /// Number of query heads.
    pub n_head: usize,
    /// Position of the first token. Keys and values up to the last token's are in the cache.
    pub first: usize,
    /// Number of tokens.
    pub n_tokens: usize,
    /// How many positions each attends to, where that is limited.
    pub window: Option<usize>,
    /// `[n_head][head_dim]` per token, aligned to 16 bytes, a multiple of 4 floats apart.
    pub out: Tokens,
}

/// Enqueues causal attention of tokens at consecutive positions.
///
/// # Errors
/// When sizes are not possible on the card, or positions are not in the cache; when the card has failed.
pub fn attention_prefill(kernels: &Kernels, stream: &Stream, work: &AttendMany, cache: &KvLayer) -> Result<()> {
    let AttendMany { q, n_head, first, n_tokens, window, out } = *work;
    let (n_head_kv, head_dim) = (cache.n_head_kv, cache.head_dim);
    cache.n_bytes()?;
    let divides = n_head_kv > 0 && n_head > 0 && n_head.is_multiple_of(n_head_kv);
    ensure!(divides, "{n_head} query heads over {n_head_kv} of keys");
    let fits = first.checked_add(n_tokens).is_some_and(|end| end <= cache.n_ctx);
    ensure!(fits && n_tokens > 0, "{n_tokens} tokens from {first} on in a cache of {}", cache.n_ctx);
    q.check(n_head * head_dim, "queries")?;
    out.check(n_head * head_dim, "attention")?;
    let aligned = out.stride.is_multiple_of(TOGETHER) && out.ptr.0.is_multiple_of((TOGETHER * size_of::<f32>()) as u64);
    ensure!(aligned, "attention goes to {} every {} floats: no multiples of {TOGETHER}", out.ptr, out.stride);
    let dtype = match cache.dtype {
        GgmlType::F32 => "f32",
        GgmlType::F16 => "f16",
        _ => "q8_0",
    };
    let most = [64, 128, 256].into_iter().find(|most| head_dim <= *most).unwrap_or_default();
    let args = Args::new().ptr(q.ptr).n(q.stride).ptr(cache.ptr).n(cache.n_ctx).n(n_head).n(n_head_kv).n(head_dim);
    let args = args.n(first).n(n_tokens).n(window_of(window, cache)?).ptr(out.ptr).n(out.stride);
    let n_blocks = (n_tokens * (n_head / n_head_kv)).div_ceil(ROWS);
    let grid = [u32::try_from(n_blocks)?, u32::try_from(n_head_kv)?, 1];
    kernels.launch(stream, &format!("attention_prefill_{dtype}_{most}"), grid, [THREADS, 1, 1], args)
}
