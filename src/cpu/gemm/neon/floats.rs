//! Products with floats: 16 rows and 4 tokens at a time.

use super::super::packed::TokenPiece;
use super::super::tile::{Floats, TILE_ROWS};
use super::vectors::{LANES, TOKENS, quad_of, read, read_words, write};
use std::arch::aarch64::*;

const VECTORS: usize = TILE_ROWS / LANES;

/// The products of the piece are summed in the order of the columns, then added to what was there.
#[target_feature(enable = "neon")]
pub(super) fn times<const N: usize>(w: &[Floats], x: &TokenPiece, sums: &mut [[f32; TILE_ROWS]]) {
    let (x, rest) = x.words.as_chunks::<N>();
    assert!(x.len() == w.len() && rest.is_empty() && sums.len() == N);
    for (quad, sums) in sums.as_chunks_mut::<TOKENS>().0.iter_mut().enumerate() {
        let mut piece = [[vdupq_n_f32(0.0); VECTORS]; TOKENS];
        for (w, x) in w.iter().zip(x) {
            let x = vreinterpretq_f32_u32(read_words(quad_of(x, quad)));
            for (v, w) in w.0.as_chunks().0.iter().enumerate() {
                let w = read(w);
                piece[0][v] = vfmaq_laneq_f32::<0>(piece[0][v], w, x);
                piece[1][v] = vfmaq_laneq_f32::<1>(piece[1][v], w, x);
                piece[2][v] = vfmaq_laneq_f32::<2>(piece[2][v], w, x);
                piece[3][v] = vfmaq_laneq_f32::<3>(piece[3][v], w, x);
            }
        }
        for (sums, piece) in sums.iter_mut().zip(piece) {
            for (sums, piece) in sums.as_chunks_mut::<LANES>().0.iter_mut().zip(piece) {
                write(vaddq_f32(read(sums), piece), sums);
            }
        }
    }
}
