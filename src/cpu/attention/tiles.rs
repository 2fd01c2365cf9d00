//! Products in tiles of a few rows, which stay in registers from the first term to the last.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::{LANES, Lanes, Product};
#[cfg(target_arch = "aarch64")]
use crate::cpu::neon::fused;
#[cfg(target_arch = "x86_64")]
use crate::quant::convert;
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Lanes of the shortest vectors.
const NARROW: usize = 8;

/// Reads floats of 16 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn read_f16(stored: &[u8], out: &mut [f32]) {
    let (vectors, rest) = out.as_chunks_mut::<NARROW>();
    let (stored, stored_rest) = stored.split_at(2 * NARROW * vectors.len());
    for (out, stored) in vectors.iter_mut().zip(stored.as_chunks::<{ 2 * NARROW }>().0) {
        // SAFETY: 16 bytes are read, and 8 floats written.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(stored.as_ptr().cast()))) };
    }
    convert::from_f16(stored_rest, rest);
}

/// `$name` adds products in tiles of up to 6 rows of `$most` vectors of `$lanes` lanes at the most; `$narrow` does the last
/// [`NARROW`] lanes where there are no more.
macro_rules! tiles {
    ($name:ident, $tile:ident, $narrow:ident, $features:literal, $lanes:literal, $most:literal,
     $load:ident, $store:ident, $set:ident, $fma:ident) => {
        /// Adds a product to `out`.
        #[target_feature(enable = $features)]
        pub(super) fn $name(of: &Product, out: &mut [Lanes]) {
            let (Some(last_row), Some(last_term)) = (out.len().checked_sub(1), of.rows.len().checked_sub(1)) else {
                return;
            };
            assert!(last_row * of.strides.0 + last_term * of.strides.1 < of.factors.len(), "factors are missing");
            let n_lanes = of.n_lanes.next_multiple_of(NARROW);
            assert!(n_lanes <= LANES, "more lanes than there are");
            let mut row = 0;
            while row < out.len() {
                let n_rows = match out.len() - row {
                    6.. => 6,
                    4.. => 4,
                    2.. => 2,
                    _ => 1,
                };
                let mut lane = 0;
                while lane < n_lanes {
                    let n_vectors = ((n_lanes - lane) / $lanes).min($most);
                    // SAFETY: the rows are there, and so are the vectors, since they end at `n_lanes`; that
                    // all factors are was asserted.
                    unsafe {
                        match (n_rows, n_vectors) {
                            (6, 0) => $narrow::<6, 1>(of, out, row, lane),
                            (6, 4) => $tile::<6, 4>(of, out, row, lane),
                            (6, 3) => $tile::<6, 3>(of, out, row, lane),
                            (6, 2) => $tile::<6, 2>(of, out, row, lane),
                            (6, _) => $tile::<6, 1>(of, out, row, lane),
                            (4, 0) => $narrow::<4, 1>(of, out, row, lane),
                            (4, 4) => $tile::<4, 4>(of, out, row, lane),
                            (4, 3) => $tile::<4, 3>(of, out, row, lane),
                            (4, 2) => $tile::<4, 2>(of, out, row, lane),
                            (4, _) => $tile::<4, 1>(of, out, row, lane),
                            (2, 0) => $narrow::<2, 1>(of, out, row, lane),
                            (2, 4) => $tile::<2, 4>(of, out, row, lane),
                            (2, 3) => $tile::<2, 3>(of, out, row, lane),
                            (2, 2) => $tile::<2, 2>(of, out, row, lane),
                            (2, _) => $tile::<2, 1>(of, out, row, lane),
                            (_, 0) => $narrow::<1, 1>(of, out, row, lane),
                            (_, 4) => $tile::<1, 4>(of, out, row, lane),
                            (_, 3) => $tile::<1, 3>(of, out, row, lane),
                            (_, 2) => $tile::<1, 2>(of, out, row, lane),
                            (..) => $tile::<1, 1>(of, out, row, lane),
                        }
                    }
                    lane += if n_vectors == 0 { NARROW } else { n_vectors * $lanes };
                }
                row += n_rows;
            }
        }

        /// `V` vectors of `R` rows from `row` and `lane` on.
        ///
        /// # Safety
        /// These must be inside of `out`, the vectors inside of a row, and all factors of the product there.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn $tile<const R: usize, const V: usize>(of: &Product, out: &mut [Lanes], row: usize, lane: usize) {
            let Product { factors, strides, rows, .. } = *of;
            let mut sums = [[$set(0.0); V]; R];
            // SAFETY: the caller's.
            unsafe {
                let out = out.as_mut_ptr().add(row).cast::<f32>().add(lane);
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = $load(out.add(r * LANES + v * $lanes));
                    }
                }
                let factors = factors.as_ptr().add(row * strides.0);
                for (k, terms) in rows.iter().enumerate() {
                    let terms = terms.0.as_ptr().add(lane);
                    let mut own = [$set(0.0); V];
                    for (v, own) in own.iter_mut().enumerate() {
                        *own = $load(terms.add(v * $lanes));
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let factor = $set(*factors.add(r * strides.0 + k * strides.1));
                        for (sum, own) in sums.iter_mut().zip(own) {
                            *sum = $fma(factor, own, *sum);
                        }
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    for (v, sum) in sums.iter().enumerate() {
                        $store(out.add(r * LANES + v * $lanes), *sum);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tiles!(avx2, tile256, tile256, "avx2,fma", 8, 2, _mm256_load_ps, _mm256_store_ps, _mm256_set1_ps, _mm256_fmadd_ps);
#[cfg(target_arch = "x86_64")]
tiles!(
    avx512,
    tile512,
    tile256,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    16,
    4,
    _mm512_load_ps,
    _mm512_store_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps
);
#[cfg(target_arch = "aarch64")]
tiles!(neon, tile128, tile128, "neon", 4, 4, vld1q_f32, vst1q_f32, vdupq_n_f32, fused);
