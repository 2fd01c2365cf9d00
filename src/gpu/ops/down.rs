//! `kernels/down.cu`: the second half of an FFN, the weighted sum of neurons' output vectors.

use super::THREADS;
use crate::gpu::matrix::{DeviceMatrix, planes};
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::quant::GgmlType;
use anyhow::{Result, ensure};

/// Bytes of a row's quants that a block reads at a time: a cache line.
const TILE_BYTES: usize = 128;
/// Most tiles per row: this many counters precede the partial sums.
const MAX_TILES: usize = 1024;
/// Blocks per launch if there are many rows: what an H200 holds at once. A constant, so that the order of sums is the same
/// on all cards.
const BLOCKS: usize = 384;
/// Rows that a block has at a time.
const ROW_LANES: usize = 32;
/// Fewest rows of a thread that are worth a split of their own.
const MIN_ROWS: usize = 2;
/// Fewest rows of a split.
pub(super) const ROW_LANES_OF_SPLIT: usize = ROW_LANES * MIN_ROWS;

/// Tiles per row, and the most parts that rows are split into.
pub(super) fn grid(dtype: GgmlType, n_embd: usize) -> Result<(usize, usize)> {
    let n_tiles = n_embd.div_ceil(tile(dtype)?).max(1);
    ensure!(n_tiles <= MAX_TILES, "{dtype} rows of {n_embd} elements are too long for down");
    Ok((n_tiles, (BLOCKS / n_tiles).max(1)))
}

/// Parts that `n` rows are split into: as few as give each thread some.
fn splits(most: usize, n: usize) -> usize {
    most.min(n.div_ceil(ROW_LANES_OF_SPLIT)).max(1)
}

/// Columns of a tile. Only the half-bytes of super-blocks count.
fn tile(dtype: GgmlType) -> Result<usize> {
    Ok(match dtype {
        GgmlType::Q4_K | GgmlType::Q5_K | GgmlType::Q6_K => dtype.block_len(),
        _ => TILE_BYTES * dtype.block_len() / planes(dtype)?.quants,
    })
}

/// Bytes of scratch memory that [`down`] needs for rows of `n_embd` elements.
///
/// # Errors
/// When there is no kernel for the type or length.
pub fn scratch_bytes(dtype: GgmlType, n_embd: usize) -> Result<u64> {
    let (_, splits) = grid(dtype, n_embd)?;
    scratch_of(dtype, n_embd, splits)
}

/// The same where each tile has sums of `n_parts` parts.
pub(super) fn scratch_of(dtype: GgmlType, n_embd: usize, n_parts: usize) -> Result<u64> {
    let (n_tiles, _) = grid(dtype, n_embd)?;
    let words = MAX_TILES + n_tiles * n_parts * tile(dtype)?;
    Ok((words * size_of::<f32>()) as u64)
}

/// Enqueues what scratch memory needs before its first use: its counters start at 0, and every launch resets them.
///
/// # Errors
/// When the card has failed.
pub fn clear_scratch(stream: &Stream, scratch: Ptr) -> Result<()> {
    stream.fill(scratch, 0, (MAX_TILES * size_of::<f32>()) as u64)
}

/// What neurons' output vectors are multiplied with.
#[derive(Debug, Clone, Copy)]
pub struct Factors {
    /// `f32[n]`, by row.
    pub h: Ptr,
    /// Neurons: the first rows of the matrix.
    pub n: usize,
    /// Whether rows whose factor is 0 are read, too. The sum has the same bits either way.
    pub all: bool,
}

/// Enqueues `y = sum of h[r] * down[r]` over the first `n` rows: `f32[n_embd]`, zeros if there are none. `down` has a row
/// per neuron; 0 times anything is 0. What is added in which order depends on `n` and the shape alone, so a sum of the
/// rows that are not 0 is the sum of all of them, bit for bit. `scratch` has [`scratch_bytes`], was cleared once by
/// [`clear_scratch`], and serves one launch at a time.
///
/// # Errors
/// When sizes do not match, or the card has failed.
pub fn down(
    kernels: &Kernels,
    stream: &Stream,
    down: &DeviceMatrix,
    factors: &Factors,
    y: Ptr,
    scratch: Ptr,
) -> Result<()> {
    let alone = Together { n_tokens: 1, factors: 0, scratch_bytes: 0 };
    down_of(kernels, stream, down, factors, y, scratch, alone)
}

/// Tokens whose sums are computed in one launch.
#[derive(Debug, Clone, Copy)]
pub struct Together {
    /// How many they are.
    pub n_tokens: usize,
    /// Floats from one's factors to the next one's.
    pub factors: usize,
    /// Bytes of scratch memory of each: the same in all launches that share it, and a multiple of 4.
    pub scratch_bytes: u64,
}

/// [`down`] of several tokens: `y` is `[n_tokens][n_embd]`, and each has scratch memory of its own, one behind the other.
///
/// # Errors
/// As [`down`].
pub fn down_of(
    kernels: &Kernels,
    stream: &Stream,
    down: &DeviceMatrix,
    factors: &Factors,
    y: Ptr,
    scratch: Ptr,
    of: Together,
) -> Result<()> {
    let Factors { h, n, all } = *factors;
    ensure!(n <= down.n_stored(), "{n} neurons, and the matrix has {}", down.n_stored());
    let (n_tiles, most) = grid(down.dtype(), down.n_cols())?;
    let needed = scratch_of(down.dtype(), down.n_cols(), splits(most, n))?;
    ensure!(of.n_tokens == 1 || of.scratch_bytes >= needed, "{} bytes for sums of {needed}", of.scratch_bytes);
    let args = Args::new().ptr(down.ptr()).n(down.n_stored()).n(n).ptr(h).i32(all.into());
    let words = usize::try_from(of.scratch_bytes)? / size_of::<f32>();
    let args = args.n(down.n_cols()).ptr(y).ptr(scratch).n(of.factors).n(words);
    let grid = [n_tiles as u32, splits(most, n) as u32, u32::try_from(of.n_tokens)?];
    kernels.launch(stream, &format!("down_{}", down.kernel()), grid, [THREADS as u32, 1, 1], args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_is_eight_units_of_sixteen_bytes() {
        let columns = [
            (GgmlType::F32, 32),
            (GgmlType::F16, 64),
            (GgmlType::BF16, 64),
            (GgmlType::Q8_0, 128),
            (GgmlType::Q4_0, 256),
            (GgmlType::Q5_0, 256),
            (GgmlType::Q5_1, 256),
            (GgmlType::IQ4_NL, 256),
            (GgmlType::Q5_K, 256),
            (GgmlType::Q4_K, 256),
            (GgmlType::Q6_K, 256),
        ];
        for (dtype, n) in columns {
            assert_eq!(tile(dtype).unwrap(), n, "{dtype}");
        }
        assert_eq!(grid(GgmlType::Q4_0, 4096).unwrap(), (16, 24));
        assert_eq!(grid(GgmlType::F16, 4096).unwrap(), (64, 6));
        assert_eq!(grid(GgmlType::F32, 32_768).unwrap(), (1024, 1));
        assert!(grid(GgmlType::F32, 32_800).is_err());
        assert_eq!([0, 64, 65, 11_008].map(|n| splits(24, n)), [1, 1, 2, 24]);
        assert_eq!(scratch_bytes(GgmlType::Q4_0, 4096).unwrap(), 4096 + 24 * 4 * 4096);
    }
}
