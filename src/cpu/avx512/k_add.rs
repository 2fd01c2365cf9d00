//! Scaled additions of super-blocks: Q4_K, Q5_K and Q6_K.
//!
//! For Q4_K and Q5_K the 16 or 32 values that a sub-block's elements can have are computed once, factor and minimum
//! included, and then looked up. Every element of `y` gets one addition per row, in the order of the rows.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::activations::SUPER;
use super::super::row_group::{AT_ONCE, RowGroup};
use super::super::rows::Rows;
use super::add;
use super::k_dot::{self, Q4_K_BYTES, Q5_K_BYTES, Q6_K_BYTES};
use std::arch::x86_64::*;

/// 0.0, 1.0 ... 15.0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn levels() -> __m512 {
    _mm512_cvtepi32_ps(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn store(values: __m512) -> [f32; 16] {
    let mut all = [0.0; 16];
    // SAFETY: the array has 16 elements.
    unsafe { _mm512_storeu_ps(all.as_mut_ptr(), values) };
    all
}

/// Scaled addition of super-blocks with minima. `$add` adds a run of 64 elements of each of the rows.
macro_rules! with_minima {
    ($name:ident, $bytes:expr, $add:ident) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
        pub(super) fn $name(rows: Rows, a: &[f32], y: &mut [f32]) {
            let (y, rest) = y.as_chunks_mut::<SUPER>();
            assert!(rest.is_empty() && rows.bytes() == y.len() * $bytes);
            for start in (0..a.len()).step_by(AT_ONCE) {
                let group = RowGroup::new(rows, a, start);
                let (blocks, keep) = (group.rows.map(|row| row.as_chunks::<{ $bytes }>().0), add::keep(&group));
                for (i, y) in y.iter_mut().enumerate() {
                    let blocks = blocks.map(|blocks| &blocks[i]);
                    let scaled: [_; AT_ONCE] = std::array::from_fn(|r| {
                        let Some(head) = blocks[r].first_chunk() else { unreachable!() };
                        let a = _mm512_set1_ps(group.a[r]);
                        store(_mm512_maskz_mul_ps(keep[r], k_dot::scales_and_minima(head), a))
                    });
                    for line in 0..$bytes / 64 + 1 {
                        group.fetch(i * $bytes + 64 * line);
                    }
                    for (run, y) in y.as_chunks_mut::<64>().0.iter_mut().enumerate() {
                        $add(blocks, &scaled, run, y);
                    }
                }
            }
        }
    };
}

with_minima!(q4_k, Q4_K_BYTES, add_q4_k);
with_minima!(q5_k, Q5_K_BYTES, add_q5_k);

/// Values of the two sub-blocks of a run, for `levels`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn values(levels: __m512, scaled: &[f32; 16], run: usize) -> [__m512; 2] {
    let value = |at| _mm512_fmsub_ps(levels, _mm512_set1_ps(scaled[at]), _mm512_set1_ps(scaled[at + 1]));
    [value(4 * run), value(4 * run + 2)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn add_q4_k(blocks: [&[u8; Q4_K_BYTES]; AT_ONCE], scaled: &[[f32; 16]; AT_ONCE], run: usize, y: &mut [f32; 64]) {
    let tables: [_; AT_ONCE] = std::array::from_fn(|r| values(levels(), &scaled[r], run));
    for half in 0..2 {
        // SAFETY: a run of a block has two times 16 bytes, and one of y two times 32 elements.
        unsafe {
            let y = [y.as_mut_ptr().add(16 * half), y.as_mut_ptr().add(32 + 16 * half)];
            let mut sums = [_mm512_loadu_ps(y[0]), _mm512_loadu_ps(y[1])];
            for r in 0..AT_ONCE {
                let bytes = _mm_loadu_si128(blocks[r].as_ptr().add(16 + 32 * run + 16 * half).cast());
                let words = _mm512_cvtepu8_epi32(bytes);
                // Only the low four bits of each index count.
                sums[0] = _mm512_add_ps(sums[0], _mm512_permutexvar_ps(words, tables[r][0]));
                let words = _mm512_srli_epi32::<4>(words);
                sums[1] = _mm512_add_ps(sums[1], _mm512_permutexvar_ps(words, tables[r][1]));
            }
            _mm512_storeu_ps(y[0], sums[0]);
            _mm512_storeu_ps(y[1], sums[1]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn add_q5_k(blocks: [&[u8; Q5_K_BYTES]; AT_ONCE], scaled: &[[f32; 16]; AT_ONCE], run: usize, y: &mut [f32; 64]) {
    let upper = _mm512_add_ps(levels(), _mm512_set1_ps(16.0));
    let low: [_; AT_ONCE] = std::array::from_fn(|r| values(levels(), &scaled[r], run));
    let high: [_; AT_ONCE] = std::array::from_fn(|r| values(upper, &scaled[r], run));
    // Brings bit 2 run, the fifth of the first sub-block, to bit 4.
    let rotation = _mm512_set1_epi32((36 - 2 * run as i32) % 32);
    let four_bits = _mm512_set1_epi32(15);
    for half in 0..2 {
        // SAFETY: a run of a block has two times 16 bytes, as have the fifth bits, and one of y two times 32 elements.
        unsafe {
            let y = [y.as_mut_ptr().add(16 * half), y.as_mut_ptr().add(32 + 16 * half)];
            let mut sums = [_mm512_loadu_ps(y[0]), _mm512_loadu_ps(y[1])];
            for r in 0..AT_ONCE {
                let bytes = |at: usize| _mm_loadu_si128(blocks[r].as_ptr().add(at + 16 * half).cast());
                let words = _mm512_cvtepu8_epi32(bytes(48 + 32 * run));
                let fifth = _mm512_rolv_epi32(_mm512_cvtepu8_epi32(bytes(16)), rotation);
                // Four bits from the words, the others from `fifth`; only the low five of each index count.
                let index = _mm512_ternarylogic_epi32::<0xca>(four_bits, words, fifth);
                sums[0] = _mm512_add_ps(sums[0], _mm512_permutex2var_ps(low[r][0], index, high[r][0]));
                let (words, fifth) = (_mm512_srli_epi32::<4>(words), _mm512_ror_epi32::<1>(fifth));
                let index = _mm512_ternarylogic_epi32::<0xca>(four_bits, words, fifth);
                sums[1] = _mm512_add_ps(sums[1], _mm512_permutex2var_ps(low[r][1], index, high[r][1]));
            }
            _mm512_storeu_ps(y[0], sums[0]);
            _mm512_storeu_ps(y[1], sums[1]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn q6_k(rows: Rows, a: &[f32], y: &mut [f32]) {
    let (y, rest) = y.as_chunks_mut::<SUPER>();
    assert!(rest.is_empty() && rows.bytes() == y.len() * Q6_K_BYTES);
    for start in (0..a.len()).step_by(AT_ONCE) {
        let group = RowGroup::new(rows, a, start);
        let (blocks, keep) = (group.rows.map(|row| row.as_chunks::<Q6_K_BYTES>().0), add::keep(&group));
        for (i, y) in y.iter_mut().enumerate() {
            for line in 0..4 {
                group.fetch(i * Q6_K_BYTES + 64 * line);
            }
            let mut scaled = [[0.0; 16]; AT_ONCE];
            let mut q = [[0i8; SUPER]; AT_ONCE];
            for r in 0..AT_ONCE {
                let block = &blocks[r][i];
                let a = _mm512_set1_ps(group.a[r]);
                scaled[r] = store(_mm512_maskz_mul_ps(keep[r], k_dot::scales_of_q6_k(block), a));
                for (q, part) in q[r].as_chunks_mut::<64>().0.iter_mut().zip(k_dot::read_q6_k(block)) {
                    let signed = _mm512_sub_epi8(part, _mm512_set1_epi8(32));
                    // SAFETY: the array has 64 bytes.
                    unsafe { _mm512_storeu_si512(q.as_mut_ptr().cast(), signed) };
                }
            }
            for (k, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let mut sum = super::f32x16(y);
                for r in 0..AT_ONCE {
                    // SAFETY: sub-block k of 16.
                    let q = unsafe { _mm_loadu_si128(q[r].as_ptr().add(16 * k).cast()) };
                    let q = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
                    sum = _mm512_fmadd_ps(q, _mm512_set1_ps(scaled[r][k]), sum);
                }
                *y = store(sum);
            }
        }
    }
}
