//! Blocks of products of matrices that stay in registers.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::fused::ROWS;
#[cfg(target_arch = "aarch64")]
use crate::cpu::neon::fused;
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A block of `$vectors` vectors of `$lanes` columns: see `product_block` in `fused`.
macro_rules! block {
    ($name:ident, $features:literal, $lanes:literal, $vectors:literal, $load:ident, $store:ident, $set:ident, $fma:ident) => {
        #[target_feature(enable = $features)]
        #[inline]
        pub(super) fn $name(
            factors: &[[f32; ROWS]],
            (rows, stride): (&[f32], usize),
            n: usize,
            out: &mut [f32],
            at: usize,
        ) {
            const WIDTH: usize = $lanes * $vectors;
            let Some(last) = factors.len().checked_sub(1) else { return };
            assert!(at + WIDTH <= n && (out.len() / n).clamp(1, ROWS) * n == out.len(), "a block outside of its rows");
            assert!(last * stride + at + WIDTH <= rows.len(), "a block outside of its rows");
            let n_rows = out.len() / n;
            // Rows beyond the last are computed and dropped.
            let place = |r: usize, v: usize| r.min(n_rows - 1) * n + at + v * $lanes;
            let mut sums = [[$set(0.0); $vectors]; ROWS];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: inside of `out` by the first assertion.
                    *sum = unsafe { $load(out.as_ptr().add(place(r, v))) };
                }
            }
            for (k, factors) in factors.iter().enumerate() {
                let mut row = [$set(0.0); $vectors];
                for (v, row) in row.iter_mut().enumerate() {
                    // SAFETY: inside of `rows` by the second assertion.
                    *row = unsafe { $load(rows.as_ptr().add(k * stride + at + v * $lanes)) };
                }
                for (sums, factor) in sums.iter_mut().zip(factors) {
                    let factor = $set(*factor);
                    for (sum, row) in sums.iter_mut().zip(row) {
                        *sum = $fma(factor, row, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate().take(n_rows) {
                for (v, sum) in sums.iter().enumerate() {
                    // SAFETY: inside of `out` by the first assertion.
                    unsafe { $store(out.as_mut_ptr().add(place(r, v)), *sum) };
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
block!(avx2, "avx2,fma", 8, 2, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps);
#[cfg(target_arch = "x86_64")]
block!(avx512, "avx512f,avx2,fma", 16, 2, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps);
#[cfg(target_arch = "aarch64")]
block!(neon, "neon", 4, 4, vld1q_f32, vst1q_f32, vdupq_n_f32, fused);
