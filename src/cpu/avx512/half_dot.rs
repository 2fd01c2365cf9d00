//! Dot products of one row and some vectors, for blocks of half-bytes that begin with more than a scale, or with another one:
//! a minimum, fifth bits, an exponent. Four blocks at a time.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::activations::{ActRow, GROUP, Halves};
use super::dot::{bytes, half_bytes};
use super::{f32x16, fetch, i32x16, scales};
use crate::quant::blocks::QK;
use crate::quant::mxfp4::{self, LEVELS, OFFSET};
use std::arch::x86_64::*;

/// Blocks per step.
const GROUP_BLOCKS: usize = GROUP / QK;

/// Bytes of a `Q4_1` block: the scale, the minimum, the half-bytes.
const Q4_1_BYTES: usize = 20;
/// Bytes of a `Q5_0` block: the scale, the fifth bits, the half-bytes.
const Q5_0_BYTES: usize = 22;
/// Bytes of a `Q5_1` block: the scale, the minimum, the fifth bits, the half-bytes.
const Q5_1_BYTES: usize = 24;

/// What is unpacked of a group: its first and its last halves, the scale of each lane, and the minimum of each block.
struct Unpacked {
    low: __m512i,
    high: __m512i,
    scale: __m512,
    minima: __m128,
}

/// Dot products of blocks that `$unpack` turns into values that are offset by 2 to the power of `$offset`, or by nothing where
/// they have minima.
macro_rules! half_bytes {
    ($name:ident, $bytes:expr, $offset:literal, $has_min:literal, $unpack:path) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
        pub(super) fn $name<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
            const BYTES: usize = GROUP_BLOCKS * $bytes;
            let (groups, tail) = row.as_chunks::<BYTES>();
            let (n_groups, n_tail) = (groups.len(), tail.len() / $bytes);
            let (halves, ds) = (x.map(|x| x.halves), x.map(|x| x.ds.as_chunks::<GROUP_BLOCKS>()));
            for v in 0..N {
                assert_eq!(halves[v].len(), n_groups + usize::from(n_tail > 0));
                assert!(ds[v].0.len() == n_groups && ds[v].1.len() == n_tail);
            }
            let mut sums = [_mm512_setzero_ps(); N];
            let mut minima = [_mm_setzero_ps(); N];
            for (i, group) in groups.iter().enumerate() {
                fetch(ahead, i * BYTES);
                fetch(ahead, i * BYTES + 64);
                let w = $unpack(group);
                add::<$offset, $has_min, N>(&w, &halves, i, &mut sums);
                if $has_min {
                    for v in 0..N {
                        // SAFETY: the array has four elements.
                        minima[v] = _mm_fmadd_ps(w.minima, unsafe { _mm_loadu_ps(ds[v].0[i].as_ptr()) }, minima[v]);
                    }
                }
            }
            if n_tail > 0 {
                let mut group = [0; BYTES];
                group[..tail.len()].copy_from_slice(tail);
                let w = $unpack(&group);
                add::<$offset, $has_min, N>(&w, &halves, n_groups, &mut sums);
                for v in 0..N {
                    let mut padded = [0.0; GROUP_BLOCKS];
                    padded[..n_tail].copy_from_slice(ds[v].1);
                    // SAFETY: the array has four elements.
                    minima[v] = _mm_fmadd_ps(w.minima, unsafe { _mm_loadu_ps(padded.as_ptr()) }, minima[v]);
                }
            }
            let mut all = [0.0; N];
            for v in 0..N {
                all[v] = _mm512_reduce_add_ps(_mm512_add_ps(sums[v], _mm512_zextps128_ps512(minima[v])));
            }
            all
        }
    };
}

/// Adds the products of a group with number `i` of each vector to their sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn add<const OFFSET: u32, const HAS_MIN: bool, const N: usize>(
    w: &Unpacked,
    x: &[&[Halves]; N],
    i: usize,
    sums: &mut [__m512; N],
) {
    for v in 0..N {
        let x = &x[v][i];
        let (q_low, q_high) = bytes(&x.q);
        let start = if HAS_MIN { _mm512_setzero_si512() } else { _mm512_slli_epi32::<OFFSET>(i32x16(&x.neg_sums)) };
        let products = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(start, w.low, q_low), w.high, q_high);
        let scale = _mm512_mul_ps(w.scale, f32x16(&x.d));
        sums[v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sums[v]);
    }
}

half_bytes!(q4_1, Q4_1_BYTES, 0, true, unpack_q4_1);
half_bytes!(q5_0, Q5_0_BYTES, 4, false, unpack_q5_0);
half_bytes!(q5_1, Q5_1_BYTES, 0, true, unpack_q5_1);
half_bytes!(mxfp4, mxfp4::BYTES, 4, false, unpack_mxfp4);

/// The first 64 bytes of a group, or those from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn load(group: &[u8], at: usize) -> __m512i {
    let bytes = &group[at..at + 64];
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The low and the high halves of the last 16 bytes of each block of `BYTES`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn low_and_high<const BYTES: usize>(group: &[u8]) -> (__m512i, __m512i) {
    let (nibbles, mask) = (half_bytes::<BYTES>(group), _mm512_set1_epi8(15));
    (_mm512_and_si512(nibbles, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(nibbles), mask))
}

/// The scales of the lanes and the minima of the blocks, from words: 16 that are F16 scales, then four that are minima.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn floats(words: __m512i) -> (__m512, __m128) {
    (_mm512_cvtph_ps(_mm512_castsi512_si256(words)), _mm_cvtph_ps(_mm512_extracti32x4_epi32::<2>(words)))
}

/// For [`floats`]: words `every * b` for the lanes of block `b`, and those behind them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn scale_and_minimum_words(every: i16) -> __m512i {
    let words: [i16; 32] = std::array::from_fn(|i| match i as i16 {
        lane @ 0..16 => lane / 4 * every,
        lane => lane % 4 * every + 1,
    });
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn unpack_q4_1(group: &[u8; GROUP_BLOCKS * Q4_1_BYTES]) -> Unpacked {
    let (low, high) = low_and_high::<Q4_1_BYTES>(group);
    let words = _mm512_permutexvar_epi16(scale_and_minimum_words(Q4_1_BYTES as i16 / 2), load(group, 0));
    let (scale, minima) = floats(words);
    Unpacked { low, high, scale, minima }
}

/// Adds 16 to those half-bytes whose bit is set: the bits of each block begin at bit `FIRST` of its quarter's 64-bit halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn with_fifth_bits<const FIRST: usize>(low: __m512i, high: __m512i, heads: __m512i) -> (__m512i, __m512i) {
    // Eight bits from where the own one comes to bit 4.
    let at: [u8; 64] = std::array::from_fn(|i| (FIRST + i % 16 - 4) as u8);
    // SAFETY: the array has 64 bytes.
    let at = unsafe { _mm512_loadu_si512(at.as_ptr().cast()) };
    let of_high = _mm512_add_epi8(at, _mm512_set1_epi8(16));
    let bit = _mm512_set1_epi8(16);
    // half | (bits & 16)
    let with = |half, at| _mm512_ternarylogic_epi32::<0xf8>(half, _mm512_multishift_epi64_epi8(at, heads), bit);
    (with(low, at), with(high, of_high))
}

/// Offset by 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn unpack_q5_0(group: &[u8; GROUP_BLOCKS * Q5_0_BYTES]) -> Unpacked {
    let (low, high) = low_and_high::<Q5_0_BYTES>(group);
    // The first eight bytes of each block, twice. Those of the last one lie behind the first 64.
    let places: [u8; 64] = std::array::from_fn(|i| (i / 16 * Q5_0_BYTES + i % 8) as u8);
    // SAFETY: the array has 64 bytes.
    let places = unsafe { _mm512_loadu_si512(places.as_ptr().cast()) };
    let [a, b, c, d, e, f, g, h, ..] = group[3 * Q5_0_BYTES..] else { unreachable!() };
    let last = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let heads = _mm512_mask_set1_epi64(_mm512_permutexvar_epi8(places, load(group, 0)), 0b1100_0000, last);
    let (low, high) = with_fifth_bits::<16>(low, high, heads);
    let scale = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(scales::<16>(), heads)));
    Unpacked { low, high, scale, minima: _mm_setzero_ps() }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn unpack_q5_1(group: &[u8; GROUP_BLOCKS * Q5_1_BYTES]) -> Unpacked {
    let (low, high) = low_and_high::<Q5_1_BYTES>(group);
    // The first eight bytes of each block, twice: double words of the group, of which 16 and more are in the second vector.
    let places = _mm512_set_epi32(27, 26, 27, 26, 13, 12, 13, 12, 7, 6, 7, 6, 1, 0, 1, 0);
    let heads = _mm512_permutex2var_epi32(load(group, 0), places, load(group, 32));
    let (low, high) = with_fifth_bits::<32>(low, high, heads);
    let (scale, minima) = floats(_mm512_permutexvar_epi16(scale_and_minimum_words(8), heads));
    Unpacked { low, high, scale, minima }
}

/// Offset by 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn unpack_mxfp4(group: &[u8; GROUP_BLOCKS * mxfp4::BYTES]) -> Unpacked {
    let (low, high) = low_and_high::<{ mxfp4::BYTES }>(group);
    let levels = LEVELS.map(|level| level + (16 - OFFSET));
    // SAFETY: the array has 16 bytes.
    let levels = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(levels.as_ptr().cast()) });
    let (low, high) = (_mm512_shuffle_epi8(levels, low), _mm512_shuffle_epi8(levels, high));
    let places: [u8; 64] = std::array::from_fn(|i| (i / 16 * mxfp4::BYTES) as u8);
    // SAFETY: the array has 64 bytes.
    let places = unsafe { _mm512_loadu_si512(places.as_ptr().cast()) };
    let exponents = _mm512_maskz_permutexvar_epi8(0x1111_1111_1111_1111, places, load(group, 0));
    // As `mxfp4::scale`.
    let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(exponents, _mm512_set1_epi32(1)));
    let small = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), exponents);
    let is_small = _mm512_cmplt_epu32_mask(exponents, _mm512_set1_epi32(2));
    let scale = _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, is_small, small));
    Unpacked { low, high, scale, minima: _mm_setzero_ps() }
}
