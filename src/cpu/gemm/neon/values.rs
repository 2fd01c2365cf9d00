//! Bytes of blocks, in vectors.
#![allow(unsafe_code, reason = "vector loads take raw pointers")]

use super::turn::ROWS;
use crate::cpu::Rows;
pub(super) use crate::cpu::neon::halves;
use std::arch::aarch64::*;

/// The blocks of four rows from `first` on; for those that are missing, the last row's.
#[inline(always)]
pub(super) fn rows_of<'a, const BYTES: usize>(rows: Rows<'a>, first: usize) -> [&'a [[u8; BYTES]]; ROWS] {
    let n = rows.bytes() / BYTES;
    std::array::from_fn(|r| &rows.get((first + r).min(rows.len() - 1)).as_chunks().0[..n])
}

/// The first 16 bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load(bytes: &[u8]) -> uint8x16_t {
    let bytes = &bytes[..16];
    // SAFETY: 16 bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// What a table has for the low halves of bytes, then for the high ones.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn levels(table: uint8x16_t, bytes: uint8x16_t) -> [uint8x16_t; 2] {
    let [low, high] = halves(bytes);
    [vqtbl1q_u8(table, low), vqtbl1q_u8(table, high)]
}

/// Bytes offset by 128 become signed.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn flip(bytes: uint8x16_t) -> uint8x16_t {
    veorq_u8(bytes, vdupq_n_u8(128))
}
