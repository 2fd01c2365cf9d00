//! The super-blocks of 256 elements, as vectors of bytes.
#![allow(unsafe_code, reason = "instructions of NEON")]

use super::bits::{any_of, below, replaced};
use super::blocks::{halves, iq4_levels};
use super::vectors::{Zip, f16_at, load, widen, widen_unsigned};
use std::arch::aarch64::*;

/// How a type of `BYTES` bytes per 256 elements is read.
pub trait Supers<const BYTES: usize> {
    /// The vectors of half a super-block as they are stored; what [`Supers::unpack`] makes of them depends on each byte
    /// alone.
    type Raw: Zip;
    /// By which power of 2 the products of unpacked values and scales are too large.
    const FRACTION: u32 = 0;
    /// Whether the unpacked values are in -32 to 31.
    const SMALL: bool = false;
    /// Elements that have a scale of their own: 16 or 32.
    const PER_SCALE: usize;
    /// Whether there are minima.
    const HAS_MIN: bool = false;

    /// The scales of a super-block.
    fn scales(block: &[u8; BYTES]) -> Scales;

    /// Loads the vectors of half a super-block.
    fn load<const HALF: usize>(block: &[u8; BYTES]) -> Self::Raw;

    /// The values of that half in the order of the elements, signed.
    fn unpack<const HALF: usize>(raw: Self::Raw) -> [int8x16_t; 8];
}

/// The scales of a super-block, in the order of what they belong to. With eight of them the last two vectors are zero.
#[derive(Clone, Copy)]
pub struct Scales {
    /// The factor of the scales.
    pub d: f32,
    /// The scales.
    pub scales: [int32x4_t; 4],
    /// What is subtracted.
    pub minima: [float32x4_t; 4],
}

impl Scales {
    /// Zeros.
    #[inline(always)]
    pub fn none() -> Self {
        // SAFETY: every AArch64 processor has NEON.
        unsafe { Self { d: 0.0, scales: [vdupq_n_s32(0); 4], minima: [vdupq_n_f32(0.0); 4] } }
    }

    #[inline(always)]
    fn without_minima(d: f32, scales: [int32x4_t; 4]) -> Self {
        Self { d, scales, ..Self::none() }
    }
}

pub struct Q2K;
pub struct Q3K;
pub struct Q4K;
pub struct Q5K;
pub struct Q6K;
pub struct Iq4Xs;

/// The eight 6-bit scales and the eight minima at the start of a `Q4_K` or `Q5_K` block.
#[inline(always)]
fn scales_and_minima<const BYTES: usize>(block: &[u8; BYTES]) -> Scales {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let Some(head) = block.first_chunk::<16>() else { unreachable!() };
        let head = u128::from_le_bytes(*head);
        // What `quant::k_quants::scale_and_min` reads: the first four scales and minima, then the other four.
        let (pairs, lower) = ((head >> 32) as u64, (head >> 96) as u64);
        let lower = lower & 0x0f0f_0f0f | (lower >> 4 & 0x0f0f_0f0f) << 32;
        let (first, last) = (pairs & 0x3f3f_3f3f_3f3f_3f3f, pairs >> 2 & 0x3030_3030_3030_3030 | lower);
        let [scales, minima, more_scales, more_minima] =
            widen_unsigned(vcombine_u8(vcreate_u8(first), vcreate_u8(last)));
        let (d_min, none) = (f16_at(block, 2), vdupq_n_s32(0));
        let minimum = |m| vmulq_n_f32(vcvtq_f32_s32(m), d_min);
        Scales {
            d: f16_at(block, 0),
            scales: [scales, more_scales, none, none],
            minima: [minimum(minima), minimum(more_minima), vdupq_n_f32(0.0), vdupq_n_f32(0.0)],
        }
    }
}

impl Supers<144> for Q4K {
    type Raw = [uint8x16_t; 4];
    const SMALL: bool = true;
    const PER_SCALE: usize = 32;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn scales(block: &[u8; 144]) -> Scales {
        scales_and_minima(block)
    }

    #[inline(always)]
    fn load<const HALF: usize>(block: &[u8; 144]) -> Self::Raw {
        [0, 16, 32, 48].map(|at| load(block, 16 + 64 * HALF + at))
    }

    #[inline(always)]
    fn unpack<const HALF: usize>(raw: Self::Raw) -> [int8x16_t; 8] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let [[a, c], [b, d], [e, g], [f, h]] = raw.map(halves);
            [a, b, c, d, e, f, g, h].map(|v| vreinterpretq_s8_u8(v))
        }
    }
}

impl Supers<176> for Q5K {
    /// Half-bytes, then the fifth bits of both halves.
    type Raw = [uint8x16_t; 6];
    const SMALL: bool = true;
    const PER_SCALE: usize = 32;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn scales(block: &[u8; 176]) -> Scales {
        scales_and_minima(block)
    }

    #[inline(always)]
    fn load<const HALF: usize>(block: &[u8; 176]) -> Self::Raw {
        let at = 48 + 64 * HALF;
        [at, at + 16, at + 32, at + 48, 16, 32].map(|at| load(block, at))
    }

    #[inline(always)]
    fn unpack<const HALF: usize>([a, b, c, d, bits @ ..]: Self::Raw) -> [int8x16_t; 8] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            // Bit `k` where the fifth bit belongs, with nothing above it; both halves share what is masked.
            let fifth = |bits, k: usize| {
                let masked = vandq_u8(bits, vdupq_n_u8(0x11u8 << (k % 4)));
                match k {
                    0 => vshlq_n_u8::<4>(masked),
                    1 => vshlq_n_u8::<3>(masked),
                    2 => vshlq_n_u8::<2>(masked),
                    3 => vshlq_n_u8::<1>(masked),
                    4 => masked,
                    5 => vshrq_n_u8::<1>(masked),
                    6 => vshrq_n_u8::<2>(masked),
                    _ => vshrq_n_u8::<3>(masked),
                }
            };
            let low = |raw, bits, k| replaced(fifth(bits, k), raw, vdupq_n_u8(15));
            let high = |raw, bits, k| below::<4>(fifth(bits, k), raw);
            let ([s, t], k) = (bits, 4 * HALF);
            [
                low(a, s, k),
                low(b, t, k),
                high(a, s, k + 1),
                high(b, t, k + 1),
                low(c, s, k + 2),
                low(d, t, k + 2),
                high(c, s, k + 3),
                high(d, t, k + 3),
            ]
            .map(|v| vreinterpretq_s8_u8(v))
        }
    }
}

impl Supers<210> for Q6K {
    /// Lower four bits, then the pairs of upper bits.
    type Raw = [uint8x16_t; 6];
    const FRACTION: u32 = 2;
    const PER_SCALE: usize = 16;

    #[inline(always)]
    fn scales(block: &[u8; 210]) -> Scales {
        // SAFETY: every AArch64 processor has NEON.
        unsafe { Scales::without_minima(f16_at(block, 208), widen(vreinterpretq_s8_u8(load(block, 192)))) }
    }

    #[inline(always)]
    fn load<const HALF: usize>(block: &[u8; 210]) -> Self::Raw {
        let (at, pairs) = (64 * HALF, 128 + 32 * HALF);
        [at, at + 16, at + 32, at + 48, pairs, pairs + 16].map(|at| load(block, at))
    }

    /// With the other highest bit, what is offset by 32 is signed: it is left in the upper six bits of its byte.
    #[inline(always)]
    fn unpack<const HALF: usize>([a, b, c, d, pairs @ ..]: Self::Raw) -> [int8x16_t; 8] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let [s, t] = pairs.map(|pairs| veorq_u8(pairs, vdupq_n_u8(0xaa)));
            let low = |top, raw| below::<2>(top, vshlq_n_u8::<4>(raw));
            let high = |top, raw| vandq_u8(below::<2>(top, raw), vdupq_n_u8(0xfc));
            [
                low(vshlq_n_u8::<6>(s), a),
                low(vshlq_n_u8::<6>(t), b),
                low(vshlq_n_u8::<4>(s), c),
                low(vshlq_n_u8::<4>(t), d),
                high(vshlq_n_u8::<2>(s), a),
                high(vshlq_n_u8::<2>(t), b),
                high(s, c),
                high(t, d),
            ]
            .map(|v| vreinterpretq_s8_u8(v))
        }
    }
}

impl Supers<84> for Q2K {
    type Raw = [uint8x16_t; 2];
    const FRACTION: u32 = 4;
    const PER_SCALE: usize = 16;
    const HAS_MIN: bool = true;

    /// Scales make up for where [`Supers::unpack`] leaves the values.
    #[inline(always)]
    fn scales(block: &[u8; 84]) -> Scales {
        const PLACES: [u8; 16] = [16, 16, 4, 4, 1, 1, 16, 16, 16, 16, 4, 4, 1, 1, 16, 16];
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let [scales, minima] = halves(load(block, 0));
            let d_min = f16_at(block, 82);
            Scales {
                d: f16_at(block, 80),
                scales: widen_unsigned(vmulq_u8(scales, load(&PLACES, 0))),
                minima: widen_unsigned(minima).map(|m| vmulq_n_f32(vcvtq_f32_s32(m), d_min)),
            }
        }
    }

    #[inline(always)]
    fn load<const HALF: usize>(block: &[u8; 84]) -> Self::Raw {
        [0, 16].map(|at| load(block, 16 + 32 * HALF + at))
    }

    /// Pairs of bits are left where they are, except the highest, which would be taken for a sign.
    #[inline(always)]
    fn unpack<const HALF: usize>([a, b]: Self::Raw) -> [int8x16_t; 8] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let pair = |raw, at: u32| match at {
                6 => vshrq_n_u8::<6>(raw),
                at => vandq_u8(raw, vdupq_n_u8(3u8 << at)),
            };
            [pair(a, 0), pair(b, 0), pair(a, 2), pair(b, 2), pair(a, 4), pair(b, 4), pair(a, 6), pair(b, 6)]
                .map(|v| vreinterpretq_s8_u8(v))
        }
    }
}

impl Supers<110> for Q3K {
    /// Pairs of bits, then the third bits of both halves.
    type Raw = [uint8x16_t; 4];
    const SMALL: bool = true;
    const PER_SCALE: usize = 16;

    #[inline(always)]
    fn scales(block: &[u8; 110]) -> Scales {
        const SHIFTS: [i8; 16] = [0, 0, 0, 0, -2, -2, -2, -2, -4, -4, -4, -4, -6, -6, -6, -6];
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let packed: [u8; 12] = std::array::from_fn(|i| block[96 + i]);
            let ([low @ .., _, _, _, _], [.., a, b, c, d]) = (packed, packed);
            let low = vcreate_u8(u64::from_le_bytes(low));
            let low = vcombine_u8(vand_u8(low, vdup_n_u8(15)), vshr_n_u8::<4>(low));
            let pairs = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes([a, b, c, d])));
            let pairs = vandq_u8(vshlq_u8(pairs, super::vectors::signed(&SHIFTS, 0)), vdupq_n_u8(3));
            let scales = vreinterpretq_s8_u8(vsliq_n_u8::<4>(low, pairs));
            Scales::without_minima(f16_at(block, 108), widen(vsubq_s8(scales, vdupq_n_s8(32))))
        }
    }

    #[inline(always)]
    fn load<const HALF: usize>(block: &[u8; 110]) -> Self::Raw {
        let at = 32 + 32 * HALF;
        [at, at + 16, 0, 16].map(|at| load(block, at))
    }

    /// Without its third bit, a value has 4 subtracted.
    #[inline(always)]
    fn unpack<const HALF: usize>([a, b, bits @ ..]: Self::Raw) -> [int8x16_t; 8] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let [s, t] = bits.map(|bits| vmvnq_u8(bits));
            let value = |raw, bits, j: usize| {
                let pair = match j {
                    0 => raw,
                    1 => vshrq_n_u8::<2>(raw),
                    2 => vshrq_n_u8::<4>(raw),
                    _ => vshrq_n_u8::<6>(raw),
                };
                replaced(any_of(bits, vdupq_n_u8(1u8 << (4 * HALF + j))), pair, vdupq_n_u8(3))
            };
            [
                value(a, s, 0),
                value(b, t, 0),
                value(a, s, 1),
                value(b, t, 1),
                value(a, s, 2),
                value(b, t, 2),
                value(a, s, 3),
                value(b, t, 3),
            ]
            .map(|v| vreinterpretq_s8_u8(v))
        }
    }
}

impl Supers<136> for Iq4Xs {
    type Raw = [uint8x16_t; 4];
    const PER_SCALE: usize = 32;

    #[inline(always)]
    fn scales(block: &[u8; 136]) -> Scales {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let [_, _, h, i, a, b, c, d, ..] = *block;
            let low = vcreate_u8(u64::from(u32::from_le_bytes([a, b, c, d])));
            let low = vmovl_u8(vzip1_u8(vand_u8(low, vdup_n_u8(15)), vshr_n_u8::<4>(low)));
            let shifts = vmovl_s8(vcreate_s8(0xf2f4_f6f8_fafc_fe00));
            let pairs = vshlq_u16(vdupq_n_u16(u16::from_le_bytes([h, i])), shifts);
            let scales = vsliq_n_u16::<4>(low, vandq_u16(pairs, vdupq_n_u16(3)));
            let scales = vsubq_s16(vreinterpretq_s16_u16(scales), vdupq_n_s16(32));
            let (first, last, none) = (vmovl_s16(vget_low_s16(scales)), vmovl_high_s16(scales), vdupq_n_s32(0));
            Scales::without_minima(f16_at(block, 0), [first, last, none, none])
        }
    }

    #[inline(always)]
    fn load<const HALF: usize>(block: &[u8; 136]) -> Self::Raw {
        [0, 16, 32, 48].map(|at| load(block, 8 + 64 * HALF + at))
    }

    #[inline(always)]
    fn unpack<const HALF: usize>(raw: Self::Raw) -> [int8x16_t; 8] {
        let [[a, b], [c, d], [e, f], [g, h]] = raw.map(iq4_levels);
        [a, b, c, d, e, f, g, h]
    }
}
