//! Dot products of one row of the rarer super-blocks and some vectors: Q2_K, Q3_K and IQ4_XS. Their scaled additions are
//! the plain ones.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::Isa;
use super::super::activations::{ActRow, SUPER};
use super::super::rows::Rows;
use super::dot::{block_of, multiply_add};
use super::k_quants::{VECTORS, Values, lanes, load};
use super::{fetch, halves, sum};
use crate::quant::GgmlType;
use crate::quant::blocks::{QK, f16_at};
use crate::quant::iq4::LEVELS;
use std::arch::x86_64::*;

const Q2_K_BYTES: usize = 84;
const Q3_K_BYTES: usize = 110;
const IQ4_XS_BYTES: usize = 136;

/// Scales and minima, one per 16 elements.
type Scales = ([f32; 16], [f32; 16]);

fn scales_of_q2_k(block: &[u8; Q2_K_BYTES]) -> Scales {
    let (d, d_min) = (f16_at(block, 80), f16_at(block, 82));
    let scale = |i: usize| d * f32::from(block[i] & 0x0f);
    (std::array::from_fn(scale), std::array::from_fn(|i| d_min * f32::from(block[i] >> 4)))
}

fn scales_of_q3_k(block: &[u8; Q3_K_BYTES]) -> Scales {
    let (d, packed) = (f16_at(block, 108), &block[96..108]);
    let scale = |k: usize| {
        let (low, high) = (packed[k % 8] >> (4 * (k / 8)) & 0x0f, packed[8 + k % 4] >> (2 * (k / 4)) & 3);
        d * f32::from((low | high << 4) as i8 - 32)
    };
    (std::array::from_fn(scale), [0.0; 16])
}

fn scales_of_iq4_xs(block: &[u8; IQ4_XS_BYTES]) -> Scales {
    let (d, high) = (f16_at(block, 0), u16::from_le_bytes([block[2], block[3]]));
    let scale = |i: usize| {
        let k = i / 2;
        let low = block[4 + k / 2] >> (4 * (k % 2)) & 0x0f;
        d * f32::from((low | ((high >> (2 * k) & 3) as u8) << 4) as i8 - 32)
    };
    (std::array::from_fn(scale), [0.0; 16])
}

/// The lowest two bits of each 32 bytes from `at` on, then the next two, and so on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn pairs_of_bits(block: &[u8], at: usize) -> Values {
    std::array::from_fn(|k| {
        let shifted = _mm256_srl_epi16(load(block, at + 32 * (k / 4)), _mm_cvtsi32_si128(2 * (k as i32 % 4)));
        _mm256_and_si256(shifted, _mm256_set1_epi8(3))
    })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q2_k(block: &[u8; Q2_K_BYTES]) -> Values {
    pairs_of_bits(block, 16)
}

/// Values offset by 4.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q3_k(block: &[u8; Q3_K_BYTES]) -> Values {
    let (mut values, bits) = (pairs_of_bits(block, 32), load(block, 0));
    for (k, value) in values.iter_mut().enumerate() {
        // Brings the third bit of vector k, which is bit k, to the top of the byte.
        let top = _mm256_sll_epi16(bits, _mm_cvtsi32_si128(7 - k as i32));
        *value = _mm256_or_si256(*value, _mm256_and_si256(_mm256_srli_epi16::<5>(top), _mm256_set1_epi8(4)));
    }
    values
}

/// Signed values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_iq4_xs(block: &[u8; IQ4_XS_BYTES]) -> Values {
    // SAFETY: the array has 16 bytes.
    let levels = unsafe { _mm_loadu_si128(LEVELS.as_ptr().cast()) };
    let levels = _mm256_broadcastsi128_si256(_mm_xor_si128(levels, _mm_set1_epi8(-128)));
    let [_, _, _, _, _, _, _, _, half_bytes @ ..] = block;
    let runs = half_bytes.as_chunks::<{ QK / 2 }>().0;
    std::array::from_fn(|k| _mm256_shuffle_epi8(levels, halves(&runs[k])))
}

macro_rules! dots {
    ($module:ident, $features:literal, $multiply_add:path) => {
        pub(super) mod $module {
            use super::*;

            /// Dot product of super-blocks, whose vectors `$products` turns into eight integer sums.
            macro_rules! supers {
                ($name:ident, $bytes:expr, $has_min:literal, $read:expr, $scales:expr, $products:expr) => {
                    #[inline]
                    #[target_feature(enable = $features)]
                    pub fn $name<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
                        let blocks = row.as_chunks::<{ $bytes }>().0;
                        for x in x {
                            assert!(x.q.len() == blocks.len() * SUPER);
                        }
                        let x = x.map(|x| *x);
                        let mut sums = [[_mm256_setzero_ps(); N]; 2];
                        for (i, block) in blocks.iter().enumerate() {
                            for line in 0..$bytes / 64 + 1 {
                                fetch(ahead, i * $bytes + 64 * line);
                            }
                            let (s, m) = $scales(block);
                            for (k, w) in $read(block).into_iter().enumerate() {
                                let at = i * VECTORS + k;
                                let [mut sum, other] = sums;
                                for v in 0..N {
                                    let ((q, neg_sums), d) = (block_of(&x[v], at), x[v].d[at]);
                                    let products = _mm256_cvtepi32_ps($products(w, q, neg_sums));
                                    let scale = lanes(s[2 * k] * d, s[2 * k + 1] * d);
                                    sum[v] = _mm256_fmadd_ps(products, scale, sum[v]);
                                    if $has_min {
                                        let minimum = lanes(m[2 * k] * d, m[2 * k + 1] * d);
                                        sum[v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(neg_sums), minimum, sum[v]);
                                    }
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
                };
            }

            supers!(q2_k, Q2_K_BYTES, true, read_q2_k, scales_of_q2_k, |w, q, _| {
                $multiply_add(_mm256_setzero_si256(), w, q)
            });
            supers!(q3_k, Q3_K_BYTES, false, read_q3_k, scales_of_q3_k, |w, q, neg_sums| {
                $multiply_add(_mm256_slli_epi32::<2>(neg_sums), w, q)
            });
            // The magnitude of -127 is below 129; activations are never -128.
            supers!(iq4_xs, IQ4_XS_BYTES, false, read_iq4_xs, scales_of_iq4_xs, |w, q, _| {
                $multiply_add(_mm256_setzero_si256(), _mm256_abs_epi8(w), _mm256_sign_epi8(q, w))
            });
        }
    };
}

dots!(avx2, "avx2,fma,f16c", multiply_add);
dots!(vnni, "avx2,fma,f16c,avxvnni", _mm256_dpbusd_avx_epi32);

pub(super) fn add_q2_k(rows: Rows, a: &[f32], y: &mut [f32]) {
    (Isa::Plain.kernels(GgmlType::Q2_K).add_scaled)(rows, a, y);
}

pub(super) fn add_q3_k(rows: Rows, a: &[f32], y: &mut [f32]) {
    (Isa::Plain.kernels(GgmlType::Q3_K).add_scaled)(rows, a, y);
}

pub(super) fn add_iq4_xs(rows: Rows, a: &[f32], y: &mut [f32]) {
    (Isa::Plain.kernels(GgmlType::IQ4_XS).add_scaled)(rows, a, y);
}
