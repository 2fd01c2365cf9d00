//! Attention of one token over the cache.

use super::norm::Acts;
use super::rope::KvLayer;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use anyhow::{Result, ensure};

/// Threads of a block.
const THREADS: u32 = 128;
/// The most blocks that share the positions of a head.
const MAX_SPLITS: usize = 64;
/// The fewest positions per block.
const MIN_PIECE: usize = 64;
/// Blocks that fill a large card; the same for all cards, so that they all sum in the same order.
const BLOCKS: usize = 512;

/// The sizes that determine the grid and the scratch memory.
#[derive(Debug, Clone, Copy)]
struct Grid {
    n_head: usize,
    head_dim: usize,
    /// Query heads that share loads.
    sharing: usize,
    n_splits: usize,
    /// Rows of the grid.
    n_rows: usize,
}

impl Grid {
    fn new(n_head: usize, cache: &KvLayer) -> Result<Self> {
        cache.code()?;
        let n_head_kv = cache.n_head_kv;
        let divides = n_head_kv > 0 && n_head > 0 && n_head.is_multiple_of(n_head_kv);
        ensure!(divides && cache.n_ctx > 0, "{n_head} query heads over {n_head_kv} of keys, {} positions", cache.n_ctx);
        let group = n_head / n_head_kv;
        // 32-bit floats are for comparison, not for speed.
        let most_sharing = if cache.dtype == GgmlType::F32 { 1 } else { 8 };
        let sharing = group.next_power_of_two().min(most_sharing);
        let n_rows = n_head_kv * group.div_ceil(sharing);
        let n_splits = (BLOCKS / n_rows).clamp(1, MAX_SPLITS).min(cache.n_ctx.div_ceil(MIN_PIECE));
        Ok(Self { n_head, head_dim: cache.head_dim, sharing, n_splits, n_rows })
    }

    fn scratch_bytes(&self) -> u64 {
        let floats = self.n_head * self.n_splits * (self.head_dim + 2);
        4 * (floats + self.n_rows) as u64
    }
}

/// Bytes of scratch memory that attention of `n_head` query heads over `cache` needs, zeroed before its first use.
/// Layers may share it.
///
/// # Errors
/// When the sizes are not possible on the card.
pub fn attention_scratch(n_head: usize, cache: &KvLayer) -> Result<u64> {
    Ok(Grid::new(n_head, cache)?.scratch_bytes())
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
    /// State of the token, whose position is the last one attended to.
    pub token: Ptr,
    /// How many positions are, where that is limited.
    pub window: Option<usize>,
    /// Of [`attention_scratch`] bytes.
    pub scratch: Ptr,
    /// `[n_head][head_dim]`. The floats are required; the quantized form is possible if heads are multiples of 32.
    pub out: Acts,
}

/// Enqueues attention. The same grid serves every position, so the launch can be captured.
///
/// # Errors
/// When the sizes are not possible on the card; when the card has failed.
pub fn attention(kernels: &Kernels, stream: &Stream, work: &Attend, cache: &KvLayer) -> Result<()> {
    let grid = Grid::new(work.n_head, cache)?;
    let d = cache.head_dim;
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
    let grid = [grid.n_splits as u32, u32::try_from(grid.n_rows)?, 1];
    kernels.launch(stream, &name, grid, [THREADS, 1, 1], args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(n_head: usize, n_head_kv: usize, n_ctx: usize) -> Grid {
        let cache = KvLayer { ptr: Ptr::NULL, dtype: GgmlType::F16, n_ctx, n_head_kv, head_dim: 128 };
        Grid::new(n_head, &cache).unwrap()
    }

    #[test]
    fn heads_share_loads_and_blocks_fill_a_card() {
        let of = |n_head, n_head_kv, n_ctx| {
            let s = grid(n_head, n_head_kv, n_ctx);
            (s.sharing, s.n_rows, s.n_splits)
        };
        assert_eq!(of(32, 32, 4096), (1, 32, 16));
        assert_eq!(of(32, 8, 4096), (4, 8, 64));
        assert_eq!(of(28, 4, 4096), (8, 4, 64));
        assert_eq!(of(71, 1, 2048), (8, 9, 32));
        assert_eq!(of(32, 32, 1), (1, 32, 1));
        assert_eq!(of(1024, 1024, 4096), (1, 1024, 1));
    }
}
