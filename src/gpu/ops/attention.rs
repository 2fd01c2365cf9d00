//! Attention of a token, or of a few, over the cache.

use super::norm::Acts;
use super::rope::KvLayer;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::placement::budget::{AttentionGrid, WIDTH_STEP, attention_bytes};
use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use anyhow::{Result, ensure};

/// Threads of a block.
const THREADS: u32 = 128;

/// The grid of a launch.
fn grid(n_head: usize, cache: &KvLayer) -> Result<AttentionGrid> {
    cache.code()?;
    let (n_head_kv, n_ctx) = (cache.n_head_kv, cache.n_ctx);
    let divides = n_head_kv > 0 && n_head > 0 && n_head.is_multiple_of(n_head_kv);
    ensure!(divides && n_ctx > 0, "{n_head} query heads over {n_head_kv} of keys, {n_ctx} positions");
    Ok(AttentionGrid::new(n_head, n_head_kv, cache.dtype, n_ctx))
}

/// Bytes of scratch memory that attention of `n_head` query heads over `cache` needs, zeroed before its first use.
/// Layers may share it.
///
/// # Errors
/// When the sizes are not possible on the card.
pub fn attention_scratch(n_head: usize, cache: &KvLayer) -> Result<u64> {
    Ok(attention_bytes(&grid(n_head, cache)?, cache.head_dim))
}

/// Positions that are attended to at most.
pub(super) fn window_of(window: Option<usize>, cache: &KvLayer) -> Result<usize> {
    ensure!(window != Some(0), "attention that looks back on nothing");
    Ok(window.unwrap_or(cache.n_ctx).min(cache.n_ctx))
}

/// What [`attention`] works on.
#[derive(Debug, Clone, Copy)]
pub struct Attend {
    /// `[n_head][head_dim]`, rotated.
    pub q: Ptr,
    /// Number of query heads.
    pub n_head: usize,
    /// How many tokens: each has queries, scratch memory and a result of its own, one behind the other.
    pub n_tokens: usize,
    /// State of the tokens: what each attends to ends with its position in its sequence.
    pub token: Ptr,
    /// How many positions are, where that is limited.
    pub window: Option<usize>,
    /// Of [`attention_scratch`] bytes for each token.
    pub scratch: Ptr,
    /// `[n_head][head_dim]`. The floats are required; the quantized form is possible if heads are multiples of 32.
    pub out: Acts,
}

/// Enqueues attention. The same grid serves every position, so the launch can be captured.
///
/// # Errors
/// When the sizes are not possible on the card; when the card has failed.
pub fn attention(kernels: &Kernels, stream: &Stream, work: &Attend, cache: &KvLayer) -> Result<()> {
    let grid = grid(work.n_head, cache)?;
    let d = cache.head_dim;
    let whole = work.n_tokens == 1 || work.out.x8.is_null() || (work.n_head * d).is_multiple_of(WIDTH_STEP);
    ensure!(whole, "{} heads of {d} of several tokens are not quantized on the way out", work.n_head);
    ensure!(work.out.x8.is_null() || d.is_multiple_of(QK), "heads of {d} are not quantized on the way out");
    ensure!(!work.out.f32.is_null(), "attention without a place for its result");
    let dtype = match cache.dtype {
        GgmlType::F32 => "f32",
        GgmlType::F16 => "f16",
        _ => "q8_0",
    };
    let name = format!("attention_{dtype}_g{}", grid.sharing);
    let args = Args::new().ptr(work.q).ptr(cache.ptr).ptr(work.token).ptr(work.out.f32).ptr(work.out.x8);
    let args =
        args.ptr(work.scratch).n(work.n_head).n(cache.n_head_kv).n(d).n(cache.n_ctx).n(window_of(work.window, cache)?);
    let grid = [grid.n_splits as u32, u32::try_from(grid.n_rows)?, u32::try_from(work.n_tokens)?];
    kernels.launch(stream, &name, grid, [THREADS, 1, 1], args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n_head: usize, n_head_kv: usize, n_ctx: usize) -> AttentionGrid {
        let cache = KvLayer { ptr: Ptr::NULL, dtype: GgmlType::F16, n_ctx, n_head_kv, head_dim: 128 };
        grid(n_head, &cache).unwrap()
    }

    #[test]
    fn heads_share_loads_and_blocks_fill_a_card() {
        let sizes = |n_head, n_head_kv, n_ctx| {
            let s = of(n_head, n_head_kv, n_ctx);
            (s.sharing, s.n_rows, s.n_splits)
        };
        assert_eq!(sizes(32, 32, 4096), (1, 32, 16));
        assert_eq!(sizes(32, 8, 4096), (4, 8, 64));
        assert_eq!(sizes(28, 4, 4096), (8, 4, 64));
        assert_eq!(sizes(71, 1, 2048), (8, 9, 32));
        assert_eq!(sizes(32, 32, 1), (1, 32, 1));
        assert_eq!(sizes(1024, 1024, 4096), (1, 1024, 1));
    }
}
