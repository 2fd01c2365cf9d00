//! Dot products of one row of 32-element blocks.
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
fn scales<const BYTES: usize>(blocks: &[[u8; BYTES]], d: &[f32]) -> [f32; SCALES] {
    let mut scales = [0.0; SCALES];
    // SAFETY: the array has eight elements.
    unsafe { _mm256_storeu_ps(scales.as_mut_ptr(), _mm256_mul_ps(f16s(blocks, 0), f32s(d))) };
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

            /// Dot product of blocks, each of which `$products` turns into eight integer sums, and which may have the
            /// value of `q = 0` behind their scale.
            macro_rules! blocks {
                ($name:ident, $bytes:expr, $has_min:literal, $products:expr) => {
                    #[inline]
                    #[target_feature(enable = $features)]
                    pub fn $name(row: &[u8], ahead: &[u8], x: ActRow) -> f32 {
                        let blocks = row.as_chunks::<{ $bytes }>().0;
                        assert!(x.d.len() == blocks.len() && x.q.len() == blocks.len() * QK);
                        let mut sums = [_mm256_setzero_ps(); 2];
                        let mut minima = _mm256_setzero_ps();
                        for (n, blocks) in blocks.chunks(SCALES).enumerate() {
                            let scales = scales(blocks, &x.d[n * SCALES..]);
                            if $has_min {
                                minima = _mm256_fmadd_ps(f16s(blocks, 2), f32s(&x.ds[n * SCALES..]), minima);
                            }
                            for (j, (block, scale)) in blocks.iter().zip(&scales).enumerate() {
                                let i = n * SCALES + j;
                                if i * $bytes % 64 < $bytes {
                                    fetch(ahead, i * $bytes);
                                }
                                let products = _mm256_cvtepi32_ps($products(block, block_of(&x, i)));
                                // Taking turns like this keeps both in registers, as an index would not.
                                sums = [sums[1], _mm256_fmadd_ps(products, _mm256_set1_ps(*scale), sums[0])];
                            }
                        }
                        sum(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), minima))
                    }
                };
            }

            blocks!(q8_0, Q8_0_BYTES, false, q8_0_products);
            blocks!(q4_0, Q4_0_BYTES, false, q4_0_products);
            blocks!(q4_1, Q4_1_BYTES, true, |block, x| unsigned(read_q4_1(block), x));
            blocks!(q5_0, Q5_0_BYTES, false, q5_0_products);
            blocks!(q5_1, Q5_1_BYTES, true, |block, x| unsigned(read_q5_1(block), x));
            blocks!(iq4_nl, Q4_0_BYTES, false, |block, x| signed(read_iq4_nl(block), x));

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

            #[inline]
            #[target_feature(enable = $features)]
            fn q5_0_products(block: &[u8; Q5_0_BYTES], (q, neg_sums): (__m256i, __m256i)) -> __m256i {
                $multiply_add(_mm256_slli_epi32::<4>(neg_sums), read_q5_0(block), q)
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn q8_0_products(block: &[u8; Q8_0_BYTES], x: (__m256i, __m256i)) -> __m256i {
                // SAFETY: 32 bytes lie behind the scale.
                let w = unsafe { _mm256_loadu_si256(block.as_ptr().add(2).cast()) };
                signed(w, x)
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn q4_0_products(block: &[u8; Q4_0_BYTES], (q, neg_sums): (__m256i, __m256i)) -> __m256i {
                let [_, _, half_bytes @ ..] = block;
                $multiply_add(_mm256_slli_epi32::<3>(neg_sums), halves(half_bytes), q)
            }
        }
    };
}

dots!(avx2, "avx2,fma,f16c", multiply_add);
dots!(vnni, "avx2,fma,f16c,avxvnni", _mm256_dpbusd_avx_epi32);
