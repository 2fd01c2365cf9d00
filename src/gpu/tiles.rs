//! Streams weights that are not on the card through it, tile by tile: while one is used, the next is on its way.

use super::matrix::{DeviceMatrix, planes};
use super::ops::gemm::STEP;
use super::ops::repack::repack;
use super::{Device, DeviceBuffer, Event, Kernels, Pinned, Stream};
use crate::parallel;
use crate::placement::budget::ALIGN;
use crate::quant::GgmlType;
use crate::units::Bytes;
use anyhow::{Context, Result, ensure};
use std::ops::Range;

/// Bytes that a thread copies at a time; a single thread does not keep up with the bus.
const PIECE: usize = 1 << 20;

/// Rows of weights as they are in the file.
#[derive(Debug, Clone, Copy)]
pub struct FileRows<'a> {
    /// All rows.
    pub bytes: &'a [u8],
    /// Their type.
    pub dtype: GgmlType,
    /// Elements of a row.
    pub n_cols: usize,
}

impl FileRows<'_> {
    fn row_bytes(&self) -> Result<usize> {
        Ok(DeviceMatrix::bytes(self.dtype, 1, self.n_cols)? as usize)
    }
}

/// Rows that are on the card for now.
#[derive(Debug, Clone, Copy)]
pub struct Tile<'a> {
    /// Number of the first row.
    pub first: usize,
    /// Number of rows.
    pub n_rows: usize,
    /// These rows of each matrix, as matrices of their own: row 0 is row `first`.
    pub matrices: &'a [DeviceMatrix],
}

/// A buffer that the bus fills.
struct Landing {
    pinned: Pinned,
    buffer: DeviceBuffer,
    /// The copy is done.
    arrived: Event,
    /// What was enqueued with it is done.
    left: Event,
}

/// Buffers through which weights are streamed, and the stream that copies them.
pub struct Tiles {
    copies: Stream,
    landings: [Landing; 2],
    next: usize,
    /// Planes of the weights that are separated; used in the order of the stream that computes.
    apart: DeviceBuffer,
    bytes: usize,
}

impl Tiles {
    /// Buffers for tiles of at most `bytes`: three on the card, as `placement::budget` accounts them, and two, pinned,
    /// on the processor.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(device: &Device, bytes: Bytes) -> Result<Self> {
        const WHAT: &str = "tiles of streamed weights";
        let len = usize::try_from(bytes.0).with_context(|| format!("{WHAT}: {bytes}"))?;
        let landing = || -> Result<Landing> {
            Ok(Landing {
                pinned: Pinned::new(device, len, WHAT)?,
                buffer: DeviceBuffer::new(device, bytes.0, WHAT)?,
                arrived: Event::untimed(device)?,
                left: Event::untimed(device)?,
            })
        };
        let landings = [landing()?, landing()?];
        let apart = DeviceBuffer::new(device, bytes.0, WHAT)?;
        Ok(Self { copies: Stream::new(device)?, landings, next: 0, apart, bytes: len })
    }

    /// Bytes that were allocated on the card.
    pub fn n_bytes(&self) -> u64 {
        self.landings.iter().map(|l| l.buffer.len()).sum::<u64>() + self.apart.len()
    }

    /// Sends the rows `rows` of all `matrices` to the card, as many at a time as fit, and calls `enqueue` for each
    /// tile, in order. What it enqueues on `compute` runs once the tile is there, and the buffers are reused once it is
    /// done; work on other streams must not use the tile. Each row crosses the bus once. All tiles but the last have a
    /// multiple of 32 rows. All bytes have been read when this returns; the work may not be done. `compute` must always
    /// be the same stream.
    ///
    /// # Errors
    /// Those of `enqueue`; when there are no kernels for a type, rows are out of range, or 32 of them do not fit; when
    /// the card has failed.
    pub fn for_tiles(
        &mut self,
        kernels: &Kernels,
        compute: &Stream,
        matrices: &[FileRows],
        rows: Range<usize>,
        mut enqueue: impl FnMut(&Tile) -> Result<()>,
    ) -> Result<()> {
        let row_bytes = matrices.iter().map(FileRows::row_bytes).collect::<Result<Vec<_>>>()?;
        for (matrix, row_bytes) in matrices.iter().zip(&row_bytes) {
            let n = matrix.bytes.len() / row_bytes;
            ensure!(rows.start <= rows.end && rows.end <= n, "rows {rows:?} of {n} to be streamed");
        }
        let most = rows_per_tile(&row_bytes, rows.len(), self.bytes).with_context(|| {
            let all: usize = row_bytes.iter().sum();
            format!(
                "{} for a tile of weights, and {STEP} rows have {} each",
                Bytes(self.bytes as u64),
                Bytes(all as u64)
            )
        })?;
        let mut first = rows.start;
        while first < rows.end {
            let n_rows = most.min(rows.end - first);
            self.send(kernels, compute, matrices, &row_bytes, first..first + n_rows, &mut enqueue)?;
            first += n_rows;
        }
        Ok(())
    }

    fn send(
        &mut self,
        kernels: &Kernels,
        compute: &Stream,
        matrices: &[FileRows],
        row_bytes: &[usize],
        rows: Range<usize>,
        enqueue: &mut impl FnMut(&Tile) -> Result<()>,
    ) -> Result<()> {
        let Self { copies, landings, next, apart, .. } = self;
        let landing = &mut landings[*next];
        *next = 1 - *next;
        let n_rows = rows.len();
        let (places, len) = places(row_bytes, n_rows);
        let pinned = &mut landing.pinned.values_mut::<u8>()?[..len];
        for ((matrix, row_bytes), at) in matrices.iter().zip(row_bytes).zip(&places) {
            let from = &matrix.bytes[rows.start * row_bytes..rows.end * row_bytes];
            let to = &mut pinned[*at..*at + from.len()];
            parallel::each(to.chunks_mut(PIECE).zip(from.chunks(PIECE)), |_, (to, from)| to.copy_from_slice(from));
        }
        copies.wait_for(&landing.left)?;
        copies.copy_in(landing.buffer.ptr(), &mut landing.pinned, 0..len)?;
        copies.record(&landing.arrived)?;
        compute.wait_for(&landing.arrived)?;
        let mut there = Vec::with_capacity(matrices.len());
        for (matrix, at) in matrices.iter().zip(&places) {
            let (dtype, n_cols) = (matrix.dtype, matrix.n_cols);
            let (planes, at) = (planes(dtype)?, *at as u64);
            let native = landing.buffer.ptr().offset(at);
            let ptr = if planes.scales == 0 {
                native
            } else {
                let n_blocks = n_rows * (n_cols / dtype.block_len());
                let quants = apart.ptr().offset(at);
                let scales = quants.offset((n_blocks * planes.quants) as u64);
                repack(kernels, compute, dtype, quants, scales, native, n_blocks)?;
                quants
            };
            there.push(DeviceMatrix::at(ptr, dtype, n_rows, n_cols)?);
        }
        let enqueued = enqueue(&Tile { first: rows.start, n_rows, matrices: &there });
        // After an error, too: some of the work may be enqueued.
        compute.record(&landing.left)?;
        enqueued
    }
}

/// Where the parts of a tile begin, and how many bytes it has.
fn places(row_bytes: &[usize], n_rows: usize) -> (Vec<usize>, usize) {
    let mut end = 0;
    let mut place = |bytes: &usize| {
        let begin = end;
        end = (begin + bytes * n_rows).next_multiple_of(ALIGN as usize);
        begin
    };
    (row_bytes.iter().map(&mut place).collect(), end)
}

/// Rows of a tile of at most `bytes`: all `n_rows`, or else a multiple of the step of products.
fn rows_per_tile(row_bytes: &[usize], n_rows: usize, bytes: usize) -> Option<usize> {
    let fits = |n: &usize| places(row_bytes, *n).1 <= bytes;
    if fits(&n_rows) {
        return Some(n_rows);
    }
    let most = bytes / row_bytes.iter().sum::<usize>().max(1);
    // Rounding up the parts may cost one step.
    let steps = most / STEP * STEP;
    [steps, steps.saturating_sub(STEP)].into_iter().filter(|n| *n > 0).find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_is_as_many_steps_as_fit() {
        assert_eq!(rows_per_tile(&[100, 100], 7, 1 << 20), Some(7));
        assert_eq!(rows_per_tile(&[100, 100], 1000, 100_000), Some(480));
        // 3200 bytes are a multiple of 128, not of 256: two parts of 32 rows take 2 * 3328.
        assert_eq!(rows_per_tile(&[100, 100], 1000, 2 * 3328), Some(32));
        assert_eq!(rows_per_tile(&[100, 100], 1000, 2 * 3328 - 1), None);
        // Without the rounding, 64 rows would just fit.
        assert_eq!(rows_per_tile(&[129, 1], 1000, 64 * 130), Some(32));
    }

    #[test]
    fn parts_of_a_tile_begin_where_matrices_may() {
        assert_eq!(places(&[100, 300], 3), (vec![0, 512], 512 + 1024));
    }
}
