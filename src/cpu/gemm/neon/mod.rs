//! The inner loops for NEON, alone, with 8-bit dot products and with 8-bit products of matrices.
//!
//! Tiles of blocks hold signed bytes here: those that are offset by 128 without their offset, the others as they are.
//! For products of matrices a line has 8 bytes of 8 rows instead of 4 bytes of 16 (see [`unpack`]).
//!
//! Every function below has `#[target_feature]`, or is inlined into one; [`super::rows_times`] and
//! [`super::sparse::add_rows`], the only ways in, have asserted that the processor has these features.
#![allow(unsafe_code, reason = "features are checked at run time")]

mod floats;
mod matrices;
mod rows;
pub(super) mod sparse;
mod subs;
mod turn;
pub(super) mod unpack;
mod unpack_32;
mod unpack_k;
mod values;
mod vectors;

use super::packed::TokenPiece;
use super::tile::{Form, TILE_ROWS, Tile};
use crate::cpu::Isa;
use crate::quant::decoded::BlockFormat;

type Sums = [f32; TILE_ROWS];

/// As `plain::times`.
pub(super) fn times(isa: Isa, tile: &Tile, x: &TokenPiece, sums: &mut [Sums]) {
    assert!(sums.len() == x.width && isa >= Isa::Neon);
    match x.width {
        4 => of_width::<4>(isa, tile, x, sums),
        8 => of_width::<8>(isa, tile, x, sums),
        _ => of_width::<12>(isa, tile, x, sums),
    }
}

fn of_width<const N: usize>(isa: Isa, tile: &Tile, x: &TokenPiece, sums: &mut [Sums]) {
    match tile.form {
        // SAFETY: the processor has NEON, see the head of the file.
        Form::Float(..) => unsafe { floats::times::<N>(tile.floats(), x, sums) },
        Form::Blocks(format) if format.sub_len == 16 => of_words::<N, 4>(isa, format, tile, x, sums),
        Form::Blocks(format) => of_words::<N, 8>(isa, format, tile, x, sums),
    }
}

/// Sub-blocks of so many words.
fn of_words<const N: usize, const WORDS: usize>(
    isa: Isa,
    format: &BlockFormat,
    tile: &Tile,
    x: &TokenPiece,
    sums: &mut [Sums],
) {
    let (has_min, is_signed) = (format.has_min, format.offset == 128);
    // SAFETY: the processor has the features, see the head of the file.
    unsafe {
        match (isa, has_min, is_signed) {
            (Isa::I8mm, true, _) => matrices::times::<N, WORDS, true, false>(format, tile, x, sums),
            (Isa::I8mm, _, true) => matrices::times::<N, WORDS, false, false>(format, tile, x, sums),
            (Isa::I8mm, ..) => matrices::times::<N, WORDS, false, true>(format, tile, x, sums),
            (Isa::DotProd, true, _) => rows::dots::<N, WORDS, true, false>(format, tile, x, sums),
            (Isa::DotProd, _, true) => rows::dots::<N, WORDS, false, false>(format, tile, x, sums),
            (Isa::DotProd, ..) => rows::dots::<N, WORDS, false, true>(format, tile, x, sums),
            (_, true, _) => rows::small::<N, WORDS, true, false>(format, tile, x, sums),
            (_, _, true) => rows::large::<N, WORDS, false, false>(format, tile, x, sums),
            _ => rows::small::<N, WORDS, false, true>(format, tile, x, sums),
        }
    }
}
