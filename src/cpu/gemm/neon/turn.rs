//! Squares of words transposed: from rows to lines of a tile.
#![allow(unsafe_code, reason = "vector stores take raw pointers")]

use super::super::tile::{Bytes, Floats, WORD};
use super::vectors::{HALF, LANES};
use std::arch::aarch64::*;

/// Rows that are transposed together.
pub(super) const ROWS: usize = 4;

/// Writes 16 bytes of four rows from `first` on to four lines, in the order of products of matrices with `PAIRS`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store<const PAIRS: bool>(rows: [uint8x16_t; ROWS], first: usize, lines: &mut [Bytes; 4]) {
    let [a, b, c, d] = rows;
    let rows = [vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b), vreinterpretq_u32_u8(c), vreinterpretq_u32_u8(d)];
    if PAIRS { store_pairs(rows, first, lines) } else { store_words(rows, first, lines) }
}

/// Writes 16 bytes of four rows from `first` on to four lines, four of each row to each.
#[inline]
#[target_feature(enable = "neon")]
fn store_words(rows: [uint32x4_t; ROWS], first: usize, lines: &mut [Bytes; 4]) {
    for (line, column) in lines.iter_mut().zip(turned(rows)) {
        write(column, line, first * WORD);
    }
}

/// 4 x 4 words, transposed.
#[inline]
#[target_feature(enable = "neon")]
fn turned([a, b, c, d]: [uint32x4_t; ROWS]) -> [uint64x2_t; 4] {
    let pairs = |a, b| [vreinterpretq_u64_u32(vtrn1q_u32(a, b)), vreinterpretq_u64_u32(vtrn2q_u32(a, b))];
    let ([ab_even, ab_odd], [cd_even, cd_odd]) = (pairs(a, b), pairs(c, d));
    [vtrn1q_u64(ab_even, cd_even), vtrn1q_u64(ab_odd, cd_odd), vtrn2q_u64(ab_even, cd_even), vtrn2q_u64(ab_odd, cd_odd)]
}

/// The same for products of matrices: 8 of each row, of the first 8 rows to the even lines and of the others to the odd ones.
#[inline]
#[target_feature(enable = "neon")]
fn store_pairs(rows: [uint32x4_t; ROWS], first: usize, lines: &mut [Bytes; 4]) {
    const BYTES: usize = 2 * WORD;
    let [a, b, c, d] = rows.map(|row| vreinterpretq_u64_u32(row));
    let (half, at) = (first / HALF, first % HALF * BYTES);
    for (line, [ab, cd]) in
        [(half, [vzip1q_u64(a, b), vzip1q_u64(c, d)]), (2 + half, [vzip2q_u64(a, b), vzip2q_u64(c, d)])]
    {
        write(ab, &mut lines[line], at);
        write(cd, &mut lines[line], at + 16);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn write(values: uint64x2_t, line: &mut Bytes, at: usize) {
    let to = &mut line.0.as_chunks_mut::<16>().0[at / 16];
    // SAFETY: 16 bytes.
    unsafe { vst1q_u8(to.as_mut_ptr(), vreinterpretq_u8_u64(values)) };
}

/// Writes four floats of four rows from `first` on to four lines.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_floats(rows: [float32x4_t; ROWS], first: usize, lines: &mut [Floats; 4]) {
    let [a, b, c, d] = rows;
    let rows = [vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b), vreinterpretq_u32_f32(c), vreinterpretq_u32_f32(d)];
    for (line, column) in lines.iter_mut().zip(turned(rows)) {
        super::vectors::write(vreinterpretq_f32_u64(column), &mut line.0.as_chunks_mut::<LANES>().0[first / ROWS]);
    }
}
