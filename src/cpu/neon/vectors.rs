//! Loads, scales and conversions that several kernels share.
#![allow(unsafe_code, reason = "vector loads take raw pointers")]

use std::arch::aarch64::*;

/// 16 bytes from `at` on.
#[inline(always)]
pub fn load<const N: usize>(bytes: &[u8; N], at: usize) -> uint8x16_t {
    assert!(at + 16 <= N);
    // SAFETY: the line above, and every AArch64 processor has NEON.
    unsafe { vld1q_u8(bytes.as_ptr().add(at)) }
}

/// 16 signed bytes from `at` on.
#[inline(always)]
pub fn signed<const N: usize>(bytes: &[i8; N], at: usize) -> int8x16_t {
    assert!(at + 16 <= N);
    // SAFETY: the line above, and every AArch64 processor has NEON.
    unsafe { vld1q_s8(bytes.as_ptr().add(at)) }
}

/// The F16 number at byte `at`.
#[inline(always)]
pub fn f16_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let bits = vdup_n_u16(u16::from_le_bytes([block[at], block[at + 1]]));
        vgetq_lane_f32::<0>(vcvt_f32_f16(vreinterpret_f16_u16(bits)))
    }
}

/// The F16 numbers at byte `at` of four blocks.
#[inline(always)]
pub fn f16x4<const N: usize>(blocks: &[[u8; N]; 4], at: usize) -> float32x4_t {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let [a, b, c, d] = blocks.each_ref().map(|block| u16::from_le_bytes([block[at], block[at + 1]]));
        let bits = vset_lane_u16::<3>(d, vset_lane_u16::<2>(c, vset_lane_u16::<1>(b, vdup_n_u16(a))));
        vcvt_f32_f16(vreinterpret_f16_u16(bits))
    }
}

/// 16 small integers as they are, four at a time.
#[inline(always)]
pub fn widen(v: int8x16_t) -> [int32x4_t; 4] {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let (low, high) = (vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v));
        [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
    }
}

/// The same for unsigned ones.
#[inline(always)]
pub fn widen_unsigned(v: uint8x16_t) -> [int32x4_t; 4] {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let (low, high) = (vmovl_u8(vget_low_u8(v)), vmovl_high_u8(v));
        [vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)]
            .map(|v| vreinterpretq_s32_u32(v))
    }
}

/// 16 signed bytes divided by 2 to the power of `fraction`, as floats, four at a time.
#[inline(always)]
pub fn floats(v: int8x16_t, fraction: u32) -> [float32x4_t; 4] {
    /// Brings bytes to the top of lanes, with zeros below.
    const PLACES: [[u8; 16]; 4] = {
        let mut places = [[255; 16]; 4];
        let mut i = 0;
        while i < 16 {
            places[i / 4][i % 4 * 4 + 3] = i as u8;
            i += 1;
        }
        places
    };
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        PLACES.map(|places| {
            let lanes = vreinterpretq_s32_s8(vqtbl1q_s8(v, load(&places, 0)));
            match fraction {
                0 => vcvtq_n_f32_s32::<24>(lanes),
                2 => vcvtq_n_f32_s32::<26>(lanes),
                4 => vcvtq_n_f32_s32::<28>(lanes),
                _ => unreachable!("no type has such a fraction"),
            }
        })
    }
}

/// Sums divided by 2 to the power of `fraction`, as floats.
#[inline(always)]
pub fn sums(v: int32x4_t, fraction: u32) -> float32x4_t {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        match fraction {
            0 => vcvtq_f32_s32(v),
            2 => vcvtq_n_f32_s32::<2>(v),
            4 => vcvtq_n_f32_s32::<4>(v),
            _ => unreachable!("no type has such a fraction"),
        }
    }
}

/// Vectors of bytes of two rows, brought together for products of matrices.
pub trait Zip: Copy {
    /// The lower halves of each vector of `a` and `b`, then the upper ones.
    fn zip(a: Self, b: Self) -> [Self; 2];
}

impl Zip for uint8x16_t {
    #[inline(always)]
    fn zip(a: Self, b: Self) -> [Self; 2] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let (a, b) = (vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b));
            [vreinterpretq_u8_u64(vzip1q_u64(a, b)), vreinterpretq_u8_u64(vzip2q_u64(a, b))]
        }
    }
}

impl<T: Zip, const N: usize> Zip for [T; N] {
    #[inline(always)]
    fn zip(a: Self, b: Self) -> [Self; 2] {
        let mut both = [a, b];
        for i in 0..N {
            let [low, high] = T::zip(a[i], b[i]);
            (both[0][i], both[1][i]) = (low, high);
        }
        both
    }
}
