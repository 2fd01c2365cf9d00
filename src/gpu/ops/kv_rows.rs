//! Rows of the cache on the card, to and from those of the processor.

use super::rope::KvLayer;
use crate::gpu::{Ptr, Stream};
use crate::quant::GgmlType;
use crate::quant::blocks::{Q8_0_BYTES, QK};
use anyhow::{Context, Result, ensure};
use std::ops::Range;

/// Bytes of the scale of a block.
const SCALE: usize = size_of::<u16>();

/// Rows of one head that follow each other.
#[derive(Debug, Clone)]
pub struct HeadRows {
    /// 0: keys, 1: values.
    pub plane: usize,
    /// Number of the head.
    pub head: usize,
    /// Of which positions.
    pub positions: Range<usize>,
}

impl KvLayer {
    /// The number of the first of these rows, counted over planes and heads.
    fn first_row(&self, rows: &HeadRows) -> Result<usize> {
        let HeadRows { plane, head, positions } = rows;
        let inside = *plane < 2 && *head < self.n_head_kv && positions.end <= self.n_ctx;
        ensure!(inside, "rows of positions {positions:?} of head {head}");
        Ok((plane * self.n_head_kv + head) * self.n_ctx + positions.start)
    }

    /// Bytes of a row where it is stored, without its scales, and what part of `n_bytes` rows take.
    fn row(&self) -> Result<usize> {
        self.code()?;
        self.dtype.row_bytes(self.head_dim).with_context(|| format!("heads of {}", self.head_dim))
    }

    /// Where the quants of row `row` of a cache of `Q8_0` are, and where its scales are.
    fn places(&self, row: usize) -> (Ptr, Ptr) {
        let (d, n_rows) = (self.head_dim, 2 * self.n_head_kv * self.n_ctx);
        let scales = n_rows * d + row * (d / QK) * SCALE;
        (self.ptr.offset((row * d) as u64), self.ptr.offset(scales as u64))
    }

    /// Reads rows as the processor has them, behind each other, into `out`.
    ///
    /// # Errors
    /// When they are not inside, or the card has failed.
    pub fn read_rows(&self, stream: &Stream, rows: &HeadRows, out: &mut Vec<u8>) -> Result<()> {
        let (first, n, bytes) = (self.first_row(rows)?, rows.positions.len(), self.row()?);
        out.clear();
        out.resize(n * bytes, 0);
        if self.dtype != GgmlType::Q8_0 {
            return stream.read(self.ptr.offset((first * bytes) as u64), out);
        }
        let (at, scales_at) = self.places(first);
        let quants: Vec<u8> = stream.read_vec(at, n * self.head_dim)?;
        let scales: Vec<u8> = stream.read_vec(scales_at, n * self.head_dim / QK * SCALE)?;
        let parts = quants.chunks_exact(QK).zip(scales.chunks_exact(SCALE));
        for (block, (quants, scale)) in out.chunks_exact_mut(Q8_0_BYTES).zip(parts) {
            block[..SCALE].copy_from_slice(scale);
            block[SCALE..].copy_from_slice(quants);
        }
        Ok(())
    }

    /// Writes rows that are given as the processor has them.
    ///
    /// # Errors
    /// When they are not inside or not as many bytes, or the card has failed.
    pub fn write_rows(&self, stream: &Stream, rows: &HeadRows, from: &[u8]) -> Result<()> {
        let (first, n, bytes) = (self.first_row(rows)?, rows.positions.len(), self.row()?);
        ensure!(from.len() == n * bytes, "{} bytes for {n} rows of {bytes}", from.len());
        if self.dtype != GgmlType::Q8_0 {
            return stream.write(self.ptr.offset((first * bytes) as u64), from);
        }
        let blocks = || from.chunks_exact(Q8_0_BYTES);
        let quants: Vec<u8> = blocks().flat_map(|block| &block[SCALE..]).copied().collect();
        let scales: Vec<u8> = blocks().flat_map(|block| &block[..SCALE]).copied().collect();
        let (at, scales_at) = self.places(first);
        stream.write(at, &quants)?;
        stream.write(scales_at, &scales)
    }

    /// Enqueues a copy of rows to where `to`, of the same sizes, has them.
    ///
    /// # Errors
    /// When they are not inside, or the card has failed.
    pub fn copy_rows(&self, stream: &Stream, rows: &HeadRows, to: &Self) -> Result<()> {
        let (first, n, bytes) = (self.first_row(rows)?, rows.positions.len(), self.row()?);
        let shape = |cache: &Self| (cache.dtype, cache.n_ctx, cache.n_head_kv, cache.head_dim);
        ensure!(shape(self) == shape(to), "rows of one cache for another");
        if self.dtype != GgmlType::Q8_0 {
            let at = (first * bytes) as u64;
            return stream.copy(to.ptr.offset(at), self.ptr.offset(at), (n * bytes) as u64);
        }
        let ((at, scales_at), (to_at, to_scales)) = (self.places(first), to.places(first));
        stream.copy(to_at, at, (n * self.head_dim) as u64)?;
        stream.copy(to_scales, scales_at, (n * self.head_dim / QK * SCALE) as u64)
    }
}
