//! The same in blocks of columns that stay in registers; generic over how many, and over whether products and sums are
//! rounded once. Every element is one sum in its natural order, so that neither changes with the block that it is in.

use super::kernels::{Convolution, Product, Token};
use crate::cpu::exp::{add_product, silu};

/// Columns that are left over when blocks of `W` are done go in halves of it, and at last one by one.
macro_rules! by_blocks {
    ($n:expr, $w:ident, $block:ident($($arg:expr),*)) => {{
        let mut at = 0;
        while at + $w <= $n {
            $block::<FMA, $w>($($arg,)* at);
            at += $w;
        }
        while at + 16 <= $n {
            $block::<FMA, 16>($($arg,)* at);
            at += 16;
        }
        while at + 4 <= $n {
            $block::<FMA, 4>($($arg,)* at);
            at += 4;
        }
        while at < $n {
            $block::<FMA, 1>($($arg,)* at);
            at += 1;
        }
    }};
}

/// See [`super::plain::step`].
#[inline(always)]
pub(super) fn step<const FMA: bool, const W: usize>(state: &mut [f32], of: &Token, y: &mut [f32]) {
    let n = of.x.len();
    by_blocks!(n, W, step_block(state, of, y));
}

#[inline(always)]
fn step_block<const FMA: bool, const W: usize>(state: &mut [f32], of: &Token, y: &mut [f32], at: usize) {
    let mut sums = [0.0; W];
    let mut own = [0.0; W];
    own.copy_from_slice(&of.x[at..at + W]);
    own.iter_mut().for_each(|x| *x *= of.delta);
    for ((row, b), c) in state.chunks_exact_mut(of.x.len()).zip(of.b).zip(of.c) {
        let row = &mut row[at..at + W];
        for i in 0..W {
            row[i] = add_product::<FMA>(row[i], of.decay, b * own[i]);
            sums[i] = add_product::<FMA>(*c, row[i], sums[i]);
        }
    }
    y[at..at + W].copy_from_slice(&sums);
}

/// See [`Kernels::add_product`](super::Kernels::add_product); `wide` computes `W` columns of a few rows, as `product_block`
/// does.
#[inline(always)]
pub(super) fn products<const FMA: bool, const W: usize>(
    of: &Product,
    n: usize,
    out: &mut [f32],
    wide: impl Fn(&[[f32; ROWS]], (&[f32], usize), usize, &mut [f32], usize),
) {
    // Factors of some rows side by side, so that the inner loop finds them in order.
    const DEPTH: usize = 64;
    let mut packed = [[0.0f32; ROWS]; DEPTH];
    for (i, out) in out.chunks_mut(ROWS * n).enumerate() {
        let n_rows = out.len() / n;
        for first in (0..of.depth).step_by(DEPTH) {
            let depth = DEPTH.min(of.depth - first);
            for (k, packed) in packed[..depth].iter_mut().enumerate() {
                for (r, packed) in packed.iter_mut().enumerate() {
                    let row = i * ROWS + r.min(n_rows - 1);
                    *packed = of.factors[row * of.strides.0 + (first + k) * of.strides.1];
                }
            }
            let (packed, rows) = (&packed[..depth], (&of.rows[first * of.stride..], of.stride));
            let whole = n - n % W;
            (0..whole).step_by(W).for_each(|at| wide(packed, rows, n, out, at));
            (whole..n).for_each(|at| product_block::<FMA, 1>(packed, rows, n, out, at));
        }
    }
}

/// Rows of the result that are summed at a time.
pub(super) const ROWS: usize = 6;

/// Columns `at..at + W` of at most [`ROWS`] rows of `n`: adds to each the sum of factors times rows.
#[inline(always)]
pub(super) fn product_block<const FMA: bool, const W: usize>(
    factors: &[[f32; ROWS]],
    (rows, stride): (&[f32], usize),
    n: usize,
    out: &mut [f32],
    at: usize,
) {
    let mut sums = [[0.0; W]; ROWS];
    for (sums, out) in sums.iter_mut().zip(out.chunks_exact(n)) {
        sums.copy_from_slice(&out[at..at + W]);
    }
    for (factors, row) in factors.iter().zip(rows.chunks(stride)) {
        let row = &row[at..at + W];
        for (sums, factor) in sums.iter_mut().zip(factors) {
            for i in 0..W {
                sums[i] = add_product::<FMA>(*factor, row[i], sums[i]);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(n)) {
        out[at..at + W].copy_from_slice(sums);
    }
}

/// See [`Kernels::convolve`](super::Kernels::convolve).
#[inline(always)]
pub(super) fn convolve<const FMA: bool, const W: usize>(of: &Convolution, first: usize, out: &mut [f32]) {
    let n = out.len();
    by_blocks!(n, W, convolve_block(of, first, out));
}

#[inline(always)]
fn convolve_block<const FMA: bool, const W: usize>(of: &Convolution, first: usize, out: &mut [f32], at: usize) {
    let from = first + at;
    let mut sums = [0.0; W];
    sums.copy_from_slice(&of.bias[from..from + W]);
    for (tap, u) in of.taps.chunks_exact(of.bias.len()).zip(of.window) {
        let (tap, u) = (&tap[from..from + W], &u[from..from + W]);
        for i in 0..W {
            sums[i] = add_product::<FMA>(tap[i], u[i], sums[i]);
        }
    }
    for (out, sum) in out[at..at + W].iter_mut().zip(sums) {
        *out = silu::<FMA>(sum);
    }
}

/// See [`super::plain::gate`].
#[inline(always)]
pub(super) fn gate<const FMA: bool>(z: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(z).for_each(|(y, z)| *y *= silu::<FMA>(*z));
}
