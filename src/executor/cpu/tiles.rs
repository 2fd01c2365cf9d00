//! Matrices times the activations of many tokens, tile by tile: what prefill consists of.

use super::compute::Compute;
use super::sum::add_columns;
use crate::cpu::gemm::sparse::Factors;
use crate::cpu::gemm::{self, Packed};
use crate::cpu::{Activations, Which};
use crate::model::{Down, Matrix};

/// Columns of `down` by rows that one thread takes at the least: whole blocks of every type.
const COLUMN_GRAIN: usize = 512;

/// Memory that products keep from call to call.
#[derive(Default)]
pub(super) struct Tiles {
    packed: Packed,
    factors: Factors,
    tiled: Vec<f32>,
}

/// `[n_tokens][n_cols]` activations times `[n_rows][n_cols]` weights: `out` becomes `[n_tokens][n_rows]`.
/// Each weight is read and unpacked once for all tokens, and what a token gives does not depend on the others.
pub(super) fn matmul(cx: Compute, w: &Matrix, x: &Activations, tiles: &mut Tiles, out: &mut Vec<f32>) {
    let (n_tokens, n_rows) = (x.n_tokens(), w.n_rows);
    let Tiles { packed, tiled, .. } = tiles;
    packed.load(w.dtype(), x, cx.pool);
    tiled.resize(n_tokens * n_rows, 0.0);
    cx.pool.fill(tiled, gemm::ROW_GRAIN * n_tokens, |start, tiled| {
        let rows = w.rows(start / n_tokens, tiled.len() / n_tokens);
        gemm::rows_times(cx.isa, w.dtype(), rows, packed, tiled);
    });
    untile(cx, tiled, n_rows, gemm::ROW_GRAIN, n_tokens, out);
}

/// From tiles of columns to `[n_tokens][n_cols]`.
fn untile(cx: Compute, tiled: &[f32], n_cols: usize, width: usize, n_tokens: usize, out: &mut Vec<f32>) {
    out.resize(n_tokens * n_cols, 0.0);
    cx.pool.fill(out, n_cols, |start, out| gemm::untile(tiled, n_cols, width, start / n_cols, out));
}

/// The neurons of `down`, stored by rows, times `h` (`[n_tokens][n_ff]`), added up: `y` becomes `[n_tokens][n_embd]`.
/// With `skip`, rows whose `h` is 0 are left out, which changes no bit of the result.
pub(super) fn add_neurons(cx: Compute, down: &Down, h: &[f32], skip: bool, tiles: &mut Tiles, y: &mut Vec<f32>) {
    let (n_ff, n_embd) = down.shape();
    let n_tokens = h.len() / n_ff;
    let Tiles { factors, tiled, .. } = tiles;
    tiled.clear();
    tiled.resize(n_tokens * n_embd, 0.0);
    if let Down::Rows(_) = down {
        factors.load(cx.isa, h, n_ff, skip, cx.pool);
    }
    // Threads own columns.
    let grain = COLUMN_GRAIN * n_tokens;
    cx.pool.fill(tiled, grain, |start, pieces| {
        for (i, y) in pieces.chunks_mut(grain).enumerate() {
            let (first, n) = (start / n_tokens + i * COLUMN_GRAIN, y.len() / n_tokens);
            if let Down::Rows(down) = down {
                let dtype = down.dtype();
                let bytes = |columns: usize| columns / dtype.block_len() * dtype.block_bytes();
                let piece = down.rows(0, n_ff).piece(bytes(first), bytes(n));
                gemm::sparse::add_rows(cx.isa, dtype, piece, factors, y);
            } else {
                for (y, h) in y.chunks_exact_mut(n).zip(h.chunks_exact(n_ff)) {
                    add_columns(cx.isa, down, Which::from(0..n_ff), h, first, y);
                }
            }
        }
    });
    untile(cx, tiled, n_embd, COLUMN_GRAIN, n_tokens, y);
}
