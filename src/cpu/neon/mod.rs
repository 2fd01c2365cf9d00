//! Kernels for AArch64: NEON, its 8-bit dot products (`dotprod`) and its 8-bit products of matrices (`i8mm`).
//!
//! The tables are reached through [`super::Isa::kernels`] only, which has asserted that the processor has these features.
//!
//! Functions that `row_kernels!` makes, and those of `dot`, have `#[target_feature]`. What they call is `#[inline(always)]` instead, which
//! cannot be combined with it: otherwise the compiler leaves some out of line and passes vectors through memory.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

mod add;
mod bits;
mod blocks;
mod dot;
mod each;
mod floats;
mod multiply;
mod steps;
mod supers;
mod vectors;
mod weights;

#[cfg(not(target_feature = "neon"))]
compile_error!("powerinfer needs an AArch64 target with NEON: registers for floats");

use super::kernels::{Kernels, row_kernels};
pub(super) use blocks::halves;
use blocks::{Iq4Nl, Mxfp4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub(super) use multiply::smmla;
use std::arch::aarch64::*;
use std::arch::asm;
use supers::*;

/// See [`row_kernels`]: of a type of floats.
macro_rules! floats {
    ($dtype:ident) => {
        row_kernels!(
            "neon",
            "neon",
            $dtype,
            F32,
            floats::dot::<floats::$dtype, _, _, _>,
            floats::add::<floats::$dtype, _, _>
        )
    };
}

/// The same of a type of blocks or super-blocks, one row at a time.
macro_rules! rows {
    ($features:literal, $how:ident, $dtype:ident, $act:ident, blocks, $format:ident) => {
        row_kernels!(
            $features,
            "neon",
            $dtype,
            $act,
            dot::$how::row_of_blocks::<$format, _, _>,
            add::blocks::<$format, _>
        )
    };
    ($features:literal, $how:ident, $dtype:ident, $act:ident, supers, $format:ident) => {
        row_kernels!(
            $features,
            "neon",
            $dtype,
            $act,
            dot::$how::row_of_supers::<$format, _, _>,
            add::supers::<$format, _>
        )
    };
}

/// The same, two rows at a time where there are several vectors.
macro_rules! pairs {
    ($features:literal, $how:ident, $dtype:ident, $act:ident, $kind:ident, $format:ident) => {
        row_kernels!(
            $features,
            "neon",
            $dtype,
            $act,
            pairs 4 dot::$how::$kind::<$format, _, _, _>,
            add::$kind::<$format, _>
        )
    };
}

/// All types of blocks, which differ from table to table in how their bytes are multiplied.
macro_rules! bytes {
    ($kernels:ident, $features:literal, $how:ident) => {
        [
            $kernels!($features, $how, Q8_0, Q8, blocks, Q8_0),
            $kernels!($features, $how, Q4_0, Q8, blocks, Q4_0),
            $kernels!($features, $how, Q4_1, Q8, blocks, Q4_1),
            $kernels!($features, $how, Q5_0, Q8, blocks, Q5_0),
            $kernels!($features, $how, Q5_1, Q8, blocks, Q5_1),
            $kernels!($features, $how, IQ4_NL, Q8, blocks, Iq4Nl),
            $kernels!($features, $how, MXFP4, Q8, blocks, Mxfp4),
            $kernels!($features, $how, Q2_K, Q8Supers, supers, Q2K),
            $kernels!($features, $how, Q3_K, Q8, supers, Q3K),
            $kernels!($features, $how, Q4_K, Q8, supers, Q4K),
            $kernels!($features, $how, Q5_K, Q8, supers, Q5K),
            $kernels!($features, $how, Q6_K, Q8, supers, Q6K),
            $kernels!($features, $how, IQ4_XS, Q8, supers, Iq4Xs),
        ]
    };
}

/// What multiplies floats, on every such processor.
pub(super) static FLOATS: [Kernels; 3] = [floats!(F32), floats!(F16), floats!(BF16)];
/// NEON alone.
pub(super) static TABLE: [Kernels; 13] = bytes!(rows, "neon", neon);
/// With dot products.
pub(super) static DOTPROD_TABLE: [Kernels; 13] = bytes!(rows, "neon,dotprod", dotprod);
/// With products of matrices.
pub(super) static I8MM_TABLE: [Kernels; 13] = bytes!(pairs, "neon,dotprod,i8mm", i8mm);

/// Fetches `bytes` bytes, at most 256, from `offset` on of each row ahead into the first cache.
#[inline(always)]
fn fetch_all<const R: usize>(ahead: [&[u8]; R], offset: usize, bytes: usize) {
    macro_rules! line {
        ($row:expr, $at:literal) => {
            if bytes > $at {
                // SAFETY: a prefetch may name any address: it never faults, and changes nothing but the caches.
                unsafe {
                    // One address serves all lines.
                    asm!(concat!("prfm pldl1keep, [{}, #", $at, "]"), in(reg) $row, options(readonly, nostack, preserves_flags));
                }
            }
        };
    }
    debug_assert!(bytes <= 256);
    for row in ahead {
        let row = row.as_ptr().wrapping_add(offset);
        line!(row, 0);
        line!(row, 64);
        line!(row, 128);
        line!(row, 192);
    }
}

/// Four floats.
#[inline(always)]
fn four(values: &[f32; 4]) -> float32x4_t {
    // SAFETY: the array has four elements, and every AArch64 processor has NEON.
    unsafe { vld1q_f32(values.as_ptr()) }
}

/// Stores four floats.
#[inline(always)]
fn store(to: &mut [f32; 4], v: float32x4_t) {
    // SAFETY: the array has four elements, and every AArch64 processor has NEON.
    unsafe { vst1q_f32(to.as_mut_ptr(), v) }
}

/// `a * b + c`.
#[inline(always)]
pub(super) fn fused(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    // SAFETY: every AArch64 processor has NEON.
    unsafe { vfmaq_f32(c, a, b) }
}
