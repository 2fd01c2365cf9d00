//! Dot products of one or two rows and some vectors, for the types whose blocks have 32 elements and for floats.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::activations::{ActRow, GROUP, Halves};
use super::{f32x16, fetch, i32x16, scales};
use crate::quant::blocks::{Q4_0_BYTES, Q8_0_BYTES, QK};
use crate::quant::iq4::LEVELS;
use std::arch::x86_64::*;

/// Blocks per step.
const GROUP_BLOCKS: usize = GROUP / QK;

/// Dot products of blocks of half-bytes with an F16 scale before them, which `$unpack` turns into values that are offset by 2
/// to the power of `$offset`.
macro_rules! half_bytes {
    ($name:ident, $offset:literal, $unpack:path) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
        pub(super) fn $name<const R: usize, const N: usize>(
            rows: [&[u8]; R],
            ahead: [&[u8]; R],
            x: [&ActRow; N],
        ) -> [[f32; N]; R] {
            const BYTES: usize = GROUP_BLOCKS * Q4_0_BYTES;
            let rows = rows.map(|row| row.as_chunks::<BYTES>());
            let [(first, tail), ..] = rows[..] else { unreachable!() };
            let (n_groups, n_tail) = (first.len(), tail.len());
            for (groups, tail) in &rows {
                assert!(groups.len() == n_groups && tail.len() == n_tail);
            }
            let x = x.map(|x| x.halves);
            for x in &x {
                assert_eq!(n_groups + usize::from(n_tail > 0), x.len());
            }
            let scale_words = scales::<Q4_0_BYTES>();
            let mut sums = [[[_mm512_setzero_ps(); N]; R]; 2];
            for i in 0..n_groups {
                let mut w = [$unpack(&rows[0].0[i], scale_words); R];
                fetch(ahead[0], i * 64);
                for r in 1..R {
                    w[r] = $unpack(&rows[r].0[i], scale_words);
                    fetch(ahead[r], i * 64);
                }
                // Taking turns like this keeps both in registers, as an index would not; two groups in one step would not either.
                sums = [sums[1], add_group::<$offset, R, N>(w, &x, i, sums[0])];
            }
            // Groups are a little longer than cache lines.
            for line in n_groups..(n_groups * BYTES + n_tail).div_ceil(64) {
                ahead.iter().for_each(|ahead| fetch(ahead, line * 64));
            }
            if n_tail > 0 {
                let mut w = [(_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_ps()); R];
                for r in 0..R {
                    let mut group = [0; BYTES];
                    group[..n_tail].copy_from_slice(rows[r].1);
                    w[r] = $unpack(&group, scale_words);
                }
                sums[0] = add_group::<$offset, R, N>(w, &x, n_groups, sums[0]);
            }
            let mut all = [[0.0; N]; R];
            for r in 0..R {
                all[r] = total([sums[0][r], sums[1][r]]);
            }
            all
        }
    };
}

half_bytes!(q4_0, 3, unpack_q4_0);
half_bytes!(iq4_nl, 7, unpack_iq4_nl);

/// What is unpacked of a group: its first and its last halves, and the scale of each lane.
type Unpacked = (__m512i, __m512i, __m512);

/// Adds the products of a group of each row to the sums of each vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn add_group<const OFFSET: u32, const R: usize, const N: usize>(
    w: [Unpacked; R],
    x: &[&[Halves]; N],
    i: usize,
    mut sums: [[__m512; N]; R],
) -> [[__m512; N]; R] {
    for v in 0..N {
        let x = &x[v][i];
        let ((q_low, q_high), d) = (bytes(&x.q), f32x16(&x.d));
        let start = _mm512_slli_epi32::<OFFSET>(i32x16(&x.neg_sums));
        for r in 0..R {
            let (low, high, scale) = w[r];
            let products = _mm512_dpbusd_epi32(start, low, q_low);
            let products = _mm512_dpbusd_epi32(products, high, q_high);
            sums[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(scale, d), sums[r][v]);
        }
    }
    sums
}

/// The levels that half-bytes of IQ4_NL and IQ4_XS stand for, offset by 128, in each quarter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(in crate::cpu) fn levels() -> __m512i {
    // SAFETY: the array has 16 bytes.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(LEVELS.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn unpack_iq4_nl(group: &[u8; GROUP_BLOCKS * Q4_0_BYTES], scale_words: __m512i) -> Unpacked {
    let (low, high, scale) = unpack_q4_0(group, scale_words);
    (_mm512_shuffle_epi8(levels(), low), _mm512_shuffle_epi8(levels(), high), scale)
}

/// Offset by 8.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn unpack_q4_0(group: &[u8; GROUP_BLOCKS * Q4_0_BYTES], scale_words: __m512i) -> Unpacked {
    let nibbles = half_bytes::<Q4_0_BYTES>(group);
    let low = _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(nibbles), _mm512_set1_epi8(15));
    // SAFETY: a group is longer than 64 bytes.
    let head = unsafe { _mm512_loadu_si512(group.as_ptr().cast()) };
    let scale = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(scale_words, head)));
    (low, high, scale)
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
            // To all quarters: a name for the first alone is not to be had of registers from 16 on.
            "vbroadcasti32x4 {v}, [{p} + {at0}]",
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
pub(super) fn bytes(q: &[i8; GROUP]) -> (__m512i, __m512i) {
    // SAFETY: the array has 128 bytes.
    unsafe { (_mm512_loadu_si512(q.as_ptr().cast()), _mm512_loadu_si512(q.as_ptr().add(64).cast())) }
}

/// A [`Q8_0_BYTES`] pair's bytes, and the scale of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn unpack_q8_0(pair: &[u8; 2 * Q8_0_BYTES], scale_words: __m512i) -> (__m512i, __m512) {
    // SAFETY: a pair has 68 bytes.
    unsafe {
        let low = _mm512_castsi256_si512(_mm256_loadu_si256(pair.as_ptr().add(2).cast()));
        let w = _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(pair.as_ptr().add(Q8_0_BYTES + 2).cast()));
        let words = _mm512_permutexvar_epi16(scale_words, _mm512_loadu_si512(pair.as_ptr().cast()));
        (w, _mm512_cvtph_ps(_mm512_castsi512_si256(words)))
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn q8_0<const R: usize, const N: usize>(
    rows: [&[u8]; R],
    ahead: [&[u8]; R],
    x: [&ActRow; N],
) -> [[f32; N]; R] {
    const BYTES: usize = 2 * Q8_0_BYTES;
    let n_bytes = rows[0].len();
    let n_blocks = n_bytes / Q8_0_BYTES;
    let rows = rows.map(|row| row.as_chunks::<BYTES>());
    let n_pairs = rows[0].0.len();
    for (pairs, tail) in &rows {
        assert!(pairs.len() == n_pairs && pairs.len() * BYTES + tail.len() == n_bytes);
    }
    for x in x {
        assert!(x.q.len() == n_blocks * QK && x.d.len() == n_blocks && x.neg_sums.len() == n_blocks * QK / 4);
    }
    let first_or_second = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    let scale_words = _mm512_mullo_epi16(_mm512_set1_epi32(Q8_0_BYTES as i32 / 2), first_or_second);
    let scale_words = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(scale_words));
    // Flips the sign bit, which is to add 128 modulo 256.
    let raise = _mm512_set1_epi8(-128);
    let mut sums = [[[_mm512_setzero_ps(); N]; R]; 2];
    for i in 0..n_pairs {
        let zero = _mm512_setzero_si512();
        let mut w = [(zero, zero, _mm512_setzero_ps()); R];
        for r in 0..R {
            fetch(ahead[r], i * 64);
            let (q, scale) = unpack_q8_0(&rows[r].0[i], scale_words);
            // One of the two factors is raised to be unsigned: the weights, where there is but one vector, else the
            // vectors, so that their sums need not be read.
            w[r] = if N == 1 {
                (_mm512_xor_si512(q, raise), zero, scale)
            } else {
                (q, _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, raise, q)), scale)
            };
        }
        let [mut sum, other] = sums;
        for v in 0..N {
            // SAFETY: x has 64 bytes, 16 sums and 2 scales for each pair.
            let (q, neg_sums, d) = unsafe {
                let d = x[v].d.as_ptr().add(2 * i).cast::<f64>().read_unaligned();
                let (q, neg_sums) = (x[v].q.as_ptr().add(64 * i), x[v].neg_sums.as_ptr().add(16 * i));
                (_mm512_loadu_si512(q.cast()), neg_sums, _mm512_castpd_ps(_mm512_set1_pd(d)))
            };
            let d = _mm512_permutexvar_ps(first_or_second, d);
            for r in 0..R {
                let (w, start, scale) = w[r];
                let products = if N == 1 {
                    // SAFETY: as above.
                    let neg_sums = unsafe { _mm512_loadu_si512(neg_sums.cast()) };
                    _mm512_dpbusd_epi32(_mm512_slli_epi32::<7>(neg_sums), w, q)
                } else {
                    _mm512_dpbusd_epi32(start, _mm512_xor_si512(q, raise), w)
                };
                sum[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(scale, d), sum[r][v]);
            }
        }
        sums = [other, sum];
    }
    for line in n_pairs..n_bytes.div_ceil(64) {
        ahead.iter().for_each(|ahead| fetch(ahead, line * 64));
    }
    let mut all = [[0.0; N]; R];
    for r in 0..R {
        let (tail, mut sums) = (rows[r].1, [sums[0][r], sums[1][r]]);
        if !tail.is_empty() {
            let i = n_blocks - 1;
            for v in 0..N {
                let x = x[v];
                // SAFETY: a block has 34 bytes, and x has 32 bytes and 8 sums for it.
                unsafe {
                    let w = _mm256_loadu_si256(tail.as_ptr().add(2).cast());
                    let products = _mm256_slli_epi32::<7>(_mm256_loadu_si256(x.neg_sums.as_ptr().add(8 * i).cast()));
                    let (w, q) = (_mm256_xor_si256(w, _mm256_set1_epi8(-128)), x.q.as_ptr().add(32 * i));
                    let products = _mm256_dpbusd_epi32(products, w, _mm256_loadu_si256(q.cast()));
                    let scale = _mm256_set1_ps(crate::quant::blocks::scale(tail) * x.d[i]);
                    let part = _mm512_zextps256_ps512(_mm256_mul_ps(_mm256_cvtepi32_ps(products), scale));
                    sums[0][v] = _mm512_add_ps(sums[0][v], part);
                }
            }
        }
        all[r] = total(sums);
    }
    all
}

/// Dot products of rows of floats that `$read` loads 16 at a time; its mask says how many there are.
macro_rules! floats {
    ($name:ident, $bytes:literal, $read:expr) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
        pub(super) fn $name<const R: usize, const N: usize>(
            rows: [&[u8]; R],
            ahead: [&[u8]; R],
            x: [&ActRow; N],
        ) -> [[f32; N]; R] {
            const STEP: usize = 64;
            let x = x.map(|x| x.f32);
            let n = rows[0].len() / $bytes;
            for row in rows {
                assert_eq!(row.len(), n * $bytes);
            }
            for x in x {
                assert_eq!(x.len(), n);
            }
            let mut sums = [[[_mm512_setzero_ps(); N]; R]; 4];
            let mut i = 0;
            while i + STEP <= n {
                for line in 0..$bytes {
                    ahead.iter().for_each(|ahead| fetch(ahead, i * $bytes + line * 64));
                }
                for j in 0..4 {
                    let at = i + 16 * j;
                    for r in 0..R {
                        // SAFETY: 16 elements from there on are in each row and in each x, whose lengths agree.
                        unsafe {
                            let w = $read(rows[r].as_ptr().add(at * $bytes), !0);
                            for v in 0..N {
                                let x = _mm512_loadu_ps(x[v].as_ptr().add(at));
                                sums[j][r][v] = _mm512_fmadd_ps(w, x, sums[j][r][v]);
                            }
                        }
                    }
                }
                i += STEP;
            }
            while i < n {
                let mask = ((1u32 << (n - i).min(16)) - 1) as __mmask16;
                for r in 0..R {
                    // SAFETY: the mask leaves out what is beyond the end.
                    unsafe {
                        let w = $read(rows[r].as_ptr().add(i * $bytes), mask);
                        for v in 0..N {
                            let x = _mm512_maskz_loadu_ps(mask, x[v].as_ptr().add(i));
                            sums[0][r][v] = _mm512_fmadd_ps(w, x, sums[0][r][v]);
                        }
                    }
                }
                i += 16;
            }
            let mut all = [[0.0; N]; R];
            for r in 0..R {
                for v in 0..N {
                    let [a, b, c, d] = sums.map(|sums| sums[r][v]);
                    all[r][v] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
                }
            }
            all
        }
    };
}

floats!(f32, 4, super::read_f32);
floats!(f16, 2, super::read_f16);
floats!(bf16, 2, super::read_bf16);
