//! Matrices times the activations of many tokens, tile by tile: what prefill consists of.

use super::columns::add_columns;
use super::compute::Compute;
use crate::cpu::gemm::sparse::Factors;
use crate::cpu::gemm::{self, Packed};
use crate::cpu::{Activations, Which};
use crate::model::{Down, Matrix};

/// Columns of `down` by rows that one thread takes at the least: whole blocks of every type.
const COLUMN_GRAIN: usize = gemm::sparse::COL_GRAIN;
/// Pieces per thread, so that a thread with only half a core does less than the others.
const PIECES_PER_THREAD: usize = 4;
/// What unpacking a weight costs, in tokens that it is multiplied with.
const UNPACKING: usize = 8;

/// Products with one or several matrices as one piece of work for the threads, with the memory that they keep from call
/// to call.
#[derive(Default)]
pub(super) struct Tiles {
    packed: Packed,
    factors: Vec<Factors>,
    tiled: Vec<f32>,
    /// Where the results of each section end.
    ends: Vec<usize>,
    cut: Cut,
}

/// A matrix, and the vectors that meet it.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    pub matrix: &'a Matrix,
    /// Numbers of the vectors, rising; all that there are where there is no list.
    pub vectors: Option<&'a [u32]>,
}

/// `down`, stored by rows, and what its neurons are multiplied with: `[n_tokens][n_ff]`.
#[derive(Clone, Copy)]
pub(super) struct Fed<'a> {
    pub down: &'a Down,
    pub h: &'a [f32],
}

/// Several of something, by number.
#[derive(Clone, Copy)]
pub(super) struct Each<F> {
    pub n: usize,
    pub get: F,
}

/// Where a piece of results is.
#[derive(Clone, Copy)]
pub(super) struct PieceAt {
    /// Its section.
    pub section: usize,
    /// Where it begins among the results of all sections.
    pub start: usize,
}

/// Results of several sections, `[n_tokens][n_cols]` each, in tiles of columns.
#[derive(Clone, Copy)]
pub(super) struct Tiled<'a> {
    values: &'a [f32],
    ends: &'a [usize],
    n_cols: usize,
    width: usize,
}

impl<'a> Tiled<'a> {
    /// The pieces of what `section` has of its token number `token`: each as wide as a tile, but for the last.
    pub fn pieces(self, section: usize, token: usize) -> impl Iterator<Item = &'a [f32]> {
        let start = if section == 0 { 0 } else { self.ends[section - 1] };
        let values = &self.values[start..self.ends[section]];
        let n_tokens = values.len() / self.n_cols;
        values.chunks(self.width * n_tokens).map(move |tile| {
            let n = tile.len() / n_tokens;
            &tile[token * n..][..n]
        })
    }

    /// Columns of a tile.
    pub fn width(self) -> usize {
        self.width
    }
}

/// What threads take: pieces of the results of some sections.
#[derive(Default)]
pub(super) struct Cut {
    /// The section of each piece, and the first unit of it.
    pieces: Vec<(usize, usize)>,
    ends: Vec<usize>,
}

/// The results of a section: so many units of so many values.
pub(super) struct Units {
    pub n: usize,
    pub len: usize,
    /// Of a unit, in proportion to those of other sections.
    pub cost: usize,
    /// A piece is a multiple of this, but for the last.
    pub grain: usize,
}

impl Cut {
    /// Cuts sections, one behind the other, so that no thread is left with much when the others are done.
    fn take(&mut self, cx: Compute, n: usize, units: impl Fn(usize) -> Units) {
        let all: usize = (0..n).map(&units).map(|units| units.n * units.cost).sum();
        let most = all.div_ceil(cx.pool.n_threads() * PIECES_PER_THREAD).max(1);
        self.pieces.clear();
        self.ends.clear();
        let mut end = 0;
        for section in 0..n {
            let Units { n, len, cost, grain } = units(section);
            let n_pieces = (n * cost).div_ceil(most).max(1);
            let piece = n.div_ceil(n_pieces).next_multiple_of(grain).max(1);
            for first in (0..n).step_by(piece) {
                end += piece.min(n - first) * len;
                self.pieces.push((section, first));
                self.ends.push(end);
            }
        }
    }

    /// Calls `write(section, first unit, start, piece)` for all pieces of `out`, on all threads.
    fn fill(&self, cx: Compute, out: &mut [f32], write: impl Fn(usize, usize, usize, &mut [f32]) + Sync) {
        cx.pool.fill_cut(out, &self.ends, |i, piece| {
            let (section, first) = self.pieces[i];
            write(section, first, self.ends[i] - piece.len(), piece);
        });
    }
}

impl Tiles {
    /// `[n_tokens][n_rows]` of each section, one behind the other: `out` becomes the activations times the weights. Each
    /// weight is read and unpacked once for all tokens, and what a token gives does not depend on the others. `finish` is
    /// called for pieces of whole tokens, on any thread. `again` says that the last products were of the same vectors,
    /// section by section.
    pub fn products<'a, F: Fn(usize) -> Section<'a> + Sync>(
        &mut self,
        cx: Compute,
        x: &Activations,
        sections: &Each<F>,
        again: bool,
        finish: impl Fn(PieceAt, &mut [f32]) + Sync,
        out: &mut Vec<f32>,
    ) {
        self.multiply(cx, x, sections, again);
        let Self { tiled, ends, cut, .. } = self;
        let n_rows = |i: usize| (sections.get)(i).matrix.n_rows;
        cut.take(cx, sections.n, |i| {
            let n = (sections.get)(i).n_vectors(x);
            Units { n, len: n_rows(i), cost: n_rows(i), grain: 1 }
        });
        out.resize(tiled.len(), 0.0);
        let values = |i: usize| &tiled[if i == 0 { 0 } else { ends[i - 1] }..ends[i]];
        cut.fill(cx, out, |section, token, start, out| {
            gemm::untile(values(section), n_rows(section), gemm::ROW_GRAIN, token, out);
            finish(PieceAt { section, start }, out);
        });
    }

    /// Calls `change` for pieces of `out`, on all threads: `[n_tokens][len]` of each section, one behind the other, in
    /// pieces of whole tokens.
    pub fn change(
        &mut self,
        cx: Compute,
        (n, size): (usize, impl Fn(usize) -> (usize, usize)),
        out: &mut [f32],
        change: impl Fn(PieceAt, &mut [f32]) + Sync,
    ) {
        self.cut.take(cx, n, |i| {
            let (n, len) = size(i);
            Units { n, len, cost: len, grain: 1 }
        });
        self.cut.fill(cx, out, |section, _, start, out| change(PieceAt { section, start }, out));
    }

    /// The same products, as tiles. All matrices have the same number of rows.
    pub fn tiled_products<'a, F: Fn(usize) -> Section<'a> + Sync>(
        &mut self,
        cx: Compute,
        x: &Activations,
        sections: &Each<F>,
    ) -> Tiled<'_> {
        self.multiply(cx, x, sections, false);
        let n_cols = if sections.n > 0 { (sections.get)(0).matrix.n_rows } else { 1 };
        Tiled { values: &self.tiled, ends: &self.ends, n_cols, width: gemm::ROW_GRAIN }
    }

    fn multiply<'a, F: Fn(usize) -> Section<'a> + Sync>(
        &mut self,
        cx: Compute,
        x: &Activations,
        sections: &Each<F>,
        again: bool,
    ) {
        let Self { packed, tiled, ends, cut, .. } = self;
        let section = |i: usize| (sections.get)(i);
        if !(again && packed.is_for((0..sections.n).map(|i| section(i).matrix.dtype()))) {
            packed.load(x, (0..sections.n).map(|i| (section(i).matrix.dtype(), section(i).vectors)), cx.pool);
        }
        cut.take(cx, sections.n, |i| {
            let Section { matrix, .. } = section(i);
            let n_tokens = section(i).n_vectors(x);
            let cost = (UNPACKING + n_tokens) * matrix.n_cols.div_ceil(32);
            Units { n: matrix.n_rows, len: n_tokens, cost, grain: gemm::ROW_GRAIN }
        });
        set_ends(ends, (0..sections.n).map(|i| section(i).matrix.n_rows * section(i).n_vectors(x)));
        tiled.resize(ends.last().copied().unwrap_or(0), 0.0);
        cut.fill(cx, tiled, |i, first, _, tiled| {
            let (Section { matrix, .. }, x) = (section(i), packed.section(i));
            gemm::rows_times(cx.isa, matrix.dtype(), matrix.rows(first, tiled.len() / x.n_tokens()), x, tiled);
        });
    }

    /// The neurons of each section's `down`, times its `h`, added up: `[n_tokens][n_embd]`, as tiles. With `skip`, rows
    /// whose `h` is 0 are left out, which changes no bit of the result. All of them are as wide.
    pub fn add_neurons<'a, F: Fn(usize) -> Fed<'a> + Sync>(
        &mut self,
        cx: Compute,
        sections: &Each<F>,
        skip: bool,
    ) -> Tiled<'_> {
        let Self { factors, tiled, ends, cut, .. } = self;
        let section = |i: usize| (sections.get)(i);
        let n_embd = if sections.n > 0 { section(0).down.shape().1 } else { 1 };
        if factors.len() < sections.n {
            factors.resize_with(sections.n, Factors::default);
        }
        // What the threads do for one section when there is only one, they do for several side by side.
        cx.pool.fill(&mut factors[..sections.n], 1, |start, factors| {
            for (i, factors) in factors.iter_mut().enumerate() {
                let Fed { down, h } = section(start + i);
                if let Down::Rows(_) = down {
                    factors.load(cx.isa, h, down.shape().0, skip, cx.pool);
                }
            }
        });
        cut.take(cx, sections.n, |i| {
            let n_tokens = section(i).n_tokens();
            let cost = (UNPACKING + n_tokens) * section(i).down.shape().0.div_ceil(32);
            Units { n: n_embd, len: n_tokens, cost, grain: COLUMN_GRAIN }
        });
        set_ends(ends, (0..sections.n).map(|i| n_embd * section(i).n_tokens()));
        tiled.clear();
        tiled.resize(ends.last().copied().unwrap_or(0), 0.0);
        cut.fill(cx, tiled, |i, first, _, pieces| {
            let n_tokens = section(i).n_tokens();
            for (tile, y) in pieces.chunks_mut(COLUMN_GRAIN * n_tokens).enumerate() {
                add_tile(cx, section(i), &factors[i], first + tile * COLUMN_GRAIN, y);
            }
        });
        Tiled { values: tiled, ends, n_cols: n_embd, width: COLUMN_GRAIN }
    }
}

/// Adds the neurons of `fed` to `y`, the columns from `first` on.
fn add_tile(cx: Compute, fed: Fed, factors: &Factors, first: usize, y: &mut [f32]) {
    let (n_ff, n) = (fed.down.shape().0, y.len() / fed.n_tokens());
    if let Down::Rows(down) = fed.down {
        let dtype = down.dtype();
        let bytes = |columns: usize| columns / dtype.block_len() * dtype.block_bytes();
        let piece = down.rows(0, n_ff).piece(bytes(first), bytes(n));
        gemm::sparse::add_rows(cx.isa, dtype, piece, factors, y);
    } else {
        for (y, h) in y.chunks_exact_mut(n).zip(fed.h.chunks_exact(n_ff)) {
            add_columns(cx.isa, fed.down, Which::from(0..n_ff), h, first, y);
        }
    }
}

fn set_ends(ends: &mut Vec<usize>, lens: impl Iterator<Item = usize>) {
    let mut end = 0;
    ends.clear();
    ends.extend(lens.map(|len| {
        end += len;
        end
    }));
}

impl Section<'_> {
    fn n_vectors(&self, x: &Activations) -> usize {
        self.vectors.map_or(x.n_tokens(), <[u32]>::len)
    }
}

impl Fed<'_> {
    fn n_tokens(&self) -> usize {
        self.h.len() / self.down.shape().0
    }
}
