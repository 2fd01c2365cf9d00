//! Scaled additions: `y += a * row`, several rows at a time so that `y` is loaded and stored less often.
//!
//! Every element of `y` gets one fused multiply-add per row, in the order of the rows, however they are grouped.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::row_group::{AT_ONCE, RowGroup};
use super::super::rows::Rows;
use super::{Q4_1_BYTES, Q5_0_BYTES, Q5_1_BYTES, read_iq4_nl, read_q4_1, read_q5_0, read_q5_1};
use super::{f16s, halves};
use crate::quant::blocks::{Q4_0_BYTES, Q8_0_BYTES, QK};
use std::arch::x86_64::*;

/// Blocks whose scales are read together.
const SCALES: usize = 8;

/// All ones, or all zeros for a row whose factor is 0: 0 times anything is 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn keep(group: &RowGroup) -> [__m256; AT_ONCE] {
    group.a.map(|a| _mm256_cmp_ps::<_CMP_NEQ_UQ>(_mm256_set1_ps(a), _mm256_setzero_ps()))
}

/// The F16 numbers `at` this byte of the (at most [`SCALES`]) blocks from number `first` on, times each row's
/// factor; 0 where that is 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scaled<const BYTES: usize>(
    group: &RowGroup,
    first: usize,
    at: usize,
    keep: &[__m256; AT_ONCE],
) -> [[f32; SCALES]; AT_ONCE] {
    let mut scales = [[0.0; SCALES]; AT_ONCE];
    for r in 0..AT_ONCE {
        let blocks = &group.rows[r].as_chunks::<BYTES>().0[first..];
        let d = f16s(blocks, at);
        let scaled = _mm256_and_ps(_mm256_mul_ps(d, _mm256_set1_ps(group.a[r])), keep[r]);
        // SAFETY: the array has eight elements.
        unsafe { _mm256_storeu_ps(scales[r].as_mut_ptr(), scaled) };
    }
    scales
}

/// `y += scale * q`, or `y += scale * q + minimum`, for 32 signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_bytes(sums: &mut [__m256; 4], q: __m256i, scale: f32, minimum: Option<f32>) {
    let scale = _mm256_set1_ps(scale);
    let (low, high) = (_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q));
    let eights = [low, _mm_srli_si128::<8>(low), high, _mm_srli_si128::<8>(high)];
    for (sum, eight) in sums.iter_mut().zip(eights) {
        let q = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
        *sum = match minimum {
            None => _mm256_fmadd_ps(q, scale, *sum),
            Some(minimum) => _mm256_add_ps(*sum, _mm256_fmadd_ps(q, scale, _mm256_set1_ps(minimum))),
        };
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load(y: &[f32; QK]) -> [__m256; 4] {
    // SAFETY: the array has four times eight elements.
    std::array::from_fn(|i| unsafe { _mm256_loadu_ps(y.as_ptr().add(8 * i)) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store(sums: [__m256; 4], y: &mut [f32; QK]) {
    for (i, sum) in sums.into_iter().enumerate() {
        // SAFETY: the array has four times eight elements.
        unsafe { _mm256_storeu_ps(y.as_mut_ptr().add(8 * i), sum) };
    }
}

/// Scaled addition for blocks of 32 elements that `$read` turns into signed bytes; the value of `q = 0` may stand at
/// `$minimum`.
macro_rules! blocks {
    ($name:ident, $bytes:expr, $minimum:expr, $read:expr) => {
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $name(rows: Rows, a: &[f32], y: &mut [f32]) {
            const MINIMUM: Option<usize> = $minimum;
            let (y, rest) = y.as_chunks_mut::<QK>();
            assert!(rest.is_empty() && rows.bytes() == y.len() * $bytes);
            for start in (0..a.len()).step_by(AT_ONCE) {
                let group = RowGroup::new(rows, a, start);
                let blocks = group.rows.map(|row| row.as_chunks::<{ $bytes }>().0);
                let keep = keep(&group);
                for (n, y) in y.chunks_mut(SCALES).enumerate() {
                    let scales = scaled::<{ $bytes }>(&group, n * SCALES, 0, &keep);
                    let minima = MINIMUM.map(|at| scaled::<{ $bytes }>(&group, n * SCALES, at, &keep));
                    for (j, y) in y.iter_mut().enumerate() {
                        let i = n * SCALES + j;
                        if i * $bytes % 64 < $bytes {
                            group.fetch(i * $bytes);
                        }
                        let mut sums = load(y);
                        for r in 0..AT_ONCE {
                            let minimum = minima.map(|minima| minima[r][j]);
                            add_bytes(&mut sums, $read(&blocks[r][i]), scales[r][j], minimum);
                        }
                        store(sums, y);
                    }
                }
            }
        }
    };
}

blocks!(q8_0, Q8_0_BYTES, None, read_q8_0);
blocks!(q4_0, Q4_0_BYTES, None, read_q4_0);
blocks!(q4_1, Q4_1_BYTES, Some(2), read_q4_1);
blocks!(q5_0, Q5_0_BYTES, None, |block| _mm256_sub_epi8(read_q5_0(block), _mm256_set1_epi8(16)));
blocks!(q5_1, Q5_1_BYTES, Some(2), read_q5_1);
blocks!(iq4_nl, Q4_0_BYTES, None, read_iq4_nl);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q8_0(block: &[u8; Q8_0_BYTES]) -> __m256i {
    // SAFETY: 32 bytes lie behind the scale.
    unsafe { _mm256_loadu_si256(block.as_ptr().add(2).cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q4_0(block: &[u8; Q4_0_BYTES]) -> __m256i {
    let [_, _, q @ ..] = block;
    _mm256_sub_epi8(halves(q), _mm256_set1_epi8(8))
}
