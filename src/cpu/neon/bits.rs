//! Single instructions on bits that the compiler, given what the standard library has for them, replaces with several.
#![allow(unsafe_code, reason = "instructions that are named")]

use std::arch::aarch64::*;
use std::arch::asm;

/// `from`, shifted right by `BY`, below the highest `BY` bits of `top`.
#[inline(always)]
pub fn below<const BY: u32>(mut top: uint8x16_t, from: uint8x16_t) -> uint8x16_t {
    // SAFETY: an instruction of NEON that only computes.
    unsafe {
        asm!("sri {0:v}.16b, {1:v}.16b, #{by}", inout(vreg) top, in(vreg) from, by = const BY,
            options(pure, nomem, nostack, preserves_flags));
    }
    top
}

/// The bits of `from` that `mask` has, and the others of `others`.
#[inline(always)]
pub fn replaced(mut others: uint8x16_t, from: uint8x16_t, mask: uint8x16_t) -> uint8x16_t {
    // SAFETY: as above.
    unsafe {
        asm!("bit {0:v}.16b, {1:v}.16b, {2:v}.16b", inout(vreg) others, in(vreg) from, in(vreg) mask,
            options(pure, nomem, nostack, preserves_flags));
    }
    others
}

/// All ones wherever a byte has bits of `mask`.
#[inline(always)]
pub fn any_of(bytes: uint8x16_t, mask: uint8x16_t) -> uint8x16_t {
    let any;
    // SAFETY: as above.
    unsafe {
        asm!("cmtst {0:v}.16b, {1:v}.16b, {2:v}.16b", lateout(vreg) any, in(vreg) bytes, in(vreg) mask,
            options(pure, nomem, nostack, preserves_flags));
    }
    any
}
