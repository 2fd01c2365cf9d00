//! Kernels for AVX2 with FMA and F16C, with and without the 8-bit dot products of AVX-VNNI.
//!
//! Every function here has `#[target_feature]`; the tables are reached through [`super::Isa::kernels`] only, which has
//! asserted that the processor has these features.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

mod add;
mod dot;
mod floats;
mod k_quants;
mod mxfp4;
mod shared_scales;
mod supers;

pub(super) use shared_scales::add_shared_scales;

use super::kernels::{Kernels, row_kernels};
use super::padded::padded;
use super::row_group::fetch;
use crate::quant::blocks::{Q4_0_BYTES, QK};
use crate::quant::iq4::LEVELS;
use std::arch::x86_64::*;

/// See [`row_kernels`]: with these features for the dot product, while additions gain nothing from AVX-VNNI.
macro_rules! kernels {
    ($features:literal, $($of:tt)*) => {
        row_kernels!($features, "avx2,fma,f16c", $($of)*)
    };
}

/// Kernels with AVX-VNNI, for the types that gain from it.
pub(super) static VNNI_TABLE: [Kernels; 12] = [
    kernels!("avx2,fma,f16c,avxvnni", Q8_0, Q8, dot::vnni::q8_0, add::q8_0),
    kernels!("avx2,fma,f16c,avxvnni", Q4_0, Q8, dot::vnni::q4_0, add::q4_0),
    kernels!("avx2,fma,f16c,avxvnni", Q4_1, Q8, dot::vnni::q4_1, add::q4_1),
    kernels!("avx2,fma,f16c,avxvnni", Q5_0, Q8, dot::vnni::q5_0, add::q5_0),
    kernels!("avx2,fma,f16c,avxvnni", Q5_1, Q8, dot::vnni::q5_1, add::q5_1),
    kernels!("avx2,fma,f16c,avxvnni", IQ4_NL, Q8, dot::vnni::iq4_nl, add::iq4_nl),
    kernels!("avx2,fma,f16c,avxvnni", Q4_K, Q8, k_quants::vnni::q4_k, k_quants::add_q4_k),
    kernels!("avx2,fma,f16c,avxvnni", Q5_K, Q8, k_quants::vnni::q5_k, k_quants::add_q5_k),
    kernels!("avx2,fma,f16c,avxvnni", Q6_K, Q8, k_quants::vnni::q6_k, k_quants::add_q6_k),
    kernels!("avx2,fma,f16c,avxvnni", Q2_K, Q8, supers::vnni::q2_k, supers::add_q2_k),
    kernels!("avx2,fma,f16c,avxvnni", Q3_K, Q8, supers::vnni::q3_k, supers::add_q3_k),
    kernels!("avx2,fma,f16c,avxvnni", IQ4_XS, Q8, supers::vnni::iq4_xs, supers::add_iq4_xs),
];

/// Kernels without it.
pub(super) static TABLE: [Kernels; 16] = [
    kernels!("avx2,fma,f16c", F32, F32, floats::dot_f32, floats::add_f32),
    kernels!("avx2,fma,f16c", F16, F32, floats::dot_f16, floats::add_f16),
    kernels!("avx2,fma,f16c", BF16, F32, floats::dot_bf16, floats::add_bf16),
    kernels!("avx2,fma,f16c", Q8_0, Q8, dot::avx2::q8_0, add::q8_0),
    kernels!("avx2,fma,f16c", Q4_0, Q8, dot::avx2::q4_0, add::q4_0),
    kernels!("avx2,fma,f16c", Q4_1, Q8, dot::avx2::q4_1, add::q4_1),
    kernels!("avx2,fma,f16c", Q5_0, Q8, dot::avx2::q5_0, add::q5_0),
    kernels!("avx2,fma,f16c", Q5_1, Q8, dot::avx2::q5_1, add::q5_1),
    kernels!("avx2,fma,f16c", IQ4_NL, Q8, dot::avx2::iq4_nl, add::iq4_nl),
    kernels!("avx2,fma,f16c", Q4_K, Q8, k_quants::avx2::q4_k, k_quants::add_q4_k),
    kernels!("avx2,fma,f16c", Q5_K, Q8, k_quants::avx2::q5_k, k_quants::add_q5_k),
    kernels!("avx2,fma,f16c", Q6_K, Q8, k_quants::avx2::q6_k, k_quants::add_q6_k),
    kernels!("avx2,fma,f16c", Q2_K, Q8, supers::avx2::q2_k, supers::add_q2_k),
    kernels!("avx2,fma,f16c", Q3_K, Q8, supers::avx2::q3_k, supers::add_q3_k),
    kernels!("avx2,fma,f16c", IQ4_XS, Q8, supers::avx2::iq4_xs, supers::add_iq4_xs),
    kernels!("avx2,fma,f16c", MXFP4, Q8, mxfp4::dot, mxfp4::add),
];

/// The F16 numbers at byte `at` of eight blocks.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn f16x8<const BYTES: usize>(blocks: &[[u8; BYTES]; 8], at: usize) -> __m256 {
    let [a, b, c, d, e, f, g, h] = blocks.each_ref().map(|block| i16::from_le_bytes([block[at], block[at + 1]]));
    _mm256_cvtph_ps(_mm_set_epi16(h, g, f, e, d, c, b, a))
}

/// The same for the first eight blocks, or all if there are fewer.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn f16s<const BYTES: usize>(blocks: &[[u8; BYTES]], at: usize) -> __m256 {
    if let Some(blocks) = blocks.first_chunk() { f16x8(blocks, at) } else { f16x8(&padded(blocks), at) }
}

/// The first eight values, or all of them padded with zeros.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn f32s(values: &[f32]) -> __m256 {
    let values: [f32; 8] = if let Some(values) = values.first_chunk() { *values } else { padded(values) };
    // SAFETY: the array has eight elements.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

/// The low halves of 16 bytes, then their high halves.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(bytes: &[u8; QK / 2]) -> __m256i {
    // SAFETY: the array has 16 bytes.
    let v = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(v), v), _mm256_set1_epi8(15))
}

/// 16 wherever one of the 32 bits is set.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fifth_bits(bits: [u8; 4]) -> __m256i {
    let bytes = _mm256_set_epi64x(0x0303_0303_0303_0303, 0x0202_0202_0202_0202, 0x0101_0101_0101_0101, 0);
    let masks = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let bits = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(bits)), bytes);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, masks), masks);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// Bytes of those blocks of 32 elements that have no constant elsewhere.
const Q4_1_BYTES: usize = 20;
const Q5_0_BYTES: usize = 22;
const Q5_1_BYTES: usize = 24;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q4_1(block: &[u8; Q4_1_BYTES]) -> __m256i {
    let [_, _, _, _, q @ ..] = block;
    halves(q)
}

/// Offset by 16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q5_0(block: &[u8; Q5_0_BYTES]) -> __m256i {
    let [_, _, b0, b1, b2, b3, q @ ..] = block;
    _mm256_or_si256(halves(q), fifth_bits([*b0, *b1, *b2, *b3]))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_q5_1(block: &[u8; Q5_1_BYTES]) -> __m256i {
    let [_, _, _, _, b0, b1, b2, b3, q @ ..] = block;
    _mm256_or_si256(halves(q), fifth_bits([*b0, *b1, *b2, *b3]))
}

/// Signed.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_iq4_nl(block: &[u8; Q4_0_BYTES]) -> __m256i {
    let [_, _, q @ ..] = block;
    // SAFETY: the array has 16 bytes.
    let levels = unsafe { _mm_loadu_si128(LEVELS.as_ptr().cast()) };
    let levels = _mm256_broadcastsi128_si256(_mm_xor_si128(levels, _mm_set1_epi8(-128)));
    _mm256_shuffle_epi8(levels, halves(q))
}
