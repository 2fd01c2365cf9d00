//! The super-blocks of Q4_K, Q5_K and Q6_K: their bytes, dot products of one row, and scaled additions.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::activations::{ActRow, SUPER};
use super::super::row_group::{AT_ONCE, RowGroup};
use super::super::rows::Rows;
use super::add;
use super::dot::{block_of, multiply_add};
use super::{fetch, sum};
use crate::quant::blocks::QK;
use std::arch::x86_64::*;

const Q4_K_BYTES: usize = 144;
const Q5_K_BYTES: usize = 176;
const Q6_K_BYTES: usize = 210;
/// Vectors of 32 elements in a super-block.
pub(super) const VECTORS: usize = SUPER / QK;

/// A super-block's values in the order of the elements.
pub(super) type Values = [__m256i; VECTORS];

/// The eight scales and the eight minima at the start of a `Q4_K` or `Q5_K` block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scales_and_minima(block: &[u8]) -> [__m256; 2] {
    let Some(head) = block.first_chunk::<16>() else { unreachable!() };
    let head = u128::from_le_bytes(*head);
    // What `quant::k_quants::scale_and_min` reads: the first four scales and minima, then the other four.
    let (pairs, lower) = ((head >> 32) as u64, (head >> 96) as u64);
    let lower = lower & 0x0f0f_0f0f | (lower >> 4 & 0x0f0f_0f0f) << 32;
    let (first, last) = (pairs & 0x3f3f_3f3f_3f3f_3f3f, pairs >> 2 & 0x3030_3030_3030_3030 | lower);
    let bytes = _mm_shuffle_epi32::<0b11_01_10_00>(_mm_set_epi64x(last as i64, first as i64));
    let factors = _mm_cvtph_ps(_mm_cvtsi32_si128(head as i32));
    let scale = |bytes, factor| _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), factor);
    let minima = scale(_mm_srli_si128::<8>(bytes), _mm256_broadcastss_ps(_mm_movehdup_ps(factors)));
    [scale(bytes, _mm256_broadcastss_ps(factors)), minima]
}

/// The 16 scales of a `Q6_K` block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scales_of_q6_k(block: &[u8; Q6_K_BYTES]) -> [__m256; 2] {
    let d = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(u16::from_le_bytes([block[208], block[209]]))));
    let d = _mm256_broadcastss_ps(d);
    // SAFETY: 16 bytes from 192 on.
    let scales = unsafe { _mm_loadu_si128(block.as_ptr().add(192).cast()) };
    let scale = |bytes| _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), d);
    [scale(scales), scale(_mm_srli_si128::<8>(scales))]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn floats<const N: usize, const M: usize>(vectors: [__m256; N]) -> [f32; M] {
    const { assert!(M == 8 * N) };
    let mut all = [0.0; M];
    for (eight, v) in all.as_chunks_mut::<8>().0.iter_mut().zip(vectors) {
        // SAFETY: eight elements.
        unsafe { _mm256_storeu_ps(eight.as_mut_ptr(), v) };
    }
    all
}

/// 32 bytes from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load(block: &[u8], at: usize) -> __m256i {
    let Some(bytes) = block[at..].first_chunk::<32>() else { unreachable!() };
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// The two halves of each byte.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn split(bytes: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    [_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask)]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q4_k(block: &[u8; Q4_K_BYTES]) -> Values {
    let [[a, b], [c, d], [e, f], [g, h]] = [16, 48, 80, 112].map(|at| split(load(block, at)));
    [a, b, c, d, e, f, g, h]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q5_k(block: &[u8; Q5_K_BYTES]) -> Values {
    let [[a, b], [c, d], [e, f], [g, h]] = [48, 80, 112, 144].map(|at| split(load(block, at)));
    let mut values = [a, b, c, d, e, f, g, h];
    // Shifting left brings the fifth bit of vector k, which is bit k, to the top of the byte.
    let bits = load(block, 16);
    for (k, value) in values.iter_mut().enumerate() {
        let top = _mm256_sll_epi16(bits, _mm_cvtsi32_si128(7 - k as i32));
        let fifth = _mm256_and_si256(_mm256_srli_epi16::<3>(top), _mm256_set1_epi8(16));
        *value = _mm256_or_si256(*value, fifth);
    }
    values
}

/// Values offset by 32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q6_k(block: &[u8; Q6_K_BYTES]) -> Values {
    let mut values = [_mm256_setzero_si256(); VECTORS];
    for half in 0..2 {
        let top = load(block, 128 + 32 * half);
        let tops = [_mm256_slli_epi16::<4>(top), _mm256_slli_epi16::<2>(top), top, _mm256_srli_epi16::<2>(top)];
        let ([a, c], [b, d]) = (split(load(block, 64 * half)), split(load(block, 64 * half + 32)));
        for (i, (low, top)) in [a, b, c, d].into_iter().zip(tops).enumerate() {
            values[4 * half + i] = _mm256_or_si256(low, _mm256_and_si256(top, _mm256_set1_epi8(0x30)));
        }
    }
    values
}

/// `low` in the lower half of the lanes, `high` in the upper.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn lanes(low: f32, high: f32) -> __m256 {
    _mm256_set_m128(_mm_set1_ps(high), _mm_set1_ps(low))
}

/// Eight values of `d` or `ds`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn eight(values: &[f32], i: usize) -> __m256 {
    // SAFETY: the array has eight elements.
    unsafe { _mm256_loadu_ps(values.as_chunks::<VECTORS>().0[i].as_ptr()) }
}

macro_rules! dots {
    ($module:ident, $features:literal, $multiply_add:path) => {
        pub(super) mod $module {
            use super::*;

            macro_rules! with_minima {
                ($name:ident, $bytes:expr, $read:expr) => {
                    #[inline]
                    #[target_feature(enable = $features)]
                    pub fn $name<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
                        let blocks = row.as_chunks::<{ $bytes }>().0;
                        for x in x {
                            assert!(x.q.len() == blocks.len() * SUPER);
                        }
                        let x = x.map(|x| *x);
                        let mut sums = [[_mm256_setzero_ps(); N]; 2];
                        let mut minima = [_mm256_setzero_ps(); N];
                        for (i, block) in blocks.iter().enumerate() {
                            for line in 0..$bytes / 64 + 1 {
                                fetch(ahead, i * $bytes + 64 * line);
                            }
                            let [s, m] = scales_and_minima(block);
                            let mut scales = [[0.0; VECTORS]; N];
                            for v in 0..N {
                                minima[v] = _mm256_fmadd_ps(m, eight(x[v].ds, i), minima[v]);
                                scales[v] = floats([_mm256_mul_ps(s, eight(x[v].d, i))]);
                            }
                            for (k, w) in $read(block).into_iter().enumerate() {
                                let [mut sum, other] = sums;
                                for v in 0..N {
                                    let (q, _) = block_of(&x[v], i * VECTORS + k);
                                    let products = $multiply_add(_mm256_setzero_si256(), w, q);
                                    let products = _mm256_cvtepi32_ps(products);
                                    sum[v] = _mm256_fmadd_ps(products, _mm256_set1_ps(scales[v][k]), sum[v]);
                                }
                                sums = [other, sum];
                            }
                        }
                        let mut all = [0.0; N];
                        for v in 0..N {
                            all[v] = sum(_mm256_sub_ps(_mm256_add_ps(sums[0][v], sums[1][v]), minima[v]));
                        }
                        all
                    }
                };
            }

            with_minima!(q4_k, Q4_K_BYTES, read_q4_k);
            with_minima!(q5_k, Q5_K_BYTES, read_q5_k);

            #[inline]
            #[target_feature(enable = $features)]
            pub fn q6_k<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
                let blocks = row.as_chunks::<Q6_K_BYTES>().0;
                for x in x {
                    assert!(x.q.len() == blocks.len() * SUPER);
                }
                let x = x.map(|x| *x);
                let twice = [_mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0), _mm256_set_epi32(7, 7, 6, 6, 5, 5, 4, 4)];
                let mut sums = [[_mm256_setzero_ps(); N]; 2];
                for (i, block) in blocks.iter().enumerate() {
                    for line in 0..4 {
                        fetch(ahead, i * Q6_K_BYTES + 64 * line);
                    }
                    let [low, high] = scales_of_q6_k(block);
                    let mut scales: [[f32; 16]; N] = [[0.0; 16]; N];
                    for v in 0..N {
                        let d = eight(x[v].d, i);
                        scales[v] = floats([
                            _mm256_mul_ps(low, _mm256_permutevar8x32_ps(d, twice[0])),
                            _mm256_mul_ps(high, _mm256_permutevar8x32_ps(d, twice[1])),
                        ]);
                    }
                    for (k, w) in read_q6_k(block).into_iter().enumerate() {
                        let [mut sum, other] = sums;
                        for v in 0..N {
                            let (q, neg_sums) = block_of(&x[v], i * VECTORS + k);
                            let products = $multiply_add(_mm256_slli_epi32::<5>(neg_sums), w, q);
                            let products = _mm256_cvtepi32_ps(products);
                            let scale = lanes(scales[v][2 * k], scales[v][2 * k + 1]);
                            sum[v] = _mm256_fmadd_ps(products, scale, sum[v]);
                        }
                        sums = [other, sum];
                    }
                }
                let mut all = [0.0; N];
                for v in 0..N {
                    all[v] = sum(_mm256_add_ps(sums[0][v], sums[1][v]));
                }
                all
            }
        }
    };
}

dots!(avx2, "avx2,fma,f16c", multiply_add);
dots!(vnni, "avx2,fma,f16c,avxvnni", _mm256_dpbusd_avx_epi32);

/// Scaled addition of super-blocks. `$scales` gives a block's 16 scales of half vectors and their minima, times the
/// factor, and all zeros where that is 0.
macro_rules! adds {
    ($name:ident, $bytes:expr, $read:expr, $scales:expr, $add:expr) => {
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $name(rows: Rows, a: &[f32], y: &mut [f32]) {
            let (y, rest) = y.as_chunks_mut::<SUPER>();
            assert!(rest.is_empty() && rows.bytes() == y.len() * $bytes);
            for start in (0..a.len()).step_by(AT_ONCE) {
                let group = RowGroup::new(rows, a, start);
                let (blocks, keep) = (group.rows.map(|row| row.as_chunks::<{ $bytes }>().0), add::keep(&group));
                for (i, y) in y.iter_mut().enumerate() {
                    for line in 0..$bytes / 64 + 1 {
                        group.fetch(i * $bytes + 64 * line);
                    }
                    let mut values = [[_mm256_setzero_si256(); VECTORS]; AT_ONCE];
                    let mut scaled = [[0.0; 16]; AT_ONCE];
                    for r in 0..AT_ONCE {
                        let (block, a) = (&blocks[r][i], _mm256_set1_ps(group.a[r]));
                        values[r] = $read(block);
                        let [s, t] = $scales(block);
                        let scale = |s| _mm256_and_ps(_mm256_mul_ps(s, a), keep[r]);
                        scaled[r] = floats([scale(s), scale(t)]);
                    }
                    for (k, y) in y.as_chunks_mut::<QK>().0.iter_mut().enumerate() {
                        let mut sums = add::load(y);
                        for r in 0..AT_ONCE {
                            $add(&mut sums, values[r][k], &scaled[r], k);
                        }
                        add::store(sums, y);
                    }
                }
            }
        }
    };
}

adds!(add_q4_k, Q4_K_BYTES, read_q4_k, |b: &[u8; Q4_K_BYTES]| scales_and_minima(b), add_less_minimum);
adds!(add_q5_k, Q5_K_BYTES, read_q5_k, |b: &[u8; Q5_K_BYTES]| scales_and_minima(b), add_less_minimum);
adds!(add_q6_k, Q6_K_BYTES, read_q6_k, scales_of_q6_k, add_signed);

/// The bytes as floats, eight at a time.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack(q: __m256i) -> [__m256; 4] {
    let (low, high) = (_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q));
    [low, _mm_srli_si128::<8>(low), high, _mm_srli_si128::<8>(high)]
        .map(|eight| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_less_minimum(sums: &mut [__m256; 4], q: __m256i, scaled: &[f32; 16], k: usize) {
    let (scale, minimum) = (_mm256_set1_ps(scaled[k]), _mm256_set1_ps(scaled[8 + k]));
    for (sum, q) in sums.iter_mut().zip(unpack(q)) {
        *sum = _mm256_add_ps(*sum, _mm256_fmsub_ps(q, scale, minimum));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_signed(sums: &mut [__m256; 4], q: __m256i, scaled: &[f32; 16], k: usize) {
    let q = unpack(_mm256_sub_epi8(q, _mm256_set1_epi8(32)));
    for (i, (sum, q)) in sums.iter_mut().zip(q).enumerate() {
        *sum = _mm256_fmadd_ps(q, _mm256_set1_ps(scaled[2 * k + i / 2]), *sum);
    }
}
