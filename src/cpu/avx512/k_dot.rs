//! Dot products of one row of super-blocks and some vectors.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::activations::{ActRow, SUM_LEN, SUPER};
use super::{f32x16, fetch};
use crate::quant::blocks::QK;
use std::arch::x86_64::*;

/// Bytes of a `Q2_K` block: the scales and minima; from 16 on the pairs of bits, at 80 the factors of both.
pub(in crate::cpu) const Q2_K_BYTES: usize = 84;
/// Bytes of a `Q3_K` block: the third bits; from 32 on the pairs of bits, from 96 on the scales and their factor.
pub(in crate::cpu) const Q3_K_BYTES: usize = 110;
/// Bytes of an `IQ4_XS` block; its half-bytes begin at 8.
pub(in crate::cpu) const IQ4_XS_BYTES: usize = 136;
/// Bytes of a `Q4_K` block; its half-bytes begin at 16.
pub(in crate::cpu) const Q4_K_BYTES: usize = 144;
/// Bytes of a `Q5_K` block; its fifth bits begin at 16, its half-bytes at 48.
pub(in crate::cpu) const Q5_K_BYTES: usize = 176;
/// Bytes of a `Q6_K` block: the lower four bits; from 128 on the upper two, from 192 on the scales, at 208 their
/// factor.
pub(in crate::cpu) const Q6_K_BYTES: usize = 210;

/// The eight scales and minima at the start of a `Q4_K` or `Q5_K` block: scale, minimum, scale and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(in crate::cpu) fn scales_and_minima(block: &[u8; 16]) -> __m512 {
    // What `quant::k_quants::scale_and_min` reads, 8 bits from any bit of each 64 at a time.
    let low_bits = _mm_set_epi8(28, 24, 20, 16, 12, 8, 4, 0, 56, 24, 48, 16, 40, 8, 32, 0);
    let top_bits = _mm_set_epi8(58, 26, 50, 18, 42, 10, 34, 2, 0, 0, 0, 0, 0, 0, 0, 0);
    let (low_mask, top_mask) = (_mm_set_epi64x(0x0f0f_0f0f_0f0f_0f0f, 0x3f3f_3f3f_3f3f_3f3f), 0x3030_3030_3030_3030);
    let [d0, d1, d2, d3, pairs @ ..] = block;
    let factors = _mm256_cvtph_ps(_mm_set1_epi32(i32::from_le_bytes([*d0, *d1, *d2, *d3])));
    let (first, last) = (pairs.first_chunk().unwrap_or(&[0; 8]), pairs.last_chunk().unwrap_or(&[0; 4]));
    let (first, last) = (i64::from_le_bytes(*first), i64::from(u32::from_le_bytes(*last)));
    let low = _mm_multishift_epi64_epi8(low_bits, _mm_set_epi64x(last, first));
    let top = _mm_multishift_epi64_epi8(top_bits, _mm_set1_epi64x(first));
    let top = _mm_and_si128(top, _mm_set_epi64x(top_mask, 0));
    // (low & low_mask) | top
    let bytes = _mm_ternarylogic_epi32::<0xea>(low, low_mask, top);
    let factors = _mm512_insertf32x8::<1>(_mm512_castps256_ps512(factors), factors);
    _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), factors)
}

/// The first 16 bytes of each of four runs of 32, and the last 16 of each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn first_and_last(runs: &[u8; SUPER / 2]) -> (__m512i, __m512i) {
    // SAFETY: the array has 128 bytes.
    let (a, b) =
        unsafe { (_mm512_loadu_si512(runs.as_ptr().cast()), _mm512_loadu_si512(runs.as_ptr().add(64).cast())) };
    (_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b))
}

/// The two halves of each byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn split(bytes: __m512i) -> [__m512i; 2] {
    let mask = _mm512_set1_epi8(15);
    [_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask)]
}

/// Dot products of super-blocks with minima. `$read` gives a block's bytes in the order of `Supers`.
macro_rules! with_minima {
    ($name:ident, $bytes:expr, $read:expr) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
        pub(super) fn $name<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
            let (blocks, x) = (row.as_chunks::<{ $bytes }>().0, x.map(|x| x.supers));
            for x in x {
                assert!(x.q.len() == blocks.len() && x.factors.len() == blocks.len());
            }
            let of_even = _mm512_set_epi32(12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0);
            let of_odd = _mm512_add_epi32(of_even, _mm512_set1_epi32(2));
            let zeros = [_mm512_setzero_ps(); N];
            let (mut even, mut odd, mut minima) = (zeros, zeros, zeros);
            for (i, block) in blocks.iter().enumerate() {
                for line in 0..$bytes / 64 + 1 {
                    fetch(ahead, i * $bytes + 64 * line);
                }
                let [a, b, c, d] = $read(block);
                let [head, ..] = block.as_chunks::<16>().0 else { unreachable!() };
                let scales_and_minima = scales_and_minima(head);
                for v in 0..N {
                    let q = &x[v].q[i];
                    // SAFETY: a group has 256 bytes.
                    let q = |part: usize| unsafe { _mm512_loadu_si512(q.as_ptr().add(64 * part).cast()) };
                    let zero = _mm512_setzero_si512();
                    let even_products = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, a, q(0)), c, q(2));
                    let odd_products = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, b, q(1)), d, q(3));
                    let scales = _mm512_mul_ps(scales_and_minima, f32x16(&x[v].factors[i]));
                    let scale = |which| _mm512_permutexvar_ps(which, scales);
                    even[v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(even_products), scale(of_even), even[v]);
                    odd[v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(odd_products), scale(of_odd), odd[v]);
                    // Every other one belongs to a minimum.
                    minima[v] = _mm512_add_ps(minima[v], scales);
                }
            }
            let mut all = [0.0; N];
            for v in 0..N {
                let minima = _mm512_maskz_mov_ps(0xaaaa, minima[v]);
                all[v] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(even[v], odd[v]), minima));
            }
            all
        }
    };
}

with_minima!(q4_k, Q4_K_BYTES, read_q4_k);
with_minima!(q5_k, Q5_K_BYTES, read_q5_k);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn read_q4_k(block: &[u8; Q4_K_BYTES]) -> [__m512i; 4] {
    let Some(runs) = block.last_chunk() else { unreachable!() };
    let (first, last) = first_and_last(runs);
    let ([a, b], [c, d]) = (split(first), split(last));
    [a, b, c, d]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn read_q5_k(block: &[u8; Q5_K_BYTES]) -> [__m512i; 4] {
    let Some(runs) = block.last_chunk() else { unreachable!() };
    let (first, last) = first_and_last(runs);
    let ([a, b], [c, d]) = (split(first), split(last));
    // SAFETY: 32 bytes from 16 on.
    let (first, last) =
        unsafe { (_mm_loadu_si128(block.as_ptr().add(16).cast()), _mm_loadu_si128(block.as_ptr().add(32).cast())) };
    let (first, last) = (_mm512_broadcast_i32x4(first), _mm512_broadcast_i32x4(last));
    // Rotations that bring bit 2 i, which belongs to block 2 i, to bit 4.
    let even = _mm512_set_epi32(30, 30, 30, 30, 0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4);
    let odd = _mm512_set_epi32(29, 29, 29, 29, 31, 31, 31, 31, 1, 1, 1, 1, 3, 3, 3, 3);
    let with = |low, bits, rotation| {
        // low | (rotated & 16)
        _mm512_ternarylogic_epi32::<0xf8>(low, _mm512_rolv_epi32(bits, rotation), _mm512_set1_epi8(16))
    };
    [with(a, first, even), with(b, first, odd), with(c, last, even), with(d, last, odd)]
}

/// The unsigned values of a `Q6_K` block, 64 at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(in crate::cpu) fn read_q6_k(block: &[u8; Q6_K_BYTES]) -> [__m512i; 4] {
    let mut q = [_mm512_setzero_si512(); 4];
    let shift_low = _mm512_set_epi64(2, 2, 2, 2, 4, 4, 4, 4);
    let shift_high = _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0);
    for half in 0..2 {
        // SAFETY: two times 64 bytes, then two times 32.
        let (low, top) = unsafe {
            let p = block.as_ptr();
            (_mm512_loadu_si512(p.add(64 * half).cast()), _mm256_loadu_si256(p.add(128 + 32 * half).cast()))
        };
        let top = _mm512_broadcast_i64x4(top);
        let parts = split(low);
        let tops = [_mm512_sllv_epi64(top, shift_low), _mm512_srlv_epi64(top, shift_high)];
        for part in 0..2 {
            // part | (top & 0x30)
            q[2 * half + part] = _mm512_ternarylogic_epi32::<0xf8>(parts[part], tops[part], _mm512_set1_epi8(0x30));
        }
    }
    q
}

/// The 16 scales of a `Q6_K` block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(in crate::cpu) fn scales_of_q6_k(block: &[u8; Q6_K_BYTES]) -> __m512 {
    // SAFETY: 16 bytes from 192 on.
    let scales = unsafe { _mm_loadu_si128(block.as_ptr().add(192).cast()) };
    let d = _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes([block[208], block[209]])));
    _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)), d)
}

/// Dot products of super-blocks with a scale for each 16 elements, whose bytes are offset by 2 to the power of `$offset`.
macro_rules! signed {
    ($name:ident, $bytes:expr, $offset:literal, $read:path, $scales:path) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
        pub(super) fn $name<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
            let blocks = row.as_chunks::<{ $bytes }>().0;
            let x = x.map(|x| {
                let (q, neg_sums) = (x.q.as_chunks::<SUPER>().0, x.neg_sums.as_chunks::<{ SUPER / SUM_LEN }>().0);
                (q, neg_sums, x.d.as_chunks::<{ SUPER / QK }>().0)
            });
            for (q, neg_sums, d) in x {
                assert!(q.len() == blocks.len() && neg_sums.len() == blocks.len() && d.len() == blocks.len());
            }
            let twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
            let of_lane = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
            let of_lane: [_; 4] = std::array::from_fn(|i| _mm512_add_epi32(of_lane, _mm512_set1_epi32(4 * i as i32)));
            // Flips the sign bit, which is to add 128 modulo 256.
            let (zero, raise) = (_mm512_setzero_si512(), _mm512_set1_epi8(-128));
            let mut sums = [[_mm512_setzero_ps(); N]; 2];
            for (i, block) in blocks.iter().enumerate() {
                for line in 0..$bytes / 64 + 1 {
                    fetch(ahead, i * $bytes + 64 * line);
                }
                let (mut w, scales_of_block) = ($read(block), $scales(block));
                let mut start = [zero; 4];
                // One of the two factors is raised to be unsigned: the weights, where there is but one vector, else the
                // vectors, so that their sums need not be read.
                if N > 1 {
                    for part in 0..4 {
                        w[part] = _mm512_sub_epi8(w[part], _mm512_set1_epi8(1 << $offset));
                        start[part] = _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, raise, w[part]));
                    }
                }
                for v in 0..N {
                    let (q, neg_sums, d) = (&x[v].0[i], &x[v].1[i], &x[v].2[i]);
                    // SAFETY: the array has eight elements.
                    let d = _mm512_castps256_ps512(unsafe { _mm256_loadu_ps(d.as_ptr()) });
                    let scales = _mm512_mul_ps(scales_of_block, _mm512_permutexvar_ps(twice, d));
                    for part in 0..4 {
                        // SAFETY: 256 bytes and 64 sums.
                        let products = unsafe {
                            let q = _mm512_loadu_si512(q.as_ptr().add(64 * part).cast());
                            if N == 1 {
                                let neg_sums = _mm512_loadu_si512(neg_sums.as_ptr().add(16 * part).cast());
                                _mm512_dpbusd_epi32(_mm512_slli_epi32::<$offset>(neg_sums), w[part], q)
                            } else {
                                _mm512_dpbusd_epi32(start[part], _mm512_xor_si512(q, raise), w[part])
                            }
                        };
                        let scale = _mm512_permutexvar_ps(of_lane[part], scales);
                        sums[part % 2][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sums[part % 2][v]);
                    }
                }
            }
            super::dot::total(sums)
        }
    };
}

signed!(q6_k, Q6_K_BYTES, 5, read_q6_k, scales_of_q6_k);
signed!(q3_k, Q3_K_BYTES, 2, read_q3_k, scales_of_q3_k);

/// The values of a `Q3_K` block, offset by 4, 64 at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(in crate::cpu) fn read_q3_k(block: &[u8; Q3_K_BYTES]) -> [__m512i; 4] {
    let mut q = [_mm512_setzero_si512(); 4];
    // SAFETY: 32 bytes; then 32 more for each half.
    let bits = |at: usize| _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(block.as_ptr().add(at).cast()) });
    let third = bits(0);
    for (part, q) in q.iter_mut().enumerate() {
        // Of 32 elements each: their lowest two bits, and where the third one, bit `sub`, comes to bit 2.
        let (low, sub) = (4 * (part as i64 % 2), 2 * part as i64);
        let shift = _mm512_set_epi64(low + 2, low + 2, low + 2, low + 2, low, low, low, low);
        let (first, second) = ((sub + 62) % 64, (sub + 63) % 64);
        let rotation = _mm512_set_epi64(second, second, second, second, first, first, first, first);
        let lower = _mm512_and_si512(_mm512_srlv_epi64(bits(32 + 32 * (part / 2)), shift), _mm512_set1_epi8(3));
        // lower | (rotated & 4)
        let rotated = _mm512_rorv_epi64(third, rotation);
        *q = _mm512_ternarylogic_epi32::<0xf8>(lower, rotated, _mm512_set1_epi8(4));
    }
    q
}

/// The 16 scales of a `Q3_K` block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(in crate::cpu) fn scales_of_q3_k(block: &[u8; Q3_K_BYTES]) -> __m512 {
    let Some([low @ .., t0, t1, t2, t3, d0, d1]) = block.last_chunk::<14>() else { unreachable!() };
    let (low, top) = (i64::from_le_bytes(*low), i32::from_le_bytes([*t0, *t1, *t2, *t3]));
    let low = _mm_and_si128(_mm_set_epi64x(low >> 4, low), _mm_set1_epi8(15));
    // Four times the same bytes, shifted so that the two bits of each come to bits 4 and 5.
    let top = _mm_rorv_epi32(_mm_set1_epi32(top), _mm_set_epi32(2, 0, 30, 28));
    // low | (top & 0x30)
    let bytes = _mm_ternarylogic_epi32::<0xf8>(low, top, _mm_set1_epi8(0x30));
    let signed = _mm_sub_epi8(bytes, _mm_set1_epi8(32));
    let d = _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes([*d0, *d1])));
    _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(signed)), d)
}

/// The values of a `Q2_K` block times their scales without the factor of these, at most 45, in the order of `Supers`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn read_q2_k(block: &[u8; Q2_K_BYTES]) -> [__m512i; 4] {
    // SAFETY: 16 bytes, then 64.
    let (scales, pairs) =
        unsafe { (_mm_loadu_si128(block.as_ptr().cast()), _mm512_loadu_si512(block.as_ptr().add(16).cast())) };
    let scales = _mm512_cvtepu8_epi32(_mm_and_si128(scales, _mm_set1_epi8(15)));
    // In each word a table: what 0, 1, 2 and 3 are times the scale.
    let tables = _mm512_mullo_epi32(scales, _mm512_set1_epi32(0x0302_0100));
    let first = _mm512_set_epi32(12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0);
    let even = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    let odd = _mm512_add_epi64(even, _mm512_set1_epi64(2));
    let (first_16, last_16) =
        (_mm512_shuffle_i32x4::<0b10_10_00_00>(pairs, pairs), _mm512_shuffle_i32x4::<0b11_11_01_01>(pairs, pairs));
    let value = |bytes, shift, sub: i32| {
        let table = _mm512_permutexvar_epi32(_mm512_add_epi32(first, _mm512_set1_epi32(sub)), tables);
        _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srlv_epi64(bytes, shift), _mm512_set1_epi8(3)))
    };
    [value(first_16, even, 0), value(first_16, odd, 2), value(last_16, even, 1), value(last_16, odd, 3)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn q2_k<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
    let (blocks, x) = (row.as_chunks::<Q2_K_BYTES>().0, x.map(|x| x.supers));
    for x in x {
        assert!(x.q.len() == blocks.len() && x.factors.len() == blocks.len() && x.sums.len() == blocks.len());
    }
    let of_even = _mm512_set_epi32(12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0);
    let of_odd = _mm512_add_epi32(of_even, _mm512_set1_epi32(2));
    let zeros = [_mm512_setzero_ps(); N];
    let (mut even, mut odd, mut minima) = (zeros, zeros, zeros);
    for (i, block) in blocks.iter().enumerate() {
        for line in 0..Q2_K_BYTES / 64 + 1 {
            fetch(ahead, i * Q2_K_BYTES + 64 * line);
        }
        let [a, b, c, d] = read_q2_k(block);
        let factor = |at: usize| _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes([block[at], block[at + 1]])));
        let (scale, min) = (factor(80), factor(82));
        // SAFETY: 16 bytes.
        let mins = _mm_srli_epi16::<4>(unsafe { _mm_loadu_si128(block.as_ptr().cast()) });
        let mins = _mm512_cvtepu8_epi32(_mm_and_si128(mins, _mm_set1_epi8(15)));
        let mins = _mm512_mul_ps(_mm512_cvtepi32_ps(mins), min);
        for v in 0..N {
            let q = &x[v].q[i];
            // SAFETY: a group has 256 bytes.
            let q = |part: usize| unsafe { _mm512_loadu_si512(q.as_ptr().add(64 * part).cast()) };
            let zero = _mm512_setzero_si512();
            let even_products = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, a, q(0)), c, q(2));
            let odd_products = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, b, q(1)), d, q(3));
            let scales = _mm512_mul_ps(scale, f32x16(&x[v].factors[i]));
            let scale = |which| _mm512_permutexvar_ps(which, scales);
            even[v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(even_products), scale(of_even), even[v]);
            odd[v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(odd_products), scale(of_odd), odd[v]);
            minima[v] = _mm512_fmadd_ps(mins, f32x16(&x[v].sums[i]), minima[v]);
        }
    }
    let mut all = [0.0; N];
    for v in 0..N {
        all[v] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(even[v], odd[v]), minima[v]));
    }
    all
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn iq4_xs<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
    let (blocks, x) = (row.as_chunks::<IQ4_XS_BYTES>().0, x.map(|x| x.halves));
    for x in x {
        assert_eq!(x.len(), 2 * blocks.len());
    }
    let of_lane = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    let of_lane = [of_lane, _mm512_add_epi32(of_lane, _mm512_set1_epi32(4))];
    let (levels, mask) = (super::dot::levels(), _mm512_set1_epi8(15));
    let mut sums = [[_mm512_setzero_ps(); N]; 2];
    for (i, block) in blocks.iter().enumerate() {
        for line in 0..IQ4_XS_BYTES / 64 + 1 {
            fetch(ahead, i * IQ4_XS_BYTES + 64 * line);
        }
        let scales = scales_of_iq4_xs(block);
        for half in 0..2 {
            // SAFETY: 64 bytes from 8 on, and 64 more.
            let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().add(8 + 64 * half).cast()) };
            let low = _mm512_shuffle_epi8(levels, _mm512_and_si512(bytes, mask));
            let high = _mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask));
            let scale = _mm512_permutexvar_ps(of_lane[half], scales);
            for v in 0..N {
                let x = &x[v][2 * i + half];
                let (q_low, q_high) = super::dot::bytes(&x.q);
                // Weights are offset by 128.
                let products = _mm512_slli_epi32::<7>(super::i32x16(&x.neg_sums));
                let products = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(products, low, q_low), high, q_high);
                let scale = _mm512_mul_ps(scale, f32x16(&x.d));
                sums[half][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sums[half][v]);
            }
        }
    }
    super::dot::total(sums)
}

/// The eight scales of an `IQ4_XS` block, and eight that have no meaning.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(in crate::cpu) fn scales_of_iq4_xs(block: &[u8; IQ4_XS_BYTES]) -> __m512 {
    let [d0, d1, top0, top1, low0, low1, low2, low3, ..] = block;
    let low = _mm256_set1_epi32(i32::from_le_bytes([*low0, *low1, *low2, *low3]));
    let low = _mm256_srlv_epi32(low, _mm256_set_epi32(28, 24, 20, 16, 12, 8, 4, 0));
    // Bit 2 k comes to bit 4.
    let top = _mm256_set1_epi32(i32::from(u16::from_le_bytes([*top0, *top1])));
    let top = _mm256_rorv_epi32(top, _mm256_set_epi32(10, 8, 6, 4, 2, 0, 30, 28));
    let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    // low | (top & 0x30)
    let bits = _mm256_ternarylogic_epi32::<0xf8>(low, top, _mm256_set1_epi32(0x30));
    let d = _mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes([*d0, *d1])));
    let scales = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(bits, _mm256_set1_epi32(32))), d);
    _mm512_castps256_ps512(scales)
}
