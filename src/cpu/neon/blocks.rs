//! The blocks of 32 elements, as vectors of bytes.
#![allow(unsafe_code, reason = "instructions of NEON")]

use super::bits::{any_of, below, replaced};
use super::vectors::{Zip, f16x4, load, signed};
use crate::quant::blocks::{Q4_0_BYTES, Q8_0_BYTES, QK};
use crate::quant::{iq4, mxfp4};
use std::arch::aarch64::*;

/// How a type of `BYTES` bytes per 32 elements is read.
pub trait Blocks<const BYTES: usize> {
    /// A block's vectors as they are stored; what [`Blocks::unpack`] makes of them depends on each byte alone.
    type Raw: Zip;
    /// By which power of 2 the unpacked values are too large.
    const FRACTION: u32 = 0;
    /// Whether the unpacked values are in -32 to 31.
    const SMALL: bool = false;
    /// Whether the value of `q = 0` stands behind the scale.
    const HAS_MIN: bool = false;

    /// The scales of four blocks.
    #[inline(always)]
    fn scales(blocks: &[[u8; BYTES]; 4]) -> float32x4_t {
        f16x4(blocks, 0)
    }

    /// Loads a block's vectors.
    fn load(block: &[u8; BYTES]) -> Self::Raw;

    /// The block's values, signed.
    fn unpack(raw: Self::Raw) -> [int8x16_t; 2];
}

pub struct Q8_0;
pub struct Q4_0;
pub struct Q4_1;
pub struct Q5_0;
pub struct Q5_1;
pub struct Iq4Nl;
pub struct Mxfp4;

impl Blocks<Q8_0_BYTES> for Q8_0 {
    type Raw = [uint8x16_t; 2];

    #[inline(always)]
    fn load(block: &[u8; Q8_0_BYTES]) -> Self::Raw {
        [load(block, 2), load(block, 18)]
    }

    #[inline(always)]
    fn unpack(raw: Self::Raw) -> [int8x16_t; 2] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe { raw.map(|v| vreinterpretq_s8_u8(v)) }
    }
}

impl Blocks<Q4_0_BYTES> for Q4_0 {
    type Raw = uint8x16_t;
    const FRACTION: u32 = 4;

    #[inline(always)]
    fn load(block: &[u8; Q4_0_BYTES]) -> Self::Raw {
        load(block, 2)
    }

    /// With the other highest bit, a half-byte offset by 8 is a signed one: it is left in the upper half of its byte.
    #[inline(always)]
    fn unpack(raw: Self::Raw) -> [int8x16_t; 2] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let signed = veorq_u8(raw, vdupq_n_u8(0x88));
            [vshlq_n_u8::<4>(signed), vandq_u8(signed, vdupq_n_u8(0xf0))].map(|v| vreinterpretq_s8_u8(v))
        }
    }
}

impl Blocks<20> for Q4_1 {
    type Raw = uint8x16_t;
    const SMALL: bool = true;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn load(block: &[u8; 20]) -> Self::Raw {
        load(block, 4)
    }

    #[inline(always)]
    fn unpack(raw: Self::Raw) -> [int8x16_t; 2] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe { halves(raw).map(|v| vreinterpretq_s8_u8(v)) }
    }
}

impl Blocks<22> for Q5_0 {
    /// Values: with their fifth bits, half-bytes would be more vectors.
    type Raw = [uint8x16_t; 2];
    const SMALL: bool = true;

    #[inline(always)]
    fn load(block: &[u8; 22]) -> Self::Raw {
        let [_, _, a, b, c, d, ..] = *block;
        let [low, high] = spread(!u32::from_le_bytes([a, b, c, d])).map(|bits| any_of(bits, masks()));
        // Less 16, a value without its fifth bit has all bits above the fourth.
        with_upper_bits(load(block, 6), low, high)
    }

    #[inline(always)]
    fn unpack(raw: Self::Raw) -> [int8x16_t; 2] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe { raw.map(|v| vreinterpretq_s8_u8(v)) }
    }
}

impl Blocks<24> for Q5_1 {
    /// As above.
    type Raw = [uint8x16_t; 2];
    const SMALL: bool = true;
    const HAS_MIN: bool = true;

    #[inline(always)]
    fn load(block: &[u8; 24]) -> Self::Raw {
        const SHIFTS: [i8; 16] = [4, 3, 2, 1, 0, -1, -2, -3, 4, 3, 2, 1, 0, -1, -2, -3];
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let [_, _, _, _, a, b, c, d, ..] = *block;
            let fifth = |bits| vshlq_u8(bits, signed(&SHIFTS, 0));
            let [low, high] = spread(u32::from_le_bytes([a, b, c, d])).map(|bits| fifth(vandq_u8(bits, masks())));
            with_upper_bits(load(block, 8), low, high)
        }
    }

    #[inline(always)]
    fn unpack(raw: Self::Raw) -> [int8x16_t; 2] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe { raw.map(|v| vreinterpretq_s8_u8(v)) }
    }
}

impl Blocks<Q4_0_BYTES> for Iq4Nl {
    type Raw = uint8x16_t;

    #[inline(always)]
    fn load(block: &[u8; Q4_0_BYTES]) -> Self::Raw {
        load(block, 2)
    }

    #[inline(always)]
    fn unpack(raw: Self::Raw) -> [int8x16_t; 2] {
        iq4_levels(raw)
    }
}

impl Blocks<{ mxfp4::BYTES }> for Mxfp4 {
    type Raw = uint8x16_t;
    const SMALL: bool = true;

    /// What `mxfp4::scale` gives each.
    #[inline(always)]
    fn scales(blocks: &[[u8; mxfp4::BYTES]; 4]) -> float32x4_t {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let [a, b, c, d] = blocks.each_ref().map(|block| block[0]);
            let exponents = vsetq_lane_u8::<0>(a, vdupq_n_u8(0));
            let exponents = vsetq_lane_u8::<4>(b, exponents);
            let exponents = vsetq_lane_u8::<8>(c, exponents);
            let exponents = vreinterpretq_u32_u8(vsetq_lane_u8::<12>(d, exponents));
            let normal = vqsubq_u32(vshlq_n_u32::<23>(exponents), vdupq_n_u32(1 << 23));
            // Those of 0 and 1 lie below the smallest normal number.
            let small = vreinterpretq_s32_u32(vminq_u32(exponents, vdupq_n_u32(1)));
            let small = vshlq_u32(vdupq_n_u32(0x0020_0000), small);
            vreinterpretq_f32_u32(vmaxq_u32(normal, small))
        }
    }

    #[inline(always)]
    fn load(block: &[u8; mxfp4::BYTES]) -> Self::Raw {
        load(block, 1)
    }

    #[inline(always)]
    fn unpack(raw: Self::Raw) -> [int8x16_t; 2] {
        const LEVELS: [u8; 16] = levels(&mxfp4::LEVELS, mxfp4::OFFSET);
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let levels = vreinterpretq_s8_u8(load(&LEVELS, 0));
            halves(raw).map(|half| vqtbl1q_s8(levels, half))
        }
    }
}

/// The low halves of bytes, then their high halves.
#[inline(always)]
pub fn halves(raw: uint8x16_t) -> [uint8x16_t; 2] {
    // SAFETY: every AArch64 processor has NEON.
    unsafe { [vandq_u8(raw, vdupq_n_u8(15)), vshrq_n_u8::<4>(raw)] }
}

/// The low and the high halves of `raw` with the upper four bits of each of these.
#[inline(always)]
fn with_upper_bits(raw: uint8x16_t, low: uint8x16_t, high: uint8x16_t) -> [uint8x16_t; 2] {
    // SAFETY: every AArch64 processor has NEON.
    unsafe { [replaced(low, raw, vdupq_n_u8(15)), below::<4>(high, raw)] }
}

/// The levels of `IQ4_NL` and `IQ4_XS` that the halves of bytes name.
#[inline(always)]
pub fn iq4_levels(raw: uint8x16_t) -> [int8x16_t; 2] {
    const LEVELS: [u8; 16] = levels(&iq4::LEVELS, 128);
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let levels = vreinterpretq_s8_u8(load(&LEVELS, 0));
        halves(raw).map(|half| vqtbl1q_s8(levels, half))
    }
}

/// Levels as signed bytes.
const fn levels(raised: &[u8; 16], by: u8) -> [u8; 16] {
    let (mut levels, mut i) = (*raised, 0);
    while i < 16 {
        levels[i] = levels[i].wrapping_sub(by);
        i += 1;
    }
    levels
}

/// For each of 32 bits, the byte in which it is; [`masks`] has it there.
#[inline(always)]
fn spread(bits: u32) -> [uint8x16_t; 2] {
    const BYTES: [u8; QK] = {
        let (mut bytes, mut i) = ([0; QK], 0);
        while i < QK {
            bytes[i] = i as u8 / 8;
            i += 1;
        }
        bytes
    };
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let bits = vreinterpretq_u8_u32(vdupq_n_u32(bits));
        [0, 16].map(|at| vqtbl1q_u8(bits, load(&BYTES, at)))
    }
}

/// See [`spread`].
#[inline(always)]
fn masks() -> uint8x16_t {
    // SAFETY: every AArch64 processor has NEON.
    unsafe { vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201)) }
}
