//! Dot products of one row of 32-element blocks and some vectors.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::activations::{ActRow, SUM_LEN};
use super::{Q4_1_BYTES, Q5_0_BYTES, Q5_1_BYTES, read_iq4_nl, read_q4_1, read_q5_0, read_q5_1};
use super::{f16s, f32s, fetch, halves, sum};
use crate::quant::blocks::{Q4_0_BYTES, Q8_0_BYTES, QK};
use std::arch::x86_64::*;

/// Activations of one block: their bytes and negated sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn block_of(x: &ActRow, i: usize) -> (__m256i, __m256i) {
    let (q, neg_sums) = (&x.q.as_chunks::<QK>().0[i], &x.neg_sums.as_chunks::<{ QK / SUM_LEN }>().0[i]);
    // SAFETY: both arrays have 32 bytes.
    unsafe { (_mm256_loadu_si256(q.as_ptr().cast()), _mm256_loadu_si256(neg_sums.as_ptr().cast())) }
}

/// Blocks whose scales are read together.
const SCALES: usize = 8;

/// The scales of (at most [`SCALES`]) blocks times those of the activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scales(of_blocks: __m256, d: &[f32]) -> [f32; SCALES] {
    let mut scales = [0.0; SCALES];
    // SAFETY: the array has eight elements.
    unsafe { _mm256_storeu_ps(scales.as_mut_ptr(), _mm256_mul_ps(of_blocks, f32s(d))) };
    scales
}

/// Adds to each of eight sums four products of unsigned bytes, below 129 so that two products fit in 16 bits, and
/// signed ones, which are not -128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply_add(sums: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(unsigned, signed);
    _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

macro_rules! dots {
    ($module:ident, $features:literal, $multiply_add:path) => {
        pub(super) mod $module {
            use super::*;

            /// Dot products of blocks, each of which `$read` turns into bytes, of which `$products` makes eight integer sums,
            /// and which may have the value of `q = 0` behind their scale.
            macro_rules! blocks {
                ($name:ident, $bytes:expr, $has_min:literal, $read:path, $products:expr) => {
                    #[inline]
                    #[target_feature(enable = $features)]
                    pub fn $name<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
                        let blocks = row.as_chunks::<{ $bytes }>().0;
                        for x in x {
                            assert!(x.d.len() == blocks.len() && x.q.len() == blocks.len() * QK);
                        }
                        let x = x.map(|x| *x);
                        let mut sums = [[_mm256_setzero_ps(); N]; 2];
                        let mut minima = [_mm256_setzero_ps(); N];
                        for (n, blocks) in blocks.chunks(SCALES).enumerate() {
                            let of_blocks = f16s(blocks, 0);
                            let mut scales_of = [[0.0; SCALES]; N];
                            for v in 0..N {
                                scales_of[v] = scales(of_blocks, &x[v].d[n * SCALES..]);
                            }
                            if $has_min {
                                let of_blocks = f16s(blocks, 2);
                                for v in 0..N {
                                    minima[v] = _mm256_fmadd_ps(of_blocks, f32s(&x[v].ds[n * SCALES..]), minima[v]);
                                }
                            }
                            for (j, block) in blocks.iter().enumerate() {
                                let i = n * SCALES + j;
                                if i * $bytes % 64 < $bytes {
                                    fetch(ahead, i * $bytes);
                                }
                                let w = $read(block);
                                let [mut sum, other] = sums;
                                for v in 0..N {
                                    let products = _mm256_cvtepi32_ps($products(w, block_of(&x[v], i)));
                                    sum[v] = _mm256_fmadd_ps(products, _mm256_set1_ps(scales_of[v][j]), sum[v]);
                                }
                                // Taking turns like this keeps both in registers, as an index would not.
                                sums = [other, sum];
                            }
                        }
                        let mut all = [0.0; N];
                        for v in 0..N {
                            all[v] = sum(_mm256_add_ps(_mm256_add_ps(sums[0][v], sums[1][v]), minima[v]));
                        }
                        all
                    }
                };
            }

            blocks!(q8_0, Q8_0_BYTES, false, read_q8_0, signed);
            blocks!(q4_0, Q4_0_BYTES, false, read_q4_0, |w, x| offset::<3>(w, x));
            blocks!(q4_1, Q4_1_BYTES, true, read_q4_1, unsigned);
            blocks!(q5_0, Q5_0_BYTES, false, read_q5_0, |w, x| offset::<4>(w, x));
            blocks!(q5_1, Q5_1_BYTES, true, read_q5_1, unsigned);
            blocks!(iq4_nl, Q4_0_BYTES, false, read_iq4_nl, signed);

            #[inline]
            #[target_feature(enable = $features)]
            fn unsigned(w: __m256i, (q, _): (__m256i, __m256i)) -> __m256i {
                $multiply_add(_mm256_setzero_si256(), w, q)
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn signed(w: __m256i, (q, _): (__m256i, __m256i)) -> __m256i {
                // The magnitude of -128 is 128 as an unsigned byte; activations are never -128.
                $multiply_add(_mm256_setzero_si256(), _mm256_abs_epi8(w), _mm256_sign_epi8(q, w))
            }

            /// Of weights that are offset by 2 to this power.
            #[inline]
            #[target_feature(enable = $features)]
            fn offset<const POWER: i32>(w: __m256i, (q, neg_sums): (__m256i, __m256i)) -> __m256i {
                $multiply_add(_mm256_slli_epi32::<POWER>(neg_sums), w, q)
            }
        }
    };
}

/// Offset by 8.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q4_0(block: &[u8; Q4_0_BYTES]) -> __m256i {
    let [_, _, half_bytes @ ..] = block;
    halves(half_bytes)
}

/// Signed.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q8_0(block: &[u8; Q8_0_BYTES]) -> __m256i {
    // SAFETY: 32 bytes lie behind the scale.
    unsafe { _mm256_loadu_si256(block.as_ptr().add(2).cast()) }
}

dots!(avx2, "avx2,fma,f16c", multiply_add);
dots!(vnni, "avx2,fma,f16c,avxvnni", _mm256_dpbusd_avx_epi32);
