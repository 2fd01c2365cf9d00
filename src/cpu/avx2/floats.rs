//! Kernels for rows of floats.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::activations::ActRow;
use super::super::row_group::{AT_ONCE, RowGroup};
use super::super::rows::Rows;
use super::add;
use super::{fetch, padded, sum};
use std::arch::x86_64::*;

/// Elements of a vector.
const LANES: usize = 8;

/// # Safety
/// Eight elements must be readable at `p`. The same holds for the two below.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn read_f32(p: *const u8) -> __m256 {
    // SAFETY: the caller's.
    unsafe { _mm256_loadu_ps(p.cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn read_f16(p: *const u8) -> __m256 {
    // SAFETY: the caller's.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(p.cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn read_bf16(p: *const u8) -> __m256 {
    // SAFETY: the caller's.
    let words = unsafe { _mm_loadu_si128(p.cast()) };
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(words)))
}

macro_rules! floats {
    ($bytes:literal, $read:ident, $dot:ident, $add:ident) => {
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $dot<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
            const STEP: usize = 4 * LANES;
            let x = x.map(|x| x.f32);
            let n = row.len() / $bytes;
            for x in x {
                assert_eq!(row.len(), x.len() * $bytes);
            }
            let mut sums = [[_mm256_setzero_ps(); N]; 4];
            let mut i = 0;
            while i + STEP <= n {
                for line in 0..STEP * $bytes / 64 {
                    fetch(ahead, i * $bytes + line * 64);
                }
                for j in 0..4 {
                    // SAFETY: eight elements from i + 8 j on are in the row and in each x, whose lengths agree.
                    unsafe {
                        let w = $read(row.as_ptr().add((i + LANES * j) * $bytes));
                        for v in 0..N {
                            let x = _mm256_loadu_ps(x[v].as_ptr().add(i + LANES * j));
                            sums[j][v] = _mm256_fmadd_ps(w, x, sums[j][v]);
                        }
                    }
                }
                i += STEP;
            }
            for start in (i..n).step_by(LANES) {
                let end = n.min(start + LANES);
                let row = padded::<u8, { LANES * $bytes }>(&row[start * $bytes..end * $bytes]);
                for v in 0..N {
                    let x = padded::<f32, LANES>(&x[v][start..end]);
                    // SAFETY: the copies have eight elements.
                    unsafe {
                        let w = $read(row.as_ptr());
                        sums[0][v] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x.as_ptr()), sums[0][v]);
                    }
                }
            }
            let mut all = [0.0; N];
            for v in 0..N {
                let [a, b, c, d] = sums.map(|sums| sums[v]);
                all[v] = sum(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
            }
            all
        }

        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $add(rows: Rows, a: &[f32], y: &mut [f32]) {
            assert_eq!(rows.bytes(), y.len() * $bytes);
            for start in (0..a.len()).step_by(AT_ONCE) {
                let group = RowGroup::new(rows, a, start);
                let keep = add::keep(&group);
                let (body, tail) = y.as_chunks_mut::<LANES>();
                let n_body = body.len() * LANES;
                for (i, y) in body.iter_mut().enumerate() {
                    let at = i * LANES * $bytes;
                    if at.is_multiple_of(64) {
                        group.fetch(at);
                    }
                    // SAFETY: eight elements of y, and those of the rows that belong to them.
                    unsafe {
                        let mut sum = _mm256_loadu_ps(y.as_ptr());
                        for r in 0..AT_ONCE {
                            let w = _mm256_and_ps($read(group.rows[r].as_ptr().add(at)), keep[r]);
                            sum = _mm256_fmadd_ps(w, _mm256_set1_ps(group.a[r]), sum);
                        }
                        _mm256_storeu_ps(y.as_mut_ptr(), sum);
                    }
                }
                if !tail.is_empty() {
                    let mut last = padded::<f32, LANES>(tail);
                    for r in 0..AT_ONCE {
                        let row = padded::<u8, { LANES * $bytes }>(&group.rows[r][n_body * $bytes..]);
                        // SAFETY: the copies have eight elements.
                        unsafe {
                            let w = _mm256_and_ps($read(row.as_ptr()), keep[r]);
                            let sum = _mm256_loadu_ps(last.as_ptr());
                            let sum = _mm256_fmadd_ps(w, _mm256_set1_ps(group.a[r]), sum);
                            _mm256_storeu_ps(last.as_mut_ptr(), sum);
                        }
                    }
                    tail.copy_from_slice(&last[..tail.len()]);
                }
            }
        }
    };
}

floats!(4, read_f32, dot_f32, add_f32);
floats!(2, read_f16, dot_f16, add_f16);
floats!(2, read_bf16, dot_bf16, add_bf16);
