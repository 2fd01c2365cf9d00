//! Unpacking to tiles: four rows at a time, whose words are transposed.
#![allow(unsafe_code, reason = "features are checked at run time")]

use super::super::tile::{Floats, NO_FLOATS, TILE_ROWS, TileLines};
use super::turn::{ROWS, store_floats};
use super::vectors::read;
use super::{unpack_32, unpack_k};
use crate::cpu::{Isa, Rows};
use crate::quant::GgmlType;
use crate::quant::convert::Dequantize;
use crate::quant::decoded::BlockFormat;

/// Unpacks the blocks of up to 16 rows.
pub(in crate::cpu::gemm) fn blocks(isa: Isa, format: &BlockFormat, rows: Rows, to: TileLines) {
    // SAFETY: the processor has NEON, as all that are built for.
    unsafe { if isa == Isa::I8mm { unpack::<true>(format, rows, to) } else { unpack::<false>(format, rows, to) } }
}

/// With `PAIRS` for products of matrices.
#[target_feature(enable = "neon")]
fn unpack<const PAIRS: bool>(format: &BlockFormat, rows: Rows, to: TileLines) {
    match format.dtype {
        GgmlType::Q4_0 => unpack_32::q4_0::<PAIRS>(rows, to),
        GgmlType::Q4_1 => unpack_32::q4_1::<PAIRS>(rows, to),
        GgmlType::Q5_0 => unpack_32::q5_0::<PAIRS>(rows, to),
        GgmlType::Q5_1 => unpack_32::q5_1::<PAIRS>(rows, to),
        GgmlType::Q8_0 => unpack_32::q8_0::<PAIRS>(rows, to),
        GgmlType::IQ4_NL => unpack_32::iq4_nl::<PAIRS>(rows, to),
        GgmlType::MXFP4 => unpack_32::mxfp4::<PAIRS>(rows, to),
        GgmlType::Q2_K => unpack_k::q2_k::<PAIRS>(rows, to),
        GgmlType::Q3_K => unpack_k::q3_k::<PAIRS>(rows, to),
        GgmlType::Q4_K => unpack_k::q4_k::<PAIRS>(rows, to),
        GgmlType::Q5_K => unpack_k::q5_k::<PAIRS>(rows, to),
        GgmlType::Q6_K => unpack_k::q6_k::<PAIRS>(rows, to),
        GgmlType::IQ4_XS => unpack_k::iq4_xs::<PAIRS>(rows, to),
        other => unreachable!("{other} has no blocks"),
    }
}

/// Reads `to.len()` columns of up to 16 rows of floats.
pub(in crate::cpu::gemm) fn floats(read: Dequantize, rows: Rows, to: &mut [Floats]) {
    // SAFETY: the processor has NEON, as all that are built for.
    unsafe { turn_floats(read, rows, to) }
}

#[target_feature(enable = "neon")]
fn turn_floats(convert: Dequantize, rows: Rows, to: &mut [Floats]) {
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
                convert(row, &mut values[..lines.len()]);
            }
            let (squares, rest) = lines.as_chunks_mut::<ROWS>();
            for (k, lines) in squares.iter_mut().enumerate() {
                let [a, b, c, d] = values.each_ref().map(|row| &row.as_chunks().0[k]);
                store_floats([read(a), read(b), read(c), read(d)], first, lines);
            }
            let done = ROWS * squares.len();
            for (k, line) in rest.iter_mut().enumerate() {
                (0..ROWS).for_each(|r| line.0[first + r] = values[r][done + k]);
            }
        }
    }
}
