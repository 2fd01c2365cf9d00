//! Products of many tokens and a weight matrix: each weight is unpacked once for all of them.
//!
//! Rows are taken in tiles of 16. A piece of a tile's columns that fits in the first-level cache is unpacked to the
//! order that vectors need (`tile`), then multiplied with all tokens, some at a time (`packed`). The inner loops
//! (`plain` is their specification) keep the sums of a tile and some tokens in registers. Every element is summed in
//! an order that depends on the number of columns only: not on the number of tokens, nor on how rows are divided.
//!
//! [`sparse`] is the product with a matrix whose rows belong to neurons, most of which have not fired.

mod ahead;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed;
mod plain;
pub mod sparse;
#[cfg(target_arch = "x86_64")]
mod sparse256;
#[cfg(target_arch = "x86_64")]
mod sparse512;
mod tile;
#[cfg(target_arch = "x86_64")]
mod unpack512;
#[cfg(target_arch = "x86_64")]
mod unpack_k;

pub use packed::{Packed, PackedTokens};

use self::ahead::Ahead;
use self::packed::TokenPiece;
use self::tile::{Form, TILE_ROWS, Tile};
use super::{Isa, Rows};
use crate::quant::GgmlType;

/// Threads should take a multiple of this many rows: only the last tile of a matrix may have fewer.
pub const ROW_GRAIN: usize = TILE_ROWS;

/// Columns unpacked at a time: with the activations of some tokens they fit in a first-level cache of 48 KiB.
const BLOCK_COLS: usize = 1024;
/// The same for floats; the partial sums of a dot product start afresh with each piece.
const FLOAT_COLS: usize = 256;

/// Bytes of activations that all rows go through: they fit in a second-level cache of 2 MiB and leave room for others.
const ACTIVATIONS: usize = 1 << 20;

/// The products of `rows` and all of `x`, on the calling thread only. `out` becomes tiles of [`ROW_GRAIN`] rows,
/// `[n_tokens][16]` each (the last one only as wide as it has rows), so that threads that divide the rows by
/// [`ROW_GRAIN`] write consecutive pieces of one buffer; [`untile`] puts it in order.
///
/// # Panics
/// When `x` was packed for another type or row length, or `out` does not have `rows.len() * x.n_tokens()` elements.
pub fn rows_times<'a>(isa: Isa, dtype: GgmlType, rows: Rows<'a>, x: PackedTokens, out: &mut [f32]) {
    assert!(isa.is_available(), "this processor does not have {isa}");
    let n_tokens = x.n_tokens();
    assert_eq!(out.len(), rows.len() * n_tokens);
    if out.is_empty() {
        return;
    }
    let form = Form::of(dtype);
    assert_eq!(dtype.row_bytes(x.n_cols), Some(rows.bytes()), "rows of {dtype} and {} columns", x.n_cols);
    assert_eq!(x.dtype, dtype, "activations are packed for another type");
    let cols = match form {
        Form::Float(..) => FLOAT_COLS,
        Form::Blocks(_) => BLOCK_COLS,
    };
    let mut tile = Tile::default();
    // The sums of the last tile, if it is not a whole one.
    let mut narrow = vec![[0.0; TILE_ROWS]; if rows.len().is_multiple_of(TILE_ROWS) { 0 } else { n_tokens }];
    out.fill(0.0);
    let n_tiles = rows.len().div_ceil(TILE_ROWS);
    let tile_rows = |i: usize| rows.part(i * TILE_ROWS, TILE_ROWS.min(rows.len() - i * TILE_ROWS));
    let piece = |rows: Rows<'a>, start: usize| {
        let n = cols.min(x.n_cols - start);
        (rows.piece(bytes(dtype, start), bytes(dtype, n)), n)
    };
    let block = (ACTIVATIONS / (x.bytes_of(cols))).max(1) * cols;
    for first in (0..x.n_cols).step_by(block) {
        let starts = || (first..x.n_cols.min(first + block)).step_by(cols);
        let mut steps = (0..n_tiles).flat_map(|i| starts().map(move |start| (i, start))).peekable();
        while let Some((i, start)) = steps.next() {
            let (step_rows, n_cols) = piece(tile_rows(i), start);
            tile.unpack(isa, form, step_rows, n_cols);
            let next = steps.peek().map(|(i, start)| piece(tile_rows(*i), *start).0);
            let n_lines = next.map_or(0, |next| next.len() * next.bytes().div_ceil(64)).div_ceil(x.groups.len());
            let mut ahead = Ahead::new(next.into_iter().flat_map(|next| (0..next.len()).map(move |r| next.get(r))));
            let sums = match step_rows.len() {
                TILE_ROWS => out[i * TILE_ROWS * n_tokens..][..TILE_ROWS * n_tokens].as_chunks_mut().0,
                _ => &mut narrow[..],
            };
            for group in x.groups {
                ahead.fetch(n_lines);
                let x = group.piece(start, n_cols);
                let sums = &mut sums[group.first..][..group.n_tokens];
                if sums.len() == x.width {
                    times(isa, &tile, &x, sums);
                } else {
                    let mut padded = [[0.0; TILE_ROWS]; packed::MAX_WIDTH];
                    let padded = &mut padded[..x.width];
                    padded[..sums.len()].copy_from_slice(sums);
                    times(isa, &tile, &x, padded);
                    sums.copy_from_slice(&padded[..sums.len()]);
                }
            }
        }
    }
    let n_rows = rows.len() % TILE_ROWS;
    let at = (rows.len() - n_rows) * n_tokens;
    for (out, sums) in out[at..].chunks_mut(n_rows.max(1)).zip(&narrow) {
        out.copy_from_slice(&sums[..n_rows]);
    }
}

/// Adds the products of a piece of a tile and a piece of some tokens to their sums.
fn times(isa: Isa, tile: &Tile, x: &TokenPiece, sums: &mut [[f32; TILE_ROWS]]) {
    match isa {
        Isa::Plain => plain::times(tile, x, sums),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::times(tile, x, sums, false),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => avx2::times(tile, x, sums, true),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::times(tile, x, sums),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::DotProd | Isa::I8mm => neon::times(isa, tile, x, sums),
        _ => plain::times(tile, x, sums),
    }
}

/// Bytes of `n` elements of `dtype`, which are whole blocks.
fn bytes(dtype: GgmlType, n: usize) -> usize {
    n / dtype.block_len() * dtype.block_bytes()
}

/// From tiles of `width` columns, `[n_tokens][width]` each (the last one narrower where `n_cols` is no multiple), the
/// tokens from `first` on as `[..][n_cols]`. Puts in order what [`rows_times`] (`width` is [`ROW_GRAIN`]) wrote, or
/// [`sparse::add_rows`] for pieces of `width` columns.
pub fn untile(tiled: &[f32], n_cols: usize, width: usize, first: usize, out: &mut [f32]) {
    let n_tokens = tiled.len().checked_div(n_cols).unwrap_or(0);
    for (i, tile) in tiled.chunks((width * n_tokens).max(1)).enumerate() {
        let n = tile.len() / n_tokens;
        for (out, values) in out.chunks_exact_mut(n_cols).zip(tile[first * n..].chunks_exact(n)) {
            out[i * width..][..n].copy_from_slice(values);
        }
    }
}

#[cfg(test)]
mod tests;
