//! `kernels/gemm.cu`: products of many tokens and a matrix, for prefill.

use super::activation_code;
use crate::gpu::matrix::DeviceMatrix;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::model::Activation;
use anyhow::{Context, Result, ensure};

/// Rows (columns, if stored by neurons) and tokens of a block, and its threads.
const TILE_ROWS: usize = 128;
const TILE_TOKENS: usize = 64;
const THREADS: u32 = 128;
/// Threads of a block that packs activations.
const PACK_THREADS: usize = 256;
/// Elements that share a scale: the step of the inner dimension.
pub const STEP: usize = 32;

/// `f32` values by token.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    /// Those of the first token.
    pub ptr: Ptr,
    /// Floats from one token to the next.
    pub stride: usize,
}

impl Tokens {
    /// The values of each token from `first` on.
    #[must_use]
    pub fn columns(self, first: usize) -> Self {
        Self { ptr: self.ptr.offset((first * size_of::<f32>()) as u64), ..self }
    }

    /// Checks that tokens with `n` values each do not overlap.
    pub(super) fn check(&self, n: usize, what: &str) -> Result<()> {
        ensure!(!self.ptr.is_null() && self.stride >= n, "{what}: {n} values every {} at {}", self.stride, self.ptr);
        Ok(())
    }
}

/// Activations of tokens in the form that products read: F16 with a scale for every [`STEP`], a power of two, so that
/// the largest of 32 values is rounded to 11 bits, whatever its magnitude.
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    ptr: Ptr,
    n: usize,
    n_tokens: usize,
}

impl Packed {
    /// Bytes of `n_tokens` tokens with `n` values each.
    pub fn bytes(n: usize, n_tokens: usize) -> u64 {
        let n_steps = n.div_ceil(STEP);
        (n_tokens * n_steps * (STEP * size_of::<u16>() + size_of::<f32>())) as u64
    }

    /// Where it begins.
    pub(in crate::gpu) fn ptr(&self) -> Ptr {
        self.ptr
    }

    /// Number of tokens.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Values of a token.
    pub fn n(&self) -> usize {
        self.n
    }
}

/// Which of the tokens of a batch something is computed for.
#[derive(Debug, Clone, Copy)]
pub struct Which {
    /// `u32[n]`, their numbers, no two of them alike; [`Ptr::NULL`] for the first `n`.
    pub tokens: Ptr,
    /// `f32[n]`: what their values are multiplied with; [`Ptr::NULL`] for 1.
    pub weights: Ptr,
    /// How many.
    pub n: usize,
}

impl Which {
    /// The first `n`.
    pub fn first(n: usize) -> Self {
        Self { tokens: Ptr::NULL, weights: Ptr::NULL, n }
    }
}

/// Enqueues packing the first `n` values of `n_tokens` tokens into `room`: [`Packed::bytes`], aligned to 16.
///
/// # Errors
/// When sizes are not possible; when the card has failed.
pub fn pack(kernels: &Kernels, stream: &Stream, x: Tokens, n: usize, n_tokens: usize, room: Ptr) -> Result<Packed> {
    pack_of(kernels, stream, x, n, &Which::first(n_tokens), room)
}

/// Enqueues packing the first `n` values of those tokens that `which` names, times their weights.
///
/// # Errors
/// As [`pack`].
pub fn pack_of(kernels: &Kernels, stream: &Stream, x: Tokens, n: usize, which: &Which, room: Ptr) -> Result<Packed> {
    let n_tokens = which.n;
    x.check(n, "packing")?;
    ensure!(n > 0 && n_tokens > 0, "packing {n_tokens} tokens of {n} values");
    ensure!(!room.is_null() && room.0.is_multiple_of(16), "packed activations at {room}");
    let args = Args::new().ptr(x.ptr).n(x.stride).n(n).ptr(which.tokens).ptr(which.weights).ptr(room);
    let n_blocks = n.next_multiple_of(STEP).div_ceil(PACK_THREADS);
    let grid = [u32::try_from(n_blocks)?, u32::try_from(n_tokens)?, 1];
    kernels.launch(stream, "gemm_pack", grid, [PACK_THREADS as u32, 1, 1], args)?;
    Ok(Packed { ptr: room, n, n_tokens })
}

/// What is done to a product before it is stored. The other operand may be where the result goes.
#[derive(Debug, Clone, Copy)]
pub enum Combine {
    /// Nothing.
    Store,
    /// It is multiplied by this; if it is 0 it stays 0, whatever this is.
    Multiply(Tokens),
    /// This is added.
    Add(Tokens),
}

/// What [`gemm`] computes.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// The matrix.
    pub matrix: &'a DeviceMatrix,
    /// Its first row to compute.
    pub first: usize,
    /// Number of rows; may be 0.
    pub n_rows: usize,
    /// `f32[n_rows]` to add to the product, or [`Ptr::NULL`].
    pub bias: Ptr,
    /// Applied next.
    pub activation: Option<Activation>,
    /// Applied last, with as many values per token.
    pub combine: Combine,
    /// `n_rows` values per token.
    pub y: Tokens,
}

impl<'a> Product<'a> {
    /// All rows of `matrix`, without a bias, activation or second operand.
    pub fn all(matrix: &'a DeviceMatrix, y: Tokens) -> Self {
        let n_rows = matrix.n_stored();
        Self { matrix, first: 0, n_rows, bias: Ptr::NULL, activation: None, combine: Combine::Store, y }
    }
}

/// Enqueues `y = combine(activation(rows . x + bias))` for all tokens. Each result depends, bit for bit, on its own
/// token and row only.
///
/// # Errors
/// When sizes do not fit together; when the card has failed.
pub fn gemm(kernels: &Kernels, stream: &Stream, work: &Product, x: &Packed) -> Result<()> {
    let Product { matrix, first, n_rows, bias, activation, combine, y } = *work;
    inside(matrix, first, n_rows)?;
    ensure!(x.n == matrix.n_cols(), "{} activations for rows of {}", x.n, matrix.n_cols());
    y.check(n_rows, "a product")?;
    let (other, code) = match combine {
        Combine::Store => (Tokens { ptr: Ptr::NULL, stride: y.stride }, 0),
        Combine::Multiply(other) => (other, 1),
        Combine::Add(other) => (other, 2),
    };
    ensure!(other.stride == y.stride, "operands every {} and {} floats", other.stride, y.stride);
    ensure!(code == 0 || !other.ptr.is_null(), "a product without its second operand");
    if n_rows == 0 {
        return Ok(());
    }
    let args = Args::new().ptr(matrix.ptr()).n(matrix.n_stored()).n(first).n(n_rows).n(matrix.n_cols());
    let args = args.ptr(x.ptr).n(x.n_tokens).ptr(bias).i32(activation_code(activation)?);
    let args = args.ptr(other.ptr).i32(code).ptr(y.ptr).n(y.stride);
    kernels.launch(stream, &format!("gemm_{}", matrix.kernel()), grid(n_rows, x)?, [THREADS, 1, 1], args)
}

/// Enqueues `y += sum over i of h[i] * matrix[first + i]` for all tokens: for a matrix stored by neurons, as many rows
/// from `first` on as `h` has values. Several calls give the same bits as one, if each but the last has a multiple of
/// [`STEP`] rows.
///
/// # Errors
/// When sizes do not fit together; when the card has failed.
pub fn gemm_t(
    kernels: &Kernels,
    stream: &Stream,
    matrix: &DeviceMatrix,
    first: usize,
    h: &Packed,
    y: Tokens,
) -> Result<()> {
    gemm_t_of(kernels, stream, matrix, first, h, y, Ptr::NULL)
}

/// [`gemm_t`] where token `t` of `h` is token `tokens[t]` of `y`: `u32`, no two of them alike.
///
/// # Errors
/// As [`gemm_t`].
pub fn gemm_t_of(
    kernels: &Kernels,
    stream: &Stream,
    matrix: &DeviceMatrix,
    first: usize,
    h: &Packed,
    y: Tokens,
    tokens: Ptr,
) -> Result<()> {
    inside(matrix, first, h.n)?;
    y.check(matrix.n_cols(), "a product")?;
    let args = Args::new().ptr(matrix.ptr()).n(matrix.n_stored()).n(first).n(h.n).n(matrix.n_cols());
    let args = args.ptr(h.ptr).n(h.n_tokens).ptr(y.ptr).n(y.stride).ptr(tokens);
    let grid = grid(matrix.n_cols(), h)?;
    kernels.launch(stream, &format!("gemm_t_{}", matrix.kernel()), grid, [THREADS, 1, 1], args)
}

fn inside(matrix: &DeviceMatrix, first: usize, n_rows: usize) -> Result<()> {
    let inside = first.checked_add(n_rows).is_some_and(|end| end <= matrix.n_stored());
    ensure!(inside, "{n_rows} rows from {first} on, of {}", matrix.n_stored());
    Ok(())
}

fn grid(n: usize, x: &Packed) -> Result<[u32; 3]> {
    let blocks = |n: usize, of: usize| u32::try_from(n.div_ceil(of)).with_context(|| format!("{n} at once"));
    Ok([blocks(n, TILE_ROWS)?, blocks(x.n_tokens, TILE_TOKENS)?, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_tokens_take_two_bytes_a_value_and_a_scale_for_32() {
        assert_eq!(Packed::bytes(4096, 512), 512 * (4096 * 2 + 128 * 4));
        assert_eq!(Packed::bytes(33, 2), 2 * (64 * 2 + 2 * 4));
    }
}
