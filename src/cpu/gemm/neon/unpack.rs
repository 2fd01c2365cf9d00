//! Unpacking blocks to tiles: four rows block by block in plain Rust, which the compiler vectorises on every such processor,
//! then squares of words transposed.
#![allow(unsafe_code, reason = "vector loads and stores take raw pointers, and features are checked at run time")]

use super::super::tile::{Bytes, Floats, NO_FLOATS, TILE_ROWS, TileLines, WORD};
use super::vectors::HALF;
use crate::cpu::{Isa, Rows};
use crate::quant::convert::Dequantize;
use crate::quant::decoded::{BlockFormat, Decoded};
use std::arch::aarch64::*;

/// Rows that are transposed together.
const ROWS: usize = 4;

/// Unpacks the blocks of up to 16 rows.
pub(in crate::cpu::gemm) fn blocks(isa: Isa, format: &BlockFormat, rows: Rows, to: TileLines) {
    // SAFETY: the processor has NEON, as all that are built for.
    unsafe { if isa == Isa::I8mm { unpack::<true>(format, rows, to) } else { unpack::<false>(format, rows, to) } }
}

/// With `PAIRS` for products of matrices.
#[target_feature(enable = "neon")]
fn unpack<const PAIRS: bool>(format: &BlockFormat, rows: Rows, to: TileLines) {
    if rows.len() < TILE_ROWS {
        to.scales.fill(NO_FLOATS);
        to.mins.fill(NO_FLOATS);
    }
    let (block_len, block_bytes, n_sub) = (format.dtype.block_len(), format.dtype.block_bytes(), format.n_sub());
    let flip = vdupq_n_u8(if format.offset == 128 { 128 } else { 0 });
    let mut decoded: [Decoded; ROWS] = std::array::from_fn(|_| Decoded::default());
    for first in (0..rows.len()).step_by(ROWS) {
        let n_rows = ROWS.min(rows.len() - first);
        let blocks = to.bytes.chunks_exact_mut(block_len / WORD).take(rows.bytes() / block_bytes);
        let subs = to.scales.chunks_exact_mut(n_sub).zip(to.mins.chunks_exact_mut(n_sub));
        for (i, (lines, (scales, mins))) in blocks.zip(subs).enumerate() {
            for (r, decoded) in decoded[..n_rows].iter_mut().enumerate() {
                decoded.read(format, &rows.get(first + r)[i * block_bytes..][..block_bytes]);
                scales.iter_mut().zip(&decoded.scale).for_each(|(line, v)| line.0[first + r] = *v);
                if format.has_min {
                    mins.iter_mut().zip(&decoded.min).for_each(|(line, v)| line.0[first + r] = *v);
                }
            }
            for (k, lines) in lines.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                // SAFETY: 16 bytes of the block's.
                let q = decoded.each_ref().map(|d| unsafe { vld1q_u8(d.q.as_chunks::<16>().0[k].as_ptr()) });
                let q = q.map(|q| vreinterpretq_u32_u8(veorq_u8(q, flip)));
                if PAIRS { store_pairs(q, first, lines) } else { store_words(q, first, lines) }
            }
        }
    }
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

/// Reads `to.len()` columns of up to 16 rows of floats.
pub(in crate::cpu::gemm) fn floats(read: Dequantize, rows: Rows, to: &mut [Floats]) {
    // SAFETY: the processor has NEON, as all that are built for.
    unsafe { turn_floats(read, rows, to) }
}

#[target_feature(enable = "neon")]
fn turn_floats(read: Dequantize, rows: Rows, to: &mut [Floats]) {
    /// Columns read at a time.
    const STEP: usize = 64;
    if rows.len() < TILE_ROWS {
        to.fill(NO_FLOATS);
    }
    let element = rows.bytes() / to.len();
    let mut values = [[0.0; STEP]; ROWS];
    for first in (0..rows.len()).step_by(ROWS) {
        let n_rows = ROWS.min(rows.len() - first);
        for (i, lines) in to.chunks_mut(STEP).enumerate() {
            for (r, values) in values[..n_rows].iter_mut().enumerate() {
                let row = &rows.get(first + r)[i * STEP * element..][..lines.len() * element];
                read(row, &mut values[..lines.len()]);
            }
            let (squares, rest) = lines.as_chunks_mut::<ROWS>();
            for (k, lines) in squares.iter_mut().enumerate() {
                // SAFETY: four floats of the row's.
                let words = values.each_ref().map(|row| unsafe { vld1q_u32(row.as_ptr().add(ROWS * k).cast()) });
                for (line, column) in lines.iter_mut().zip(turned(words)) {
                    let line = &mut line.0.as_chunks_mut().0[first / ROWS];
                    super::vectors::write(vreinterpretq_f32_u64(column), line);
                }
            }
            let done = ROWS * squares.len();
            for (k, line) in rest.iter_mut().enumerate() {
                (0..ROWS).for_each(|r| line.0[first + r] = values[r][done + k]);
            }
        }
    }
}
