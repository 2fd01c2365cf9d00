//! The inner loops in plain Rust: the specification of the faster ones.

use super::packed::{TOGETHER, TokenPiece};
use super::tile::{Bytes, Floats, Form, TILE_ROWS, Tile, WORD};
use crate::quant::blocks::QK;
use crate::quant::decoded::BlockFormat;

type Sums = [f32; TILE_ROWS];

/// Adds the products of a tile and the tokens of a group to `sums`, which has a row per token.
pub(super) fn times(tile: &Tile, x: &TokenPiece, sums: &mut [Sums]) {
    match tile.form {
        Form::Float(..) => floats(tile.floats(), x, sums),
        Form::Blocks(format) => blocks(format, tile, x, sums),
    }
}

/// The products of the piece are summed in the order of the columns, then added to what was there.
fn floats(w: &[Floats], x: &TokenPiece, sums: &mut [Sums]) {
    for (t, sums) in sums.iter_mut().enumerate() {
        let mut piece = [0.0; TILE_ROWS];
        for (w, x) in w.iter().zip(x.words.chunks_exact(x.width)) {
            let x = f32::from_bits(x[t]);
            piece.iter_mut().zip(&w.0).for_each(|(sum, w)| *sum += w * x);
        }
        sums.iter_mut().zip(&piece).for_each(|(sum, piece)| *sum += piece);
    }
}

/// Integer products per sub-block, then both scales, then the minimum.
fn blocks(format: &BlockFormat, tile: &Tile, x: &TokenPiece, sums: &mut [Sums]) {
    let (width, words) = (x.width, format.sub_len / WORD);
    let subs = tile.bytes().chunks_exact(words).zip(tile.scales(format));
    for (i, (bytes, scales)) in subs.enumerate() {
        let x_words = &x.words[i * words * width..][..words * width];
        for (t, sums) in sums.iter_mut().enumerate() {
            let at = i * width + t;
            let products = integers(bytes, x_words, t, width, x.start[at]);
            let d = x.d[i * format.sub_len / QK * width + t];
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum += products[r] as f32 * (scales.0[r] * d);
            }
            if format.has_min {
                let mins = &tile.mins(format)[i].0;
                sums.iter_mut().zip(mins).for_each(|(sum, min)| *sum -= min * x.ds[at]);
            }
        }
    }
}

#[inline]
fn integers(bytes: &[Bytes], x: &[u32], t: usize, width: usize, start: i32) -> [i32; TILE_ROWS] {
    let mut products = [start; TILE_ROWS];
    let x = x.chunks_exact(TOGETHER * width).flat_map(|x| &x[t * TOGETHER..][..TOGETHER]);
    for (bytes, x) in bytes.iter().zip(x) {
        let x = x.to_ne_bytes().map(|x| i32::from(x as i8));
        for (product, w) in products.iter_mut().zip(bytes.0.as_chunks::<WORD>().0) {
            *product += (0..WORD).map(|i| i32::from(w[i]) * x[i]).sum::<i32>();
        }
    }
    products
}
