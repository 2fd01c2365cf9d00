//! Products of many tokens and a matrix.

use super::Test;
use super::memory::{Memory, near};
use super::weights::{TYPES, Weights};
use crate::gpu::matrix::planes;
use crate::gpu::ops::gemm::{Packed, Product, STEP, Tokens, gemm, gemm_t, pack};
use crate::quant::GgmlType;
use anyhow::Result;
use half::f16;

/// More than a block has at once.
const N_TOKENS: usize = 67;
/// Of the sum of the products' sizes. Activations are rounded to 11 bits (2^-12 of a value at most, 2^-11 where a product
/// with another rounded value comes together), weights too where they are no small integers (Q6_K by neurons
/// twice): 2^-11 + 2^-10 in all. Sums of 32-bit floats add little to that.
const TOLERANCE: f64 = 1.0 / 2048.0 + 1.0 / 1024.0;

/// Several blocks of a row, fewer than elsewhere: there are many tokens.
fn width(dtype: GgmlType) -> usize {
    if dtype.block_len() == 256 { 512 } else { 160 }
}

pub(super) fn all(test: &mut Test) -> Result<()> {
    test.of("gemm_pack", packed)?;
    for dtype in TYPES {
        let name = planes(dtype)?.name;
        test.of(&format!("gemm_{name}"), |m| product(m, dtype))?;
        test.of(&format!("gemm_t_{name}"), |m| sum_by_neurons(m, dtype))?;
    }
    Ok(())
}

/// `[N_TOKENS][n]` random values, here and packed.
fn inputs(m: &mut Memory, n: usize) -> Result<(Vec<f32>, Packed)> {
    let x = m.random.values(N_TOKENS * n);
    let (there, room) = (m.put(&x)?, m.room(Packed::bytes(n, N_TOKENS))?);
    let packed = pack(&m.kernels, &m.stream, Tokens { ptr: there, stride: n }, n, N_TOKENS, room)?;
    Ok((x, packed))
}

/// Halves with a scale for every 32, as the head of `kernels/gemm.cu` says.
fn packed(m: &mut Memory) -> Result<()> {
    const N: usize = 300;
    let padded = N.next_multiple_of(STEP);
    let (x, packed) = inputs(m, N)?;
    let halves = m.get::<f16>(packed.ptr(), N_TOKENS * padded)?;
    let behind = packed.ptr().offset((N_TOKENS * padded * size_of::<f16>()) as u64);
    let scales = m.get::<f32>(behind, padded / STEP * N_TOKENS)?;
    let place = |i: usize| (i / padded, i % padded);
    let got: Vec<f32> =
        (0..halves.len()).map(|i| halves[i].to_f32() * scales[place(i).1 / STEP * N_TOKENS + place(i).0]).collect();
    let value = |i: usize| if i % padded < N { f64::from(x[i / padded * N + i % padded]) } else { 0.0 };
    // Values are below 1, and the largest of 32 is rounded to 11 bits.
    near("value", &got, (0..got.len()).map(value), |i| (value(i).abs() + 1e-4) / 2048.0)
}

/// `sum of w[k] * x[k]` and the sum of the sizes.
fn dot<'a>(w: impl IntoIterator<Item = &'a f32>, x: &[f32]) -> (f64, f64) {
    let products = w.into_iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
    products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
}

fn product(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    const FIRST: usize = 2;
    const N_ROWS: usize = 131;
    let n_cols = width(dtype);
    let w = Weights::random(m, dtype, FIRST + N_ROWS + 1, n_cols)?;
    let (x, packed) = inputs(m, n_cols)?;
    let y = Tokens { ptr: m.room_of::<f32>(N_TOKENS * N_ROWS)?, stride: N_ROWS };
    gemm(&m.kernels, &m.stream, &Product { first: FIRST, n_rows: N_ROWS, ..Product::all(&w.matrix, y) }, &packed)?;
    let got = m.get::<f32>(y.ptr, N_TOKENS * N_ROWS)?;
    let rows = (FIRST..FIRST + N_ROWS).map(|row| w.row(row)).collect::<Vec<_>>();
    let sums: Vec<_> = x.chunks_exact(n_cols).flat_map(|x| rows.iter().map(move |row| dot(row, x))).collect();
    near("product", &got, sums.iter().map(|s| s.0), |i| TOLERANCE * sums[i].1)
}

fn sum_by_neurons(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    const FIRST: usize = 3;
    const N: usize = 43;
    let n_cols = width(dtype);
    let w = Weights::random(m, dtype, FIRST + N + 1, n_cols)?;
    let (h, packed) = inputs(m, N)?;
    let before = m.random.values(N_TOKENS * n_cols);
    let y = Tokens { ptr: m.put(&before)?, stride: n_cols };
    gemm_t(&m.kernels, &m.stream, &w.matrix, FIRST, &packed, y)?;
    let got = m.get::<f32>(y.ptr, before.len())?;
    let rows = (FIRST..FIRST + N).map(|row| w.row(row)).collect::<Vec<_>>();
    let sums: Vec<_> = before
        .iter()
        .enumerate()
        .map(|(i, before)| {
            let (token, column) = (i / n_cols, i % n_cols);
            let (sum, size) = dot(rows.iter().map(|row| &row[column]), &h[token * N..][..N]);
            (f64::from(*before) + sum, f64::from(before.abs()) + size)
        })
        .collect();
    near("sum", &got, sums.iter().map(|s| s.0), |i| TOLERANCE * sums[i].1)
}
