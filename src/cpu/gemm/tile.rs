//! A tile: some columns of 16 weight rows, unpacked to the order in which vectors of rows meet activations.

use crate::cpu::{Isa, Rows};
use crate::quant::GgmlType;
use crate::quant::convert::{self, Dequantize};
use crate::quant::decoded::{BlockFormat, Decoded, block_format};

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Elements of a row that lie side by side: what one 32-bit lane of an 8-bit dot product takes.
pub(super) const WORD: usize = 4;

/// How rows of a type are stored in tiles.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// As floats, which they are.
    Float(GgmlType, Dequantize),
    /// As bytes with a scale for each sub-block, as in the blocks.
    Blocks(&'static BlockFormat),
}

impl Form {
    /// # Panics
    /// When the type cannot be computed with: `check_supported` tells beforehand.
    pub fn of(dtype: GgmlType) -> Self {
        match (block_format(dtype), convert::dequantizer(dtype)) {
            (Some(format), _) => Self::Blocks(format),
            (None, Ok(read)) => Self::Float(dtype, read),
            (None, Err(error)) => panic!("{error}"),
        }
    }
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line<T>(pub T);

/// One column of a tile: a value per row, or a sub-block's scale per row.
pub(super) type Floats = Line<[f32; TILE_ROWS]>;
/// Four columns of a tile, in bytes.
pub(super) type Bytes = Line<[u8; WORD * TILE_ROWS]>;

pub(super) const NO_FLOATS: Floats = Line([0.0; TILE_ROWS]);
pub(super) const NO_BYTES: Bytes = Line([0; WORD * TILE_ROWS]);

/// See the head of the file. What stands for missing rows is unspecified.
pub(super) struct Tile {
    /// The form of what is in the tile now.
    pub form: Form,
    n_cols: usize,
    bytes: Vec<Bytes>,
    scales: Vec<Floats>,
    mins: Vec<Floats>,
    floats: Vec<Floats>,
}

impl Default for Tile {
    fn default() -> Self {
        let form = Form::Float(GgmlType::F32, convert::from_f32);
        Self { form, n_cols: 0, bytes: Vec::new(), scales: Vec::new(), mins: Vec::new(), floats: Vec::new() }
    }
}

/// The lines of a [`Tile`] that are to be written; those beyond the columns asked for may be written, too.
pub(super) struct TileLines<'a> {
    pub bytes: &'a mut [Bytes],
    pub scales: &'a mut [Floats],
    pub mins: &'a mut [Floats],
}

impl Tile {
    /// `[n_cols / 4]` lines of bytes.
    pub fn bytes(&self) -> &[Bytes] {
        &self.bytes[..self.n_cols / WORD]
    }

    /// `[n_cols / sub_len]` lines.
    pub fn scales<'a>(&'a self, format: &BlockFormat) -> &'a [Floats] {
        &self.scales[..self.n_cols / format.sub_len]
    }

    /// `[n_cols / sub_len]` lines, of a type that has minima.
    pub fn mins<'a>(&'a self, format: &BlockFormat) -> &'a [Floats] {
        &self.mins[..self.n_cols / format.sub_len]
    }

    /// `[n_cols]` lines of floats.
    pub fn floats(&self) -> &[Floats] {
        &self.floats[..self.n_cols]
    }

    /// Takes up to [`TILE_ROWS`] rows of `n_cols` columns.
    pub fn unpack(&mut self, isa: Isa, form: Form, rows: Rows, n_cols: usize) {
        self.form = form;
        self.n_cols = n_cols;
        match form {
            Form::Float(dtype, read) => {
                grow(&mut self.floats, n_cols.next_multiple_of(TILE_ROWS), NO_FLOATS);
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => super::unpack512::floats(dtype, rows, n_cols, &mut self.floats),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon | Isa::DotProd | Isa::I8mm => {
                        let _ = dtype;
                        super::neon::unpack::floats(read, rows, &mut self.floats[..n_cols]);
                    }
                    _ => self.unpack_floats(read, rows),
                }
            }
            Form::Blocks(format) => {
                let n_sub = n_cols.div_ceil(format.sub_len).next_multiple_of(TILE_ROWS);
                grow(&mut self.bytes, n_cols.div_ceil(WORD).next_multiple_of(TILE_ROWS), NO_BYTES);
                grow(&mut self.scales, n_sub, NO_FLOATS);
                grow(&mut self.mins, n_sub, NO_FLOATS);
                let lines = TileLines { bytes: &mut self.bytes, scales: &mut self.scales, mins: &mut self.mins };
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => super::unpack512::blocks(format, rows, n_cols, lines),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon | Isa::DotProd | Isa::I8mm => super::neon::unpack::blocks(isa, format, rows, lines),
                    _ => unpack_blocks(format, rows, lines),
                }
            }
        }
    }

    fn unpack_floats(&mut self, read: Dequantize, rows: Rows) {
        /// Columns read at a time.
        const STEP: usize = 64;
        if rows.len() < TILE_ROWS {
            self.floats.fill(NO_FLOATS);
        }
        let mut values = [0.0; STEP];
        let element = rows.bytes() / self.n_cols;
        for r in 0..rows.len() {
            let steps = self.floats[..self.n_cols].chunks_mut(STEP).zip(rows.get(r).chunks(STEP * element));
            for (lines, row) in steps {
                read(row, &mut values[..lines.len()]);
                lines.iter_mut().zip(&values).for_each(|(line, v)| line.0[r] = *v);
            }
        }
    }
}

fn grow<T: Copy>(lines: &mut Vec<T>, len: usize, zeros: T) {
    if lines.len() < len {
        lines.resize(len, zeros);
    }
}

/// Block by block, on any processor.
fn unpack_blocks(format: &BlockFormat, rows: Rows, to: TileLines) {
    if rows.len() < TILE_ROWS {
        to.scales.fill(NO_FLOATS);
        to.mins.fill(NO_FLOATS);
    }
    let mut block = Decoded::default();
    let (n, n_sub) = (format.dtype.block_len() / WORD, format.n_sub());
    for r in 0..rows.len() {
        let blocks = rows.get(r).chunks_exact(format.dtype.block_bytes());
        let scales = to.scales.chunks_mut(n_sub).zip(to.mins.chunks_mut(n_sub));
        for ((bytes, from), (scales, mins)) in to.bytes.chunks_mut(n).zip(blocks).zip(scales) {
            block.read(format, from);
            for (bytes, q) in bytes.iter_mut().zip(block.q.as_chunks::<WORD>().0) {
                bytes.0[r * WORD..][..WORD].copy_from_slice(q);
            }
            scales.iter_mut().zip(&block.scale).for_each(|(line, v)| line.0[r] = *v);
            mins.iter_mut().zip(&block.min).for_each(|(line, v)| line.0[r] = *v);
        }
    }
}
