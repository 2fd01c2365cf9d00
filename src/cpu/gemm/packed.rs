//! Activations in the order in which the tiles of one weight type meet them.

use super::tile::Form;
use crate::cpu::activations::{ActRow, Activations, SUM_LEN};
use crate::cpu::pool::Pool;
use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use crate::quant::decoded::BlockFormat;
use std::ops::Range;

/// The width of a group is a multiple of four; missing tokens at the end are zeros.
const QUAD: usize = 4;
/// Most tokens in a group: the registers of AVX-512 can hold twice as many sums.
pub(super) const MAX_WIDTH: usize = 3 * QUAD;

/// Words of a token that lie side by side. Products of matrices on AArch64 take two.
pub(super) const TOGETHER: usize = if cfg!(target_arch = "aarch64") { 2 } else { 1 };

/// Activations of some tokens of a section. Where an array says `[width]` it holds one value per token.
#[derive(Default)]
pub(super) struct TokenGroup {
    /// Number of the first token in the section.
    pub first: usize,
    /// Number of tokens.
    pub n_tokens: usize,
    width: usize,
    /// Which vectors of activations they are.
    vectors: [u32; MAX_WIDTH],
    /// Of the weights that they meet.
    dtype: Option<GgmlType>,
    /// `[n_cols][width]` floats, or `[n_cols / 4 / TOGETHER][width][TOGETHER]` times four bytes.
    words: Vec<u32>,
    /// `[n_cols / 32][width]` scales of the bytes.
    d: Vec<f32>,
    sub_len: usize,
    /// `[n_cols / sub_len][width]`: removes the weights' offset from the sum of a sub-block's products.
    start: Vec<i32>,
    /// `[n_cols / sub_len][width]`: scaled sum of the bytes, for types with minima.
    ds: Vec<f32>,
}

/// Some columns of a [`TokenGroup`].
pub(super) struct TokenPiece<'a> {
    /// 4, 8 or 12.
    pub width: usize,
    pub words: &'a [u32],
    pub d: &'a [f32],
    pub start: &'a [i32],
    pub ds: &'a [f32],
}

/// Activations packed for matrices: for each a section of some vectors, in the form that its type of weights needs.
#[derive(Default)]
pub struct Packed {
    n_cols: usize,
    sections: Vec<Section>,
    /// Of which the first `n_groups` are of this load; the others keep their memory.
    groups: Vec<TokenGroup>,
    n_groups: usize,
}

#[derive(Clone)]
struct Section {
    dtype: GgmlType,
    n_tokens: usize,
    groups: Range<usize>,
}

/// One section of [`Packed`]: `[n_tokens][n_cols]` activations for weights of one type.
#[derive(Clone, Copy)]
pub struct PackedTokens<'a> {
    pub(super) dtype: GgmlType,
    pub(super) n_cols: usize,
    n_tokens: usize,
    pub(super) groups: &'a [TokenGroup],
}

impl Packed {
    /// Takes for each section the type of the weights, which quantized activations are needed for unless it is a float
    /// type, and the numbers of its vectors, or `None` for all. Sections side by side that are alike are packed once.
    /// Keeps its buffers from call to call.
    ///
    /// # Panics
    /// When a type cannot be computed with, or the activations were not prepared for it.
    pub fn load<'a>(
        &mut self,
        x: &Activations,
        sections: impl IntoIterator<Item = (GgmlType, Option<&'a [u32]>)>,
        pool: &Pool,
    ) {
        self.n_cols = if x.n_tokens() == 0 { 0 } else { x.row(0).f32.len() };
        self.sections.clear();
        self.n_groups = 0;
        let mut before: Option<(GgmlType, Option<&[u32]>)> = None;
        for section in sections {
            let (dtype, vectors) = section;
            let like = |(of, others): (GgmlType, Option<&[u32]>)| of == dtype && same_list(others, vectors);
            match self.sections.last() {
                Some(last) if before.is_some_and(like) => self.sections.push(last.clone()),
                _ => self.add_section(dtype, vectors, x.n_tokens()),
            }
            before = Some(section);
        }
        let n_cols = self.n_cols;
        let groups = &mut self.groups[..self.n_groups];
        pool.fill(groups, 1, |_, groups| groups.iter_mut().for_each(|group| group.load(x, n_cols)));
    }

    fn add_section(&mut self, dtype: GgmlType, vectors: Option<&[u32]>, n_vectors: usize) {
        let n_tokens = vectors.map_or(n_vectors, <[u32]>::len);
        let begin = self.n_groups;
        let mut first = 0;
        while first < n_tokens {
            let width = match (n_tokens - first).div_ceil(QUAD) {
                // Better than 12 and 4.
                4 => 2 * QUAD,
                quads => QUAD * quads.min(MAX_WIDTH / QUAD),
            };
            if self.groups.len() == self.n_groups {
                self.groups.push(TokenGroup::default());
            }
            let group = &mut self.groups[self.n_groups];
            (group.first, group.n_tokens, group.width) = (first, width.min(n_tokens - first), width);
            group.dtype = Some(dtype);
            for (i, vector) in group.vectors[..group.n_tokens].iter_mut().enumerate() {
                *vector = vectors.map_or((first + i) as u32, |vectors| vectors[first + i]);
            }
            self.n_groups += 1;
            first += width;
        }
        self.sections.push(Section { dtype, n_tokens, groups: begin..self.n_groups });
    }

    /// Whether its sections are for weights of these types.
    pub fn is_for(&self, types: impl Iterator<Item = GgmlType>) -> bool {
        self.sections.iter().map(|section| section.dtype).eq(types)
    }

    /// Section number `i`.
    pub fn section(&self, i: usize) -> PackedTokens<'_> {
        let Section { dtype, n_tokens, groups } = self.sections[i].clone();
        PackedTokens { dtype, n_cols: self.n_cols, n_tokens, groups: &self.groups[groups] }
    }
}

/// Whether both are the same list, or all there is.
fn same_list(a: Option<&[u32]>, b: Option<&[u32]>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

impl PackedTokens<'_> {
    /// Number of tokens.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Bytes of `cols` columns of all tokens, at least 1. There are at least `cols` columns.
    pub(super) fn bytes_of(&self, cols: usize) -> usize {
        let bytes = |group: &TokenGroup| group.words.len() + group.d.len() + group.start.len() + group.ds.len();
        let all: usize = self.groups.iter().map(|group| size_of::<u32>() * bytes(group)).sum();
        (all / self.n_cols.max(1) * cols).max(1)
    }
}

impl TokenGroup {
    fn load(&mut self, x: &Activations, n_cols: usize) {
        let Some(dtype) = self.dtype else { return };
        match Form::of(dtype) {
            Form::Float(..) => self.load_floats(x, n_cols),
            Form::Blocks(format) => self.load_bytes(format, x, n_cols),
        }
    }

    fn load_floats(&mut self, x: &Activations, n_cols: usize) {
        self.sub_len = 0;
        self.words.clear();
        self.words.resize(n_cols * self.width, 0);
        for (t, vector) in self.vectors[..self.n_tokens].iter().enumerate() {
            let x = x.row(*vector as usize).f32;
            for (words, x) in self.words.chunks_exact_mut(self.width).zip(x) {
                words[t] = x.to_bits();
            }
        }
    }

    fn load_bytes(&mut self, format: &BlockFormat, x: &Activations, n_cols: usize) {
        let width = self.width;
        self.sub_len = format.sub_len;
        self.words.resize(n_cols / SUM_LEN * width, 0);
        self.d.resize(n_cols / QK * width, 0.0);
        self.start.resize(n_cols / format.sub_len * width, 0);
        self.ds.resize(n_cols / format.sub_len * width, 0.0);
        let rows: [Option<ActRow>; MAX_WIDTH] =
            std::array::from_fn(|t| (t < self.n_tokens).then(|| x.row(self.vectors[t] as usize)));
        assert!(rows.iter().flatten().all(|x| x.q.len() == n_cols), "activations are not quantized");
        let n_sub = QK / format.sub_len;
        let sums_of_sub = format.sub_len / SUM_LEN;
        let words = self.words.chunks_exact_mut(QK / SUM_LEN * width).zip(self.d.chunks_exact_mut(width));
        let sums = self.start.chunks_exact_mut(n_sub * width).zip(self.ds.chunks_exact_mut(n_sub * width));
        for (i, ((words, d), (start, ds))) in words.zip(sums).enumerate() {
            for (t, x) in rows[..width].iter().enumerate() {
                let Some(x) = x else {
                    words
                        .chunks_exact_mut(TOGETHER * width)
                        .for_each(|words| words[t * TOGETHER..][..TOGETHER].fill(0));
                    d[t] = 0.0;
                    start.chunks_exact_mut(width).for_each(|start| start[t] = 0);
                    ds.chunks_exact_mut(width).for_each(|ds| ds[t] = 0.0);
                    continue;
                };
                let q = &x.q[i * QK..][..QK];
                let q = q.as_chunks::<SUM_LEN>().0.as_chunks::<TOGETHER>().0;
                for (words, q) in words.chunks_exact_mut(TOGETHER * width).zip(q) {
                    let q = q.map(|q| u32::from_ne_bytes(q.map(|q| q as u8)));
                    words[t * TOGETHER..][..TOGETHER].copy_from_slice(&q);
                }
                d[t] = x.d[i];
                let neg_sums = x.neg_sums[i * QK / SUM_LEN..][..QK / SUM_LEN].chunks_exact(sums_of_sub);
                let subs = start.chunks_exact_mut(width).zip(ds.chunks_exact_mut(width));
                for ((start, ds), neg_sums) in subs.zip(neg_sums) {
                    let neg_sum: i32 = neg_sums.iter().sum();
                    start[t] = neg_sum * i32::from(format.offset);
                    ds[t] = d[t] * -neg_sum as f32;
                }
            }
        }
    }

    /// The `cols` columns from `start` on, which are whole blocks.
    pub(super) fn piece(&self, start: usize, cols: usize) -> TokenPiece<'_> {
        let width = self.width;
        if self.sub_len == 0 {
            let words = &self.words[start * width..][..cols * width];
            return TokenPiece { width, words, d: &[], start: &[], ds: &[] };
        }
        let of = |unit: usize| start / unit * width..(start + cols) / unit * width;
        TokenPiece {
            width,
            words: &self.words[of(SUM_LEN)],
            d: &self.d[of(QK)],
            start: &self.start[of(self.sub_len)],
            ds: &self.ds[of(self.sub_len)],
        }
    }
}
