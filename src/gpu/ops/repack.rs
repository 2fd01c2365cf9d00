//! `kernels/repack.cu`: separates blocks as they are in the file into planes.

use super::{THREADS, spread};
use crate::gpu::matrix::planes;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::quant::GgmlType;
use anyhow::{Context, Result, ensure};

/// Enqueues the separation of the `n_blocks` blocks at `from`, packed as in the file: their quants go to `quants`, a
/// multiple of 16, their scales to `scales`.
///
/// # Errors
/// When the type has no plane of scales; when the card has failed.
pub fn repack(
    kernels: &Kernels,
    stream: &Stream,
    dtype: GgmlType,
    quants: Ptr,
    scales: Ptr,
    from: Ptr,
    n_blocks: usize,
) -> Result<()> {
    /// What a thread moves at a time.
    const MOVE_BYTES: usize = 16;
    let planes = planes(dtype)?;
    ensure!(planes.scales > 0, "{dtype} stays as it is in the file");
    if n_blocks == 0 {
        return Ok(());
    }
    let n_moves = n_blocks * (planes.quants / MOVE_BYTES);
    let n_blocks = u32::try_from(n_blocks).with_context(|| format!("{n_blocks} blocks at once"))?;
    let args = Args::new().ptr(quants).ptr(scales).ptr(from).u32(n_blocks);
    let grid = spread(stream.device(), n_moves.div_ceil(THREADS));
    kernels.launch(stream, &format!("repack_{}", planes.name), [grid, 1, 1], [THREADS as u32, 1, 1], args)
}
