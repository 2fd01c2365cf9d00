//! `kernels/matvec.cu`: matrix times vector.

use super::norm::Acts;
use super::several::check_several;
use super::{THREADS, activation_code};
use crate::gpu::matrix::{DeviceMatrix, takes_floats};
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::model::Activation;
use crate::quant::GgmlType;
use anyhow::{Result, ensure};

/// Most matrices of one launch.
const MAX_PARTS: usize = 3;
/// Rows that a thread works on at once.
const ROWS: usize = 2;
/// Threads of a warp, which share a row unless there is a reason not to.
const WARP: usize = 32;
/// If all rows together occupy fewer threads than this, more of them share a row: half of what the largest cards hold
/// at once. A constant, so that the order of sums is the same on all cards.
const FEW_THREADS: usize = 1 << 16;

/// Rows of a matrix, and where their products go.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The matrix.
    pub matrix: &'a DeviceMatrix,
    /// Its first row to compute.
    pub first: usize,
    /// Number of rows; may be 0.
    pub n_rows: usize,
    /// `f32[n_rows]` to add, or [`Ptr::NULL`].
    pub bias: Ptr,
    /// `f32[n_rows]` for the products.
    pub y: Ptr,
    /// Floats from a token's products to those of the next one.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// All rows of `matrix`, without a bias.
    pub fn all(matrix: &'a DeviceMatrix, y: Ptr) -> Self {
        Self { matrix, first: 0, n_rows: matrix.n_stored(), bias: Ptr::NULL, y, stride: matrix.n_stored() }
    }
}

/// Enqueues `y = activation(rows . x + bias)` for one to three matrices of the same type and number of columns.
///
/// # Errors
/// When matrices or activations do not match, rows are out of range, or the card has failed.
pub fn matvec(
    kernels: &Kernels,
    stream: &Stream,
    parts: &[Rows],
    x: Acts,
    activation: Option<Activation>,
) -> Result<()> {
    matvec_of(kernels, stream, parts, x, 1, activation)
}

/// The same for `n_tokens` vectors, one behind the other in `x`: each row is read once, and each vector gets the bits that it gets
/// alone.
///
/// # Errors
/// As [`matvec`]; when vectors of several are no multiples of 64.
pub fn matvec_of(
    kernels: &Kernels,
    stream: &Stream,
    parts: &[Rows],
    x: Acts,
    n_tokens: usize,
    activation: Option<Activation>,
) -> Result<()> {
    ensure!((1..=MAX_PARTS).contains(&parts.len()), "{} matrices in one launch", parts.len());
    let like = parts[0].matrix;
    let (x, several) = (like.input(x)?, n_tokens > 1);
    check_several(like, n_tokens)?;
    let lanes_log2 = lanes_log2(like.dtype(), like.n_cols(), parts.iter().map(|p| p.n_rows).sum());
    let rows_per_block = ROWS * (THREADS >> lanes_log2);
    let mut args = Args::new();
    let mut grid = 0;
    for i in 0..MAX_PARTS {
        let Some(part) = parts.get(i) else {
            args = args.ptr(Ptr::NULL).n(0).n(0).n(0).ptr(Ptr::NULL).ptr(Ptr::NULL);
            args = if several { args.n(0) } else { args };
            continue;
        };
        let Rows { matrix, first, n_rows, bias, y, stride } = *part;
        let same = matrix.dtype() == like.dtype() && matrix.n_cols() == like.n_cols();
        ensure!(same, "matrices of different types or widths in one launch");
        let inside = first.checked_add(n_rows).is_some_and(|end| end <= matrix.n_stored());
        ensure!(inside, "{n_rows} rows from {first} on, of {}", matrix.n_stored());
        grid += n_rows.div_ceil(rows_per_block) as u32;
        args = args.ptr(matrix.ptr()).n(matrix.n_stored()).n(first).n(n_rows).ptr(bias).ptr(y);
        args = if several { args.n(stride) } else { args };
    }
    if grid == 0 {
        return Ok(());
    }
    let (args, name) = match several {
        true => (args.ptr(x).n(n_tokens), "matvec_several"),
        false => (args.ptr(x), "matvec"),
    };
    let args = args.n(like.n_cols()).n(lanes_log2).i32(activation_code(activation)?);
    kernels.launch(stream, &format!("{name}_{}", like.kernel()), [grid, 1, 1], [THREADS as u32, 1, 1], args)
}

/// Elements of a row that a thread reads at a time.
fn unit_len(dtype: GgmlType) -> usize {
    match dtype {
        GgmlType::F32 => 4,
        GgmlType::Q8_0 => 16,
        _ if takes_floats(dtype) => 8,
        _ => 32,
    }
}

/// How many threads share a row, as a power of two: a warp; fewer if a row has fewer units; more if there are so few
/// rows that part of the card would be idle.
fn lanes_log2(dtype: GgmlType, n_cols: usize, n_rows: usize) -> usize {
    let n_units = n_cols / unit_len(dtype);
    let mut lanes = 1;
    while lanes < WARP && lanes < n_units {
        lanes *= 2;
    }
    while lanes < THREADS && 2 * lanes <= n_units && n_rows * lanes < FEW_THREADS {
        lanes *= 2;
    }
    lanes.ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_row_follow_its_length_and_the_number_of_rows() {
        let lanes = |dtype, n_cols, n_rows| 1 << lanes_log2(dtype, n_cols, n_rows);
        assert_eq!(lanes(GgmlType::Q4_0, 4096, 4096), 32);
        assert_eq!(lanes(GgmlType::Q4_0, 4096, 1024), 64);
        assert_eq!(lanes(GgmlType::F16, 4096, 32), 256);
        assert_eq!(lanes(GgmlType::F16, 32, 28_672), 4);
        assert_eq!(lanes(GgmlType::Q4_0, 32, 8), 1);
        assert_eq!(lanes(GgmlType::Q4_0, 96, 8), 4);
        assert_eq!(lanes(GgmlType::F32, 4096, 152_000), 32);
    }
}
