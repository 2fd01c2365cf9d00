//! Unpacking super-blocks with AVX-512, in the order of their elements: values, then scales and minima of sub-blocks, with the
//! bits that `quant::k_quants` and `quant::iq4` give them.
//!
//! Every function here has `#[target_feature]`; [`super::unpack512`], which alone calls them, has the same.
#![allow(unsafe_code, reason = "vector loads and stores take raw pointers, and features are checked at run time")]

use crate::cpu::avx512::k_dot::{
    IQ4_XS_BYTES, Q2_K_BYTES, Q3_K_BYTES, Q4_K_BYTES, Q5_K_BYTES, Q6_K_BYTES, read_q3_k, read_q6_k, scales_and_minima,
    scales_of_iq4_xs, scales_of_q3_k, scales_of_q6_k,
};
use std::arch::x86_64::*;

/// Elements of a super-block.
const SUPER: usize = 256;

/// Unpacks blocks of `BYTES` bytes and `SUBS` sub-blocks.
macro_rules! blocks {
    ($name:ident, $bytes:expr, $subs:literal, $decode:path) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
        pub(super) fn $name(row: &[u8], q: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
            let blocks = row.as_chunks::<{ $bytes }>().0.iter().zip(q.as_chunks_mut::<SUPER>().0);
            let subs = scales.as_chunks_mut::<$subs>().0.iter_mut().zip(mins.as_chunks_mut::<$subs>().0);
            for ((block, q), (scales, mins)) in blocks.zip(subs) {
                $decode(block, q, scales, mins);
            }
        }
    };
}

blocks!(q2_k, Q2_K_BYTES, 16, decode_q2_k);
blocks!(q3_k, Q3_K_BYTES, 16, decode_q3_k);
blocks!(q4_k, Q4_K_BYTES, 8, decode_q4_k);
blocks!(q5_k, Q5_K_BYTES, 8, decode_q5_k);
blocks!(q6_k, Q6_K_BYTES, 16, decode_q6_k);
blocks!(iq4_xs, IQ4_XS_BYTES, 8, decode_iq4_xs);

type Values = [u8; SUPER];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn store(q: &mut Values, part: usize, values: __m512i) {
    let q = &mut q.as_chunks_mut::<64>().0[part];
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_si512(q.as_mut_ptr().cast(), values) };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn store_16(to: &mut [f32; 16], values: __m512) {
    // SAFETY: 16 floats.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), values) };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn store_8(to: &mut [f32; 8], values: __m512) {
    // SAFETY: eight floats.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm512_castps512_ps256(values)) };
}

/// Run number `i` of 32 bytes, twice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn twice(bytes: &[u8], i: usize) -> __m512i {
    let bytes = &bytes.as_chunks::<32>().0[i];
    // SAFETY: 32 bytes.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
}

/// A number for each half of a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn halves(low: i64, high: i64) -> __m512i {
    _mm512_set_epi64(high, high, high, high, low, low, low, low)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn decode_q2_k(block: &[u8; Q2_K_BYTES], q: &mut Values, scales: &mut [f32; 16], mins: &mut [f32; 16]) {
    let [.., d0, d1, m0, m1] = block;
    // SAFETY: 16 bytes.
    let both = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
    let times = |bytes, factor: [u8; 2]| {
        let factor = _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(factor)));
        let small = _mm512_cvtepu8_epi32(_mm_and_si128(bytes, _mm_set1_epi8(15)));
        _mm512_mul_ps(factor, _mm512_cvtepi32_ps(small))
    };
    store_16(scales, times(both, [*d0, *d1]));
    store_16(mins, times(_mm_srli_epi16::<4>(both), [*m0, *m1]));
    for part in 0..4 {
        let low = 4 * (part as i64 % 2);
        let shifted = _mm512_srlv_epi64(twice(&block[16..80], part / 2), halves(low, low + 2));
        store(q, part, _mm512_and_si512(shifted, _mm512_set1_epi8(3)));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn decode_q3_k(block: &[u8; Q3_K_BYTES], q: &mut Values, scales: &mut [f32; 16], _: &mut [f32; 16]) {
    for (part, values) in read_q3_k(block).into_iter().enumerate() {
        store(q, part, values);
    }
    store_16(scales, scales_of_q3_k(block));
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn decode_q6_k(block: &[u8; Q6_K_BYTES], q: &mut Values, scales: &mut [f32; 16], _: &mut [f32; 16]) {
    for (part, values) in read_q6_k(block).into_iter().enumerate() {
        store(q, part, values);
    }
    store_16(scales, scales_of_q6_k(block));
}

/// The scales and the minima of the two types whose blocks begin with them alike.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn scales_and_mins(head: &[u8; 16], scales: &mut [f32; 8], mins: &mut [f32; 8]) {
    let both = scales_and_minima(head);
    store_8(scales, _mm512_maskz_compress_ps(0x5555, both));
    store_8(mins, _mm512_maskz_compress_ps(0xaaaa, both));
}

/// The low halves of run number `i` of 32 bytes, then the high ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn half_bytes(bytes: &[u8], i: usize) -> __m512i {
    _mm512_and_si512(_mm512_srlv_epi64(twice(bytes, i), halves(0, 4)), _mm512_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn decode_q4_k(block: &[u8; Q4_K_BYTES], q: &mut Values, scales: &mut [f32; 8], mins: &mut [f32; 8]) {
    let Some(head) = block.first_chunk() else { unreachable!() };
    scales_and_mins(head, scales, mins);
    for part in 0..4 {
        store(q, part, half_bytes(&block[16..], part));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn decode_q5_k(block: &[u8; Q5_K_BYTES], q: &mut Values, scales: &mut [f32; 8], mins: &mut [f32; 8]) {
    let Some(head) = block.first_chunk() else { unreachable!() };
    scales_and_mins(head, scales, mins);
    let planes = twice(&block[16..48], 0);
    for part in 0..4 {
        // Rotations that bring bits 2 part and 2 part + 1 of each byte to bit 4.
        let first = (60 + 2 * part as i64) % 64;
        let fifth = _mm512_rorv_epi64(planes, halves(first, (first + 1) % 64));
        // half | (fifth & 16)
        let half = half_bytes(&block[48..], part);
        store(q, part, _mm512_ternarylogic_epi32::<0xf8>(half, fifth, _mm512_set1_epi8(16)));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn decode_iq4_xs(block: &[u8; IQ4_XS_BYTES], q: &mut Values, scales: &mut [f32; 8], _: &mut [f32; 8]) {
    store_8(scales, scales_of_iq4_xs(block));
    let levels = crate::cpu::avx512::dot::levels();
    // Quarters of 16 bytes, of which two become the halves of one block each.
    let doubled = [halves_of_blocks(0), halves_of_blocks(2)];
    let shift = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    for part in 0..4 {
        let bytes = &block[8..].as_chunks::<64>().0[part / 2];
        // SAFETY: 64 bytes.
        let bytes = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        let bytes = _mm512_srlv_epi64(_mm512_permutexvar_epi64(doubled[part % 2], bytes), shift);
        store(q, part, _mm512_shuffle_epi8(levels, _mm512_and_si512(bytes, _mm512_set1_epi8(15))));
    }
}

/// Quarters `first` and `first + 1` of a vector, each twice, in words of 64 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn halves_of_blocks(first: i64) -> __m512i {
    let (a, b) = (2 * first, 2 * first + 2);
    _mm512_set_epi64(b + 1, b, b + 1, b, a + 1, a, a + 1, a)
}
