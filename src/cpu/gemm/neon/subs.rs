//! The sub-blocks of a tile, with what meets them.

use super::super::packed::{TOGETHER, TokenPiece};
use super::super::tile::{Bytes, Floats, Tile, WORD};
use crate::quant::blocks::QK;
use crate::quant::decoded::BlockFormat;

/// Sub-blocks of `WORDS` words, which `N` tokens meet.
#[derive(Clone, Copy)]
pub(super) struct Subs<'a, const N: usize, const WORDS: usize> {
    pub bytes: &'a [[Bytes; WORDS]],
    /// Each pair of words of `N` tokens.
    words: &'a [[[u32; N]; WORDS]],
    pub scales: &'a [Floats],
    /// Fewer: see [`Subs::d`].
    d: &'a [[f32; N]],
    pub start: &'a [[i32; N]],
    /// Of types without minima the scales, which nobody reads.
    pub mins: &'a [Floats],
    pub ds: &'a [[f32; N]],
}

impl<'a, const N: usize, const WORDS: usize> Subs<'a, N, WORDS> {
    /// All those of a tile.
    #[inline(always)]
    pub fn of(format: &BlockFormat, tile: &'a Tile, x: &'a TokenPiece) -> Self {
        let scales = tile.scales(format);
        let subs = Self {
            bytes: tile.bytes().as_chunks().0,
            words: x.words.as_chunks().0.as_chunks().0,
            scales,
            d: x.d.as_chunks().0,
            start: x.start.as_chunks().0,
            mins: if format.has_min { tile.mins(format) } else { scales },
            ds: x.ds.as_chunks().0,
        };
        let n = subs.len();
        assert!(subs.bytes.len() == n && subs.words.len() == n && subs.mins.len() == n);
        assert!(subs.start.len() == n && subs.ds.len() == n && subs.d.len() * Self::SUBS_OF_D == n);
        subs
    }

    /// Sub-blocks whose activations share scales.
    const SUBS_OF_D: usize = QK / (WORDS * WORD);

    /// Their number.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// The words that meet sub-block `i`, each pair of `N` tokens.
    #[inline(always)]
    pub fn words(&self, i: usize) -> &'a [[[u32; 2]; N]] {
        const { assert!(TOGETHER == 2) };
        self.words[i].as_flattened().as_chunks().0.as_chunks().0
    }

    /// The scales of the activations that meet sub-block `i`.
    #[inline(always)]
    pub fn d(&self, i: usize) -> &'a [f32; N] {
        &self.d[i / Self::SUBS_OF_D]
    }
}
