//! Dot products of one row and some vectors, for the types whose blocks have 32 elements and for floats.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::activations::{ActRow, GROUP};
use super::{f32x16, fetch, i32x16, scales};
use crate::quant::blocks::{Q4_0_BYTES, Q8_0_BYTES, QK};
use std::arch::x86_64::*;

/// Blocks per step.
const GROUP_BLOCKS: usize = GROUP / QK;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn q4_0<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
    const BYTES: usize = GROUP_BLOCKS * Q4_0_BYTES;
    let (groups, tail) = row.as_chunks::<BYTES>();
    let x = x.map(|x| x.halves);
    for x in &x {
        assert!(x.q.len() == x.d.len() && x.q.len() == x.neg_sums.len());
        assert_eq!(groups.len() + usize::from(!tail.is_empty()), x.q.len());
    }
    let scale_words = scales::<Q4_0_BYTES>();
    let mut sums = [[_mm512_setzero_ps(); N]; 2];
    for (i, group) in groups.iter().enumerate() {
        fetch(ahead, i * 64);
        let w = unpack_q4_0(group, scale_words);
        let [mut sum, other] = sums;
        for v in 0..N {
            sum[v] = add_q4_0(w, &x[v].q[i], &x[v].d[i], &x[v].neg_sums[i], sum[v]);
        }
        // Taking turns like this keeps both in registers, as an index would not.
        sums = [other, sum];
    }
    // Groups are a little longer than cache lines.
    for line in groups.len()..row.len().div_ceil(64) {
        fetch(ahead, line * 64);
    }
    if !tail.is_empty() {
        let i = groups.len();
        let mut group = [0; BYTES];
        group[..tail.len()].copy_from_slice(tail);
        let w = unpack_q4_0(&group, scale_words);
        for v in 0..N {
            sums[0][v] = add_q4_0(w, &x[v].q[i], &x[v].d[i], &x[v].neg_sums[i], sums[0][v]);
        }
    }
    total(sums)
}

/// The low and the high halves of a group's bytes, and the scale of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn unpack_q4_0(group: &[u8; GROUP_BLOCKS * Q4_0_BYTES], scale_words: __m512i) -> (__m512i, __m512i, __m512) {
    let nibbles = half_bytes::<Q4_0_BYTES>(group);
    let low = _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(nibbles), _mm512_set1_epi8(15));
    // SAFETY: a group is longer than 64 bytes.
    let head = unsafe { _mm512_loadu_si512(group.as_ptr().cast()) };
    let scale = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(scale_words, head)));
    (low, high, scale)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn add_q4_0(
    (low, high, scale): (__m512i, __m512i, __m512),
    q: &[i8; GROUP],
    d: &[f32; 16],
    neg_sums: &[i32; 16],
    sum: __m512,
) -> __m512 {
    let (q_low, q_high) = bytes(q);
    // Weights are offset by 8.
    let products = _mm512_slli_epi32::<3>(i32x16(neg_sums));
    let products = _mm512_dpbusd_epi32(products, low, q_low);
    let products = _mm512_dpbusd_epi32(products, high, q_high);
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(scale, f32x16(d)), sum)
}

/// The two sums of each vector, added up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn total<const N: usize>([a, b]: [[__m512; N]; 2]) -> [f32; N] {
    let mut all = [0.0; N];
    for v in 0..N {
        all[v] = _mm512_reduce_add_ps(_mm512_add_ps(a[v], b[v]));
    }
    all
}

/// The last 16 bytes of each of four blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn half_bytes<const BYTES: usize>(group: &[u8]) -> __m512i {
    assert_eq!(group.len(), 4 * BYTES);
    let v: __m512i;
    // In assembly, because the compiler turns four loads and three insertions into twice as many instructions.
    // SAFETY: each load ends where a block of the group ends.
    unsafe {
        std::arch::asm!(
            "vmovdqu {v:x}, [{p} + {at0}]",
            "vinserti32x4 {v}, {v}, [{p} + {at1}], 1",
            "vinserti32x4 {v}, {v}, [{p} + {at2}], 2",
            "vinserti32x4 {v}, {v}, [{p} + {at3}], 3",
            p = in(reg) group.as_ptr(),
            v = out(zmm_reg) v,
            at0 = const BYTES - 16,
            at1 = const 2 * BYTES - 16,
            at2 = const 3 * BYTES - 16,
            at3 = const 4 * BYTES - 16,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    v
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn bytes(q: &[i8; GROUP]) -> (__m512i, __m512i) {
    // SAFETY: the array has 128 bytes.
    unsafe { (_mm512_loadu_si512(q.as_ptr().cast()), _mm512_loadu_si512(q.as_ptr().add(64).cast())) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn q8_0<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
    const BYTES: usize = 2 * Q8_0_BYTES;
    let (pairs, tail) = row.as_chunks::<BYTES>();
    let n_blocks = row.len() / Q8_0_BYTES;
    for x in x {
        assert!(x.q.len() == n_blocks * QK && x.d.len() == n_blocks && x.neg_sums.len() == n_blocks * QK / 4);
    }
    let first_or_second = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    let scale_words = _mm512_mullo_epi16(_mm512_set1_epi32(Q8_0_BYTES as i32 / 2), first_or_second);
    let scale_words = _mm512_cvtepi32_epi16(scale_words);
    let mut sums = [[_mm512_setzero_ps(); N]; 2];
    for (i, pair) in pairs.iter().enumerate() {
        fetch(ahead, i * 64);
        // SAFETY: a pair has 68 bytes, and x has 64 bytes, 16 sums and 2 scales for each.
        unsafe {
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(pair.as_ptr().add(2).cast()));
            let w = _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(pair.as_ptr().add(Q8_0_BYTES + 2).cast()));
            let head = _mm512_loadu_si512(pair.as_ptr().cast());
            let words = _mm512_permutexvar_epi16(_mm512_castsi256_si512(scale_words), head);
            let scale = _mm512_cvtph_ps(_mm512_castsi512_si256(words));
            // With the sign bit flipped, weights are offset by 128.
            let w = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
            let [mut sum, other] = sums;
            for v in 0..N {
                let x = x[v];
                let d = _mm512_castpd_ps(_mm512_set1_pd(x.d.as_ptr().add(2 * i).cast::<f64>().read_unaligned()));
                let d = _mm512_permutexvar_ps(first_or_second, d);
                let products = _mm512_slli_epi32::<7>(_mm512_loadu_si512(x.neg_sums.as_ptr().add(16 * i).cast()));
                let products = _mm512_dpbusd_epi32(products, w, _mm512_loadu_si512(x.q.as_ptr().add(64 * i).cast()));
                sum[v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(scale, d), sum[v]);
            }
            sums = [other, sum];
        }
    }
    for line in pairs.len()..row.len().div_ceil(64) {
        fetch(ahead, line * 64);
    }
    if !tail.is_empty() {
        let i = n_blocks - 1;
        for v in 0..N {
            let x = x[v];
            // SAFETY: a block has 34 bytes, and x has 32 bytes and 8 sums for it.
            unsafe {
                let w = _mm256_loadu_si256(tail.as_ptr().add(2).cast());
                let products = _mm256_slli_epi32::<7>(_mm256_loadu_si256(x.neg_sums.as_ptr().add(8 * i).cast()));
                let w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
                let products = _mm256_dpbusd_epi32(products, w, _mm256_loadu_si256(x.q.as_ptr().add(32 * i).cast()));
                let scale = _mm256_set1_ps(crate::quant::blocks::scale(tail) * x.d[i]);
                let part = _mm512_zextps256_ps512(_mm256_mul_ps(_mm256_cvtepi32_ps(products), scale));
                sums[0][v] = _mm512_add_ps(sums[0][v], part);
            }
        }
    }
    total(sums)
}

/// Dot products of a row of floats that `$read` loads 16 at a time; its mask says how many there are.
macro_rules! floats {
    ($name:ident, $bytes:literal, $read:expr) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
        pub(super) fn $name<const N: usize>(row: &[u8], ahead: &[u8], x: [&ActRow; N]) -> [f32; N] {
            const STEP: usize = 64;
            let x = x.map(|x| x.f32);
            let n = row.len() / $bytes;
            for x in x {
                assert_eq!(row.len(), x.len() * $bytes);
            }
            let mut sums = [[_mm512_setzero_ps(); N]; 4];
            let mut i = 0;
            while i + STEP <= n {
                for line in 0..$bytes {
                    fetch(ahead, i * $bytes + line * 64);
                }
                for j in 0..4 {
                    // SAFETY: 16 elements from i + 16 j on are in the row and in each x, whose lengths agree.
                    unsafe {
                        let w = $read(row.as_ptr().add((i + 16 * j) * $bytes), !0);
                        for v in 0..N {
                            let x = _mm512_loadu_ps(x[v].as_ptr().add(i + 16 * j));
                            sums[j][v] = _mm512_fmadd_ps(w, x, sums[j][v]);
                        }
                    }
                }
                i += STEP;
            }
            while i < n {
                let mask = ((1u32 << (n - i).min(16)) - 1) as __mmask16;
                // SAFETY: the mask leaves out what is beyond the end.
                unsafe {
                    let w = $read(row.as_ptr().add(i * $bytes), mask);
                    for v in 0..N {
                        let x = _mm512_maskz_loadu_ps(mask, x[v].as_ptr().add(i));
                        sums[0][v] = _mm512_fmadd_ps(w, x, sums[0][v]);
                    }
                }
                i += 16;
            }
            let mut all = [0.0; N];
            for v in 0..N {
                let [a, b, c, d] = sums.map(|sums| sums[v]);
                all[v] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
            }
            all
        }
    };
}

floats!(f32, 4, super::read_f32);
floats!(f16, 2, super::read_f16);
floats!(bf16, 2, super::read_bf16);
