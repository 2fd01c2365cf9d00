//! Dot products of one row of MXFP4 blocks and some vectors. Their scaled addition is the plain one.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::Isa;
use super::super::activations::ActRow;
use super::super::rows::Rows;
use super::dot::{block_of, multiply_add};
use super::{fetch, halves, sum};
use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use crate::quant::mxfp4::{BYTES, LEVELS, OFFSET, scale};
use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
    let blocks = row.as_chunks::<BYTES>().0;
    for x in x {
        assert!(x.d.len() == blocks.len() && x.q.len() == blocks.len() * QK);
    }
    let x = x.map(|x| *x);
    let mut sums = [[_mm256_setzero_ps(); N]; 2];
    for (i, block) in blocks.iter().enumerate() {
        if i * BYTES % 64 < BYTES {
            fetch(ahead, i * BYTES);
        }
        let [exponent, q @ ..] = block;
        let (w, scale) = (read(q), scale(*exponent));
        let [mut sum, other] = sums;
        for v in 0..N {
            let (q, _) = block_of(&x[v], i);
            let products = multiply_add(_mm256_setzero_si256(), _mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
            let both = _mm256_set1_ps(scale * x[v].d[i]);
            sum[v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), both, sum[v]);
        }
        sums = [other, sum];
    }
    let mut all = [0.0; N];
    for v in 0..N {
        all[v] = sum(_mm256_add_ps(sums[0][v], sums[1][v]));
    }
    all
}

/// Signed, and doubled.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read(q: &[u8; QK / 2]) -> __m256i {
    let table = LEVELS.map(|level| level.wrapping_sub(OFFSET) as i8);
    // SAFETY: the array has 16 bytes.
    let levels = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), halves(q))
}

/// Plain.
pub(super) fn add(rows: Rows, a: &[f32], y: &mut [f32]) {
    (Isa::Plain.kernels(GgmlType::MXFP4).add_scaled)(rows, a, y);
}
